"""Read Zarr v2 and v3 arrays and OME-Zarr images in place, window by window; zarr decodes the chunks."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.blocks import CACHE_BYTES, Array, BlockCache, Declared, Spans, paste, pixel_dtype
from unet_pipeline.images.readers.zarr_bounds import check_codecs, count_stored, open_bounded
from unet_pipeline.images.readers.zarr_nodes import Node, channel_names, find_array, meaning
from unet_pipeline.records.files import digest, sha256_file


class ZarrReader:
    """A Zarr array, or the largest level of an OME-Zarr image."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        """Read and check the metadata; no pixels.

        Args:
            path: a store, or a group or array inside one, such as `a.zarr`, `a.zarr/0`, `a.zarr/labels/nuclei`.
            cache_bytes: how much decoded data to keep.

        Raises:
            PipelineError: for a store that is damaged, holds no image there, or pixels of another kind.
        """
        self._max_bytes, self._cache = cache_bytes, BlockCache(cache_bytes)
        node, image = find_array(path)
        self._node, self._image = node, image
        check_codecs(node.path, node.metadata)
        self._array = _open_array(node)
        shape = tuple(map(int, self._array.shape))
        letters, scale = meaning(node, image, len(shape))
        self.declared = Declared(
            where=node.path,
            shape=shape,
            letters=letters,
            dtype=pixel_dtype(node.path, self._array.dtype),
            block=tuple(min(int(edge), n) for edge, n in zip(self._array.chunks, shape, strict=True)),
            files=tuple(dict.fromkeys((*(image.files if image else ()), *node.files))),
            scale=replace(scale, channel_names=channel_names(image)),
        )

    def read(self, spans: Spans, place: str) -> Array:
        """Return a part of the array, its axes as in the store, such as (t, c, z, y, x), native byte order.

        Raises:
            PipelineError: naming the array and place, if a chunk cannot be decoded.
        """
        try:
            return self._read_box(spans).astype(self.declared.dtype, copy=False)
        except MemoryError:
            raise
        # Codecs raise errors of many kinds, and all of them mean damaged chunks.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise PipelineError(f"{self._node.path}, {place}", "chunks that can be decoded", what) from error

    def _read_box(self, box: Spans) -> Array:
        """Read through the cache, whole chunks at a time; all that are missing in one request."""
        chunks = self._array.chunks
        ranges = [range(low // edge, -(-high // edge)) for (low, high), edge in zip(box, chunks, strict=True)]
        limits = zip(ranges, chunks, self._array.shape, strict=True)
        aligned = [min(numbers.stop * edge, n) - numbers.start * edge for numbers, edge, n in limits]
        # Chunks that are too large to keep are decoded again for each window; declared but absent ones cost nothing.
        if math.prod(aligned) * self.declared.dtype.itemsize > self._max_bytes:
            return self._load(box)
        keys = list(itertools.product(*ranges))
        found = {key: self._cache.get(key) for key in keys}
        missing = [key for key, block in found.items() if block is None]
        if missing:
            found |= self._load_chunks(missing)
        out = np.empty([high - low for low, high in box], self.declared.dtype)
        for key, block in found.items():
            if block is not None:
                paste(out, [low for low, _ in box], block, [k * edge for k, edge in zip(key, chunks, strict=True)])
        return out

    def _load_chunks(self, keys: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Array]:
        """Read the smallest box of chunks around `keys` and keep each chunk."""
        chunks = self._array.chunks
        low = [min(numbers) for numbers in zip(*keys, strict=True)]
        high = [max(numbers) + 1 for numbers in zip(*keys, strict=True)]
        limits = zip(low, high, chunks, self._array.shape, strict=True)
        data = self._load([(a * edge, min(b * edge, n)) for a, b, edge, n in limits])
        blocks = {}
        for key in itertools.product(*map(range, low, high)):
            start = [(k - a) * edge for k, a, edge in zip(key, low, chunks, strict=True)]
            blocks[key] = data[tuple(slice(s, s + edge) for s, edge in zip(start, chunks, strict=True))].copy()
            self._cache.put(key, blocks[key])
        return blocks

    def _load(self, box: Spans) -> Array:
        values = np.asarray(self._array[tuple(slice(low, high) for low, high in box)])
        return values.astype(self.declared.dtype, copy=False)

    def notes(self) -> tuple[str, ...]:
        """Return how many chunks are missing, if any; looks at every file of the array."""
        found, expected = count_stored(self._node.path, self._array)
        if found >= expected:
            return ()
        what = "shards" if self._array.shards else "chunks"
        value = self._array.fill_value
        return (f"{expected - found} of {expected} {what} are not in the store and read as the fill value {value}",)

    def fingerprint(self) -> str:
        """Return a digest of the metadata and of name, size and SHA-256 of every chunk file; reads the whole array."""
        inside = (path for path in self._node.path.rglob("*") if path.is_file())
        own = self._image.files if self._image else ()
        entries = [["metadata", path.name, path.stat().st_size, sha256_file(path)] for path in own]
        for path in sorted(inside, key=lambda one: one.as_posix()):
            name = path.relative_to(self._node.path).as_posix()
            entries.append(["array", name, path.stat().st_size, sha256_file(path)])
        return digest(entries)

    def close(self) -> None:
        """Forget the decoded chunks."""
        self._cache.clear()


def _open_array(node: Node) -> zarr.Array[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_bounded(node.path, node.metadata.get("zarr_format", 3))
    except (MemoryError, PipelineError):
        raise
    # zarr raises errors of many kinds on metadata that it cannot read.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise PipelineError(node.path, "a Zarr array of numbers that zarr can open", what) from error
