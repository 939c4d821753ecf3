"""Where objects are made: labels of a volume on disk, or of one plane in memory, with the same code for both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.images import ngff
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.objects.box import Box
from unet_pipeline.records.files import Check, unclaimed

Array = npt.NDArray[Any]

BLOCK_PX = 2048
"""Largest edge of a block of work, px: keeps memory flat whatever the shard."""


class Layer(Protocol):
    """Labels of a volume, read and written shard by shard: a `PlaneArray`, or an `ArrayPlanes`."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, channels, height, width)."""

    @property
    def shard_px(self) -> tuple[int, int]:
        """Height and width of a shard."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return (channels, rows, columns)."""

    def read_label(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return (rows, columns)."""

    def write(self, plane: int, rows: slice, columns: slice, values: Array, /) -> None:
        """Write a whole shard, (rows, columns)."""

    def shards(self) -> Iterator[Box]:
        """Yield the boxes of the shards."""


class Scratch(Protocol):
    """What is needed on the way, and gone afterwards."""

    @property
    def folder(self) -> Path | None:
        """Folder for files that take the place of memory; None: all is kept in memory."""

    def layer(self, name: str) -> Layer:
        """Return empty labels, uint32, in the shards of the objects."""


@dataclass(frozen=True)
class OnDisk:
    """Layers beside a store.

    Attributes:
        group: its folder is the caller's to delete.
        like: an array with the shape and the shards of the objects, uint32.
    """

    group: zarr.Group
    like: PlaneArray

    @property
    def folder(self) -> Path:
        """The folder of the group."""
        return Path(str(self.group.store.root)) / self.group.path  # type: ignore[attr-defined]

    def layer(self, name: str) -> PlaneArray:
        """Create an array."""
        return ngff.create_like(self.group, name, self.like)


@dataclass(frozen=True)
class InMemory:
    """Layers of a few small planes: (planes, y, x) px."""

    shape: tuple[int, int, int]
    folder: Path | None = None

    def layer(self, name: str) -> ArrayPlanes:
        """Create an array."""
        planes, height, width = self.shape
        return ArrayPlanes(np.zeros((planes, 1, height, width), np.uint32))


@dataclass(frozen=True)
class Volume:
    """What objects are made of.

    Attributes:
        name: of the stack, for progress and messages.
        probabilities: (planes, classes, y, x) as stored, uint8 or float.
        classes: (planes, 1, y, x) uint8, decided from them.
        scratch: for what is needed on the way.
        deep: whether objects go from plane to plane.
        step_px: distance of two planes, px; infinite where distances are those within the planes, as between times.
        check: called before each shard is written, so that a job that was taken over stops.
    """

    name: str
    probabilities: Layer
    classes: Layer
    scratch: Scratch
    deep: bool = False
    step_px: float = 1.0
    check: Check = unclaimed
