"""Convex hulls of objects, joined over blocks: the pixels in them, counted exactly.

The hull is that of the middles of the four sides of each pixel, and a pixel counts where its centre lies in it or on
its border, as in `skimage.morphology.convex_hull_image`. All is reckoned in whole numbers, in steps of half a pixel. Of
an object that goes on in other blocks, the rows with a corner of the hull are kept: a few, however large it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.compiled import compiled

NONE = 2**62


@dataclass(frozen=True)
class Extents:
    """The rows of some objects: first and last column of each.

    Attributes:
        ids: (rows,) uint32, the object, in groups of one object.
        rows: (rows, 3) int64: row, first column, last column; rows ascend within an object.
    """

    ids: NDArray[np.uint32]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.uint32], local: NDArray[np.int32], corner: tuple[int, int]) -> Extents:
        """Return the rows of all objects of a block.

        Args:
            ids: (n,) ascending.
            local: (y, x) each pixel's object, from 1 in the order of `ids`; 0 is none.
            corner: (row, column) of its plane at which the block begins, px.
        """
        first, last = np.full(len(ids), NONE), np.full(len(ids), -1)
        _heights(local, first, last)
        start = np.append(0, np.cumsum(last - first + 1))
        rows = np.empty((start[-1], 3), np.int64)
        rows[:, 1], rows[:, 2] = NONE, -1
        _extend(local, start[:-1] - first, rows)
        owner = np.repeat(ids, np.diff(start))
        there = rows[:, 2] >= 0  # of an object in several parts of a block, some rows may be empty
        return cls(owner[there], rows[there] + np.array([*corner, corner[1]], np.int64))

    @classmethod
    def merged(cls, parts: list[Extents]) -> Extents:
        """Return the rows of the same objects in several sets of pixels together."""
        ids, rows = np.concatenate([part.ids for part in parts]), np.concatenate([part.rows for part in parts])
        order = np.lexsort((rows[:, 0], ids))
        ids, rows = ids[order], rows[order]
        fresh = np.ones(len(ids), np.bool_)
        fresh[1:] = (ids[1:] != ids[:-1]) | (rows[1:, 0] != rows[:-1, 0])
        starts = np.flatnonzero(fresh)
        if not len(starts):
            return cls(ids, rows)
        least, most = np.minimum.reduceat(rows[:, 1], starts), np.maximum.reduceat(rows[:, 2], starts)
        return cls(ids[starts], np.stack([rows[starts, 0], least, most], axis=1))

    def chosen(self, ids: NDArray[np.uint32]) -> Extents:
        """Return the rows of some objects, (n,)."""
        which = np.isin(self.ids, ids)
        return Extents(self.ids[which], self.rows[which])

    def without(self, ids: NDArray[np.uint32]) -> Extents:
        """Return the rows of all objects but some, (n,)."""
        which = ~np.isin(self.ids, ids)
        return Extents(self.ids[which], self.rows[which])

    @property
    def reduced(self) -> Extents:
        """The rows with a corner of the hull: they make the same hull."""
        starts = self._starts
        keep = np.zeros(len(self.ids), np.bool_)
        _mark_corners(self.rows, starts, keep)
        return Extents(self.ids[keep], self.rows[keep])

    @property
    def areas(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The objects (n,), and the pixels in the hull of each, (n,)."""
        starts = self._starts
        areas = np.zeros(len(starts) - 1, np.int64)
        _hull_areas(self.rows, starts, areas)
        return self.ids[starts[:-1]], areas

    @property
    def _starts(self) -> NDArray[np.int64]:
        """Where the rows of each object begin, and the number of all rows."""
        fresh = np.ones(len(self.ids), np.bool_)
        fresh[1:] = self.ids[1:] != self.ids[:-1]
        return np.append(np.flatnonzero(fresh), len(self.ids)).astype(np.int64)


@compiled
def _heights(local: Any, first: Any, last: Any) -> None:
    """Note the first and the last row of each object."""
    for y in range(local.shape[0]):
        for x in range(local.shape[1]):
            if local[y, x] != 0:
                one = local[y, x] - 1
                first[one], last[one] = min(first[one], y), y


@compiled
def _extend(local: Any, offset: Any, rows: Any) -> None:
    """Fill rows with (row, first column, last column) of each object: row y of it is rows[offset + y]."""
    for y in range(local.shape[0]):
        for x in range(local.shape[1]):
            if local[y, x] != 0:
                row = rows[offset[local[y, x] - 1] + y]
                row[0], row[1], row[2] = y, min(row[1], x), x


@compiled
def _chain(points: Any, count: int, sign: int) -> int:
    """Keep the corners of the convex side of points (height, column), heights ascending; returns their number.

    `sign` is 1 for the left side, -1 for the right one. Andrew's monotone chain, in place.
    """
    kept = 0
    for index in range(count):
        y, x = points[index]
        # the last corner goes while it does not lie beyond the line from the one before it to this point
        while kept >= 2:
            (y0, x0), (y1, x1) = points[kept - 2], points[kept - 1]
            if sign * ((x1 - x0) * (y - y1) - (x - x1) * (y1 - y0)) < 0:
                break
            kept -= 1
        points[kept, 0], points[kept, 1] = y, x
        kept += 1
    return kept


@compiled
def _mark_corners(rows: Any, starts: Any, keep: Any) -> None:
    """Mark the rows that have a corner of the hull of their object's pixel centres."""
    for one in range(starts.size - 1):
        begin, end = starts[one], starts[one + 1]
        points = np.empty((end - begin, 2), np.int64)
        for side in range(1, 3):
            points[:, 0], points[:, 1] = rows[begin:end, 0], rows[begin:end, side]
            kept = _chain(points, end - begin, 1 if side == 1 else -1)
            index = begin
            for corner in range(kept):
                while rows[index, 0] != points[corner, 0]:
                    index += 1
                keep[index] = True


@compiled
def _sides(rows: Any, side: int, points: Any) -> int:
    """Fill points with the middles of the pixels' sides on one side of an object, in half pixels; returns their number.

    Of a pixel (y, x): (2 y - 1, 2 x) above, (2 y, 2 x - 1) or (2 y, 2 x + 1) beside, (2 y + 1, 2 x) below.
    """
    sign = 1 if side == 1 else -1
    count = 0
    for row in range(rows.shape[0]):
        y, x = 2 * rows[row, 0], 2 * rows[row, side]
        for height, column in ((y - 1, x), (y, x - sign), (y + 1, x)):
            if count and points[count - 1, 0] == height:  # below the row above, and above this one
                if sign * (column - points[count - 1, 1]) < 0:
                    points[count - 1, 1] = column
            else:
                points[count, 0], points[count, 1] = height, column
                count += 1
    return count


@compiled
def _columns(points: Any, kept: int, first: int, last: int, sign: int, columns: Any) -> None:
    """Fill columns with the outermost pixel of each row first … last whose centre lies within one side of the hull."""
    corner = 0
    for y in range(first, last + 1):
        while corner < kept - 2 and points[corner + 1, 0] <= 2 * y:
            corner += 1
        (y0, x0), (y1, x1) = points[corner], points[corner + 1]
        # the line is at x0 + (x1 - x0)(2 y - y0) / (y1 - y0) half pixels; a pixel's centre is at an even number
        over, under = x0 * (y1 - y0) + (x1 - x0) * (2 * y - y0), 2 * (y1 - y0)
        columns[y - first] = -(-over // under) if sign == 1 else over // under


@compiled
def _hull_areas(rows: Any, starts: Any, areas: Any) -> None:
    """Count the pixels whose centre lies in the hull of each object."""
    for one in range(starts.size - 1):
        own = rows[starts[one] : starts[one + 1]]
        first, last = own[0, 0], own[-1, 0]
        points = np.empty((3 * own.shape[0], 2), np.int64)
        columns = np.empty((2, last - first + 1), np.int64)
        for side in range(1, 3):
            sign = 1 if side == 1 else -1
            kept = _chain(points, _sides(own, side, points), sign)
            _columns(points, kept, first, last, sign, columns[side - 1])
        areas[one] = (columns[1] - columns[0] + 1).sum()
