"""What is known of the objects that go on in other blocks, kept until all of each was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.box import Box
from unet_pipeline.objects.measures import Block
from unet_pipeline.stitch.sums import Sums


class Pieces(Protocol):
    """Parts of some objects, as `hulls.Extents` and `outlines.Edges` are."""

    @property
    def ids(self) -> NDArray[np.uint32]:
        """The object of each part, (n,)."""

    @property
    def reduced(self: P) -> P:
        """What of them is needed later."""

    def chosen(self: P, ids: NDArray[np.uint32]) -> P:
        """Return those of some objects, (n,)."""

    def without(self: P, ids: NDArray[np.uint32]) -> P:
        """Return those of all objects but some, (n,)."""


P = TypeVar("P", bound=Pieces)


class Across(Generic[P]):
    """Parts of the objects of one plane after the other; each object is finished once, when it is whole."""

    def __init__(
        self,
        merged: Callable[[list[P]], P],
        finish: Callable[[P, int], None],
        sums: Sums,
        size: tuple[int, int],
        margin_px: int,
    ) -> None:
        """Nothing is known yet.

        Args:
            merged: puts several parts together.
            finish: called with all parts of objects that are whole, and the number of their plane.
            sums: says how far down objects reach.
            size: (height, width) of the plane, px.
            margin_px: an object so far from what was not read yet has no pixel there.
        """
        self._merged, self._finish, self._sums, self._size, self._margin = merged, finish, sums, size, margin_px
        self._waiting: list[P] = []

    def add(self, parts: P, block: Block, inner: Box) -> None:
        """Take the parts of a block, all of whose objects were added to the sums."""
        whole = block.ids[self._inside(block, inner)]
        if len(whole):
            self._finish(parts.chosen(whole), inner.plane)
        if len(whole) < len(block.ids):
            self._waiting.append(parts.without(whole).reduced)

    def _inside(self, block: Block, inner: Box) -> NDArray[np.bool_]:
        """Return which objects of a block, (n,), have no pixel beyond it."""
        inside = np.ones(len(block.ids), np.bool_)
        for axis, (side, length) in enumerate(zip(inner.window, self._size, strict=True), 1):
            if side.start > 0:
                inside &= block.part["start"][:, axis] - side.start > self._margin
            if side.stop < length:
                inside &= side.stop - block.part["stop"][:, axis] > self._margin
        return inside

    def settle(self, plane: int, bottom: int) -> None:
        """Finish the objects that are whole when all rows of a plane above `bottom` were read."""
        if not self._waiting:
            return
        known = self._merged(self._waiting)
        ids = np.unique(known.ids)
        if bottom < self._size[0]:
            ids = ids[bottom - self._sums.lowest_rows(ids) > self._margin]
        if len(ids):
            self._finish(known.chosen(ids), plane)
        rest = known.without(ids)
        self._waiting = [rest.reduced] if len(rest.ids) else []
