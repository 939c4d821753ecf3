"""Outlines of objects along the edges of their pixels, joined over blocks.

Each side of a pixel that has no pixel of its object beside it is a directed edge, with the object on its right: rows go
down, so outer rings run clockwise. Edges of all blocks together are those of the whole plane, each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.compiled import compiled

Ring = NDArray[np.int64]
"""(corners, 2): column and row of each corner of a ring, px; pixel (0, 0) lies between 0 and 1 on both axes."""


@dataclass(frozen=True)
class Edges:
    """Edges of some objects.

    Attributes:
        ids: (edges,) uint32, the object.
        edges: (edges, 3) int64: row and column of its begin, and its direction: 0 right, 1 down, 2 left, 3 up.
    """

    ids: NDArray[np.uint32]
    edges: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.uint32], local: NDArray[np.int32], halo_px: int, corner: tuple[int, int]) -> Edges:
        """Return the edges of all objects of a block.

        Args:
            ids: (n,) ascending.
            local: (y, x) each pixel's object, from 1 in the order of `ids`, with a halo; 0 is none.
            halo_px: the halo, at least 1.
            corner: (row, column) of its plane at which the block begins, px.
        """
        owners = np.zeros(_sides(local, halo_px, np.zeros(0, np.int64), np.zeros((0, 3), np.int64)), np.int64)
        edges = np.zeros((len(owners), 3), np.int64)
        _sides(local, halo_px, owners, edges)
        return cls(ids[owners], edges + np.array([*corner, 0]))

    @classmethod
    def merged(cls, parts: list[Edges]) -> Edges:
        """Return the edges of several blocks together."""
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate([part.edges for part in parts]))

    def without(self, ids: NDArray[np.uint32]) -> Edges:
        """Return the edges of all objects but some, (n,)."""
        return self._where(~np.isin(self.ids, ids))

    def chosen(self, ids: NDArray[np.uint32]) -> Edges:
        """Return the edges of some objects, (n,)."""
        return self._where(np.isin(self.ids, ids))

    def _where(self, which: NDArray[np.bool_]) -> Edges:
        return Edges(self.ids[which], self.edges[which])

    @property
    def reduced(self) -> Edges:
        """All of them."""
        return self

    def polygons(self) -> dict[int, list[list[Ring]]]:
        """Return the polygons of each object by its id; each is its outer ring, then its holes.

        No ring meets itself: where pixels of an object touch at a corner only, rings touch there.
        """
        order = np.lexsort((self.edges[:, 1], self.edges[:, 0], self.ids))
        ids, edges = self.ids[order], self.edges[order]
        ends = np.append(np.flatnonzero(np.diff(ids, prepend=-1)), len(ids))
        found = {}
        for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            points, corners = np.empty((stop - start, 2), np.int64), np.zeros(stop - start + 1, np.int64)
            count = _trace(edges[start:stop], points, corners)
            found[int(ids[start])] = _nested(np.split(points[: corners[count]], corners[1:count]))
        return found


def _nested(rings: list[Ring]) -> list[list[Ring]]:
    """Return polygons of the rings of one object: each hole belongs to the smallest outer ring around it."""
    areas = [_area(ring) for ring in rings]
    outer = sorted((index for index, area in enumerate(areas) if area > 0), key=lambda index: areas[index])
    polygons = {index: [rings[index]] for index in outer}
    for ring, area in zip(rings, areas, strict=True):
        if area < 0:
            # the pixel of the object beside the first edge of a hole lies within the ring that it belongs to
            place = (*_middle_beside(ring),)
            own = next(index for index in outer if len(outer) == 1 or _holds(rings[index], place))
            polygons[own].append(ring)
    return [polygons[index] for index in sorted(polygons)]


def _area(ring: Ring) -> float:
    """Return the area within a ring, px: positive of an outer one, negative of a hole."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _middle_beside(ring: Ring) -> tuple[float, float]:
    """Return (column, row) of the centre of the pixel on the right of a ring's first edge."""
    (x, y), (next_x, next_y) = ring[0].tolist(), ring[1].tolist()
    right, down = np.sign(next_x - x), np.sign(next_y - y)
    return float(x + 0.5 * right - 0.5 * down), float(y + 0.5 * down + 0.5 * right)


def _holds(ring: Ring, place: tuple[float, float]) -> bool:
    """Return whether a ring goes around the centre of a pixel (column, row): a ray to the left meets it an odd time."""
    x, y = ring.T
    low, high = np.minimum(y, np.roll(y, -1)), np.maximum(y, np.roll(y, -1))
    return bool(((x < place[0]) & (low < place[1]) & (place[1] < high)).sum() % 2)


@compiled
def _sides(local: Any, halo: int, owners: Any, edges: Any) -> int:
    """Count the sides of pixels without their own object beside them; fill in objects and edges where there is room."""
    count = 0
    for y in range(halo, local.shape[0] - halo):
        for x in range(halo, local.shape[1] - halo):
            own = local[y, x]
            if own == 0:
                continue
            for side in range(4):
                down, right = (-1, 0, 1, 0)[side], (0, 1, 0, -1)[side]
                if local[y + down, x + right] != own:
                    if owners.size:
                        owners[count] = own - 1
                        # the edges above, right, below, left begin at the corners clockwise from the upper left one
                        edges[count, 0] = y - halo + (side == 2 or side == 3)
                        edges[count, 1] = x - halo + (side == 1 or side == 2)
                        edges[count, 2] = side
                    count += 1
    return count


@compiled
def _first_at(edges: Any, row: int, column: int) -> int:
    """Return the first of the edges, sorted by row and column, that begins at a point."""
    low, high = 0, edges.shape[0]
    while low < high:
        middle = (low + high) // 2
        if edges[middle, 0] < row or (edges[middle, 0] == row and edges[middle, 1] < column):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _twice(edges: Any, first: int) -> bool:
    """Return whether a second edge begins where this one does: where pixels touch at a corner only."""
    after = first + 1
    return bool(after < edges.shape[0] and edges[after, 0] == edges[first, 0] and edges[after, 1] == edges[first, 1])


@compiled
def _follow(edges: Any, here: int, used: Any) -> int:
    """Return the edge that begins where another ends; of two the one that turns right, if it was not followed yet."""
    direction = edges[here, 2]
    row = edges[here, 0] + (direction == 1) - (direction == 3)
    column = edges[here, 1] + (direction == 0) - (direction == 2)
    first = _first_at(edges, row, column)
    if not _twice(edges, first):
        return first
    right = first if edges[first, 2] == (direction + 1) % 4 else first + 1
    return right if not used[right] else 2 * first + 1 - right


@compiled
def _put_ring(edges: Any, path: Any, points: Any, filled: int) -> int:
    """Append the corners of a ring, at which its direction changes; returns how many points there are."""
    for index in range(path.size):
        if edges[path[index], 2] != edges[path[index - 1], 2]:
            points[filled, 0], points[filled, 1] = edges[path[index], 1], edges[path[index], 0]
            filled += 1
    return filled


@compiled
def _trace(edges: Any, points: Any, corners: Any) -> int:
    """Link the edges of an object, sorted by row and column, to rings; returns how many.

    points: (edges, 2), filled with (column, row) of the corners of all rings; corners: filled with where each ring
    begins in them, then with their number.
    """
    used, seen = np.zeros(edges.shape[0], np.bool_), np.full(edges.shape[0], -1)
    path, rings = np.zeros(edges.shape[0], np.int64), 0
    for start in range(edges.shape[0]):
        here, length = start, 0
        while not used[start] or length:
            # a point that the path passes for the second time cuts off the ring that it made since
            first = _first_at(edges, edges[here, 0], edges[here, 1])
            since = seen[first] if _twice(edges, first) else (0 if here == start and length else -1)
            if since >= 0 and length > since:
                corners[rings + 1] = _put_ring(edges, path[since:length], points, corners[rings])
                rings += 1
                for index in range(since, length):
                    seen[_first_at(edges, edges[path[index], 0], edges[path[index], 1])] = -1
                length = since
            if used[here]:
                break
            seen[first] = length
            used[here] = True
            path[length] = here
            length += 1
            here = _follow(edges, here, used)
    return rings
