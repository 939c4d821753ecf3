"""Fragments of a block of classes, for `survey` to settle and `components` to join to instances.

A fragment is a set of 4-connected pixels of one class in one block. They are numbered and measured block by block, and
which ones touch is noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.compiled import compiled

LARGEST_CLASS = 255
"""Labels of parts that touch without being connected start above it, so that none is read as a class or as `IGNORE`."""

Classes = NDArray[np.unsignedinteger[Any]]
"""(y, x) class indices of a block; or, as uint32, labels above `LARGEST_CLASS` of parts that touch."""

Keys = NDArray[np.int64]
"""Pairs of fragments, or of nodes, that touch, the smaller one in the high half."""

_STRIP = 256  # rows searched for contacts at a time: bounds the memory of noisy blocks


@dataclass(frozen=True)
class Fragments:
    """The fragments of one block, numbered from 1; entry 0 stands for pixels of no fragment.

    Attributes:
        area: (fragments,) int64, px.
        first: (fragments,) int64, index of the first pixel in the volume in raster order.
        class_index: (fragments,) uint8 or uint32, as the classes are; 0 for ignored pixels.
        is_open: (fragments,) bool, reaches the border of the volume or holds an ignored pixel (when holes are filled).
        reaches: (fragments,) bool, has pixels beside another block.
        straight: pairs that share an edge.
        diagonal: pairs that share a corner; none where they do not matter.
    """

    area: NDArray[np.int64]
    first: NDArray[np.int64]
    class_index: NDArray[Any]
    is_open: NDArray[np.bool_]
    reaches: NDArray[np.bool_]
    straight: Keys
    diagonal: Keys


@dataclass(frozen=True)
class Place:
    """Where a block lies, and what is wanted of its fragments.

    Attributes:
        block: the block.
        shape: planes, height, width of the volume.
        deep: whether planes are neighbours.
        corners: whether contacts at corners matter.
        whole: whether background has fragments too.
    """

    block: Box
    shape: tuple[int, int, int]
    deep: bool
    corners: bool
    whole: bool

    def measured(self, classes: Classes, labels: NDArray[np.uint32], count: int) -> Fragments:
        """Return the fragments of the block, of its classes (y, x) and of what `number` made of them, (y, x)."""
        start = (self.block.plane * self.shape[1] + self.block.rows.start) * self.shape[2] + self.block.columns.start
        area, first, class_index = _measure(classes, labels, count, start, self.shape[2])
        none = np.zeros(0, np.int64)
        straight = np.concatenate([contacts(labels, labels, 0, 1), contacts(labels, labels, 1, 0)])
        both = [contacts(labels, labels, 1, 1), contacts(labels, labels, 1, -1)] if self.corners else [none]
        is_open = self._marked(self._border(classes, labels), count)
        reaches = self._marked(self._seams(labels), count)
        return Fragments(area, first, class_index, is_open, reaches, straight, np.concatenate(both))

    def _marked(self, sides: list[NDArray[np.uint32]], count: int) -> NDArray[np.bool_]:
        marked = np.zeros(count + 1, np.bool_)
        for side in sides:
            marked[side.ravel()] = True
        marked[0] = False
        return marked

    def _border(self, classes: Classes, labels: NDArray[np.uint32]) -> list[NDArray[np.uint32]]:
        """Return what reaches the border of the volume, or is ignored."""
        if not self.whole:
            return []
        planes, height, width = self.shape
        rows, columns = self.block.window
        sides = [labels[classes == IGNORE]]
        sides += [labels[0]] * (rows.start == 0) + [labels[-1]] * (rows.stop == height)
        sides += [labels[:, 0]] * (columns.start == 0) + [labels[:, -1]] * (columns.stop == width)
        return sides + [labels] * (self.deep and self.block.plane in (0, planes - 1))

    def _seams(self, labels: NDArray[np.uint32]) -> list[NDArray[np.uint32]]:
        """Return what lies beside other blocks: across planes all of it."""
        if self.deep:
            return [labels]
        _, height, width = self.shape
        rows, columns = self.block.window
        sides = [labels[0]] * (rows.start > 0) + [labels[-1]] * (rows.stop < height)
        return sides + [labels[:, 0]] * (columns.start > 0) + [labels[:, -1]] * (columns.stop < width)


def contacts(labels: NDArray[np.uint32], others: NDArray[np.uint32], down: int, right: int) -> Keys:
    """Return the different pairs of labels (y, x), not 0: labels[y, x], others[y + down, x + right]."""
    strips = range(0, labels.shape[0], _STRIP)
    found = [_pairs(labels[y : y + _STRIP + down], others[y : y + _STRIP + down], down, right) for y in strips]
    return np.concatenate([np.unique(keys) for keys in found])


def ends(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two fragments of each pair of keys (n,): two arrays (n,)."""
    return keys >> 32 & 0xFFFFFFFF, keys & 0xFFFFFFFF


def keys_of(a: NDArray[np.int64], b: NDArray[np.int64]) -> Keys:
    """Return the pairs of two arrays (n,) of fragments, in any order: (n,)."""
    return np.minimum(a, b) << 32 | np.maximum(a, b)


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
def number(classes: Any, whole: bool) -> Any:
    """Return the fragments of a block, (y, x) uint32, numbered from 1 in raster order, and how many they are.

    Args:
        classes: (y, x) uint8 or uint32.
        whole: whether background has fragments too; else it is 0.
    """
    height, width = classes.shape
    labels = np.zeros((height, width), np.uint32)
    parent = np.zeros(height * width + 1, np.uint32)
    count, total = _link(classes, whole, labels, parent), 0
    # replace each root by its final number, in ascending order: fragments are numbered by their first pixels
    for label in range(1, count + 1):
        if parent[label] == label:
            total += 1
            parent[label] = total
        else:  # its parent is smaller, so that it has got its number
            parent[label] = parent[parent[label]]
    for y in range(height):
        for x in range(width):
            labels[y, x] = parent[labels[y, x]]
    return labels, total


@compiled
def _measure(classes: Any, labels: Any, count: int, start: int, width: int) -> Any:
    """Return area, first pixel and class of a block's fragments; `start` and `width` place the block in the volume."""
    area, first = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    class_index = np.zeros(count + 1, classes.dtype)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            fragment = labels[y, x]
            if fragment != 0:
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
