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


@dataclass(frozen=True)
class StackInfo:
    """What a file says about its stack; the attributes are those of `inputs.Planes`.

    Attributes:
        sizes: (height, width) of each plane where each plane is a file of its own, else empty; `shape` has the largest.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    plane_axis: str
    pixel_um: tuple[float, float] | None
    step: float | None
    channel_names: tuple[str, ...]
    block_px: tuple[int, int]
    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...] = ()


class Reader(Protocol):
    """One kind of file, read window by window."""

    @property
    def info(self) -> StackInfo:
        """What the file says."""

    def read(self, plane: int, window: Window) -> Array:
        """Return (channels, rows, columns) of a plane, in native byte order."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""

    def close(self) -> None:
        """Forget what is kept in memory."""


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


def refuse_transparency(where: object, opaque: bool) -> None:
    """Refuse pixels with an alpha channel that is not opaque: what colour they have is not known.

    Raises:
        PipelineError: naming `where`.
    """
    if not opaque:
        fix = "save the image without alpha, or set axes, such as yxc for four channels or zyx for four planes"
        raise PipelineError(where, "opaque pixels", "an alpha channel with transparent ones", fix=fix)
