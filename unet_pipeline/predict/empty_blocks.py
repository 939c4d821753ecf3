"""Empty blocks of an image, which the network need not see (`predict.skip_below`).

The image is divided into blocks of 64 px from its upper left corner, whatever the tiles, shards and regions. A block is
empty if the means of all squares of 8 px in it and in the eight blocks around it lie within `skip_below` of each other,
in every channel. So the level of an empty ground does not matter (dark or bright field), noise and single hot pixels
hardly do, and a gradient of light only as far as it goes in 192 px. Beyond the edge the image is mirrored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.mirrored import read_window
from unet_pipeline.images.planes import Planes
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.objects.box import Box

BLOCK_PX = 64
"""Edge of a block, px."""
SQUARE_PX = 8
"""Edge of the squares whose means are compared, px: a tenth of a cell, and noise of 1 becomes 1/8."""
BAND_BLOCKS = 8
"""Rows of blocks looked at together: bounds the memory."""


def empty_pixels(image: Planes, shard: Box, normaliser: Normaliser, skip_below: float) -> npt.NDArray[np.bool_]:
    """Return which pixels of a box of one plane lie in empty blocks: (height, width) bool.

    Args:
        image: the stack.
        shard: the pixels asked for.
        normaliser: of the stack; differences are measured in normalised values.
        skip_below: largest difference of an empty block; values that are not finite are never empty.
    """
    y, x = (range(part.start // BLOCK_PX - 1, -(-part.stop // BLOCK_PX) + 1) for part in (shard.rows, shard.columns))
    bands = [y[start : start + BAND_BLOCKS] for start in range(0, len(y), BAND_BLOCKS)]
    low, high = (
        np.concatenate(parts, axis=1)
        for parts in zip(*(_extremes(image, shard.plane, band, x, normaliser) for band in bands), strict=True)
    )
    with np.errstate(invalid="ignore"):
        spread = _around(high, np.maximum) - _around(low, np.minimum)
    empty: Any = (spread <= skip_below).all(axis=0)
    rows, columns = (
        np.arange(part.start, part.stop) // BLOCK_PX - (blocks.start + 1)
        for part, blocks in ((shard.rows, y), (shard.columns, x))
    )
    found: npt.NDArray[np.bool_] = empty[rows[:, None], columns]
    return found


def _extremes(
    image: Planes, plane: int, y: range, x: range, normaliser: Normaliser
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the least and the greatest mean of the squares of each block: two arrays (channels, blocks, blocks)."""
    size = len(y) * BLOCK_PX, len(x) * BLOCK_PX
    values = normaliser(read_window(image, plane, y.start * BLOCK_PX, x.start * BLOCK_PX, size))
    # added one by one, in an order that the size of the array cannot change: the bits are the same in every shard
    rows: Any = sum(values[:, k::SQUARE_PX] for k in range(SQUARE_PX))
    means = sum(rows[..., k::SQUARE_PX] for k in range(SQUARE_PX)) / np.float32(SQUARE_PX**2)
    each = BLOCK_PX // SQUARE_PX
    blocks = means.reshape(len(values), len(y), each, len(x), each)
    return blocks.min(axis=(2, 4)), blocks.max(axis=(2, 4))


def _around(blocks: npt.NDArray[np.float32], extreme: np.ufunc) -> npt.NDArray[np.float32]:
    """Return the extreme of each inner block and the eight around it: (channels, rows - 2, columns - 2)."""
    rows = extreme.reduce([blocks[:, k : blocks.shape[1] - 2 + k] for k in range(3)])
    found: npt.NDArray[np.float32] = extreme.reduce([rows[..., k : rows.shape[2] - 2 + k] for k in range(3)])
    return found
