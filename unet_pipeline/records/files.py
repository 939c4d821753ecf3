"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
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


@contextmanager
def atomic_path(path: Path, check: Check = unclaimed) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Args:
        path: the file.
        check: called just before the file gets its name, when all the slow work is done.

    Raises:
        PipelineError: from `check`, or if the disk is full or the place cannot be written; `path` is then as it was.
    """
    partial = path.with_name(partial_name(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        check()
        partial.replace(path)
    except OSError as error:
        raise PipelineError(
            path, "a place that can be written", error, fix="free space or choose another disk, then rerun"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def link_on_way(path: Path, folder: Path) -> Path | None:
    """Return the first symbolic link on the way down from a folder to a path, both included; None where there is none.

    Args:
        path: below the folder; it need not exist.
        folder: where the way begins.
    """
    way = [folder, *(folder / part for part in reversed(path.relative_to(folder).parents)), path]
    return next((part for part in way if part.is_symlink()), None)


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
