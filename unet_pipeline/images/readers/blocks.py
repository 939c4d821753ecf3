"""What the readers of image files share: description of a stack, windows, a bounded memory of decoded blocks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.calibration import Calibration

Array = npt.NDArray[Any]

# Decoded blocks kept by one reader. One row of 512 px tiles of a 65536 px wide 16-bit image is 64 MiB.
CACHE_BYTES = 256 * 2**20


class Window(NamedTuple):
    """Part of a plane: rows [top, bottom), columns [left, right), in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.bottom - self.top, self.right - self.left


Spans = Sequence[tuple[int, int]]
"""Part of an array: [start, stop) in each of its dimensions."""


@dataclass(frozen=True)
class Declared:
    """What a file declares of its image. `SourceImage` decides what is made of it.

    Attributes:
        where: the file, or the array inside a store, for messages.
        shape: of the array as it is stored, one number per dimension.
        letters: of t z c y x, one per dimension, or "?" where the file does not say.
        dtype: of the pixels as read, native byte order.
        block: what is stored together, one edge per dimension, at most `shape`.
        files: those that hold the image; of a store its metadata.
        scale: pixel size, distance of planes, names of channels.
        rows: the dimension of rows, which columns follow, where the file has fixed it; else None.
        alpha: the dimension of samples of which the last one is transparency, or None.
        orientation: 1 to 8, where the first row and column belong (TIFF 6.0, tag 274; Exif 2.32, 4.6.4).
        palette: whether the pixels are indices of a palette of colours.
    """

    where: Path
    shape: tuple[int, ...]
    letters: str
    dtype: np.dtype[Any]
    block: tuple[int, ...]
    files: tuple[Path, ...]
    scale: Calibration = Calibration()
    rows: int | None = None
    alpha: int | None = None
    orientation: int = 1
    palette: bool = False


class Reader(Protocol):
    """One file or store, read part by part."""

    @property
    def declared(self) -> Declared:
        """What the file declares."""

    def read(self, spans: Spans, place: str) -> Array:
        """Return a part as a new array, its axes as stored, such as (t, c, z, y, x), native byte order.

        `place` is for messages.
        """

    def notes(self) -> tuple[str, ...]:
        """Return what is doubtful about the file, in sentences."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""

    def close(self) -> None:
        """Forget the blocks that are kept in memory."""


class BlockCache:
    """The blocks decoded last, up to a number of bytes; the newest is kept whatever its size. Safe for threads."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        """Start empty."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._blocks: OrderedDict[Hashable, Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Array | None:
        """Return the block under `key`, of the shape it was put with, or None."""
        with self._lock:
            if key not in self._blocks:
                return None
            self._blocks.move_to_end(key)
            return self._blocks[key]

    def put(self, key: Hashable, block: Array) -> None:
        """Keep `block` of any shape, and drop the ones used longest ago if there are too many bytes."""
        with self._lock:
            self._bytes += block.nbytes - (self._blocks.pop(key).nbytes if key in self._blocks else 0)
            self._blocks[key] = block
            while self._bytes > self._max_bytes and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Drop all blocks."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0


def paste(target: Array, target_origin: Sequence[int], block: Array, block_origin: Sequence[int]) -> None:
    """Copy the part that two arrays of any shape share in a common coordinate system from `block` into `target`."""
    into, part = [], []
    for at, n, block_at, block_n in zip(target_origin, target.shape, block_origin, block.shape, strict=True):
        low, high = max(at, block_at), min(at + n, block_at + block_n)
        if low >= high:
            return
        into.append(slice(low - at, high - at))
        part.append(slice(low - block_at, high - block_at))
    target[tuple(into)] = block[tuple(part)]


def pixel_dtype(where: object, dtype: object) -> np.dtype[Any]:
    """Return the dtype in which pixels are read: native byte order, bool as uint8.

    Raises:
        PipelineError: for anything but bool, integers and real floats.
    """
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or dtype.itemsize > 8:
        what = "a pixel type that NumPy lacks" if dtype is None else dtype
        expected = "pixels that are bool, integer or real floating point, of at most 64 bits"
        raise PipelineError(where, expected, what, fix="convert the image")
    # By kind and size: C has two names for some integers, and Zarr knows one of them.
    return np.dtype(np.uint8) if dtype.kind == "b" else np.dtype(f"{dtype.kind}{dtype.itemsize}")
