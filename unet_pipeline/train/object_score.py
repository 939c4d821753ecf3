"""How well objects are found in validation tiles: a score made in milliseconds, to choose the weights by.

Objects are what is connected, of the target as the network learns it: with its gaps, so nothing has to be grown back or
divided. How objects are made of whole planes is calibrated afterwards, and scored by `evaluate`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
"""Of the probability; that which scores best counts, as it will be calibrated."""

MATCH = 0.5
"""IoU above which an object is found (AP50); no object can be found twice."""


def object_counts(inside: npt.NDArray[np.floating[Any]], target: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Count the objects of tiles and how well they are found.

    Args:
        inside: (n, y, x) probability of the object class.
        target: (n, y, x) uint8 class index, or `IGNORE`, which counts nowhere.

    Returns:
        (thresholds, 4): sum of the SEG of the target's objects, their number, that of the found objects, and of those
        that match. Counts of several tiles add up.
    """
    from scipy.ndimage import label  # here, because it takes longer to start than all else of training but torch

    counts = np.zeros((len(THRESHOLDS), 4))
    for probability, classes in zip(inside, target, strict=True):
        annotated = classes != IGNORE
        reference = label((classes > 0) & annotated)[0]
        for row, threshold in enumerate(THRESHOLDS):
            counts[row] += _counts(reference, label((probability >= threshold) & annotated)[0])
    return counts


def _counts(reference: npt.NDArray[np.int32], found: npt.NDArray[np.int32]) -> tuple[float, int, int, int]:
    """Return one row of `object_counts` for (y, x) labels, which are numbered from 1 without gaps."""
    references, results = int(reference.max()), int(found.max())
    shape = references + 1, results + 1
    joint = np.bincount((reference * shape[1] + found).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    both, areas, sizes = joint[1:, 1:], joint[1:].sum(axis=1, keepdims=True), joint[:, 1:].sum(axis=0, keepdims=True)
    iou = both / (areas + sizes - both)
    seg = np.where(2 * both > areas, iou, 0.0).sum()  # more than half of an object is in one result at most
    return float(seg), references, results, int((iou > MATCH).sum())


def object_score(counts: npt.NDArray[np.float64]) -> float | None:
    """Return the mean of SEG and AP50 at the best threshold, 0 to 1; None where the target has no object.

    Args:
        counts: the array of `object_counts`, of the same shape.
    """
    seg, references, results, matches = counts.T
    if not references[0]:
        return None
    return float(np.max((seg / references + matches / (references + results - matches)) / 2))
