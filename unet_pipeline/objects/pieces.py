"""The pieces of a layer, measured block by block: their boxes, areas and seeds, without a table of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.box import Box
from unet_pipeline.objects.compiled import compiled

NO_SEED = 2**32 - 1


@dataclass(frozen=True)
class Pieces:
    """Some pieces, as far as they were measured.

    Attributes:
        ids: (n,) uint32, ascending.
        boxes: (n, 6) int64, start and stop of planes, rows, columns.
        area: (n,) int64, px.
        lowest, highest: (n,) uint32, the seeds with the smallest and the largest number; `NO_SEED` and 0 without any.
    """

    ids: NDArray[np.uint32]
    boxes: NDArray[np.int64]
    area: NDArray[np.int64]
    lowest: NDArray[np.uint32]
    highest: NDArray[np.uint32]

    @classmethod
    def none(cls, ids: NDArray[np.uint32] | None = None) -> Pieces:
        """Return the pieces (n,) as long as nothing of them is measured."""
        count = 0 if ids is None else len(ids)
        ids = np.zeros(0, np.uint32) if ids is None else ids
        boxes, area = np.tile(np.array([2**62, 0] * 3), (count, 1)), np.zeros(count, np.int64)
        return cls(ids, boxes, area, np.full(count, NO_SEED, np.uint32), np.zeros(count, np.uint32))

    def chosen(self, which: NDArray[Any]) -> Pieces:
        """Return some of them, by a mask (n,) or by their indices in ascending order."""
        return Pieces(self.ids[which], self.boxes[which], self.area[which], self.lowest[which], self.highest[which])

    def box(self, index: int) -> Box:
        """Return the box of a piece."""
        planes, rows, columns = self.boxes[index].reshape(3, 2).tolist()
        return Box(slice(*planes), slice(*rows), slice(*columns))

    def places(self, ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return where pieces stand among these, (n,) int64; -1 for those that do not."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)

    def reaching(self, block: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which of the pieces of a block reach another block of a plane of (height, width)."""
        rows, columns = block.window
        sides = ((rows.start, 0, 2), (rows.stop, size[0], 3), (columns.start, 0, 4), (columns.stop, size[1], 5))
        reaches = np.zeros(len(self.ids), np.bool_)
        for side, border, column in sides:
            if side != border:
                reaches |= self.boxes[:, column] == side
        return reaches


def measure(ids: NDArray[np.uint32], seeds: NDArray[np.uint32], block: Box) -> Pieces:
    """Return the pieces of a block, of its ids and seeds (y, x); 0 is none."""
    found = Pieces.none(np.unique(heads(ids)))
    place = block.plane, block.rows.start, block.columns.start
    _extend(ids, seeds, place, found.ids, found.boxes, found.area, found.lowest, found.highest)
    return found


def merged(parts: Sequence[Pieces]) -> Pieces:
    """Return the pieces of several blocks, each once."""
    ids, place = np.unique(np.concatenate([part.ids for part in parts]), return_inverse=True)
    whole, boxes = Pieces.none(ids), np.concatenate([part.boxes for part in parts])
    for column in range(0, 6, 2):
        np.minimum.at(whole.boxes[:, column], place, boxes[:, column])
        np.maximum.at(whole.boxes[:, column + 1], place, boxes[:, column + 1])
    np.add.at(whole.area, place, np.concatenate([part.area for part in parts]))
    np.minimum.at(whole.lowest, place, np.concatenate([part.lowest for part in parts]))
    np.maximum.at(whole.highest, place, np.concatenate([part.highest for part in parts]))
    return whole


@compiled
def heads(ids: Any) -> Any:
    """Return the ids (n,) of pixels of ids (y, x) that differ from those to their left and above: each id is there."""
    found, count = np.empty(1024, np.uint32), 0
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            here = ids[y, x]
            if here != 0 and (x == 0 or ids[y, x - 1] != here) and (y == 0 or ids[y - 1, x] != here):
                if count == found.size:
                    found = np.append(found, found)
                found[count] = here
                count += 1
    return found[:count]


@compiled
def _extend(ids: Any, seeds: Any, place: Any, found: Any, boxes: Any, area: Any, lowest: Any, highest: Any) -> None:
    """Extend the measures of the pieces `found`, (n,) ascending, by the pixels of a block at (plane, row, column)."""
    plane, top, left = place
    piece, last = np.int64(0), np.uint32(0)
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            here = ids[y, x]
            if here == 0:
                continue
            if here != last:  # runs of one piece are long
                piece, last = np.searchsorted(found, here), here
            box = boxes[piece]
            box[0], box[1] = min(box[0], plane), max(box[1], plane + 1)
            box[2], box[3] = min(box[2], top + y), max(box[3], top + y + 1)
            box[4], box[5] = min(box[4], left + x), max(box[5], left + x + 1)
            area[piece] += 1
            if seeds[y, x] != 0:
                lowest[piece], highest[piece] = min(lowest[piece], seeds[y, x]), max(highest[piece], seeds[y, x])
