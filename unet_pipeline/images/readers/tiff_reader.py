"""Read TIFF, BigTIFF, OME-TIFF and ImageJ TIFF window by window.

tifffile reads the metadata and decodes strips and tiles; this module decides which ones a window needs and remembers
the last ones. The file is open only while it is read, so threads and forked processes may share a reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.blocks import (
    CACHE_BYTES,
    Array,
    BlockCache,
    Declared,
    Spans,
    Window,
    paste,
)
from unet_pipeline.images.readers.codestreams import declared_bytes
from unet_pipeline.images.readers.tiff_series import open_series
from unet_pipeline.images.readers.tiff_structure import COPY_AGAIN, FREE_BYTES, PageData
from unet_pipeline.records.files import digest, sha256_file

# Uncompressed pixels read in one go.
READ_BYTES = 2**20


class TiffReader:
    """One image of a TIFF file (for OME-TIFF perhaps of several files)."""

    def __init__(self, path: Path, series: int | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        """Read and check the metadata; see `tiff_series.open_series`."""
        self._series = found = open_series(path, series)
        self._cache = BlockCache(cache_bytes)
        block = [1] * len(found.shape)
        block[found.rows : found.rows + 2] = self._block_px()
        if found.grid.contiguous > 1:
            block[-1] = found.grid.contiguous
        samples = found.rows - 1 if found.grid.separate > 1 else found.rows + 2
        self.declared = Declared(
            where=path,
            shape=found.shape,
            letters=found.letters,
            dtype=found.dtype,
            block=tuple(block),
            files=tuple(dict.fromkeys(page.path for page in found.pages)),
            scale=found.scale,
            rows=found.rows,
            alpha=samples if found.alpha else None,
            orientation=found.orientation,
        )

    def _block_px(self) -> tuple[int, int]:
        grid = self._series.grid
        rows = grid.rows
        if all(self._lies_in_rows(page) for page in self._series.pages[:1]):
            rows = max(1, READ_BYTES // grid.stored_bytes(1))
        return min(rows, grid.height), min(grid.columns, grid.width)

    def read(self, spans: Spans, place: str) -> Array:
        """Return a part of the image, its axes as in the file, such as (z, y, x, c), native byte order.

        Raises:
            PipelineError: naming file and place, if the pixels cannot be decoded.
        """
        found = self._series
        window = Window(*spans[found.rows], *spans[found.rows + 1])
        samples = range(*spans[found.rows + 2]) if len(spans) > found.rows + 2 else range(1)
        outer = spans[: found.rows]
        out = np.full(
            [len(samples), *(stop - start for start, stop in outer), *window.shape], found.nodata, found.dtype
        )
        for index in itertools.product(*(range(*span) for span in outer)):
            flat = 0
            for number, length in zip(index, found.shape, strict=False):
                flat = flat * length + number
            page, sample = divmod(flat, found.grid.separate)
            inside: Any = slice(None), *(number - start for number, (start, _) in zip(index, outer, strict=True))
            target = out[inside]
            self._read_page(f"{found.pages[page].path}, {place}", page, sample, samples, window, target)
        return np.moveaxis(out, 0, -1) if len(spans) > found.rows + 2 else out[0]

    def _read_page(
        self, where: str, number: int, sample: int, taken: Sequence[int], window: Window, out: Array
    ) -> None:
        """Fill `out`, (samples, rows, columns)."""
        page = self._series.pages[number]
        try:
            with page.path.open("rb", buffering=0) as file:
                if self._lies_in_rows(page):
                    self._read_rows(file, page, sample, taken, window, out)
                else:
                    self._read_blocks(file, number, sample, taken, window, out)
        except MemoryError:
            raise
        # Decoders raise errors of many kinds, and all of them mean damaged or unsupported data.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise PipelineError(where, "pixel data that can be decoded", what, fix=COPY_AGAIN) from error

    def _lies_in_rows(self, page: PageData) -> bool:
        """Tell whether the pixels of a page are uncompressed and lie row after row without gaps."""
        if not self._series.plain:
            return False
        grid = self._series.grid
        rows = np.minimum(grid.rows, grid.height - np.arange(grid.down) * grid.rows)
        expected = np.tile(rows * grid.stored_bytes(1), (grid.separate, 1))
        gaps = np.diff(page.offsets.reshape(expected.shape), axis=1) - expected[:, :-1]
        return bool((page.sizes == expected.ravel()).all() and not gaps.any())

    def _read_rows(
        self, file: FileIO, page: PageData, sample: int, taken: Sequence[int], window: Window, out: Array
    ) -> None:
        grid, stored = self._series.grid, self._series.stored
        row = grid.stored_bytes(1)
        pixel = grid.contiguous * stored.itemsize
        start = int(page.offsets[sample * grid.down]) + window.top * row + window.left * pixel
        width = window.shape[1] * pixel
        step = max(1, READ_BYTES // max(1, width))
        for top in range(0, window.shape[0], step):
            count = min(step, window.shape[0] - top)
            data = _read_strided(file, start + top * row, count, width, row)
            values = data.view(stored).reshape(count, window.shape[1], grid.contiguous)
            out[:, top : top + count] = np.moveaxis(values[..., list(taken)], -1, 0)

    def _read_blocks(
        self, file: FileIO, number: int, sample: int, taken: Sequence[int], window: Window, out: Array
    ) -> None:
        """Paste the strips or tiles that the window touches; absent ones stay as they are."""
        grid = self._series.grid
        for y in range(window.top // grid.rows, -(-window.bottom // grid.rows)):
            for x in range(window.left // grid.columns, -(-window.right // grid.columns)):
                block = self._block(file, number, (sample * grid.down + y) * grid.across + x, window)
                if block is not None:
                    paste(out, (0, window.top, window.left), block[list(taken)], (0, y * grid.rows, x * grid.columns))

    def _block(self, file: FileIO, number: int, index: int, window: Window) -> Array | None:
        """Return strip or tile `index` of a page as (contiguous samples, rows, columns), or None if it is absent.

        It is remembered if it reaches beyond the window: then the next window will want the rest of it.
        """
        page, cached = self._series.pages[number], self._cache.get((number, index))
        if cached is not None or page.sizes[index] == 0 or page.offsets[index] == 0:
            return cached
        size = int(page.sizes[index])
        data = _read_strided(file, int(page.offsets[index]), 1, size, size).tobytes()
        grid = self._series.grid
        held = declared_bytes(grid.compression, data)
        if held > max(FREE_BYTES, 8 * grid.stored_bytes(grid.rows)):
            raise ValueError(f"a picture of {held} bytes in {size}: damaged or forged")
        options = self._series.jpeg | ({"jpegtables": page.tables} if self._series.jpeg else {})
        decoded = self._series.decode(data, index, **options)[0]
        block: Array = np.moveaxis(decoded[0], -1, 0).astype(self.declared.dtype)
        if self._reaches_beyond(index, window):
            self._cache.put((number, index), block)
        return block

    def _reaches_beyond(self, index: int, window: Window) -> bool:
        grid = self._series.grid
        y, x = divmod(index % (grid.down * grid.across), grid.across)
        top, left = y * grid.rows, x * grid.columns
        bottom, right = min(top + grid.rows, grid.height), min(left + grid.columns, grid.width)
        return top < window.top or left < window.left or bottom > window.bottom or right > window.right

    def notes(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file, or a digest of those of all files."""
        sums = [sha256_file(path) for path in self.declared.files]
        return sums[0] if len(sums) == 1 else digest(sums)

    def close(self) -> None:
        """Forget the decoded blocks."""
        self._cache.clear()


def _read_strided(file: FileIO, offset: int, count: int, size: int, stride: int) -> Array:
    """Return `count` runs of `size` bytes that start `stride` bytes apart, as uint8 (count, size)."""
    data = np.empty((count, size), np.uint8)
    runs: Any = [data.reshape(-1)] if size == stride else data
    for i, run in enumerate(runs):
        file.seek(offset + i * stride)
        if file.readinto(run) != run.size:
            raise OSError("the file ends before its pixels do")
    return data
