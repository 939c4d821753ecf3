"""Differences of a result from its reference, object by object: missed, added, joined or split."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.evaluate.overlaps import OverlapTable

Ids = npt.NDArray[Any]


class Verdict(IntEnum):
    """The verdict on a pixel."""

    BACKGROUND = 0
    """background of both"""
    AGREED = 1
    """in an object of the reference and in the object found for it"""
    MISSED = 2
    """in an object of the reference alone"""
    SPURIOUS = 3
    """in an object of the result alone"""
    OTHER = 4
    """in objects of both that do not belong together: joined, split, or of another class"""
    UNKNOWN = 5
    """not annotated"""


COLOURS: dict[Verdict, tuple[int, int, int]] = {
    Verdict.BACKGROUND: (250, 250, 250),
    Verdict.AGREED: (200, 206, 213),
    Verdict.MISSED: (213, 94, 0),
    Verdict.SPURIOUS: (0, 114, 178),
    Verdict.OTHER: (240, 228, 66),
    Verdict.UNKNOWN: (130, 138, 148),
}
"""Red, green, blue; the strong ones of Okabe and Ito (2008), which readers with any colour vision can tell apart."""


def partners(reference: Ids, found: Ids) -> dict[int, int]:
    """Return the object found for each object of the reference: {reference id: found id}.

    The found object covers more than half of the reference object (the match of CTC SEG) and shares more pixels with it
    than with any other (of equals the smallest id counts). So of two objects joined into one, one has a partner.

    Args:
        reference: (y, x) instance ids, 0 background.
        found: (y, x) likewise.
    """
    table = OverlapTable.of(reference, found)
    areas = dict(zip(*(part.tolist() for part in table.reference_areas()), strict=True))
    most: dict[int, tuple[int, int]] = {}
    rows = zip(table.reference.tolist(), table.result.tolist(), table.pixels.tolist(), strict=True)
    for one, other, pixels in rows:
        if one and other and pixels > most.get(other, (0, 0))[0]:
            most[other] = (pixels, one)
    return {one: other for other, (pixels, one) in most.items() if 2 * pixels > areas[one]}


def translated(ids: Ids, names: dict[int, int]) -> npt.NDArray[np.uint64]:
    """Return ids (y, x), each replaced by the one it has in `names`, 0 where it has none."""
    ordered = np.array([0, *sorted(names)], np.uint64)
    given = np.array([0, *(names[one] for one in sorted(names))], np.uint64)
    place = np.minimum(np.searchsorted(ordered, ids.astype(np.uint64)), len(ordered) - 1)
    return np.where(ordered[place] == ids, given[place], np.uint64(0))


def verdicts(
    reference: Ids, found: Ids, annotated: npt.NDArray[np.bool_], same_class: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Return the `Verdict` of each pixel.

    Args:
        reference: (y, x) instance ids, 0 background.
        found: (y, x) likewise.
        annotated: (y, x) where the reference says anything.
        same_class: (y, x) where both give the same class.

    Returns:
        (y, x) uint8.
    """
    pairs = partners(np.where(annotated, reference, 0), np.where(annotated, found, 0))
    inside, result = reference > 0, found > 0
    agreed = inside & result & same_class & (translated(reference, pairs) == found)
    verdict = np.full(reference.shape, Verdict.BACKGROUND, np.uint8)
    verdict[inside & ~result] = Verdict.MISSED
    verdict[~inside & result] = Verdict.SPURIOUS
    verdict[inside & result] = Verdict.OTHER
    verdict[agreed] = Verdict.AGREED
    verdict[~annotated] = Verdict.UNKNOWN
    return verdict


def as_verdicts(verdict: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return verdicts (y, x) in their colours, (y, x, 3)."""
    return np.array([COLOURS[one] for one in Verdict], np.uint8)[verdict]


def fractions(verdict: npt.NDArray[np.uint8]) -> dict[Verdict, float]:
    """Return the fraction of each verdict (y, x) among the annotated pixels, 0..1; of none, 0."""
    counts = np.bincount(verdict.ravel(), minlength=len(Verdict))
    annotated = int(counts.sum() - counts[Verdict.UNKNOWN])
    return {one: int(counts[one]) / annotated if annotated else 0.0 for one in Verdict if one != Verdict.UNKNOWN}
