"""Exact distances to the two nearest distinct labels of a volume, whose voxels may be longer along z.

The squared distance separates into planes and z. Of the labels of one plane only the two nearest can be among the two
nearest of any voxel over or under the same pixel: a third one is further than both from all of them. So the planes'
transform gives two labels a plane, and a pass along z takes the minimum of (distance in the plane)² + (step · planes)²
over the planes within the radius, nearest plane first, and ends as soon as no further plane can matter. One label may
come from many planes, as the nearest of one and the second of another: of each distinct label the least counts.

The time is linear in the voxels for a given radius. Distances are in px of the plane; squares along z are float64, and
every voxel's is the same sum of the same two numbers wherever the block lies, so blocks equal the whole bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.compiled import compiled
from unet_pipeline.objects.distances import BEYOND_RADIUS, FEW_PX, MAX_RADIUS_PX, as_ids, two_labels

NOWHERE = np.inf
"""Squared distance of voxels with no such label within the radius."""
_RUN = 32  # voxels of a row that end their search together


class Candidates(NamedTuple):
    """The two nearest distinct labels of every voxel within its own plane; row by row, as the pass along z takes them.

    Attributes:
        labels: (y, 2, z, x) uint32, the nearest and the second nearest; 0 beyond the radius.
        squares: (y, 2, z, x) int32, px², to each; `distances.BEYOND_RADIUS` beyond the radius.
    """

    labels: NDArray[np.uint32]
    squares: NDArray[np.int32]

    @classmethod
    def of(cls, ids: NDArray[np.uint32], radius_px: float) -> Candidates:
        """Transform each plane of ids (z, y, x)."""
        planes, height, width = ids.shape
        shape = height, 2, planes, width
        found = cls(np.zeros(shape, np.uint32), np.full(shape, BEYOND_RADIUS, np.int32))
        for z, plane in enumerate(ids):
            if plane.any():
                labels, found.squares[:, 0, z], found.squares[:, 1, z] = two_labels(plane, radius_px)
                found.labels[:, :, z] = labels.swapaxes(0, 1)
        return found


class VolumeDistances:
    """Distances in a volume or in a block of one, row by row: a whole volume of float64 would fill the memory."""

    def __init__(self, labels: NDArray[Any], radius_px: float, step_px: float) -> None:
        """Transform the planes; memory is 16 bytes a voxel.

        Args:
            labels: (z, y, x) of any integer type, 0 background, values at most 2³²−1; a label need not be connected.
            radius_px: distances up to and including this count, in [0, 32000] px of the plane.
            step_px: distance of two planes over the edge of a pixel, finite and above 0.

        Raises:
            PipelineError: labels that are not a volume of whole numbers from 0 to 2³²−1, a radius or step out of range.
        """
        ids = _checked(labels, radius_px, step_px)
        self._found, self._square_px, self._limit = Candidates.of(ids, radius_px), step_px**2, largest_square(radius_px)
        self._reach = planes_within(radius_px, step_px, len(ids))
        planes, height, width = ids.shape
        self._only = np.zeros((height, planes, -(-width // _RUN)), np.int64)
        _only_labels(self._found.labels, self._only)

    def squared(self, y: int, planes: slice, columns: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the squared distances to the nearest and to the second nearest label, px², of one row of all planes.

        Args:
            y: the row, counted in the volume or block that was given.
            planes: with start and stop; nothing is searched elsewhere.
            columns: likewise.

        Returns:
            Two arrays (planes, columns) float64: 0 on a label; `NOWHERE` beyond the radius.
        """
        size = planes.stop - planes.start, columns.stop - columns.start
        nearest, second = np.empty(size), np.empty(size)
        if nearest.size:
            labels, squares, only = self._found.labels[y], self._found.squares[y], self._only[y]
            corner = np.array([planes.start, columns.start])
            _search_along_z(labels, squares, only, corner, self._reach, self._square_px, self._limit, nearest, second)
        return nearest, second


def near_another_in_volume(labels: NDArray[Any], radius_px: float, step_px: float) -> NDArray[np.bool_]:
    """Return which labelled voxels have another label within the radius, (z, y, x) bool.

    Args:
        labels: (z, y, x) of any integer type, 0 background, values at most 2³²−1.
        radius_px: distances up to and including this count, at least 0 px of the plane.
        step_px: distance of two planes over the edge of a pixel, finite and above 0.
    """
    ids = _checked(labels, radius_px, step_px)
    if radius_px > FEW_PX:
        distances = VolumeDistances(ids, radius_px, step_px)
        planes, height, width = ids.shape
        near = np.asarray(ids != 0)
        for y in range(height):
            near[:, y] &= distances.squared(y, slice(0, planes), slice(0, width))[1] < NOWHERE
        return near
    # few enough neighbours to look at each one; a voxel is done at the first that has another label
    limit, square_px, radius = largest_square(radius_px), step_px**2, math.floor(radius_px)
    deep, span = planes_within(radius_px, step_px, len(labels)), range(-radius, radius + 1)
    around = [
        (z, y, x)
        for z in range(-deep, deep + 1)
        for y in span
        for x in span
        if (z, y, x) != (0, 0, 0) and y * y + x * x + square_px * (z * z) <= limit
    ]
    found = np.zeros(labels.shape, np.bool_)
    _look_around(ids, np.array(around, np.int64).reshape(-1, 3), found)
    return found


def planes_within(radius_px: float, step_px: float, planes: int) -> int:
    """Return how many planes further on can still lie within the radius, at most all of them."""
    return min(planes, math.floor(radius_px / step_px) + 1)


def largest_square(radius_px: float) -> float:
    """Return the largest float whose square root is at most the radius."""
    square = radius_px**2
    while math.sqrt(square) > radius_px:
        square = math.nextafter(square, 0)
    while math.sqrt(above := math.nextafter(square, math.inf)) <= radius_px:
        square = above
    return square


def _checked(labels: NDArray[Any], radius_px: float, step_px: float) -> NDArray[np.uint32]:
    """Return labels (z, y, x) as contiguous uint32, or refuse what is no volume, radius or distance of planes."""
    if labels.ndim != 3:
        raise PipelineError("labels", "(z, y, x) whole numbers", f"{labels.ndim}D {labels.dtype}")
    if not 0 <= radius_px <= MAX_RADIUS_PX:
        nearest = MAX_RADIUS_PX if radius_px > 0 else 0
        raise PipelineError("radius_px", f"0 to {MAX_RADIUS_PX} px", radius_px, nearest=nearest)
    if not (math.isfinite(step_px) and step_px > 0):
        raise PipelineError("step_px", "a finite distance of planes above 0 px", step_px, nearest=1)
    planes, height, width = labels.shape
    return as_ids(labels.reshape(planes * height, width)).reshape(labels.shape)


@compiled
def _look_around(ids: Any, offsets: Any, found: Any) -> None:
    """Mark the labelled voxels that have another label at one of the offsets (n, 3)."""
    planes, height, width = ids.shape
    for z in range(planes):
        for y in range(height):
            for x in range(width):
                if ids[z, y, x] != 0:
                    for k in range(len(offsets)):
                        plane, row, column = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
                        if 0 <= plane < planes and 0 <= row < height and 0 <= column < width:
                            other = ids[plane, row, column]
                            if other != 0 and other != ids[z, y, x]:
                                found[z, y, x] = True
                                break


@compiled
def _take(near: Any, far: Any, squares: Any, others: Any, along: Any, first: Any, nearest: Any, second: Any) -> None:
    """Bring both candidates of one plane, for each voxel of a run, into the two least distances of distinct labels.

    near, far: (x) labels of the candidates; squares, others: (x) their squared distances in the plane.
    first, nearest, second: (x) label of the nearest so far, its squared distance, that of the next other label. The
    label of the second need not be known: should it come nearer than the first, the first takes its place.
    """
    # without branches, so that the loop becomes vector instructions
    for x in range(first.size):
        one, d1, d2 = first[x], nearest[x], second[x]
        square, label = squares[x] + along, np.int64(near[x])
        d2 = d2 if label == one else min(d2, max(square, d1))
        one = label if square < d1 else one
        d1 = min(square, d1)
        square, label = others[x] + along, np.int64(far[x])
        d2 = d2 if label == one else min(d2, max(square, d1))
        first[x] = label if square < d1 else one
        nearest[x] = min(square, d1)
        second[x] = d2


@compiled
def _any_beyond(squares: Any, along: Any) -> bool:
    """Return whether any of the squares is larger."""
    found = 0
    for x in range(squares.size):  # not `max`, whose care for NaN is no vector instruction
        found |= squares[x] > along
    return found != 0


@compiled
def _only_labels(labels: Any, only: Any) -> None:
    """Fill the only label in sight of each run of a plane (y, z, runs), 0 if there is none, -1 if there are several."""
    height, _, planes, width = labels.shape
    for y in range(height):
        for z in range(planes):
            for x in range(width):
                found, run = np.int64(labels[y, 0, z, x]), x // _RUN
                if labels[y, 1, z, x] != 0 or (found != 0 and only[y, z, run] != 0 and only[y, z, run] != found):
                    only[y, z, run] = -1
                elif found != 0:
                    only[y, z, run] = found


@compiled
def _only_in_sight(only: Any, z: int, reach: int, run: int) -> int:
    """Return the only label over, in and under a run, 0 if there is none at all, -1 if there are several."""
    label = np.int64(0)
    for plane in range(max(0, z - reach), min(len(only), z + reach + 1)):
        found = only[plane, run]
        if found < 0 or (found != 0 and label != 0 and found != label):
            return -1
        label = max(label, found)
    return int(label)


@compiled
def _search_along_z(
    labels: Any,
    squares: Any,
    only: Any,
    corner: Any,
    reach: int,
    square_px: float,
    limit: float,
    nearest: Any,
    second: Any,
) -> None:
    """Fill the two squared distances (z, x) of a part of a row that begins at plane corner[0] and column corner[1].

    labels, squares: (2, z, x) the candidates of the row; only: (z, runs) what `_only_labels` found of it.
    """
    planes, begin, end = len(only), corner[1], corner[1] + nearest.shape[1]
    none = np.float64(2.0**31)  # above every square that counts
    first = np.zeros(_RUN, np.int64)
    for place in range(len(nearest)):
        z = corner[0] + place
        for run in range(begin // _RUN, (end - 1) // _RUN + 1):
            left, right = max(begin, run * _RUN), min(end, (run + 1) * _RUN)
            here = slice(left - begin, right - begin)
            label, d1, d2 = first[: right - left], nearest[place, here], second[place, here]
            label[:], d1[:], d2[:] = 0, none, none
            # where one label alone is in sight no second one will come: waiting for it would search the whole radius
            alone = _only_in_sight(only, z, reach, run)
            for k in range(reach + 1 if alone != 0 else 0):
                along = square_px * (k * k)
                if along > limit or not _any_beyond(d1 if alone > 0 else d2, along):
                    break
                for side in range(2 if k > 0 else 1):
                    plane = z + k if side == 0 else z - k
                    if 0 <= plane < planes and only[plane, run] != 0:
                        near, far = labels[0, plane, left:right], labels[1, plane, left:right]
                        to_near, to_far = squares[0, plane, left:right], squares[1, plane, left:right]
                        _take(near, far, to_near, to_far, along, label, d1, d2)
            for x in range(right - left):
                d1[x] = d1[x] if d1[x] <= limit else np.inf
                d2[x] = d2[x] if d2[x] <= limit else np.inf
