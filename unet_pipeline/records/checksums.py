"""The files a record vouches for, with their checksums, in a list that `sha256sum --check` reads too.

`ingest.json` vouches for what `ingest.sha256` lists, and so on; the record holds the checksum of the list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.machine.parallel import ahead, cores
from unet_pipeline.records.fields import Files
from unet_pipeline.records.files import PARTIAL, Check, atomic_path, sha256_bytes, sha256_file, sync_folders, unclaimed
from unet_pipeline.records.layout import list_path
from unet_pipeline.records.record import how_to_remake

LARGEST = 2**34
"""Largest size of a list, bytes; a shard needs about 130."""


def write_list(
    record: Path, products: Sequence[Path], known: Mapping[Path, str] | None = None, check: Check = unclaimed
) -> Files:
    """Write the list of all files below some products, and return the entry of the record.

    Their names outlast a loss of power before the list appears.

    Args:
        record: the record that shall vouch for them; the list lies beside it, and names are relative to its folder.
        products: files and folders.
        known: checksums that were just computed, by path; these files are not read again.
        check: called before the list appears, `claim.Claim.check`.

    Returns:
        What the record says of the list.

    Raises:
        PipelineError: if the list cannot be written, or another job has taken over.
    """
    path, known, folders = list_path(record), known or {}, set[Path]()
    count = size = 0
    with atomic_path(path, check) as partial, partial.open("w", encoding="utf-8") as lines:
        files = (_no_link(file) for product in products for file in files_below(product))
        for file, total in with_sums(files, known):
            lines.write(f"{total}  {file.relative_to(record.parent).as_posix()}\n")
            count, size = count + 1, size + file.stat().st_size
            folders.add(file.parent)
        sync_folders(folders, record.parent)
    return Files(path.name, sha256_file(path), count, size)


def _no_link(file: Path) -> Path:
    if file.is_symlink():
        fix = "remove it and run the step again"
        raise PipelineError(file, "a file that this pipeline wrote", "a symbolic link", fix=fix)
    return file


def with_sums(files: Iterable[Path], known: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    """Yield each file with its SHA-256, those that are not known computed side by side."""

    def summed(file: Path) -> tuple[Path, str]:
        return file, known.get(file) or sha256_file(file)

    with closing(ahead(summed, files, cores())) as found:
        yield from found


def read_list(record: Path, files: Files) -> dict[Path, str]:
    """Return the checksum of each file that a record vouches for.

    Args:
        record: the record.
        files: what it says of the list.

    Raises:
        PipelineError: if the list is missing, or is not the one the record names.
    """
    return _parsed(record, _vouched_list(record, files))


def _vouched_list(record: Path, files: Files) -> bytes:
    """Return the list of a record as it lies there; raises as `read_list`."""
    path, fix = list_path(record), how_to_remake(record)
    try:
        content = read_small(path, LARGEST)
    except OSError as error:
        raise PipelineError(path, f"the list that {record} vouches for", error, fix=fix) from error
    if sha256_bytes(content) != files.sha256:
        raise PipelineError(path, f"the list that {record} vouches for", "another: it was altered", fix=fix)
    return content


def parse_list(record: Path) -> dict[Path, str]:
    """Return the checksum of each file in the list of a record, whether or not the record vouches for it.

    Raises:
        PipelineError: if the list is missing, cannot be read, or names what does not lie below its folder.
    """
    try:
        content = read_small(list_path(record), LARGEST)
    except OSError as error:
        raise PipelineError(list_path(record), "a list of checksums", error, fix=how_to_remake(record)) from error
    return _parsed(record, content)


def _parsed(record: Path, content: bytes) -> dict[Path, str]:
    """Return the checksum of each file in the content of a list; raises as `parse_list`."""
    path, fix = list_path(record), how_to_remake(record)
    try:
        listed = {name: total for total, name in (line.split("  ", 1) for line in content.decode().splitlines())}
    except ValueError as error:
        raise PipelineError(path, "a list of checksums", error, fix=fix) from error
    for name in listed:
        if name.startswith("/") or ".." in name.split("/"):
            raise PipelineError(path, "names of files below its folder", repr(name), fix=fix)
    return {record.parent / name: total for name, total in listed.items()}


def damaged(
    listed: Mapping[Path, str], products: Sequence[Path], known: Mapping[Path, str] | None = None
) -> Iterator[tuple[Path, str]]:
    """Yield the files that are not what the list says, and what is wrong with each.

    Args:
        listed: from `read_list`.
        products: the files and folders that were listed; a file in them that was not there is named too.
        known: checksums that were just computed, by path; these files are not read again.
    """
    yield from differences(listed, known)
    for product in products:
        yield from ((file, "a file that nobody wrote") for file in files_below(product) if file not in listed)


def differences(listed: Mapping[Path, str], known: Mapping[Path, str] | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the files that are absent or whose SHA-256 is another, and what is wrong with each; see `damaged`."""
    for file, total in listed.items():
        if not file.is_file():
            yield file, "no file"
        elif ((known or {}).get(file) or sha256_file(file)) != total:
            yield file, "a file that was changed since"


def fault(file: Path, got: str, record: Path, remade: Path) -> PipelineError:
    """Return the error for a file that is not what a record vouches for; `remade` is the record that makes it anew."""
    return PipelineError(file, f"the file that {record} vouches for", got, fix=how_to_remake(remade))


SHA256_LENGTH = 64
"""Hexadecimal digits."""

Owner = Callable[[Path], Path | None]
"""Function of a file that returns the record whose step writes it; None leaves it to the record that vouches for it."""


class Vouched:
    """The files that a record vouches for, each held against its checksum before it is read for the first time.

    A list binds checksums to places: a shard that is lost, or lies where another belongs, is found as surely as a
    flipped bit, where a Zarr reader would take an absent shard for zeros.
    """

    def __init__(self, record: Path, files: Files, owner: Owner = lambda file: None) -> None:
        """Read the list.

        Args:
            record: the record.
            files: what it says of its list.
            owner: of each file, for the remedy.

        Raises:
            PipelineError: as `read_list`.
        """
        # as it is read, a tenth of the memory of a dictionary: a stack of many planes has a million shards
        self._record, self._lines, self._owner = record, _vouched_list(record, files), owner
        self._checked: set[Path] = set()

    def check(self, file: Path) -> None:
        """Read a file whole, once in this process, and hold it against the list.

        Raises:
            PipelineError: if it is absent, changed, or not in the list; says which record makes it anew.
        """
        if file in self._checked:
            return
        end = self._lines.find(f"  {file.relative_to(self._record.parent).as_posix()}\n".encode())
        total = self._lines[max(0, end - SHA256_LENGTH) : max(0, end)].decode()  # "" of a file that is not listed
        got = next(differences({file: total}), None)
        if got:
            raise fault(file, got[1], self._record, self._owner(file) or self._record)
        self._checked.add(file)


def files_below(product: Path) -> Iterator[Path]:
    """Yield a file itself, or all files of a folder in a fixed order; half-written ones are left out.

    Nobody writes links, pipes and devices into a product: they are yielded as they stand, and no link is followed.
    """
    if product.is_symlink() or not product.is_dir():
        if os.path.lexists(product):
            yield product
        return
    for entry in sorted(product.iterdir()):
        if not entry.name.endswith(PARTIAL):
            yield from files_below(entry)
