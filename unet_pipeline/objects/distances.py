"""Exact distances to the two nearest distinct labels of a plane, in time linear in its pixels.

The squared Euclidean distance separates into columns and rows. Of the labels in one column, only the two nearest
ones can be among the two nearest of any pixel of a row, so it is enough to carry two candidates a column:
pass 1 finds them for every column, pass 2 takes the minimum of (column distance)² + (x − x')² over the columns x'
within the radius, nearest column first, and ends as soon as no further column can matter. (The idea for one label is
that of Felzenszwalb & Huttenlocher, Theory of Computing 8 (2012), 415-428; the pair of distinct labels is ours.)
The compiled code releases the interpreter lock and runs on one core: callers thread over blocks.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.compiled import compiled

BEYOND_RADIUS = np.int32(2**31 - 1)
"""Squared distance of pixels with no such label within the radius."""
MAX_RADIUS_PX = 32_000  # twice its square is an int32: no sum of two squares overflows

FEW_PX = 3.0
"""Up to this radius, at most 28 pixels, looking at each neighbour is faster than distances."""

_NONE = np.uint16(2**16 - 1)  # no labelled pixel within the radius in this column
_RUN = 32  # pixels of a row that end their search together


class TwoNearest(NamedTuple):
    """The nearest label of every pixel, and the distances to it and to the nearest of another label.

    Attributes:
        nearest_id: (y, x) uint32, the nearest label, the smallest of those equally near; 0 beyond the radius.
        d1_squared: (y, x) int32, px², to the nearest pixel of that label, 0 on it; `BEYOND_RADIUS` beyond the radius.
        d2_squared: (y, x) int32, px², to the nearest pixel of any other label; `BEYOND_RADIUS` beyond the radius.
    """

    nearest_id: NDArray[np.uint32]
    d1_squared: NDArray[np.int32]
    d2_squared: NDArray[np.int32]


def two_nearest(labels: NDArray[Any], radius_px: float) -> TwoNearest:
    """Return, for every pixel, the two nearest distinct labels within `radius_px`.

    Args:
        labels: (y, x) of any integer type, 0 background, values at most 2³²−1; a label need not be connected.
        radius_px: distances up to and including this count, in [0, 32000] px (larger: cut to the diagonal).

    Distances run from pixel centre to pixel centre. The result depends on nothing beyond `radius_px` of a pixel, so a
    block with a halo of that width gives the same values as the whole plane. Working memory is 4 bytes/px beside
    the result (12 bytes/px), and 4 more if `labels` is not uint32.

    Raises:
        PipelineError: labels that are not whole numbers from 0 to 2³²−1, or a radius beyond int32.
    """
    ids = as_ids(labels)
    (nearest_id,), d1_squared, d2_squared = _nearest(ids, radius_px, 1)
    return TwoNearest(nearest_id, d1_squared, d2_squared)


def two_distances(labels: NDArray[Any], radius_px: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return d1_squared and d2_squared of `two_nearest`, (y, x) each, in 4 bytes/px less."""
    return _nearest(as_ids(labels), radius_px, 0)[1:]


def two_labels(
    labels: NDArray[Any], radius_px: float
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int32]]:
    """Return both labels of `two_nearest`, (2, y, x) uint32, 0 beyond the radius, d1_squared and d2_squared."""
    return _nearest(as_ids(labels), radius_px, 2)


def _nearest(
    ids: NDArray[np.uint32], radius_px: float, count: int
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int32]]:
    """Return so many of the nearest labels, (count, y, x), and the two distances."""
    radius = _whole_radius(ids, radius_px)
    shape = ids.shape
    result = np.empty((count, *shape), np.uint32), np.empty(shape, np.int32), np.empty(shape, np.int32)
    if ids.size:
        # pass 1 looks downwards only: what lies above a row, pass 2 carries along as it goes down
        near, far = np.empty(ids.shape, np.uint16), np.empty(ids.shape, np.uint16)
        _scan_below(ids, radius, near, far)
        _scan_rows(ids, radius, _largest_square(min(radius_px, radius + 1)), near, far, *result)
    return result


def near_another(labels: NDArray[Any], radius_px: float) -> NDArray[np.bool_]:
    """Return which labelled pixels have another label within the radius, (y, x) bool.

    Args:
        labels: (y, x) of any integer type, 0 background, values at most 2³²−1.
        radius_px: distances up to and including this count, at least 0 px.
    """
    if radius_px > FEW_PX:
        d1_squared, d2_squared = two_distances(labels, radius_px)
        return np.asarray((d1_squared == 0) & (d2_squared < BEYOND_RADIUS))
    # few enough neighbours to look at each one; a pixel is done at the first that has another label
    ids, radius = as_ids(labels), math.floor(radius_px)
    span = range(-radius, radius + 1)
    around = [(y, x) for y in span for x in span if 0 < y * y + x * x <= radius_px**2]
    offsets = np.array(around, np.int64).reshape(-1, 2)
    found = np.zeros(ids.shape, np.bool_)
    _look_around(ids, offsets, found)
    return found


def grow(labels: NDArray[Any], radius_px: float) -> NDArray[Any]:
    """Return `labels` with every background pixel within `radius_px` of a label given the nearest one.

    Args:
        labels: (y, x) of any integer type, 0 background. The result has the same type.
        radius_px: at least 0; of labels equally near the smallest wins.
    """
    near = two_nearest(labels, radius_px)
    return near.nearest_id.astype(labels.dtype)


def as_ids(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Return labels (y, x) of any integer type as contiguous uint32; a PipelineError names what does not fit."""
    fix = "give one whole number per instance and 0 for background (a mask of true and false has to be labelled first)"
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise PipelineError("labels", "(y, x) whole numbers", f"{labels.ndim}D {labels.dtype}", fix=fix)
    if labels.size and labels.dtype not in (np.uint8, np.uint16, np.uint32):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= 2**32:
            raise PipelineError("labels", "values in 0..4294967295", f"{low}..{high}", fix=fix)
    return np.ascontiguousarray(labels, np.uint32)


def _whole_radius(ids: NDArray[np.uint32], radius_px: float) -> int:
    """Return the largest whole offset in rows or columns that counts, px."""
    if not radius_px >= 0:
        raise PipelineError("radius_px", "a distance of at least 0 px", radius_px, nearest=0)
    radius = math.floor(min(radius_px, math.hypot(*ids.shape) + 1))
    if radius > MAX_RADIUS_PX:
        raise PipelineError("radius_px", f"at most {MAX_RADIUS_PX} px", radius_px, nearest=MAX_RADIUS_PX)
    return radius


def _largest_square(radius_px: float) -> int:
    """Return the largest whole number whose square root, as a float, is at most `radius_px`."""
    square = math.floor(radius_px**2)
    return square + 1 if math.sqrt(square + 1) <= radius_px else square


@compiled
def _look_around(ids: Any, offsets: Any, found: Any) -> None:
    """Mark the labelled pixels that have another label at one of the offsets (n, 2)."""
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            if ids[y, x] != 0:
                for k in range(len(offsets)):
                    row, column = y + offsets[k, 0], x + offsets[k, 1]
                    if 0 <= row < height and 0 <= column < width:
                        other = ids[row, column]
                        if other != 0 and other != ids[y, x]:
                            found[y, x] = True
                            break


@compiled
def _scan_below(ids: Any, radius: int, near: Any, far: Any) -> None:
    """Count the rows down to the nearest labelled pixel in the column, and to the nearest of another label.

    near, far: (y, x) uint16, filled here; 0 on a label itself; `_NONE` further than `radius` rows away.
    """
    height, width = ids.shape
    near[height - 1] = np.where(ids[height - 1] != 0, np.uint16(0), _NONE)
    far[height - 1] = _NONE
    for y in range(height - 2, -1, -1):
        for x in range(width):
            below, beyond = near[y + 1, x], far[y + 1, x]
            if ids[y, x] == 0:
                near[y, x] = below + 1 if below < radius else _NONE
            else:
                near[y, x] = 0
                # the nearest label below becomes the second one; if it is this pixel's own, the second one stays
                if below != _NONE and ids[y + 1 + below, x] != ids[y, x]:
                    beyond = below
            far[y, x] = beyond + 1 if beyond < radius else _NONE


@compiled
def _insert(key: Any, first: Any, second: Any) -> Any:
    """Return the two smallest keys of distinct labels, given those so far and one more key.

    A key is an int64: squared distance in the high half, label in the low half, so that one comparison orders by
    distance and then by label. Without branches, so that the loops over columns become vector instructions.
    """
    same = (key ^ first) & 0xFFFFFFFF == 0
    other = min(second, max(key, first))
    return min(key, first), second if same else other


@compiled
def _step_above(row: Any, y: int, rows: Any, labels: Any) -> None:
    """Bring row y of the labels into the two nearest distinct labels at or above each pixel.

    rows, labels: (2, x) int64, the row where each was last seen and the label; 0 for none yet.
    """
    for x in range(row.size):
        label = np.int64(row[x])
        # only a new label moves the former one to second place; the same label again is just nearer
        changed = label != 0 and label != labels[0, x]
        rows[1, x] = rows[0, x] if changed else rows[1, x]
        labels[1, x] = labels[0, x] if changed else labels[1, x]
        rows[0, x] = y if label != 0 else rows[0, x]
        labels[0, x] = label if label != 0 else labels[0, x]


@compiled
def _merge_columns(
    ids: Any, y: int, radius: int, near: Any, far: Any, rows: Any, labels: Any, none: Any, columns: Any
) -> None:
    """Write the keys of the two nearest distinct labels of every column, at row y, to columns (2, x) int64."""
    for x in range(ids.shape[1]):
        first = second = none
        # of a column no third label can matter: two others are nearer, from every pixel of the row
        for k in range(2):
            up = y - rows[k, x]
            found = labels[k, x] != 0 and up <= radius
            first, second = _insert(up * up << 32 | labels[k, x] if found else none, first, second)
        if near[y, x] != _NONE:
            down = np.int64(near[y, x])
            first, second = _insert(down * down << 32 | np.int64(ids[y + down, x]), first, second)
        if far[y, x] != _NONE:
            down = np.int64(far[y, x])
            first, second = _insert(down * down << 32 | np.int64(ids[y + down, x]), first, second)
        # a square beyond the limit counts as none, whatever its label
        columns[0, x], columns[1, x] = min(first, none), min(second, none)


@compiled
def _only_label(near: Any, far: Any, none: Any) -> int:
    """Return the only label among the columns' keys, 0 if there is none at all, -1 if there are several."""
    label = np.int64(0)
    for x in range(near.size):
        if near[x] < none:
            found = near[x] & 0xFFFFFFFF
            if far[x] < none or (label != 0 and label != found):
                return -1
            label = found
    return int(label)


@compiled
def _search(near: Any, far: Any, radius: int, none: Any, first: Any, second: Any) -> None:
    """Find the two smallest keys of distinct labels for a run of x pixels, over the columns within the radius.

    near, far: (radius + x + radius) int64, the two keys of each column; first, second: (x) int64, filled here, holding
    the key of "none" at first.
    """
    # where one label alone is in sight no second one will come: waiting for it would search to the end of the radius
    only = _only_label(near, far, none)
    # nearest columns first, left and right together: column k can give no square below k²
    for k in range(radius + 1 if only != 0 else 0):
        near_left, near_right = near[radius - k :], near[radius + k :]
        far_left, far_right = far[radius - k :], far[radius + k :]
        square, worst = np.int64(k * k << 32), np.int64(0)
        # the whole run shares k, so that the compiler makes vector instructions of this loop
        for x in range(first.size):
            a, b = _insert(near_left[x] + square, first[x], second[x])
            a, b = _insert(far_left[x] + square, a, b)
            a, b = _insert(near_right[x] + square, a, b)
            a, b = _insert(far_right[x] + square, a, b)
            first[x], second[x] = a, b
            worst = max(worst, a if only > 0 else b)
        if worst >> 32 < (k + 1) ** 2:  # not on equality: a smaller label as near must still win
            return


@compiled
def _scan_rows(
    ids: Any, radius: int, limit: int, near: Any, far: Any, nearest: Any, d1_squared: Any, d2_squared: Any
) -> None:
    """Fill the labels (none, one or two) and the distances, row by row, from the two nearest labels of every column."""
    height, width = ids.shape
    none = np.int64(limit + 1) << 32
    rows, labels = np.zeros((2, width), np.int64), np.zeros((2, width), np.int64)
    # columns beyond both sides hold "none", so that the search needs no test for the edge
    columns = np.full((2, width + 2 * radius), none)
    first, second = np.empty(width, np.int64), np.empty(width, np.int64)
    for y in range(height):
        _step_above(ids[y], y, rows, labels)
        _merge_columns(ids, y, radius, near, far, rows, labels, none, columns[:, radius : radius + width])
        first[:], second[:] = none, none
        # in short runs: one pixel far from every label would else keep its whole row searching
        for start in range(0, width, _RUN):
            run, seen = slice(start, start + _RUN), slice(start, start + _RUN + 2 * radius)
            _search(columns[0, seen], columns[1, seen], radius, none, first[run], second[run])
        if len(nearest) > 0:
            for x in range(width):
                nearest[0, y, x] = first[x] & 0xFFFFFFFF
        if len(nearest) > 1:
            for x in range(width):
                nearest[1, y, x] = second[x] & 0xFFFFFFFF
        for x in range(width):
            d1_squared[y, x] = first[x] >> 32 if first[x] < none else BEYOND_RADIUS
            d2_squared[y, x] = second[x] >> 32 if second[x] < none else BEYOND_RADIUS
