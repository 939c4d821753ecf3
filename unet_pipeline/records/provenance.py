"""Provenance: the configuration, inputs, code and machine that made a product."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unet_pipeline import __version__
from unet_pipeline.records.files import digest, sha256_file

PACKAGES = ("numpy", "scipy", "scikit-image", "tifffile", "zarr", "numba", "torch", "snakemake")


UNKNOWN = "not recorded"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of a product.

    Attributes:
        unet_pipeline: version of this package.
        commit: of its code.
        config: the sections of the configuration that the product depends on, as plain values.
        config_digest: names them all.
        inputs: SHA-256 of small input files (records), by their path as `portable_path` gives it.
        packages: versions of the packages results depend on.
        python: its version.
        machine: kind of machine; see `machine`.
        command: the verb.
    """

    unet_pipeline: str = UNKNOWN
    commit: str = UNKNOWN
    config: dict[str, dict[str, Any]]
    config_digest: str = UNKNOWN
    inputs: dict[str, str]
    packages: dict[str, str]
    python: str = UNKNOWN
    machine: str = UNKNOWN
    command: tuple[str, ...] = ()


def provenance(sections: Mapping[str, Any], inputs: Iterable[Path] = ()) -> Provenance:
    """Describe what made a product: configuration, inputs, code, packages and machine.

    Args:
        sections: the configuration sections the product depends on, as plain values.
        inputs: small input files (records); each is listed with its SHA-256 under its `portable_path`.
    """
    return Provenance(
        unet_pipeline=__version__,
        commit=_commit(),
        config=dict(sections),
        config_digest=digest(sections),
        inputs={portable_path(path): sha256_file(path) for path in inputs},
        packages=_versions(),
        python=platform.python_version(),
        machine=machine(),
        command=(Path(sys.argv[0]).name or "python", *sys.argv[1:2]),
    )


def portable_path(path: str | Path) -> str:
    """Return a path as records keep it, so that a project can be moved and two places give the same bytes.

    Returns:
        The path relative to the working directory if it lies below it, else the absolute path.
    """
    place, here = Path(os.path.normpath(Path.cwd() / path)), Path.cwd()
    return (place.relative_to(here) if place.is_relative_to(here) else place).as_posix()


def possible_paths(name: str, record: Path) -> list[Path]:
    """Return the places where a path of a record may lie now, likeliest first.

    Args:
        name: what `portable_path` gave when the record was written.
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
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # installed: a repository further up is not of this code
        return "unknown"
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
