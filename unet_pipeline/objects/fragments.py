"""Fragments of a class volume: found in one pass over its blocks, for `components` to join to instances.

A fragment is a set of 4-connected pixels of one class in one block. The pass numbers the fragments of one block after
the other, measures them, and notes which ones touch, also across the borders of the blocks. Of the pixels themselves
it keeps only the rows and columns that later blocks will touch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.box import Box, plane_boxes
from unet_pipeline.objects.compiled import compiled

LARGEST_CLASS = 255
"""Labels of parts that touch without being connected start above it, so that none is read as a class or as `IGNORE`."""
MAX_FRAGMENTS = 2**32 - 1

Classes = NDArray[np.unsignedinteger[Any]]
"""(y, x) class indices of a block; or, as uint32, labels above `LARGEST_CLASS` of parts that touch."""

Keys = NDArray[np.int64]
"""Pairs of fragments that touch, the smaller one in the high half."""

_STRIP = 256  # rows searched for contacts at a time: bounds the memory of noisy blocks


@dataclass(frozen=True)
class Fragments:
    """All that the pass finds, indexed by fragment; entry 0 stands for pixels of no fragment.

    Attributes:
        area: (fragments,) int64, px.
        first: (fragments,) int64, index of the first pixel in the volume in raster order.
        class_index: (fragments,) uint8 or uint32, as the classes are; 0 for ignored pixels.
        is_open: (fragments,) bool, reaches the border of the volume or holds an ignored pixel (when holes are filled).
        straight: pairs that share an edge, or lie over each other.
        diagonal: pairs that share a corner.
        offsets: for each block, the number of fragments before it.
        checksums: for each block, CRC-32 of its classes.
    """

    area: NDArray[np.int64]
    first: NDArray[np.int64]
    class_index: NDArray[np.uint8]
    is_open: NDArray[np.bool_]
    straight: Keys
    diagonal: Keys
    offsets: list[int]
    checksums: list[int]


class Survey:
    """Pass 1: it numbers the fragments of each block and keeps what the neighbouring blocks need."""

    def __init__(
        self, shape: tuple[int, int, int], block_px: tuple[int, int], deep: bool, corners: bool, whole: bool
    ) -> None:
        """Begin.

        Args:
            shape: planes, height, width of the volume.
            block_px: height and width of the blocks.
            deep: note the contacts between planes.
            corners: note the contacts at corners.
            whole: background has fragments too.
        """
        self.shape, self.block_px, self.deep, self.corners, self.whole = shape, block_px, deep, corners, whole
        kept = shape[0] if self.deep else 1
        # last rows of the blocks above and of this row of blocks, by turns; last columns of the blocks to the left
        self.rows = np.zeros((2, kept, shape[2] + 2), np.uint32)
        self.columns = np.zeros((kept, block_px[0]), np.uint32)
        self.below = np.zeros((0, 0), np.uint32)  # the same block, one plane before
        self.count = 0
        self.parts: list[tuple[NDArray[Any], ...]] = []
        self.straight: list[Keys] = []
        self.diagonal: list[Keys] = []
        self.offsets: list[int] = []
        self.checksums: list[int] = []

    def blocks(self) -> Iterator[Box]:
        """Run through the blocks: plane after plane, or across planes through all planes of a block, then the next."""
        by_plane = [list(plane.divided(*self.block_px)) for plane in plane_boxes(self.shape)]
        # only the same block one plane before is kept, so across planes a block's planes come one after the other
        return (block for group in (zip(*by_plane, strict=True) if self.deep else by_plane) for block in group)

    def add(self, block: Box, classes: Classes) -> None:
        """Take the classes (y, x) of the next block; raises PipelineError beyond MAX_FRAGMENTS components."""
        labels, count = number(classes, self.whole, self.count)
        if self.count + count > MAX_FRAGMENTS:
            raise PipelineError(block, f"at most {MAX_FRAGMENTS} components", "more", fix="label the stack in parts")
        _, height, width = self.shape
        start = (block.plane * height + block.rows.start) * width + block.columns.start
        area, first, class_index = _measure(classes, labels, self.count, count, start, width)
        self.parts.append((area, first, class_index, self._open(block, classes, labels, count)))
        self.offsets.append(self.count)
        self.checksums.append(zlib.crc32(classes.data))
        self.count += count
        self._touch(block, labels)

    def _open(self, block: Box, classes: Any, labels: Any, count: int) -> NDArray[np.bool_]:
        """Return which fragments reach the border of the volume or hold an ignored pixel."""
        planes, height, width = self.shape
        is_open = np.zeros(count, np.bool_)
        if not self.whole:
            return is_open
        sides = [labels[classes == IGNORE]]
        sides += [labels[0]] * (block.rows.start == 0) + [labels[-1]] * (block.rows.stop == height)
        sides += [labels[:, 0]] * (block.columns.start == 0) + [labels[:, -1]] * (block.columns.stop == width)
        sides += [labels] * (self.deep and block.plane in (0, planes - 1))
        for side in sides:
            is_open[side.ravel() - (self.count + 1)] = True
        return is_open

    def _touch(self, block: Box, labels: NDArray[np.uint32]) -> None:
        """Note which fragments touch, in the block and towards its neighbours above, left and one plane before."""
        kept, turn = (block.plane if self.deep else 0), block.rows.start // self.block_px[0] % 2
        columns = self.columns[kept, : labels.shape[0]]
        self._note(labels)
        # the kept row has a pixel more at each side than the plane: corner contacts reach beyond the block's columns
        if block.rows.start:
            row = np.pad(labels[0], 1)  # with the pixels that share a corner with the block
            self._note(np.stack([self.rows[1 - turn, kept, block.columns.start : block.columns.stop + 2], row]))
        if block.columns.start:
            self._note(np.stack([columns, labels[:, 0]], axis=1))
        if self.deep and block.plane:
            self.straight.append(_contacts(self.below, labels, 0, 0))
        self.rows[turn, kept, block.columns.start + 1 : block.columns.stop + 1] = labels[-1]
        columns[:] = labels[:, -1]
        self.below = labels if self.deep else self.below

    def _note(self, labels: NDArray[np.uint32]) -> None:
        self.straight += [_contacts(labels, labels, 0, 1), _contacts(labels, labels, 1, 0)]
        if self.corners:
            self.diagonal += [_contacts(labels, labels, 1, 1), _contacts(labels, labels, 1, -1)]

    def fragments(self) -> Fragments:
        """Return all fragments, counted from 1."""
        area, first, class_index, is_open = (
            np.concatenate([np.zeros(1, column[0].dtype), *column]) for column in zip(*self.parts, strict=True)
        )
        straight, diagonal = (np.concatenate([np.zeros(0, np.int64), *keys]) for keys in (self.straight, self.diagonal))
        return Fragments(area, first, class_index, is_open, straight, diagonal, self.offsets, self.checksums)


def _contacts(labels: NDArray[np.uint32], others: NDArray[np.uint32], down: int, right: int) -> Keys:
    """Return the different pairs of fragments labels[y, x], others[y + down, x + right]."""
    strips = range(0, labels.shape[0], _STRIP)
    found = [_pairs(labels[y : y + _STRIP + down], others[y : y + _STRIP + down], down, right) for y in strips]
    return np.concatenate([np.unique(keys) for keys in found])


def ends(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two fragments of each pair of keys (n,): two arrays (n,)."""
    return keys >> 32 & 0xFFFFFFFF, keys & 0xFFFFFFFF


@compiled
def _find(parent: Any, fragment: Any) -> Any:
    """Return the smallest fragment joined with this one."""
    # halve the path on the way, so that later searches are short
    while parent[fragment] != fragment:
        parent[fragment] = parent[parent[fragment]]
        fragment = parent[fragment]
    return fragment


@compiled
def _unite(parent: Any, a: Any, b: Any) -> None:
    """Join the trees of two fragments; the smaller root stays the root."""
    a, b = _find(parent, a), _find(parent, b)
    parent[max(a, b)] = min(a, b)


@compiled
def join(count: int, keys: Any) -> Any:
    """Return, for each of `count` fragments, the smallest fragment that the pairs join it with: (count,) int64."""
    parent = np.arange(count)
    for key in keys:
        _unite(parent, key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF)
    # a parent is smaller than its fragment and so already points to its root
    for fragment in range(count):
        parent[fragment] = parent[parent[fragment]]
    return parent


@compiled
def _kind(class_index: int) -> int:
    """Return the class that a fragment counts as: ignored pixels are background."""
    return class_index if class_index != IGNORE else 0


@compiled
def _link(classes: Any, whole: bool, labels: Any, parent: Any) -> int:
    """Label every pixel like its left or upper neighbour of the same class; unite the labels where both meet.

    labels: (y, x) uint32, filled here; parent: (labels,) uint32, filled here with a tree whose roots are the smallest
    labels of their trees. Returns the number of labels.
    """
    count = 0
    # raster order: both neighbours that matter have their labels, and every root is the smallest label of its tree
    for y in range(classes.shape[0]):
        for x in range(classes.shape[1]):
            kind = _kind(classes[y, x])
            if kind == 0 and not whole:
                continue
            west = x > 0 and _kind(classes[y, x - 1]) == kind
            north = y > 0 and _kind(classes[y - 1, x]) == kind
            if west:
                labels[y, x] = labels[y, x - 1]
                if north and labels[y - 1, x] != labels[y, x]:
                    _unite(parent, labels[y - 1, x], labels[y, x])
            elif north:
                labels[y, x] = labels[y - 1, x]
            else:
                count += 1
                parent[count] = labels[y, x] = count
    return count


@compiled
def number(classes: Any, whole: bool, offset: int) -> Any:
    """Return the fragments of a block, (y, x) uint32, numbered from offset + 1 in raster order, and how many they are.

    Args:
        classes: (y, x) uint8 or uint32.
        whole: whether background has fragments too; else it is 0.
        offset: the number of fragments before this block.
    """
    height, width = classes.shape
    labels = np.zeros((height, width), np.uint32)
    parent = np.zeros(height * width + 1, np.uint32)
    count, total = _link(classes, whole, labels, parent), 0
    # replace each root by its final number, in ascending order: fragments are numbered by their first pixels
    for label in range(1, count + 1):
        if parent[label] == label:
            total += 1
            parent[label] = total + offset
        else:  # its parent is smaller, so that it has got its number
            parent[label] = parent[parent[label]]
    for y in range(height):
        for x in range(width):
            labels[y, x] = parent[labels[y, x]]
    return labels, total


@compiled
def _measure(classes: Any, labels: Any, offset: int, count: int, start: int, width: int) -> Any:
    """Return area, first pixel and class of a block's fragments; `start` and `width` place the block in the volume."""
    area, first = np.zeros(count, np.int64), np.zeros(count, np.int64)
    class_index = np.zeros(count, classes.dtype)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] != 0:
                fragment = np.int64(labels[y, x]) - offset - 1
                if area[fragment] == 0:
                    first[fragment] = start + y * width + x
                    class_index[fragment] = _kind(classes[y, x])
                area[fragment] += 1
    return area, first, class_index


@compiled
def _pairs(labels: Any, others: Any, down: int, right: int) -> Any:
    """Return the keys of the different fragments labels[y, x], others[y + down, x + right], some more than once."""
    height, width = labels.shape
    start, stop = max(0, -right), min(width, width - right)
    # count first, because a noisy block has as many contacts as pixels and most blocks have few
    bound = 0
    for y in range(height - down):
        here, there = labels[y, start:stop], others[y + down, start + right : stop + right]
        for x in range(here.size):
            bound += here[x] != there[x]
    keys = np.empty(bound, np.int64)
    found, last = 0, np.int64(0)
    for y in range(height - down):
        here, there = labels[y, start:stop], others[y + down, start + right : stop + right]
        for x in range(here.size):
            if here[x] != there[x] and here[x] != 0 and there[x] != 0:
                key = np.int64(min(here[x], there[x])) << 32 | np.int64(max(here[x], there[x]))
                # along a straight border the same pair comes again and again
                if key != last:
                    keys[found] = last = key
                    found += 1
    return keys[:found]
