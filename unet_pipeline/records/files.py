"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_pipeline.errors import PipelineError

PARTIAL = ".partial"
"""Ending of the names of half-written files and stores."""


def partial_name(path: Path) -> str:
    """Return a new hidden name for what shall become `path`."""
    return f".{path.name}.{uuid.uuid4().hex}{PARTIAL}"


Check = Callable[[], None]
"""Function that raises a PipelineError where the job must not write any more; see `claim`."""


def unclaimed() -> None:
    """Check nothing: for what no other job can write."""


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, would outlast a loss of power.

    Raises:
        OSError: if the disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do so for folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder with all that lies in it would outlast a loss of power."""
    for place, _, files in os.walk(folder):
        for name in files:
            sync(Path(place, name))
        sync(Path(place))


def sync_folders(folders: Iterable[Path], top: Path) -> None:
    """Wait until the entries of some folders, and of those between them and `top`, would outlast a loss of power."""
    done: set[Path] = set()
    for folder in folders:
        while folder not in done and folder.is_relative_to(top):
            sync(folder)
            done.add(folder)
            folder = folder.parent


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, of which each that is new would outlast a loss of power."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextmanager
def atomic_path(path: Path, check: Check = unclaimed, named: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    What is written later outlasts a loss of power only if this does: a record never without what it vouches for.

    Args:
        path: the file.
        check: called just before the file gets its name, when all the slow work is done.
        named: whether the name too shall outlast it at once. Of many files, `sync_folders` does so in one go.

    Raises:
        PipelineError: from `check`, or if the disk is full or the place cannot be written; `path` is then as it was.
    """
    partial = path.with_name(partial_name(path))
    try:
        make_folder(path.parent) if named else path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        check()
        partial.replace(path)
        if named:
            sync(path.parent)
    except OSError as error:
        raise PipelineError(
            path, "a place that can be written", error, fix="free space or choose another disk, then rerun"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def reserve(path: Path, offset: int, size: int, fix: str) -> None:
    """Take room on the disk for a file that will be mapped: on a full disk, writing to it would kill the process.

    Args:
        path: the file; it is made where it is not there.
        offset: the byte that the room begins at.
        size: bytes.
        fix: what to do where there is no room.

    Raises:
        PipelineError: there is none.
    """
    try:
        with path.open("ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), offset, size)
    except OSError as error:
        raise PipelineError(path.parent, f"room for {size / 1e6:.0f} MB more", error, fix=fix) from error


def link_on_way(path: Path, folder: Path) -> Path | None:
    """Return the first symbolic link on the way down from a folder to a path, both included; None where there is none.

    Args:
        path: below the folder; it need not exist.
        folder: where the way begins.
    """
    way = [folder, *(folder / part for part in reversed(path.relative_to(folder).parents)), path]
    return next((part for part in way if part.is_symlink()), None)


def refuse_link(path: Path, folder: Path | None = None) -> None:
    """Refuse to write and remove where a link leads: results that came from elsewhere may have one to any place.

    Args:
        path: a folder that a job works in.
        folder: a folder above it, from which on there may be no link; None looks at `path` alone.

    Raises:
        PipelineError: naming the link.
    """
    if link := link_on_way(path, folder or path):
        fix = "put the folder itself there, or remove the link and run the workflow again"
        raise PipelineError(link, "a folder of these results", f"a symbolic link to {link.readlink()}", fix=fix)


def write_text(path: Path, text: str, check: Check = unclaimed) -> None:
    """Write `text` as UTF-8 so that `path` appears whole or not at all; see `atomic_path`."""
    with atomic_path(path, check) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device, which may have no end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """Return a short digest of a value of JSON, independent of the order of keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())[:16]
