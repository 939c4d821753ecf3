"""Faults of a result, object by object: how many of each kind, where the worst lie, and what they cost.

Objects of the reference and of the result belong together where one covers more than half of the other, so

    missed     a reference object that no object covers by more than half, and that is not split
    joined     an object that covers more than half of each of several reference objects
    split      a reference object that holds more than half of each of several objects
    spurious   an object that covers no reference object and lies in none, each by more than half
    rough      a reference object with one object over more than half of it, neither split nor joined, IoU below 1/2

Each reference object whose IoU is nowhere 1/2 has a fault: either no object covers it (missed, split), or one does
(joined, split, rough). All but rough are kinds of Hoover et al. 1996 (IEEE PAMI 18:673), at a tolerance of one half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.evaluate.overlaps import ObjectPairs, OverlapTable, in_plane
from unet_pipeline.objects.box import Box

LISTED = 8
"""Faults of each kind whose place is kept: those that cost most."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of the objects of some labels.

    Attributes:
        ids: (n,) ascending, as in an `OverlapTable`.
        start: (n, 3) first plane, row and column of each.
        stop: (n, 3) the last ones, each plus one.
    """

    ids: NDArray[np.uint64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[Any], box: Box, plane: int) -> Boxes:
        """Return those of one block.

        Args:
            labels: (y, x) ids, 0 background.
            box: where the block lies.
            plane: as for `OverlapTable.of`: its number where ids start anew in each plane, else 0.
        """
        fresh = np.ones(labels.shape, bool)
        fresh[:, 1:] = labels[:, 1:] != labels[:, :-1]
        begins = np.flatnonzero(fresh)  # of runs in rows: a few numbers instead of many pixels
        ends = np.append(begins[1:], labels.size)
        ids = labels.ravel()[begins]
        begins, ends, ids = begins[ids > 0], ends[ids > 0], ids[ids > 0]
        rows, left = np.divmod(begins, max(1, labels.shape[1]))
        first = np.stack([np.zeros_like(rows), rows, left], axis=1) + np.array(box.corner)
        return _grouped(
            in_plane(ids, plane), first, first + np.stack([rows * 0 + 1, rows * 0 + 1, ends - begins], axis=1)
        )

    @classmethod
    def merged(cls, parts: Sequence[Boxes]) -> Boxes:
        """Return the boxes of all blocks together."""
        none = np.zeros((0, 3), np.int64)
        return _grouped(
            np.concatenate([np.zeros(0, np.uint64), *(part.ids for part in parts)]),
            np.concatenate([none, *(part.start for part in parts)]),
            np.concatenate([none, *(part.stop for part in parts)]),
        )


def _grouped(ids: NDArray[np.uint64], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Boxes:
    """Join the boxes of equal ids."""
    order = np.argsort(ids, kind="stable")
    ids, start, stop = ids[order], start[order], stop[order]
    if not len(ids):
        return Boxes(ids, start, stop)
    firsts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    return Boxes(ids[firsts], np.minimum.reduceat(start, firsts), np.maximum.reduceat(stop, firsts))


@dataclass(frozen=True, eq=False)
class _Kind:
    """Faults of one kind.

    Attributes:
        name: of the kind.
        boxes: of the objects that are named: reference or result.
        which: (faults,) their places among these.
        pixels: (faults,) what each costs, px.
        parts: (faults,) how many objects are joined, or how many a reference object was split into; else 0.
    """

    name: str
    boxes: Boxes
    which: NDArray[np.intp]
    pixels: NDArray[np.int64]
    parts: NDArray[np.int64]

    def worst(self) -> Iterator[dict[str, Any]]:
        """Yield the faults that cost most, of equals those with the smallest ids, as `score_records.Fault` has them."""
        for index in np.lexsort((self.which, -self.pixels))[:LISTED].tolist():
            place = self.which[index]
            yield {
                "kind": self.name,
                "object": int(self.boxes.ids[place] & np.uint64(2**32 - 1)),
                "parts": int(self.parts[index]),
                "pixels": int(self.pixels[index]),
                "start": self.boxes.start[place].tolist(),
                "stop": self.boxes.stop[place].tolist(),
            }


def find_faults(table: OverlapTable, reference: Boxes, result: Boxes) -> dict[str, Any]:
    """Return the faults of a result as plain values: the number of each kind, and `worst`, see `score_records.Faults`.

    Args:
        table: overlaps of all objects.
        reference: boxes of the same objects of the reference.
        result: likewise of the result.
    """
    kinds = _kinds(ObjectPairs.of(table), reference, result)
    return {kind.name: len(kind.which) for kind in kinds} | {"worst": [one for kind in kinds for one in kind.worst()]}


def _kinds(pairs: ObjectPairs, reference: Boxes, result: Boxes) -> list[_Kind]:
    references, results, overlap = pairs.reference_areas, pairs.result_areas, pairs.overlap
    covered = 2 * overlap > references[pairs.reference]  # by at most one object
    inside = 2 * overlap > results[pairs.result]  # of at most one reference object
    covers = _Gathered.of(pairs.result, overlap, covered, len(results))
    holds = _Gathered.of(pairs.reference, overlap, inside, len(references))
    all_of = _Gathered.of(pairs.reference, overlap, overlap > 0, len(references))
    all_in = _Gathered.of(pairs.result, overlap, overlap > 0, len(results))
    joined, split = covers.count > 1, holds.count > 1
    is_covered = np.bincount(pairs.reference[covered], minlength=len(references)) > 0
    is_inside = np.bincount(pairs.result[inside], minlength=len(results)) > 0
    rough = covered & (pairs.iou() < 0.5) & ~joined[pairs.result] & ~split[pairs.reference]
    union = references[pairs.reference] + results[pairs.result] - overlap

    def kind(name: str, boxes: Boxes, which: NDArray[np.bool_], pixels: NDArray[np.int64], parts: Any = None) -> _Kind:
        places = np.flatnonzero(which)
        return _Kind(name, boxes, places, pixels[places], places * 0 if parts is None else parts[places])

    return [
        kind("missed", reference, ~is_covered & ~split, references - all_of.most),
        kind("joined", result, joined, covers.total - covers.most, covers.count),
        kind("split", reference, split, holds.total - holds.most, holds.count),
        kind("spurious", result, ~is_inside & (covers.count == 0), results - all_in.most),
        _Kind(
            "rough", reference, pairs.reference[rough], (union - overlap)[rough], np.zeros(int(rough.sum()), np.int64)
        ),
    ]


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What some pairs come to for each object of one side: (n,) each: their number, the sum and the largest overlap."""

    count: NDArray[np.int64]
    total: NDArray[np.int64]
    most: NDArray[np.int64]

    @classmethod
    def of(
        cls, objects: NDArray[np.intp], overlap: NDArray[np.int64], chosen: NDArray[np.bool_], size: int
    ) -> _Gathered:
        """Gather the pairs that are chosen, (pairs,), by the objects of one side, of which there are `size`."""
        total, most = np.zeros(size, np.int64), np.zeros(size, np.int64)
        np.add.at(total, objects[chosen], overlap[chosen])
        np.maximum.at(most, objects[chosen], overlap[chosen])
        return cls(np.bincount(objects[chosen], minlength=size), total, most)
