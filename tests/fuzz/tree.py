"""An input of the fuzzer: a folder of files as one string of bytes, so that one mutator serves all formats."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

Tree = dict[str, bytes]
"""Content by relative path; content that begins with LINK is a symbolic link to the rest."""

LINK = b"\0link:"
MARK = b"\n\0file:"


def pack(tree: Tree) -> bytes:
    return b"".join(MARK + name.encode() + b"\0" + data for name, data in tree.items())


def unpack(data: bytes) -> Tree:
    tree = {}
    for part in data.split(MARK)[1:]:
        name, _, content = part.partition(b"\0")
        tree[name.decode("utf-8", "replace")] = content
    return tree


def write(tree: Tree, folder: Path) -> None:
    """Write the files; names that would leave `folder` are the harness's mistake, not the library's, and left out."""
    for name, data in tree.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or "\0" in name or not relative.parts:
            continue
        try:
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if data.startswith(LINK):
                path.symlink_to(data.removeprefix(LINK).partition(b"\0")[0].decode("utf-8", "replace"))
            elif not path.is_symlink():
                path.write_bytes(data)
        except OSError:
            continue


def read(folder: Path) -> Tree:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
