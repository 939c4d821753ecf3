"""Shards as files of the Zarr v3 sharding codec (zarr-specs, "sharding_indexed", version 1.0), encoded side by side.

```
chunk | chunk | ... | index: offset and length of each chunk, uint64 | CRC-32C of the index
```
A chunk is its bytes in C order, little-endian, compressed by Zstandard, and a CRC-32C behind them. zarr-python writes
the same at little more than half the speed (`benchmarks/shards.py`), and would read a shard that the image's edge clips
before it writes it; all reading is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

    def encode(self, values: npt.NDArray[Any]) -> Iterator[bytes]:
        """Yield the parts of a shard's file, in order: chunks are compressed while the caller writes those before.

        Args:
            values: all axes of the array, at most the shape of a shard; less where the edge of the array clips it.
        """
        grid = tuple(size // edge for size, edge in zip(self.shard, self.chunk, strict=True))
        entries, end = [], 0
        with ThreadPoolExecutor(cores()) as pool:
            for chunk in pool.map(lambda place: self._chunk(values, place), np.ndindex(*grid)):
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


def _summed(data: bytes) -> tuple[bytes, bytes]:
    return data, int(crc32c(data)).to_bytes(4, "little")
