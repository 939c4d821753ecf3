"""A stack as planes, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from unet_pipeline.images.readers.blocks import Array


class Planes(Protocol):
    """Anything that is read plane by plane, `(channels, rows, columns)` at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, channels, height, width)."""

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return `(channels, rows, columns)` as a new array."""


class SourcePlanes(Planes, Protocol):
    """The planes of a source, with what it says of itself. May be shared by threads and by forked processes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the file in native byte order; bool reads as uint8."""

    @property
    def plane_axis(self) -> str:
        """What the planes are: "z" or "t"."""

    @property
    def pixel_um(self) -> tuple[float, float] | None:
        """(y, x) size of a pixel in micrometres, None if unknown."""

    @property
    def step(self) -> float | None:
        """Distance between planes: micrometres for z, seconds for t; None if unknown."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One per channel, or empty."""

    @property
    def block_px(self) -> tuple[int, int]:
        """(height, width) of the tiles, strips or chunks: windows on multiples of it are read without waste."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which plane of the source each plane is, from 0."""

    @property
    def palette(self) -> bool:
        """Whether the pixels are indices of a palette of colours."""

    def file(self, plane: int) -> Path | None:
        """Return the file that a plane is, None in a file or store of several."""

    def take(self, numbers: Sequence[int]) -> SourcePlanes:
        """Return other planes of the same source, in this order; `numbers` are those of the source."""

    def size(self, plane: int) -> tuple[int, int]:
        """Return (height, width) of a plane: less than those of `shape` where pictures differ (`mixed`)."""

    def name(self, plane: int) -> str:
        """Return the file that a plane is or, of a file or store of several, its number, for messages."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files; of a Zarr store the metadata files only."""

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return a window of a plane, (channels, rows, columns), as a new array.

        Slices are clipped to the plane's size as NumPy does; their step must be 1.

        Raises:
            PipelineError: naming file and plane, if the pixels cannot be read.
        """

    def notes(self) -> list[str]:
        """Return how the source is read, in sentences that name it: first its axes, then what is doubtful."""

    def fingerprint(self) -> str:
        """Return a digest of the content of the whole source, whatever planes are selected; reads every byte.

        A copy elsewhere has the same fingerprint. Takes about a second per GB.
        """

    def close(self) -> None:
        """Forget what is kept in memory."""

    def __enter__(self) -> Self:
        """Return self."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close."""
