"""The warping error: the pixels that differ from a reference once harmless shifts of boundaries are forgiven.

Jain et al. 2010, "Boundary learning by optimization with topological constraints", CVPR, 2488-2495: the reference
is deformed towards the result one simple point at a time, so that no cell appears, vanishes, splits, merges, gains or
loses a hole. Pixels that differ even then are errors of topology. Here interior is 4-connected and membrane
8-connected, and beyond the image lies membrane, as in the ISBI 2012 challenge.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from unet_pipeline.evaluate.overlaps import check_same_shape
from unet_pipeline.evaluate.scores import Score
from unet_pipeline.objects.compiled import compiled

_EIGHT_CONNECTED = np.ones((3, 3), bool)


def warp(reference_interior: ArrayLike, probability_of_interior: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Deform the reference towards the thresholded result as far as its topology allows.

    Jain et al. 2010, algorithm 1: among the pixels where reference and result differ and whose flip changes no
    topology (simple points), flip the one whose probability is farthest from the threshold, until there is none.
    Equally far pixels are taken in reading order, so the outcome is the same on every machine. Where it stops
    depends on the order of the flips, so the error is an upper bound of the least possible, here as in the paper.

    Args:
        reference_interior: (y, x) bool.
        probability_of_interior: (y, x) float in [0, 1].
        threshold: interior of the result is where the probability is above it.

    Returns:
        (y, x) bool: the reference, deformed.

    Raises:
        PipelineError: the shapes differ.
    """
    reference, probability = np.asarray(reference_interior, bool), np.asarray(probability_of_interior)
    check_same_shape(reference, probability)
    result = probability > threshold
    source, target = np.pad(reference, 1), np.pad(result, 1)
    distance = np.abs(probability - threshold)[reference != result]
    ordered = np.flatnonzero(source != target)[np.argsort(-distance, kind="stable")]
    if len(ordered):
        _flip(source.ravel(), target.ravel(), ordered, source.shape[1])
    return source[1:-1, 1:-1].copy()


def _is_simple(image: NDArray[np.bool_], pixel: int, width: int) -> bool:
    """Tell whether flipping the pixel keeps the topology: Yokoi's 4-connectivity number of its neighbours is 1.

    Then the neighbours hold one 4-connected piece of interior that touches the pixel by an edge, and one
    8-connected piece of membrane (Bertrand and Malandain 1994, Pattern Recognition Letters 15:169).
    """
    east, west = image[pixel + 1], image[pixel - 1]
    north, south = image[pixel - width], image[pixel + width]
    number = 0
    number += east and not (image[pixel - width + 1] and north)
    number += north and not (image[pixel - width - 1] and west)
    number += west and not (image[pixel + width - 1] and south)
    number += south and not (image[pixel + width + 1] and east)
    return number == 1


def _flip_simple_points(
    source: NDArray[np.bool_], target: NDArray[np.bool_], ordered: NDArray[np.int64], width: int
) -> None:
    """Flip pixels of the padded, flattened `source`; `ordered` holds those that differ, the first to flip first."""
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    rank_of = np.full(source.size, -1, np.int64)
    rank_of[ordered] = np.arange(ordered.size)
    waiting = list(range(ordered.size))  # ranks, ascending, so already a heap
    queued = np.ones(ordered.size, np.bool_)
    while len(waiting) > 0:
        rank = heapq.heappop(waiting)
        queued[rank] = False
        pixel = ordered[rank]
        if not simple_point(source, pixel, width):
            continue  # it may become simple when a neighbour flips, and is queued again then
        source[pixel] = target[pixel]
        for step in around:
            neighbour = rank_of[pixel + step]
            if neighbour >= 0 and not queued[neighbour] and source[pixel + step] != target[pixel + step]:
                heapq.heappush(waiting, neighbour)
                queued[neighbour] = True


simple_point: Callable[[NDArray[np.bool_], int, int], bool] = compiled(_is_simple)
_flip: Callable[[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64], int], None] = compiled(_flip_simple_points)


@dataclass(frozen=True)
class Warping(Score):
    """The pixels that still differ between the warped reference and the result."""

    mismatches: int
    """all of them: the warping error of Jain et al. 2010"""
    splits: int
    """interior of the warped reference without which its cell falls apart"""
    mergers: int
    """membrane of the warped reference that, opened, joins two cells"""


def warping(reference_interior: ArrayLike, probability_of_interior: ArrayLike, threshold: float) -> Warping:
    """Warp planes (y, x) as `warp` does and count the pixels that still differ.

    Splits and mergers are those of them whose flip splits or joins cells; the others open or fill holes, or add or
    drop cells. Splits and mergers as a share of all pixels are what the challenge's "warping error" and the
    U-Net paper's table 1 report.
    """
    warped = np.pad(warp(reference_interior, probability_of_interior, threshold), 1)
    result = np.pad(np.asarray(probability_of_interior) > threshold, 1)
    pixels = np.flatnonzero(warped != result)
    width = warped.shape[1]
    from_east = np.array([1, 1 - width, -width, -1 - width, -1, width - 1, width, width + 1])
    ring = pixels[:, None] + from_east
    cells, membranes = ndimage.label(warped)[0], ndimage.label(~warped, _EIGHT_CONNECTED)[0]
    # Taking a pixel out of a cell, with k pieces of interior beside it and d separate membranes around it, leaves
    # 1 + k - d cells: the Euler number rises by k - 1 and d membranes become one, which closes d - 1 holes.
    falls_apart = _yokoi(warped.ravel()[ring]) > _distinct(membranes.ravel()[ring])
    joins = _distinct(cells.ravel()[ring[:, ::2]]) > 1
    interior = warped.ravel()[pixels]
    return Warping(len(pixels), splits=int((interior & falls_apart).sum()), mergers=int((~interior & joins).sum()))


def _yokoi(ring: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return Yokoi's 4-connectivity number of (n, 8) neighbours, in order round the pixel from the eastern one."""
    edges, corners = ring[:, ::2], ring[:, 1::2]
    return np.asarray((edges & ~(corners & np.roll(edges, -1, axis=1))).sum(axis=1))


def _distinct(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the number of different labels other than 0 in each row."""
    ordered = np.sort(labels, axis=1)
    first = np.ones_like(ordered, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.asarray((first & (ordered > 0)).sum(axis=1))
