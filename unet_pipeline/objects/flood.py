"""Seeded watershed: every pixel goes to the seed from which it is flooded first (Beucher & Meyer 1993, by queues).

The lowest pixel that was reached is the next to pass its label on to its neighbours; of equally low ones, the one that
was reached first; of the seeds' own pixels, the first in raster order. So ties have one outcome, and of a connected
piece the result depends on nothing outside of it: it may be flooded alone. `skimage.segmentation.watershed` has the
same order, but leaves open which of equally low seed pixels goes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.compiled import compiled

OUTSIDE = 2**16 - 1
"""Height of pixels that are not flooded."""


def flood(heights: NDArray[np.uint16], labels: NDArray[np.uint32], queue: NDArray[np.int64]) -> None:
    """Flood from the seeds, in place.

    Args:
        heights: (planes, y, x) uint16, contiguous; `OUTSIDE` where no label goes. Neighbours share an edge in their
            plane, or lie over each other in neighbouring planes.
        labels: (planes, y, x) uint32, contiguous; the seeds, 0 elsewhere. Filled; 0 stays where no seed reaches.
        queue: (planes * y * x,) int64, for the pixels that wait; its content does not matter.
    """
    _flood(heights.reshape(-1), labels.reshape(-1), queue, *labels.shape)


@compiled
def _append(pixel: Any, height: Any, queue: Any, first: Any, last: Any) -> None:
    """Let a pixel wait behind all others of its height."""
    queue[pixel] = -1
    if first[height] < 0:
        first[height] = pixel
    else:
        queue[last[height]] = pixel
    last[height] = pixel


@compiled
def _room(pixel: Any, planes: int, rows: int, columns: int) -> Any:
    """Return where there is a neighbour; flat indices know no edges: from the last column they lead to the next row."""
    plane, row, column = pixel // (rows * columns), pixel // columns % rows, pixel % columns
    return plane > 0, row > 0, column > 0, column < columns - 1, row < rows - 1, plane < planes - 1


@compiled
def _flood(heights: Any, labels: Any, queue: Any, planes: int, rows: int, columns: int) -> None:
    """Flood flat arrays from the labelled pixels.

    queue[pixel] is the pixel that waits behind it at the same height. There is one such chain for each of the 2¹⁶ - 1
    heights, with its ends in `first` and `last`: a priority queue without sorting, first in, first out at each height.
    """
    first, last = np.full(OUTSIDE, -1, np.int64), np.full(OUTSIDE, -1, np.int64)
    area = rows * columns
    lowest: Any = OUTSIDE
    steps = np.array([-area, -columns, -1, 1, columns, area])
    # seed pixels wait from the beginning, in raster order, which settles ties between seeds; those that can pass on
    # nothing, which are most, need not
    for pixel in range(labels.size):
        if labels[pixel] != 0 and heights[pixel] != OUTSIDE:
            room = _room(pixel, planes, rows, columns)
            for k in range(6):
                if room[k] and labels[pixel + steps[k]] == 0 and heights[pixel + steps[k]] != OUTSIDE:
                    _append(pixel, heights[pixel], queue, first, last)
                    lowest = min(lowest, np.int64(heights[pixel]))
                    break
    while lowest < OUTSIDE:
        pixel = first[lowest]
        # this chain is empty; a lower pixel that is reached later sets `lowest` back
        if pixel < 0:
            lowest += 1
            continue
        first[lowest] = queue[pixel]
        room = _room(pixel, planes, rows, columns)
        for k in range(6):
            if room[k]:
                beside = pixel + steps[k]
                if labels[beside] == 0 and heights[beside] != OUTSIDE:
                    # labelled when it begins to wait, so that each pixel waits once and the first to reach it wins
                    labels[beside] = labels[pixel]
                    _append(beside, heights[beside], queue, first, last)
                    lowest = min(lowest, np.int64(heights[beside]))
