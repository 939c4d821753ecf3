"""Fields that records share: bounded numbers, names of files, the list of files, the machine a network ran on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from unet_pipeline.config.keys import Bounds
from unet_pipeline.errors import PipelineError

LARGEST = 2**62
"""Numbers in records are smaller: they count pixels and bytes, and fit the integers of arrays."""


def _beside(name: str, where: str) -> None:
    """Refuse a name with a folder: records point to what lies beside them, never out of the results."""
    if Path(name).name != name or name in ("", ".."):
        raise PipelineError(where, "the name of a file beside the record", name)


Count = Annotated[int, Bounds(0, LARGEST - 1)]
Size = Annotated[int, Bounds(1, LARGEST - 1)]
Number = Annotated[float, Bounds(-LARGEST, LARGEST)]
FileName = Annotated[str, _beside]


@dataclass(frozen=True)
class Files:
    """The files that a record vouches for.

    Attributes:
        list: the list of them, beside the record; see `checksums`.
        sha256: its SHA-256.
        files: number of files in it.
        bytes: their size.
    """

    list: FileName
    sha256: str
    files: Count
    bytes: Count


@dataclass(frozen=True)
class ComputeUsed:
    """What a step that runs the network ran on: device, CPU threads, number format, torch, widest CPU instructions."""

    device: str
    threads: Count
    precision: str
    torch: str
    instructions: str
