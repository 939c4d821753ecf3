"""The scores of the ISBI 2012 challenge: cells parted by thin membranes, judged by boundaries and topology.

A plane is scored at each of the challenge's thresholds, 0.0 to 0.9 in steps of 0.1: pixels whose probability of
cell interior is above the threshold are interior, the others membrane. `combine_planes` then joins the planes of a
stack threshold by threshold and takes the best threshold, one for the whole stack, separately for each score:

| score | definition | over the planes | best |
|---|---|---|---|
| V_rand, V_info (ranked by today) | `partitions.v_rand`, `partitions.v_info` after `thin_borders` | mean | largest |
| Rand error | 1 - V_rand without thinning, membrane pixels as singletons | pairs are summed | smallest |
| pixel error | 1 - F1 of the interior pixels | pixels are summed | smallest |
| warping error | share of the pixels that still differ after `warping.warp` | pixels are summed | smallest |
| splits and mergers | the challenge's "warping error": of those only what splits or joins cells | as above | smallest |

Planes without any interior in the reference are left out of the two means.

Sources: Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142 (V_rand, V_info, thinning); the challenge's evaluation
page and its script for Fiji (thresholds, aggregation, 4-connected interior). That script thins by a watershed
that leaves lines of one pixel, which it counts as singletons; here no membrane is left inside the reference's
foreground, as in the common Python version. The two differ slightly, so do not mix them in one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import OverlapTable, check_same_shape, integers
from unet_pipeline.evaluate.partitions import PairSums, PartitionScore, pair_sums, v_info, v_rand
from unet_pipeline.evaluate.scores import Score
from unet_pipeline.evaluate.warping import Warping, warping
from unet_pipeline.objects.compiled import compiled

THRESHOLDS = tuple(tenth / 10 for tenth in range(10))
"""The challenge's grid. Finer steps can only raise the scores, so they would not compare with published ones."""


def segments(interior: ArrayLike) -> NDArray[np.int32]:
    """Number the cells of a plane, 1..n in reading order: the 4-connected components of `interior: (y, x)` bool."""
    return np.asarray(ndimage.label(np.asarray(interior, bool))[0], np.int32)


def thin_borders(result_labels: ArrayLike, reference_foreground: ArrayLike) -> NDArray[np.int64]:
    """Grow the labels of a plane over the membranes until none is left inside the reference's foreground.

    In each round every pixel of value 0 takes the largest label among its 8 neighbours, if there is one; the rounds
    end when no pixel of the foreground is 0. Where two labels meet the larger wins, so they must be numbered in a
    repeatable way (`segments` does). Without any label the result stays 0.

    Args:
        result_labels: (y, x) integers, 0 is membrane.
        reference_foreground: (y, x) bool, where the score will look.

    Returns:
        (y, x) int64.

    Raises:
        PipelineError: shapes differ, or the labels are not integers in 0..2^32 - 1.
    """
    labels, foreground = integers(result_labels, "result labels"), np.asarray(reference_foreground, bool)
    check_same_shape(foreground, labels)
    # The rim is -1: it never wins and is never filled, so the loops need no bounds.
    grown = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    front = (grown == 0) & ndimage.binary_dilation(grown > 0, np.ones((3, 3), bool))
    _grow(grown.ravel(), np.pad(foreground, 1).ravel(), np.flatnonzero(front), grown.shape[1])
    return grown[1:-1, 1:-1].copy()


def _grow_rounds(labels: NDArray[np.int64], wanted: NDArray[np.bool_], first: NDArray[np.int64], width: int) -> None:
    """Fill zeros of the padded, flattened `labels` round by round; `first` holds the pixels of the first round."""
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    missing = 0
    for pixel in range(labels.size):
        missing += wanted[pixel] and labels[pixel] == 0
    fronts = np.empty(labels.size, np.int64)  # the pixels of all rounds, one after the other
    taken = np.zeros(labels.size, np.int64)
    for index in range(first.size):
        fronts[index], taken[first[index]] = first[index], 1  # not 0: already in fronts
    begin, end = 0, first.size
    while missing > 0 and begin < end:
        # A round looks at the labels of the round before, so it is decided as a whole before any is written.
        for pixel in fronts[begin:end]:
            for step in around:
                taken[pixel] = max(taken[pixel], labels[pixel + step])
        for pixel in fronts[begin:end]:
            labels[pixel] = taken[pixel]
            missing -= wanted[pixel]
        filled = end
        for pixel in fronts[begin:end]:
            for step in around:
                if labels[pixel + step] == 0 and taken[pixel + step] == 0:
                    taken[pixel + step] = 1
                    fronts[filled] = pixel + step
                    filled += 1
        begin, end = end, filled


_grow: Callable[[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], int], None] = compiled(_grow_rounds)


@dataclass(frozen=True)
class ThresholdScores(Score):
    """One plane at one threshold: the two scores of the plane, and the counts that add up over planes."""

    threshold: float
    v_rand: PartitionScore
    v_info: PartitionScore
    pairs: PairSums
    """without thinning, membrane pixels as singletons"""
    true_positives: int
    """interior pixels of both"""
    false_positives: int
    false_negatives: int
    warping: Warping
    pixels: int
    """all pixels of the plane"""


def isbi_scores(
    probability_of_interior: ArrayLike, reference_labels: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[ThresholdScores, ...]:
    """Score one plane at each threshold.

    Args:
        probability_of_interior: (y, x) float in [0, 1].
        reference_labels: (y, x) integers: 0 membrane, 1..n cells parted by membrane. Of a reference that only tells
            membrane from interior, number the cells first: `segments(labels > 0)`.
        thresholds: ascending, in [0, 1).

    Raises:
        PipelineError: shapes differ, or a value is out of its range.
    """
    reference, probability = integers(reference_labels, "reference labels"), np.asarray(probability_of_interior)
    check_same_shape(reference, probability)
    if reference.ndim != 2:
        raise PipelineError("reference labels", "one plane (y, x)", f"{reference.ndim} axes")
    # Written so that NaN fails too.
    if probability.dtype.kind != "f" or not ((probability >= 0) & (probability <= 1)).all():
        found = f"{probability.dtype} from {probability.min()} to {probability.max()}"
        raise PipelineError("probability of interior", "floats from 0 to 1", found)
    if not all(low < high for low, high in pairwise((-1, *thresholds, 1))) or min(thresholds, default=0) < 0:
        raise PipelineError("thresholds", "ascending values in [0, 1)", thresholds)
    return tuple(_at_threshold(probability, reference, float(threshold)) for threshold in thresholds)


def _at_threshold(
    probability: NDArray[np.floating[Any]], reference: NDArray[np.integer[Any]], threshold: float
) -> ThresholdScores:
    inside, result = reference > 0, probability > threshold
    found = segments(result)
    thinned = OverlapTable.of(reference, thin_borders(found, inside))
    return ThresholdScores(
        threshold=threshold,
        v_rand=v_rand(thinned),
        v_info=v_info(thinned),
        pairs=pair_sums(OverlapTable.of(reference, found), background="singletons"),
        true_positives=int((inside & result).sum()),
        false_positives=int((~inside & result).sum()),
        false_negatives=int((inside & ~result).sum()),
        warping=warping(inside, probability, threshold),
        pixels=reference.size,
    )


@dataclass(frozen=True)
class Best(Score):
    """A score at the threshold that is best for it, of equally good ones the lowest; None where undefined."""

    value: float | None
    threshold: float | None
    split: float | None = None
    """of V_rand and V_info, at the same threshold: falls when cells are cut"""
    merge: float | None = None
    """of V_rand and V_info, at the same threshold: falls when cells are joined"""


@dataclass(frozen=True)
class IsbiScores(Score):
    """The challenge's scores of a stack; the table at the head of this module says what they are."""

    v_rand: Best
    v_info: Best
    rand_error: Best
    pixel_error: Best
    warping_error: Best
    splits_mergers_error: Best
    planes: int
    curves: dict[str, tuple[float | None, ...]]
    """each score at each threshold, and the thresholds themselves as "threshold" """


def combine_planes(planes: Iterable[Sequence[ThresholdScores]]) -> IsbiScores:
    """Join the planes of a stack, as the table at the head of this module says.

    Args:
        planes: what `isbi_scores` returned for each plane, all at the same thresholds, at least one plane.

    Raises:
        PipelineError: there is no plane, or the planes differ in their thresholds.
    """
    scored = [tuple(plane) for plane in planes]
    grids = {tuple(scores.threshold for scores in plane) for plane in scored}
    if len(grids) != 1:
        raise PipelineError("planes", "one or more, at the same thresholds", f"the thresholds {sorted(grids)}")
    joined = [_join(at_threshold) for at_threshold in zip(*scored, strict=True)]
    curves = {name: tuple(scores[name] for scores in joined) for name in (joined[0] if joined else ())}
    return IsbiScores(
        v_rand=_best(curves, "v_rand", largest=True),
        v_info=_best(curves, "v_info", largest=True),
        rand_error=_best(curves, "rand_error"),
        pixel_error=_best(curves, "pixel_error"),
        warping_error=_best(curves, "warping_error"),
        splits_mergers_error=_best(curves, "splits_mergers_error"),
        planes=len(scored),
        curves=curves,
    )


def _join(planes: Sequence[ThresholdScores]) -> dict[str, float | None]:
    """Return each score of a stack at one threshold."""
    agreed = 2 * sum(plane.true_positives for plane in planes)
    differing = sum(plane.false_positives + plane.false_negatives for plane in planes)
    pixels = sum(plane.pixels for plane in planes)
    rand = reduce(add, (plane.pairs for plane in planes)).v_rand(0.5)
    return {
        "threshold": planes[0].threshold,
        "v_rand": _mean(plane.v_rand.value for plane in planes),
        "v_rand_split": _mean(plane.v_rand.split for plane in planes),
        "v_rand_merge": _mean(plane.v_rand.merge for plane in planes),
        "v_info": _mean(plane.v_info.value for plane in planes),
        "v_info_split": _mean(plane.v_info.split for plane in planes),
        "v_info_merge": _mean(plane.v_info.merge for plane in planes),
        "rand_error": None if rand is None else 1 - rand,
        "pixel_error": differing / (agreed + differing) if agreed + differing else None,
        "warping_error": sum(plane.warping.mismatches for plane in planes) / pixels,
        "splits_mergers_error": sum(plane.warping.splits + plane.warping.mergers for plane in planes) / pixels,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _best(curves: dict[str, tuple[float | None, ...]], name: str, largest: bool = False) -> Best:
    known = [(value, index) for index, value in enumerate(curves[name]) if value is not None]
    if not known:
        return Best(value=None, threshold=None)
    value, at = max(known, key=lambda item: (item[0], -item[1])) if largest else min(known)
    split, merge = (curves[f"{name}_{part}"][at] if largest else None for part in ("split", "merge"))
    return Best(value, curves["threshold"][at], split, merge)
