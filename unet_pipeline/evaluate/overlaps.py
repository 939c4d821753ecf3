"""Overlaps of objects: the sparse, additive count of label pairs from which the scores of objects follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unet_pipeline.errors import PipelineError

LARGEST_ID = 2**32 - 1
"""The largest label a block may hold."""


@dataclass(frozen=True, eq=False)
class OverlapTable:
    """The number of pixels that each pair of a reference label and a result label shares: a sparse contingency table.

    Rows are unique and sorted by (reference, result); 0 is background, and pairs with 0 are kept, so that the
    areas of all labels follow from the table. Tables of the blocks of an image add up to the table of the image.
    """

    reference: NDArray[np.uint64]
    """(rows,) label in the reference"""
    result: NDArray[np.uint64]
    """(rows,) label in the result"""
    pixels: NDArray[np.int64]
    """(rows,) number of pixels with exactly these two labels"""

    @classmethod
    def of(cls, reference: ArrayLike, result: ArrayLike, plane: int = 0) -> OverlapTable:
        """Count the overlaps in one block.

        Args:
            reference: integers of any shape, 0 is background, ids up to 2^32 - 1. Leave out pixels that must not
                count (nobody annotated them) before the call: `of(reference[annotated], result[annotated])`.
            result: integers of the same shape.
            plane: for 2D objects whose ids start anew in each plane: the plane's number, from 0, by which equal ids
                of different planes stay different objects (id + plane · 2^32). Keep 0 where ids span the planes.

        Raises:
            PipelineError: shapes differ, a value is negative, too large or not an integer.
        """
        rows, columns = integers(reference, "reference labels"), integers(result, "result labels")
        check_same_shape(rows, columns)
        rows, columns = rows.ravel(), columns.ravel()
        starts = _run_starts(rows, columns)
        lengths = np.diff(starts, append=rows.size)
        return _grouped(in_plane(rows[starts], plane), in_plane(columns[starts], plane), lengths)

    @classmethod
    def merge(cls, tables: Iterable[OverlapTable]) -> OverlapTable:
        """Add many tables at once; of no tables, the empty one. Faster than `+` one after the other."""
        parts = list(tables) or [cls.of(np.zeros(0, np.uint8), np.zeros(0, np.uint8))]
        return _grouped(
            np.concatenate([part.reference for part in parts]),
            np.concatenate([part.result for part in parts]),
            np.concatenate([part.pixels for part in parts]),
        )

    def __add__(self, other: OverlapTable) -> OverlapTable:
        """Return the table of both regions together."""
        return OverlapTable.merge((self, other))

    def reference_areas(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the ids (n,) of the reference's objects (without 0), ascending, and their areas (n,) in pixels."""
        return areas(self.reference, self.pixels)

    def result_areas(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the ids (n,) of the result's objects (without 0), ascending, and their areas (n,) in pixels."""
        return areas(self.result, self.pixels)


@dataclass(frozen=True, eq=False)
class ObjectPairs:
    """The objects of a table and the pairs of them that overlap; background is left out.

    Attributes:
        reference_areas, result_areas: (objects,) px, in the order of ids.
        reference, result: (pairs,) the places of both objects of a pair among these.
        overlap: (pairs,) px.
    """

    reference_areas: NDArray[np.int64]
    result_areas: NDArray[np.int64]
    reference: NDArray[np.intp]
    result: NDArray[np.intp]
    overlap: NDArray[np.int64]

    @classmethod
    def of(cls, table: OverlapTable) -> ObjectPairs:
        """Return the pairs of a table."""
        both = (table.reference > 0) & (table.result > 0)
        references, reference_areas = table.reference_areas()
        results, result_areas = table.result_areas()
        return cls(
            reference_areas,
            result_areas,
            np.searchsorted(references, table.reference[both]),
            np.searchsorted(results, table.result[both]),
            table.pixels[both],
        )

    def iou(self) -> NDArray[np.float64]:
        """Return the intersection over union of each pair, one-dimensional."""
        union = self.reference_areas[self.reference] + self.result_areas[self.result] - self.overlap
        return self.overlap / union


def integers(labels: ArrayLike, what: str) -> NDArray[np.integer[Any]]:
    """Return `labels`, same shape, as integers in 0..2^32 - 1; otherwise raise `PipelineError`, calling it `what`."""
    array = np.asarray(labels)
    if array.dtype.kind not in "bui":
        raise PipelineError(what, "an array of integers", array.dtype)
    array = array.astype(np.uint8) if array.dtype.kind == "b" else array
    # Types that cannot break the bounds need no pass over the data.
    if array.size and array.dtype.kind == "i" and array.min() < 0:
        raise PipelineError(what, "no negative values", array.min())
    if array.size and array.dtype.itemsize == 8 and array.max() > LARGEST_ID:
        raise PipelineError(what, f"at most {LARGEST_ID}", array.max())
    return array


def check_same_shape(reference: NDArray[Any], result: NDArray[Any]) -> None:
    """Raise `PipelineError` where the two arrays differ in shape."""
    if reference.shape != result.shape:
        raise PipelineError("result", f"the reference's shape {reference.shape}", result.shape)


def _run_starts(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.intp]:
    # Labels lie in runs, so counting runs instead of pixels leaves little to sort.
    changes = np.ones(len(first), bool)
    changes[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return np.flatnonzero(changes)


def in_plane(labels: NDArray[np.integer[Any]], plane: int) -> NDArray[np.uint64]:
    """Return ids (n,) that differ from those of other planes: id + plane · 2^32; 0 stays 0."""
    ids = labels.astype(np.uint64)
    return np.where(ids > 0, ids + (np.uint64(plane) << np.uint64(32)), ids)


def _grouped(reference: NDArray[np.uint64], result: NDArray[np.uint64], pixels: NDArray[np.int64]) -> OverlapTable:
    """Add up the pixels of equal pairs and sort the pairs."""
    packs = max(reference.max(initial=0), result.max(initial=0)) <= LARGEST_ID
    # One packed key sorts three times as fast as two keys.
    order = np.argsort((reference << np.uint64(32)) | result) if packs else np.lexsort((result, reference))
    reference, result = reference[order], result[order]
    starts = _run_starts(reference, result)
    counts = np.add.reduceat(pixels[order], starts) if len(starts) else pixels
    return OverlapTable(reference[starts], result[starts], counts.astype(np.int64))


def areas(ids: NDArray[np.uint64], pixels: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the ids (n,) other than 0, ascending, and the sum (n,) of the pixels of each."""
    objects, index = np.unique(ids[ids > 0], return_inverse=True)
    sums = np.zeros(len(objects), np.int64)
    np.add.at(sums, index, pixels[ids > 0])
    return objects, sums
