"""Pieces divided at their necks: the basins of the distance to what lies beside, joined where no neck parts them.

Pixels are taken from the deepest on, as they come out of water that falls. One that touches no basin begins one; one
that touches several is where they meet, a neck as wide as twice its distance. There the basins of a piece join unless
the neck is narrower than a share of the shallower basin, and by more than a pixel, which the raster alone makes. (A
watershed of the inverted distance whose basins are merged by their dynamics, Grimaud 1992; here relative to the depth,
so that one number serves small and large objects.)

A piece is divided by its own pixels, and by those near it where distances are averaged. Of equally deep pixels the
first in raster order goes first, so there is one outcome.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.compiled import compiled
from unet_pipeline.objects.distances import two_distances
from unet_pipeline.objects.flood import OUTSIDE

STEPS_A_PX = 16
"""Steps in which a distance is counted: finer than the raster tells apart."""
REACH_PX = 255
"""Distances beyond are this: a plateau, which nothing divides."""
DEEPEST = STEPS_A_PX * REACH_PX
TRUNCATE = 4.0
"""Standard deviations after which a Gaussian ends."""


def reach_px(smooth_px: float) -> int:
    """Return how far from a pixel lies what `basin_heights` of it depends on, px."""
    return REACH_PX + 1 + smooth_reach(smooth_px)


def smooth_reach(smooth_px: float) -> int:
    """Return how far from a pixel lies what an average around it depends on, in the unit of the deviation."""
    return int(TRUNCATE * smooth_px + 0.5)


def basin_heights(pieces: NDArray[np.uint32], smooth_px: float = 0.0) -> NDArray[np.uint16]:
    """Return how far below the deepest possible pixel each pixel of a piece is, (y, x) uint16; 0 beside pieces.

    Args:
        pieces: (y, x), 0 beside them. The result at a pixel depends on what lies within `reach_px` of it; beyond the
            edge of the array lies nothing, so a piece cut there is not shallow.
        smooth_px: standard deviation of a Gaussian that the distances are averaged by, px; 0 leaves them as they are.
            An outline that is rough gives every object several deepest points; averaged, they are one.

    The distance is that to the nearest pixel of no piece or of another, from centre to centre.
    """
    return heights_of(pieces, np.sqrt(plane_squares(pieces)) * STEPS_A_PX, smooth_px)


def plane_squares(pieces: NDArray[np.uint32], *over: NDArray[np.uint32]) -> NDArray[np.int32]:
    """Return the squared distance of each pixel to what lies beside pieces in its plane, (y, x), 0 to `REACH_PX`², px².

    Args:
        pieces: (y, x), 0 beside them; the reach is `REACH_PX` + 1.
        over: the planes above and below, where another piece there is beside, too; same shape.
    """
    beside = pieces == 0
    # where pieces touch, the pixels on both sides count as beside
    for axis in (0, 1):
        near, far = (np.moveaxis(pieces, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        touch = (near != far) & (near > 0) & (far > 0)
        moved = np.moveaxis(beside, axis, 0)
        moved[:-1] |= touch
        moved[1:] |= touch
    for other in over:
        beside |= (other != pieces) & (other > 0)
    squares = two_distances(beside.astype(np.uint8), REACH_PX)[0]
    return np.minimum(squares, np.int32(REACH_PX**2))


def heights_of(pieces: NDArray[np.uint32], steps: NDArray[np.float64], smooth_px: float = 0.0) -> NDArray[np.uint16]:
    """Return `basin_heights` of distances in steps, (y, x), which are averaged in their plane first."""
    if smooth_px:
        from scipy import ndimage

        # each value is a sum in one order of what is near, so the blocks that a plane is cut into do not show
        steps = ndimage.gaussian_filter(steps, smooth_px, mode="nearest", truncate=TRUNCATE)
    return np.where(pieces > 0, DEEPEST - np.rint(steps).astype(np.uint16), np.uint16(0))


def basins(heights: NDArray[np.uint16], labels: NDArray[np.uint32], queue: NDArray[np.int64], neck: float) -> int:
    """Number the basins of one piece, in place, and return how many there are.

    Args:
        heights: (planes, y, x) uint16, contiguous, `DEEPEST` minus the distance in steps; `flood.OUTSIDE` beside the
            piece. Neighbours share an edge in their plane, or lie over each other in neighbouring planes.
        labels: (planes, y, x) uint32, contiguous, 0 everywhere; filled with 1..n in the order of their first pixels.
        queue: (planes * y * x,) int64, for the order of the pixels; its content does not matter.
        neck: share of the shallower basin's depth, 0..1.
    """
    planes, rows, columns = labels.shape
    return int(_basins(heights.reshape(-1), labels.reshape(-1), queue, planes, rows, columns, neck))


@compiled
def _root(parent: Any, basin: int) -> Any:
    while parent[basin] != basin:
        parent[basin] = parent[parent[basin]]
        basin = parent[basin]
    return basin


@compiled
def _deeper(depth: Any, one: int, other: int) -> Any:
    """Return the deeper of two basins; of equally deep ones the older."""
    if depth[one] == depth[other]:
        return min(one, other)
    return one if depth[one] > depth[other] else other


@compiled
def _longer(values: Any) -> Any:
    return np.append(values, np.zeros_like(values))


@compiled
def _meet(roots: Any, met: int, here: int, neck: float, parent: Any, depth: Any) -> Any:
    """Join the basins that meet at a pixel where this is no neck; return the deepest, which takes the pixel."""
    for a in range(met):
        for b in range(a):
            one, other = _root(parent, roots[a]), _root(parent, roots[b])
            deep = _deeper(depth, one, other)
            shallow = one + other - deep
            if one != other and (here >= neck * depth[shallow] or depth[shallow] - here < STEPS_A_PX):
                parent[shallow] = deep
    best = _root(parent, roots[0])
    for a in range(1, met):
        best = _deeper(depth, best, _root(parent, roots[a]))
    return best


@compiled
def _renumber(labels: Any, parent: Any, count: int) -> int:
    """Number the basins that are left in the order of their first pixels."""
    number, found = np.zeros(count + 1, np.int64), 0
    for pixel in range(labels.size):
        if labels[pixel] != 0:
            root = _root(parent, labels[pixel])
            if number[root] == 0:
                found += 1
                number[root] = found
            labels[pixel] = number[root]
    return found


@compiled
def _basins(heights: Any, labels: Any, queue: Any, planes: int, rows: int, columns: int, neck: float) -> int:
    """Divide flat arrays: queue[pixel] is the next pixel of its height, first[height] the first of a chain."""
    area, first = rows * columns, np.full(DEEPEST + 1, -1, np.int64)
    for pixel in range(labels.size - 1, -1, -1):  # from the last on, so that each chain is in raster order
        if heights[pixel] != OUTSIDE:
            queue[pixel] = first[heights[pixel]]
            first[heights[pixel]] = pixel
    parent, depth, count = np.zeros(64, np.int64), np.zeros(64, np.int64), 0
    steps, roots = np.array([-area, -columns, -1, 1, columns, area]), np.zeros(6, np.int64)
    for height in range(DEEPEST + 1):
        pixel, here = first[height], DEEPEST - height
        while pixel >= 0:
            # flat indices know no edges: a step from the last column would lead into the next row
            plane, row, column = pixel // area, pixel // columns % rows, pixel % columns
            room = (plane > 0, row > 0, column > 0, column < columns - 1, row < rows - 1, plane < planes - 1)
            met = 0
            for k in range(6):
                if room[k] and labels[pixel + steps[k]] != 0:
                    roots[met] = labels[pixel + steps[k]]
                    met += 1
            if met == 0:  # nothing deeper beside it: a basin begins
                count += 1
                if count == parent.size:
                    parent, depth = _longer(parent), _longer(depth)
                parent[count], depth[count] = count, here
                labels[pixel] = count
            else:
                labels[pixel] = _meet(roots, met, here, neck, parent, depth)
            pixel = queue[pixel]
    return _renumber(labels, parent, count)
