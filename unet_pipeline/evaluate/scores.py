"""Scores of labels against a reference, from counts alone: the overlaps of objects, and the confusion of classes.

The counts add up, so a volume of any size is scored block by block: `OverlapTable` for objects, `confusion`
for classes. How the foreground is divided is scored in `evaluate.partitions`. A value that has no meaning (a mean over
no objects) is None, never NaN.

Each score forgives other faults, so scores of different kinds must not share an axis. CTC SEG does not punish
objects that are not in the reference; average precision does; V_rand and V_info look at the reference's foreground
only, as do the variation of information and the adapted Rand error, where 0 is best; Dice and IoU of classes cannot
tell one object from two that touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import ObjectPairs, OverlapTable, check_same_shape, integers

AP_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""IoU thresholds 0.50, 0.55 .. 0.95, each the float nearest to its decimal."""


@dataclass(frozen=True)
class Score:
    """A record of plain numbers, ready for JSON."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, nested ones included, as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class SegScore(Score):
    """The segmentation accuracy SEG of the Cell Tracking Challenge."""

    seg: float | None
    """mean Jaccard index over all reference objects, 0..1; None without reference objects"""
    objects: int
    """reference objects"""
    matched: int
    """those more than half covered by one result object"""


def seg_score(table: OverlapTable) -> SegScore:
    """Return CTC SEG (Maška et al. 2014, Bioinformatics 30:1609; Ulman et al. 2017, Nature Methods 14:1141).

    A reference object R is matched with the result object S where |R ∩ S| > ½|R| (there is at most one) and then
    scores J = |R ∩ S| / |R ∪ S|, otherwise 0; SEG is the mean over all reference objects of all planes. S counts
    with its whole area, also outside reference objects. Result objects that match nothing cost nothing.
    """
    pairs = ObjectPairs.of(table)
    covered = 2 * pairs.overlap > pairs.reference_areas[pairs.reference]
    objects = len(pairs.reference_areas)
    return SegScore(
        seg=float(pairs.iou()[covered].sum() / objects) if objects else None,
        objects=objects,
        matched=int(covered.sum()),
    )


@dataclass(frozen=True)
class MatchScore(Score):
    """The number of objects found at one IoU threshold; a ratio of nothing to nothing is None."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None


def average_precision(table: OverlapTable, thresholds: Sequence[float] = AP_THRESHOLDS) -> dict[float, MatchScore]:
    """Return AP = TP / (TP + FP + FN), precision, recall and F1 at each IoU threshold.

    The definition of the 2018 Data Science Bowl, StarDist and Cellpose (which is not the area under a
    precision-recall curve). A pair counts where IoU ≥ threshold; each object is in at most one pair, and as many pairs
    are made as possible. Above 0.5 an object has at most one possible partner, so nothing is left to choose; at
    exactly 0.5 it may have two (an object cut into equal halves), and of those one counts.

    Raises:
        PipelineError: a threshold outside (0, 1].
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise PipelineError("IoU threshold", "above 0 and at most 1", threshold)
    pairs = ObjectPairs.of(table)
    iou = pairs.iou()
    return {float(threshold): _match_score(pairs, iou >= threshold, float(threshold)) for threshold in thresholds}


def _match_score(pairs: ObjectPairs, admitted: NDArray[np.bool_], threshold: float) -> MatchScore:
    from scipy.sparse import csr_array  # here, because most of the start of evaluate would be these two
    from scipy.sparse.csgraph import maximum_bipartite_matching

    references, results = len(pairs.reference_areas), len(pairs.result_areas)
    graph = csr_array(
        (np.ones(admitted.sum(), np.uint8), (pairs.reference[admitted], pairs.result[admitted])),
        shape=(references, results),
    )
    found = int((maximum_bipartite_matching(graph) >= 0).sum()) if admitted.any() else 0
    return MatchScore(
        threshold=threshold,
        true_positives=found,
        false_positives=results - found,
        false_negatives=references - found,
        average_precision=_ratio(found, references + results - found),
        precision=_ratio(found, results),
        recall=_ratio(found, references),
        f1=_ratio(2 * found, references + results),
    )


def confusion(reference: ArrayLike, result: ArrayLike, classes: int, ignore: int | None = None) -> NDArray[np.int64]:
    """Count which class became which; the matrices of the blocks of an image add up.

    Args:
        reference: integers of any shape in 0..classes - 1, or `ignore`.
        result: integers of the same shape in 0..classes - 1.
        classes: number of classes, the background included.
        ignore: the reference's value of pixels nobody annotated; they are left out.

    Returns:
        (classes, classes) int64: pixels of reference class [row] that the result calls [column].

    Raises:
        PipelineError: shapes differ, or a value is no class.
    """
    rows, columns = integers(reference, "reference classes"), integers(result, "result classes")
    check_same_shape(rows, columns)
    if ignore is not None:
        known = rows != ignore
        rows, columns = rows[known], columns[known]
    for what, values in (("reference classes", rows), ("result classes", columns)):
        if values.size and values.max() >= classes:
            raise PipelineError(what, f"0 to {classes - 1}, or the ignored value {ignore}", values.max())
    cell = rows.ravel().astype(np.int64) * classes + columns.ravel().astype(np.int64)
    return np.bincount(cell, minlength=classes * classes).astype(np.int64).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScore(Score):
    """Pixel scores of one class, 0..1; None where the class is in neither, or the ratio has no denominator."""

    index: int
    reference_pixels: int
    result_pixels: int
    dice: float | None
    """2 |A ∩ B| / (|A| + |B|), the F1 of pixels"""
    iou: float | None
    """|A ∩ B| / |A ∪ B|"""
    precision: float | None
    recall: float | None


def dice_iou(confusion: NDArray[np.int64]) -> tuple[ClassScore, ...]:
    """Return the scores of each class from a (classes, classes) matrix of `confusion`, in class order."""
    counts = zip(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0), strict=True)
    return tuple(
        ClassScore(
            index=index,
            reference_pixels=reference,
            result_pixels=result,
            dice=_ratio(2 * shared, reference + result),
            iou=_ratio(shared, reference + result - shared),
            precision=_ratio(shared, result),
            recall=_ratio(shared, reference),
        )
        for index, (shared, reference, result) in enumerate(tuple(map(int, row)) for row in counts)
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
