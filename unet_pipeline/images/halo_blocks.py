"""Blocks of work that look a halo beyond their own pixels, so that block-wise equals whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from unet_pipeline.objects.box import Box, Window

BAND_PX = 2**20
"""Pixels of one channel in a band of rows."""


@dataclass(frozen=True)
class HaloBlock:
    """A block inside a shard.

    Attributes:
        outer: pixels of the image to read: the block and its halo, clipped at the edge of the image.
        inner: pixels of the block in the image.
        local: rows and columns of the block inside `outer`.
        place: rows and columns of the block inside its shard.
    """

    outer: Box
    inner: Box
    local: Window
    place: Window


def halo_blocks(
    shard: Box, block_px: int, halo_px: int, size: tuple[int, int], planes: slice | None = None
) -> Iterator[HaloBlock]:
    """Divide a shard of an image, or any box, into blocks with halos; planes are not divided.

    Args:
        shard: pixels of the image.
        block_px: edge of a block, px.
        halo_px: pixels that a block reads beyond its own on each side, px.
        size: (height, width) of the image, px.
        planes: those that a block reads; None: its own alone.
    """
    for inner in shard.divided(block_px, block_px):
        outer = replace(inner.grown(halo_px, size), planes=planes or inner.planes)
        yield HaloBlock(outer, inner, inner.counted_from(outer).window, inner.counted_from(shard).window)


def row_bands(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield views of an array (..., y, x), some rows at a time, in order.

    Intermediate results often take many times the memory of an array; those of a band take little.
    """
    rows = max(1, BAND_PX // max(1, values.shape[-1]))
    for top in range(0, values.shape[-2], rows):
        yield values[..., top : top + rows, :]
