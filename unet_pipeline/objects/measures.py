"""Measures of objects that add up over blocks: sums, least and largest values, each pixel counted once.

Whole numbers are summed as such, so a result does not depend on the blocks: area, box, moments and perimeter never do,
grey values of up to 16 bits neither. Sums of int64 may wrap on the way: what is derived from them is small, and the
difference of two wrapped sums is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.box import Box
from unet_pipeline.objects.compiled import compiled
from unet_pipeline.objects.pieces import heads

HALO_PX = 2
"""The perimeter looks so far beyond a block: a pixel at the border is weighed by its neighbours at the border."""

Part = NDArray[Any]
"""Measures of some objects, as far as they were measured: (n,) records of the type `fields`; `area` is 0 of none."""

LEAST, LARGEST = ("start", "least"), ("stop", "largest")
"""Fields that are not added up."""


def fields(classes: int, channels: int, exact: bool) -> np.dtype[Any]:
    """Return the type of what is known of an object.

    Args:
        classes: number of object classes.
        channels: number of channels of the image.
        exact: whether grey values are integers of 16 bits or less: they are summed as such, others as float64.

    Returns:
        area: px.
        start, stop: (plane, row, column) of its box, stop excluded.
        first: sums of planes, rows and columns.
        second: sums of row², row · column and column².
        rim: pixels at its border that count 1, √2 and (1 + √2) / 2 to its perimeter.
        of_class: pixels of each class, without background.
        probability: sum of the stored probabilities of each of these classes.
        grey, square: by channel, sums of grey values less a shift, and of the squares of that.
        least, largest: by channel, the least and the largest grey value.
        hull: pixels of the convex hull.
    """
    whole, grey = np.int64, np.int64 if exact else np.float64
    return np.dtype([
        ("area", whole), ("start", whole, 3), ("stop", whole, 3), ("first", whole, 3), ("second", whole, 3),
        ("rim", whole, 3), ("of_class", whole, classes), ("probability", np.float64, classes),
        ("grey", grey, channels), ("square", grey, channels), ("least", grey, channels), ("largest", grey, channels),
        ("hull", whole),
    ])  # fmt: skip


def joined(known: Part, more: Part) -> Part:
    """Return the measures (n,) of the same objects in two sets of pixels together."""
    both = known.copy()
    fresh = known["area"] == 0
    for name in known.dtype.names or ():
        if name in (*LEAST, *LARGEST):
            pick = np.minimum if name in LEAST else np.maximum
            new = fresh.reshape(-1, *(1,) * (known[name].ndim - 1))
            both[name] = np.where(new, more[name], pick(known[name], more[name]))
        else:
            both[name] += more[name]
    return both


class Block:
    """The objects of one block.

    Attributes:
        ids: (n,) uint32, ascending.
        local: (height + 2 halos, width + 2 halos) int32: each pixel's object, from 1 in the order of `ids`; 0 is none,
            or an object that only the halo holds.
        part: what was measured, (n,) of the type `fields`.
    """

    def __init__(self, labels: NDArray[np.uint32], outer: Box, inner: Box, kind: np.dtype[Any]) -> None:
        """Measure shapes.

        Args:
            labels: of `outer`, (y, x).
            outer: the block with a halo of `HALO_PX`, clipped at the edge of the plane.
            inner: the block.
            kind: from `fields`.
        """
        window = inner.counted_from(outer).window
        self.ids: NDArray[np.uint32] = np.unique(heads(labels[window]))
        height, width = inner.size
        self.local = np.zeros((height + 2 * HALO_PX, width + 2 * HALO_PX), np.int32)
        top, left = (HALO_PX - part.start for part in window)
        _place(labels, self.ids, self.local[top : top + labels.shape[0], left : left + labels.shape[1]])
        self.part = np.zeros(len(self.ids), kind)
        self.part["start"] = np.iinfo(np.int64).max
        place = np.array([inner.plane, inner.rows.start, inner.columns.start])
        _shapes(self.inner, place, *(self.part[name] for name in ("area", "start", "stop", "first", "second")))

    @property
    def inner(self) -> NDArray[np.int32]:
        """`local` without its halo, (y, x)."""
        inner: NDArray[np.int32] = self.local[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
        return inner

    def add_rims(self) -> None:
        """Count the pixels at the border by their weight in the perimeter."""
        _rims(self.local, _at_border(self.local), self.part["rim"])

    def add_classes(self, classes: NDArray[np.uint8]) -> None:
        """Count the pixels of each class, (y, x)."""
        _classes(self.inner, classes, self.part["of_class"])

    def add_probability(self, index: int, values: NDArray[Any]) -> None:
        """Add the stored probabilities (y, x) of the object class `index`, from 0."""
        for rows in _bands(values.shape):
            _total(self.inner[rows], values[rows].astype(np.float64), self.part["probability"][:, index])

    def add_grey(self, channel: int, values: NDArray[Any], shift: float) -> None:
        """Add grey values (y, x) of a channel.

        Args:
            channel: its index.
            values: (y, x).
            shift: taken off before they are summed, which keeps digits; a whole number where the values are.
        """
        grey, square, least, largest = (self.part[name][:, channel] for name in ("grey", "square", "least", "largest"))
        low, high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        least[:], largest[:] = (low, high) if grey.dtype == np.int64 else (np.inf, -np.inf)
        for rows in _bands(values.shape):
            band, less = values[rows].astype(grey.dtype), grey.dtype.type(shift)
            _grey(self.inner[rows], band, less, grey, square, least, largest)


def _bands(shape: tuple[int, ...], most_px: int = 2**20) -> Iterable[slice]:
    """Yield some rows at a time, of which another type takes little memory."""
    rows = max(1, most_px // max(1, shape[1]))
    return (slice(top, top + rows) for top in range(0, shape[0], rows))


@compiled
def _place(labels: Any, ids: Any, local: Any) -> None:
    """Fill `local` with the place of each label among `ids`, from 1."""
    last, place = np.uint32(0), 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            here = labels[y, x]
            if here != last:  # runs of one object are long
                index = np.searchsorted(ids, here)
                place = index + 1 if index < ids.size and ids[index] == here else 0
                last = here
            local[y, x] = place if here != 0 else 0


@compiled
def _squares(last: int) -> int:
    """Return 1² + 2² + … + last²."""
    return last * (last + 1) * (2 * last + 1) // 6


@compiled
def _shapes(local: Any, place: Any, area: Any, start: Any, stop: Any, first: Any, second: Any) -> None:
    """Add the runs of each row to the boxes and moments of their objects; `place` is (plane, row, column)."""
    plane = place[0]
    for row in range(local.shape[0]):
        y, x = place[1] + row, 0
        while x < local.shape[1]:
            left, own = x, local[row, x]
            while x < local.shape[1] and local[row, x] == own:
                x += 1
            if own == 0:
                continue
            one, a, b, n = own - 1, place[2] + left, place[2] + x, x - left
            columns = (a + b - 1) * n // 2  # of all columns a … b - 1: one factor is even
            area[one] += n
            start[one, 0], stop[one, 0] = min(start[one, 0], plane), max(stop[one, 0], plane + 1)
            start[one, 1], stop[one, 1] = min(start[one, 1], y), max(stop[one, 1], y + 1)
            start[one, 2], stop[one, 2] = min(start[one, 2], a), max(stop[one, 2], b)
            first[one, 0] += plane * n
            first[one, 1] += y * n
            first[one, 2] += columns
            second[one, 0] += y * y * n
            second[one, 1] += y * columns
            second[one, 2] += _squares(b - 1) - _squares(a - 1)


@compiled
def _at_border(local: Any) -> Any:
    """Return which pixels, but the outermost, have a neighbour at an edge that is not of their object."""
    border = np.zeros(local.shape, np.bool_)
    for y in range(1, local.shape[0] - 1):
        for x in range(1, local.shape[1] - 1):
            own = local[y, x]
            border[y, x] = own != 0 and (
                local[y - 1, x] != own or local[y + 1, x] != own or local[y, x - 1] != own or local[y, x + 1] != own
            )
    return border


@compiled
def _rims(local: Any, border: Any, rim: Any) -> None:
    """Count pixels by their weight in the perimeter: of a pixel at the border, by those of its neighbours that are too.

    The estimator of Benkrid and Crookes (2000), as `skimage.measure.perimeter` has it with 4 neighbours: straight
    parts of a border count 1, diagonal ones √2, bends (1 + √2) / 2, and what ends or branches nothing.
    """
    for y in range(2, local.shape[0] - 2):
        for x in range(2, local.shape[1] - 2):
            if not border[y, x]:
                continue
            own, edges, corners = local[y, x], 0, 0
            for down in range(-1, 2):
                for right in range(-1, 2):
                    if border[y + down, x + right] and local[y + down, x + right] == own:
                        edges += (down == 0) != (right == 0)
                        corners += down != 0 and right != 0
            if (edges == 2 or edges == 3) and corners <= 2:
                rim[own - 1, 0] += 1
            elif (edges == 0 and corners == 2) or (edges == 1 and corners == 3):
                rim[own - 1, 1] += 1
            elif edges == 1 and (corners == 1 or corners == 2):
                rim[own - 1, 2] += 1


@compiled
def _classes(local: Any, classes: Any, of_class: Any) -> None:
    """Count the pixels of each class but background; others, such as pixels nobody annotated, are of none."""
    for y in range(local.shape[0]):
        for x in range(local.shape[1]):
            own, index = local[y, x], classes[y, x]
            if own != 0 and 0 < index <= of_class.shape[1]:
                of_class[own - 1, index - 1] += 1


@compiled
def _total(local: Any, values: Any, total: Any) -> None:
    """Add up the values of each object."""
    for y in range(local.shape[0]):
        for x in range(local.shape[1]):
            if local[y, x] != 0:
                total[local[y, x] - 1] += values[y, x]


@compiled
def _grey(local: Any, values: Any, shift: Any, grey: Any, square: Any, least: Any, largest: Any) -> None:
    """Add up the values of each object less `shift`, and the squares of that, and extend the range of the values."""
    for y in range(local.shape[0]):
        for x in range(local.shape[1]):
            if local[y, x] != 0:
                one, value = local[y, x] - 1, values[y, x]
                grey[one] += value - shift
                square[one] += (value - shift) * (value - shift)
                least[one], largest[one] = min(least[one], value), max(largest[one], value)
