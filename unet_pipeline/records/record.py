"""Provenance, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unet_pipeline import __version__
from unet_pipeline.errors import PipelineError, read_small

PACKAGES = ("numpy", "scipy", "scikit-image", "tifffile", "zarr", "numba", "torch", "snakemake")
PARTIAL = ".partial"
"""How names of half-written files and stores end."""

SEAL = "record_sha256"
"""Last key of a record: the SHA-256 of the JSON text without it."""


LARGEST = 200_000_000
"""Bytes of a record; one of a region needs 250 for each shard."""


def partial_name(path: Path) -> str:
    """Return a new hidden name for what shall become `path`."""
    return f".{path.name}.{uuid.uuid4().hex}{PARTIAL}"


Check = Callable[[], None]
"""Raises a PipelineError where the job must not write any more; see `publish`."""


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


def write_text(path: Path, text: str, check: Check = unclaimed) -> None:
    """Write `text` as UTF-8 so that `path` appears whole or not at all; see `atomic_path`."""
    with atomic_path(path, check) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any], check: Check = unclaimed) -> None:
    """Write `value` as indented JSON with its own SHA-256 as the last key; NaN is refused, because JSON has none.

    The same value gives the same bytes. `read_json` finds any byte that was changed since.
    """
    text = _sealed(value)
    if len(text) > LARGEST:  # ASCII: as many bytes
        fix = "raise the column `regions` of the stack, or tile.regions"
        raise PipelineError(path, f"a record of at most {LARGEST} bytes", f"{len(text)} bytes", fix=fix)
    write_text(path, text, check)


def _sealed(value: Mapping[str, Any]) -> str:
    plain = {name: part for name, part in value.items() if name != SEAL}
    text = json.dumps(plain, indent=1, allow_nan=False)
    return json.dumps({**plain, SEAL: sha256_bytes(text.encode())}, indent=1, allow_nan=False) + "\n"


def read_json(path: Path, fix: str = "run the step that writes it") -> dict[str, Any]:
    """Read a record written by `write_json`, without its checksum.

    Raises:
        PipelineError: if the file is missing, not a record, or not what was written.
    """
    try:
        text = read_small(path, LARGEST).decode("utf-8")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are ValueErrors
        raise PipelineError(path, "a readable JSON record", error, fix=fix) from error
    if not isinstance(value, dict) or SEAL not in value:
        got = f"keys {sorted(value)[:6]}" if isinstance(value, dict) else type(value).__name__
        raise PipelineError(path, f"a record with its checksum ({SEAL})", got, fix=fix)
    del value[SEAL]
    if text != _sealed_again(value):
        raise PipelineError(path, f"the record that was written, of its {SEAL}", "another: it was altered", fix=fix)
    return value


def _sealed_again(value: Mapping[str, Any]) -> str | None:
    try:
        return _sealed(value)
    except (ValueError, RecursionError):  # NaN, which no record holds
        return None


def again(record: Path) -> str:
    """Say how a damaged product is made again, by the record that vouches for it."""
    return f"run the workflow again with `--forcerun {record}`: that is made again, and what follows from it"


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """Return a short digest of anything JSON can say, independent of key order."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())[:16]


def provenance(sections: Mapping[str, object], inputs: Iterable[Path] = ()) -> dict[str, Any]:
    """Describe what made a product: configuration, inputs, code, packages and machine.

    Args:
        sections: the configuration sections the product depends on, as plain values.
        inputs: small input files (records); each is listed with its SHA-256, under its path as `told` gives it.
    """
    return {
        "unet_pipeline": __version__,
        "commit": _commit(),
        "config": dict(sections),
        "config_digest": digest(sections),
        "inputs": {told(path): sha256_file(path) for path in inputs},
        "packages": _versions(),
        "python": platform.python_version(),
        "machine": machine(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:2]],
    }


def told(path: str | Path) -> str:
    """Return a path as records say it, so that a project can be moved and two places give the same bytes.

    Returns:
        The path relative to the working directory if it lies below it, else the absolute path.
    """
    place, here = Path(os.path.normpath(Path.cwd() / path)), Path.cwd()
    return (place.relative_to(here) if place.is_relative_to(here) else place).as_posix()


def untold(name: str, record: Path) -> list[Path]:
    """Return where a path that stands in a record may lie today, likeliest first.

    Args:
        name: what `told` gave when the record was written.
        record: the record; the working directory of that time is taken to be one of the folders above it.
    """
    above = list(record.absolute().parents)
    # The folder of the record comes late: its own stores must not be taken for an image of the same name elsewhere.
    return [folder / name for folder in (*above[1:], above[0], Path.cwd())]


@cache
def machine() -> str:
    """Return the kind of machine: system, processor family and widest vector instructions, e.g. "Linux x86_64 avx512f".

    Kernels are chosen by these instructions, and another kernel may round float32 sums otherwise.
    """
    return " ".join((platform.system(), platform.machine(), *_vectors()))


def _vectors() -> tuple[str, ...]:
    with suppress(OSError):
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
        return tuple(name for name in ("avx512f", "avx2", "sve", "asimd") if name in flags)[:1]
    return ()


@cache
def _versions() -> dict[str, str]:
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _commit() -> str:
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():  # installed: a repository further up is not of this code
        return "unknown"
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
