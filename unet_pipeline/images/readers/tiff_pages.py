"""The places of the pixels in a TIFF, page by page, checked against the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.tiff_structure import COPY_AGAIN, Grid, PageData, PageFormat, check_page, read_chain


def read_pages(path: Path, series: tifffile.TiffPageSeries, grid: Grid, count: int) -> Iterator[PageData]:
    """Yield the places of the pixels of every page of a series, checked against the file.

    Args:
        path: the file.
        series: one of its images.
        grid: how its first page is stored.
        count: pages that the image must have.

    Raises:
        PipelineError: if pages are missing, unlike the first, or their pixels lie outside the file.
    """
    # These may describe many planes by one directory; the pixels then follow each other.
    start = series.dataoffset if series.kind in ("shaped", "imagej", "stk") else None
    if series.kind == "stk" and start is None:
        fix = "save it anew as TIFF, uncompressed"
        raise PipelineError(path, "a MetaMorph stack whose planes follow each other", "scattered strips", fix=fix)
    formats = _Formats(series)
    for number in range(count):
        where = f"{path}, page {number}" if count > 1 else str(path)
        page = _page(where, path, series, number, formats) if start is None else None
        data = page or _row_after_row(path, series, start or 0, number, grid)
        check_page(where, data, grid)
        yield data


class _Formats:
    """Compares every page with the first: tifffile looks at some pages only and takes the others to be alike."""

    def __init__(self, series: tifffile.TiffPageSeries) -> None:
        self._first = series.keyframe
        self._chains: dict[str, dict[int, PageFormat]] = {}
        self._wanted = self._of(self._first)

    def _of(self, page: Any) -> PageFormat | None:
        path = page.parent.filehandle.path
        if path not in self._chains:
            self._chains[path] = read_chain(Path(path))
        return self._chains[path].get(page.offset)

    def alike(self, page: Any) -> bool:
        """Tell whether a page is stored as the first one is; pages outside the chain of the file are."""
        found = self._of(page)
        return page.parent.byteorder == self._first.parent.byteorder and (found is None or found == self._wanted)


def _page(where: str, path: Path, series: tifffile.TiffPageSeries, number: int, formats: _Formats) -> PageData:
    try:
        page = series[number]
    except IndexError:
        page = None
    if page is None:
        got = f"no page {number}: truncated, or a file of the set is missing"
        raise PipelineError(where, "as many pages as the file declares", got, fix=COPY_AGAIN)
    if not formats.alike(page):
        fix = "save pages of one kind, or one file per plane"
        raise PipelineError(where, "pages of one size, type and compression", "a page that differs", fix=fix)
    # From unsigned, so that offsets beyond 2**63 become negative and are refused.
    offsets = np.asarray(page.dataoffsets, np.uint64).astype(np.int64)
    sizes = np.asarray(page.databytecounts, np.uint64).astype(np.int64)
    source = path if series.parent is page.parent else Path(page.parent.filehandle.path)
    return PageData(source, offsets, sizes, page.jpegtables)


def _row_after_row(path: Path, series: tifffile.TiffPageSeries, start: int, number: int, grid: Grid) -> PageData:
    """Return a page of a series whose pixels follow each other without gaps, whatever the directories say."""
    strips = np.arange(grid.count) % grid.down
    rows = np.minimum(grid.rows, grid.height - strips * grid.rows)
    sizes = rows.astype(np.int64) * grid.stored_bytes(1)
    offsets = start + number * series.keyframe.nbytes + np.cumsum(sizes) - sizes
    return PageData(path, offsets, sizes, None)
