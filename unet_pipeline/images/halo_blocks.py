"""Blocks of work that look a halo beyond their own pixels, so that block-wise equals whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Window = tuple[slice, slice]

BAND_PX = 2**20
"""Pixels of one channel in a band of rows."""


@dataclass(frozen=True)
class HaloBlock:
    """A block inside a shard.

    Attributes:
        outer: rows and columns to read: the block and its halo, clipped at the image edge.
        local: rows and columns of the block inside `outer`.
        place: rows and columns of the block inside its shard.
        inner: rows and columns of the block in the image.
    """

    outer: Window
    local: Window
    place: Window
    inner: Window


def halo_blocks(rows: slice, columns: slice, block_px: int, halo_px: int, size: tuple[int, int]) -> Iterator[HaloBlock]:
    """Divide rows and columns of an image into blocks with halos.

    Args:
        rows: rows of the shard.
        columns: columns of the shard.
        block_px: edge of a block, px.
        halo_px: how far a block looks beyond itself, px.
        size: (height, width) of the image, px.
    """
    for y in range(rows.start, rows.stop, block_px):
        for x in range(columns.start, columns.stop, block_px):
            inner = slice(y, min(y + block_px, rows.stop)), slice(x, min(x + block_px, columns.stop))
            outer = _around(inner[0], halo_px, size[0]), _around(inner[1], halo_px, size[1])
            yield HaloBlock(outer, _within(inner, outer), _within(inner, (rows, columns)), inner)


def _around(part: slice, halo_px: int, size: int) -> slice:
    return slice(max(0, part.start - halo_px), min(size, part.stop + halo_px))


def _within(inner: Window, outer: Window) -> Window:
    y, x = (slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(inner, outer, strict=True))
    return y, x


def row_bands(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield views of an array (..., y, x), some rows at a time, in order.

    What is computed from a large array often takes many times its memory; from a band of it, little.
    """
    rows = max(1, BAND_PX // max(1, values.shape[-1]))
    for top in range(0, values.shape[-2], rows):
        yield values[..., top : top + rows, :]
