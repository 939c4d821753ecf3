"""The weight map of Ronneberger, Fischer & Brox 2015 (arXiv 1505.04597, section 3, equation 2), as pure functions.

    w(x) = w_c(x) + w0 · exp(−(d1(x) + d2(x))² / (2σ²))

w_c balances the frequencies of the classes over the training set; d1 and d2 are the distances to the nearest and
second-nearest instance. The boundary term is given to background pixels, whose separation it is to teach, as both
official implementations do. It is exactly 0 inside instances, where fewer than two are near, and where it would
be below 1e-6. A pixel therefore depends on its surroundings alone: a block with a halo of `halo_px` gives the values of
the whole plane, bit for bit.

In a volume the distances run across planes too, in px of the plane, the planes `step_px` apart; the rest is the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.objects.box import Slices
from unet_pipeline.objects.distances import BEYOND_RADIUS, near_another, two_distances
from unet_pipeline.objects.volume_distances import NOWHERE, VolumeDistances, near_another_in_volume

Formula = Literal["paper", "release"]
"""`paper`: exp(−(d1+d2)²/(2σ²)); `release`: exp(−(d1+d2)²/σ²), as createGapWeights.m of the official release."""

SMALLEST_TERM = 1e-6
BAND = 64
"""Rows whose exponentials are computed together."""


def boundary_term(labels: NDArray[Any], w0: float, sigma_px: float, formula: Formula = "paper") -> NDArray[np.float32]:
    """Return the second summand of the weight map.

    Args:
        labels: (y, x) instances of any integer type, 0 background. Touching instances stay touching: see `open_gaps`.
        w0: greatest weight, at least 0; the paper has 10.
        sigma_px: width, above 0 px; the paper has 5.
        formula: which of the two published exponents.

    Returns:
        (y, x) float32 in [0, w0]: 0 on instances and beyond the cut-off.

    Raises:
        PipelineError: a parameter out of its range, or labels that are not whole numbers from 0 to 2³²−1.
    """
    cutoff = cutoff_px(w0, sigma_px, formula)
    squared = two_distances(labels, cutoff)
    term = np.zeros(labels.shape, np.float32)
    for top in range(0, len(term), BAND):  # in bands, because float64 values of a whole block would fill the memory
        rows = slice(top, top + BAND)
        d1_squared, d2_squared = squared[0][rows], squared[1][rows]
        between = (d1_squared > 0) & (d2_squared < BEYOND_RADIUS)
        term[rows][between] = _weight(d1_squared[between], d2_squared[between], w0, _gaussian_sigma(sigma_px, formula))
    return term


def volume_boundary_term(
    labels: NDArray[Any],
    step_px: float,
    w0: float,
    sigma_px: float,
    formula: Formula = "paper",
    wanted: Slices | None = None,
) -> NDArray[np.float32]:
    """Return the second summand of the weight map of a volume, or of a block with its halo.

    Where planes of a volume are not annotated, their labels are 0 and no instance of them counts: the term of the
    others follows from annotated planes alone. One without another within the cut-off has the term of `boundary_term`.

    Args:
        labels: (z, y, x) instances of any integer type, 0 background; an instance has one id in all its planes.
        step_px: distance of two planes over the edge of a pixel, above 0.
        w0: as of `boundary_term`, like sigma_px and formula.
        sigma_px: width, above 0 px of the plane.
        formula: which of the two published exponents.
        wanted: planes, rows and columns, with start and stop, of which the term is returned; None: of all.

    Returns:
        (z, y, x) float32 in [0, w0] of the wanted voxels: 0 on instances and beyond the cut-off.

    Raises:
        PipelineError: a parameter out of its range, or labels that are not whole numbers from 0 to 2³²−1.
    """
    planes, rows, columns = wanted or (slice(0, labels.shape[0]), slice(0, labels.shape[1]), slice(0, labels.shape[2]))
    distances = VolumeDistances(labels, cutoff_px(w0, sigma_px, formula), step_px)
    size = planes.stop - planes.start, rows.stop - rows.start, columns.stop - columns.start
    term = np.zeros(size, np.float32)
    for place, row in enumerate(range(rows.start, rows.stop)):
        d1_squared, d2_squared = distances.squared(row, planes, columns)
        between, here = (d1_squared > 0) & (d2_squared < NOWHERE), term[:, place]
        here[between] = _weight(d1_squared[between], d2_squared[between], w0, _gaussian_sigma(sigma_px, formula))
    return term


def _weight(d1_squared: NDArray[Any], d2_squared: NDArray[Any], w0: float, sigma: float) -> NDArray[np.float64]:
    """Return the term of pixels between instances, as one run (n,): the same numbers wherever the block lies."""
    both = np.sqrt(d1_squared, dtype=np.float64) + np.sqrt(d2_squared, dtype=np.float64)
    weight = w0 * np.exp(-(both**2) / (2 * sigma**2))
    return np.where(weight < SMALLEST_TERM, 0, weight)


def cutoff_px(w0: float, sigma_px: float, formula: Formula = "paper") -> float:
    """Return the sum of distances d1 + d2, in px, beyond which the boundary term is below 1e-6 (28.4 for 10 and 5)."""
    _check_range("weigh.w0", w0, "a finite weight of at least 0", math.isfinite(w0) and w0 >= 0, 10)
    sigma = _gaussian_sigma(sigma_px, formula)
    return sigma * math.sqrt(2 * math.log(w0 / SMALLEST_TERM)) if w0 > SMALLEST_TERM else 0.0


def halo_px(w0: float, sigma_px: float, formula: Formula = "paper", gap_px: float = 0) -> int:
    """Return the halo, in px, with which `boundary_term(open_gaps(block))` equals that of the whole plane."""
    _check_gap(gap_px)
    return math.ceil(cutoff_px(w0, sigma_px, formula)) + math.ceil(gap_px)


def halo_planes(step_px: float, w0: float, sigma_px: float, formula: Formula = "paper", gap_px: float = 0) -> int:
    """Return the halo along z, in planes, of `volume_boundary_term(open_volume_gaps(block))`."""
    _check_gap(gap_px)
    return math.ceil(cutoff_px(w0, sigma_px, formula) / step_px) + math.ceil(gap_px / step_px)


def open_gaps(labels: NDArray[Any], gap_px: float) -> NDArray[Any]:
    """Return `labels` with a background gap between touching instances.

    Pixels of an instance whose distance to another instance is at most `gap_px` become background. Both sides give
    way alike: 1 px opens two pixels between instances that share an edge. The release's rule, where two dilations
    with a disk of 1 px meet, is `gap_px=1`.

    An instance that is nowhere further than `gap_px` from others, such as a line of pixels between two cells,
    vanishes: to keep a part of it would need its whole extent, or leave it touching. `vanished_ids` counts them.

    Args:
        labels: (y, x) instances of any integer type, 0 background. The result is a new array of the same type.
        gap_px: at least 0; 0 changes nothing.
    """
    _check_gap(gap_px)
    if gap_px < 1:  # two pixels are never nearer than 1 px
        return labels.copy()
    return np.where(near_another(labels, gap_px), labels.dtype.type(0), labels)


def open_volume_gaps(labels: NDArray[Any], gap_px: float, step_px: float) -> NDArray[Any]:
    """Return `labels` with a gap between touching instances of a volume, those over each other too; see `open_gaps`.

    Instances that touch across planes are `step_px` apart: where that is more than `gap_px`, nothing opens between.

    Args:
        labels: (z, y, x) instances of any integer type, 0 background. The result is a new array of the same type.
        gap_px: at least 0, px of the plane; 0 changes nothing.
        step_px: distance of two planes over the edge of a pixel, above 0.
    """
    _check_gap(gap_px)
    if gap_px < min(1, step_px):  # two voxels are never nearer
        return labels.copy()
    return np.where(near_another_in_volume(labels, gap_px, step_px), labels.dtype.type(0), labels)


def vanished_ids(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Return the instances, ascending, that are in `before` and no longer in `after`.

    Both hold ids in an array of any shape: a whole plane before and after `open_gaps`, or, when working in blocks, the
    ids gathered over all blocks (an instance may vanish from one block and remain in the next).
    """
    return np.setdiff1d(before[before != 0], after)


def class_weights(counts: ArrayLike, where: str = "labels of the training set") -> NDArray[np.float64]:
    """Return w_c, which balances the classes: N / (classes · n_c), N labelled pixels, n_c of them in class c.

    Every class has the same share of the total weight, and the mean weight of a labelled pixel is 1.

    Args:
        counts: (classes,) pixels of each class over the whole training set, ignored pixels left out.
        where: what to name in the error.

    Returns:
        (classes,) float64, above 0.

    Raises:
        PipelineError: a class has no pixel (such as labels that are all background), so that no weight balances it.
    """
    pixels = np.asarray(counts, np.float64)
    absent = np.flatnonzero(~(pixels > 0))
    if pixels.ndim != 1 or not pixels.size or absent.size:
        raise PipelineError(
            where,
            "labelled pixels of every class",
            f"no pixel of class {', '.join(map(str, absent))} (pixels per class: {np.asarray(counts).tolist()})",
            fix="check the labels and their value map, or train on stacks that show every class",
        )
    return np.asarray(pixels.sum() / (pixels.size * pixels))


def _gaussian_sigma(sigma_px: float, formula: Formula) -> float:
    """Return the sigma that, in the paper's formula, gives the chosen one."""
    legal = math.isfinite(sigma_px) and sigma_px > 0
    _check_range("weigh.sigma", sigma_px, "a finite width above 0 px", legal, 5)
    if formula not in get_args(Formula):
        names = get_args(Formula)
        raise PipelineError("weigh.formula", f"one of {', '.join(names)}", formula, nearest_name(formula, names))
    return sigma_px / math.sqrt(2) if formula == "release" else sigma_px


def _check_gap(gap_px: float) -> None:
    _check_range("weigh.gap_px", gap_px, "a finite distance of at least 0 px", math.isfinite(gap_px) and gap_px >= 0, 0)


def _check_range(where: str, value: float, expected: str, legal: bool, nearest: float) -> None:
    if not legal:
        raise PipelineError(where, expected, value, nearest=nearest)
