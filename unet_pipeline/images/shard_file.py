"""Shards as files of the Zarr v3 sharding codec (zarr-specs, "sharding_indexed", version 1.0).

```
chunk | chunk | ... | index: offset and length of each chunk, uint64 | CRC-32C of the index
```
A chunk is its bytes in C order, little-endian, compressed by Zstandard, and a CRC-32C behind them. zarr-python takes
twice the CPU time to read or write the same (`benchmarks/shards.py`), much of it in Python, where no other thread runs:
the one that feeds a GPU would wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

from unet_pipeline.machine.parallel import cores

LITTLE = {"configuration": {"endian": "little"}}
NO_CHUNK = 2**64 - 1
"""Offset and length of an absent chunk, which reads as the fill value."""
SUM_BYTES = 4
"""Of a CRC-32C."""


@dataclass(frozen=True)
class ShardFormat:
    """The shape and compression of the shards of an array.

    Attributes:
        shard: shape of a shard, one size for each axis of the array.
        chunk: shape of a chunk.
        level: of Zstandard.
        dtype: of the values, little-endian.
    """

    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    level: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ShardFormat | None:
        """Return the format of an array (..., y, x) made by `ngff`, None for one that is encoded in another way."""
        little = array.dtype.newbyteorder("<")
        match array.metadata.to_dict().get("codecs"):
            case [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "codecs": [
                            {"name": "bytes", **order},
                            {"name": "zstd", "configuration": {"level": int(level), "checksum": False}},
                            {"name": "crc32c"},
                        ],
                        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                        "index_location": "end",
                    },
                }
            ] if array.shards and array.fill_value == 0 and (little.itemsize == 1 or order == LITTLE):
                return cls(array.shards, array.chunks, level, little)
        return None

    @property
    def _grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(size // edge for size, edge in zip(self.shard, self.chunk, strict=True))

    def read(self, file: Path, window: Sequence[slice], values: npt.NDArray[Any]) -> None:
        """Read a part of a shard; what was never written is left as it is.

        Args:
            file: of the shard; one that is absent was never written.
            window: first and last element + 1 along each axis of the shard.
            values: of the shape of the window; are replaced.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        try:
            opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # which a pipe in its place would wait in for ever
        except FileNotFoundError:
            return
        try:
            index, end = self._index(opened)
            for place, here, there in cells(window, self.chunk):
                offset, length = index[place].tolist()
                if offset == length == NO_CHUNK:
                    continue
                if offset + length > end:
                    raise ValueError(f"a chunk up to byte {offset + length}, where the last one ends at {end}")
                values[here] = self._decoded(os.pread(opened, length, offset))[there]
        finally:
            os.close(opened)

    def _index(self, opened: int) -> tuple[npt.NDArray[np.uint64], int]:
        """Return offset and length of each chunk, (*grid, 2), from the end of an open file, and where that begins."""
        size = 16 * prod(self._grid) + SUM_BYTES
        start = os.fstat(opened).st_size - size
        if start < 0:
            raise ValueError(f"{size + start} bytes, where the index alone has {size}")
        return np.frombuffer(_checked(os.pread(opened, size, start)), "<u8").reshape(*self._grid, 2), start

    def _decoded(self, data: bytes) -> npt.NDArray[Any]:
        """Return the values of a chunk."""
        return np.frombuffer(Zstd().decode(_checked(data)), self.dtype).reshape(self.chunk)

    def encode(self, values: npt.NDArray[Any]) -> Iterator[bytes]:
        """Yield the parts of a shard's file, in order: chunks are compressed while the caller writes those before.

        Args:
            values: all axes of the array, at most the shape of a shard; less where the edge of the array clips it.
        """
        entries, end = [], 0
        with ThreadPoolExecutor(cores()) as pool:
            for chunk in pool.map(lambda place: self._chunk(values, place), np.ndindex(*self._grid)):
                yield from chunk
                length = sum(map(len, chunk))
                entries.append((end, length) if length else (NO_CHUNK, NO_CHUNK))
                end += length
        yield from _summed(np.array(entries, "<u8").tobytes())

    def _chunk(self, values: npt.NDArray[Any], place: tuple[int, ...]) -> tuple[bytes, ...]:
        """Return an encoded chunk, padded with zeros at the edge; nothing where it lies beyond it."""
        starts = [number * edge for number, edge in zip(place, self.chunk, strict=True)]
        part = values[tuple(slice(start, start + edge) for start, edge in zip(starts, self.chunk, strict=True))]
        if part.size == 0:
            return ()
        if part.shape != self.chunk:
            part = np.pad(part, [(0, edge - size) for size, edge in zip(part.shape, self.chunk, strict=True)])
        return _summed(Zstd(level=self.level).encode(np.ascontiguousarray(part, self.dtype)))


def cells(
    window: Sequence[slice], edges: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:
    """Yield the cells of a grid that a window touches.

    Args:
        window: first and last element + 1 along each axis.
        edges: of a cell, along each axis.

    Yields:
        The number of the cell along each axis, and what both share: counted in the window, and in the cell.
    """
    numbers = (range(axis.start // edge, -(-axis.stop // edge)) for axis, edge in zip(window, edges, strict=True))
    for place in product(*numbers):
        here, there = [], []
        for axis, number, edge in zip(window, place, edges, strict=True):
            start, stop = max(axis.start, number * edge), min(axis.stop, (number + 1) * edge)
            here.append(slice(start - axis.start, stop - axis.start))
            there.append(slice(start - number * edge, stop - number * edge))
        yield place, tuple(here), tuple(there)


def _summed(data: bytes) -> tuple[bytes, bytes]:
    return data, int(crc32c(data)).to_bytes(SUM_BYTES, "little")


def _checked(data: bytes) -> bytes:
    """Return data without the checksum behind it.

    Raises:
        ValueError: it is another one.
    """
    body, found = data[:-SUM_BYTES], data[-SUM_BYTES:]
    if _summed(body)[1] != found:
        raise ValueError(f"a checksum {_summed(body)[1].hex()} where the file has {found.hex()}")
    return body
