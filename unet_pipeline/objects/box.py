"""A box of pixels: the one type for a shard, a block of work, and the pixels around an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Window = tuple[slice, slice]
"""Rows and columns, as numpy indexes an array (y, x)."""
Slices = tuple[slice, slice, slice]
"""Planes, rows and columns, as numpy indexes an array (z, y, x)."""


@dataclass(frozen=True)
class Box:
    """Planes, rows and columns of a volume: slices with start and stop, px, the stop excluded."""

    planes: slice
    rows: slice
    columns: slice

    @classmethod
    def of(cls, plane: int, rows: slice, columns: slice) -> Box:
        """Return a box of one plane."""
        return cls(slice(plane, plane + 1), rows, columns)

    @property
    def plane(self) -> int:
        """The first plane, the only one of most boxes."""
        return int(self.planes.start)

    @property
    def at(self) -> tuple[int, slice, slice]:
        """(plane, rows, columns), as all readers and writers of one plane take them: `array.read(*box.at)`."""
        return self.plane, self.rows, self.columns

    @property
    def window(self) -> Window:
        """(rows, columns), to index an array (y, x)."""
        return self.rows, self.columns

    @property
    def corner(self) -> tuple[int, int, int]:
        """First plane, row and column."""
        return self.planes.start, self.rows.start, self.columns.start

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), px."""
        return _length(self.rows), _length(self.columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes, height, width), px."""
        return (_length(self.planes), *self.size)

    def __str__(self) -> str:
        """Name it for an error."""
        rows, columns = (f"{part.start}:{part.stop}" for part in self.window)
        return f"plane {self.plane}, rows {rows}, columns {columns}"

    def grown(self, halo_px: int, size: tuple[int, int]) -> Box:
        """Return the box with a halo on all sides of its rows and columns, clipped to a plane of (height, width)."""
        rows, columns = (
            slice(max(0, part.start - halo_px), min(length, part.stop + halo_px))
            for part, length in zip(self.window, size, strict=True)
        )
        return Box(self.planes, rows, columns)

    def counted_from(self, other: Box) -> Box:
        """Return the same pixels with planes, rows and columns counted from the first ones of another box."""
        return Box(*(slice(a.start - b.start, a.stop - b.start) for a, b in zip(self.axes, other.axes, strict=True)))

    def shared_with(self, other: Box) -> Box:
        """Return the pixels that lie in both boxes; there must be some."""
        axes = zip(self.axes, other.axes, strict=True)
        return Box(*(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in axes))

    def holds(self, other: Box) -> bool:
        """Whether all pixels of another box lie in this one."""
        axes = zip(self.axes, other.axes, strict=True)
        return all(a.start <= b.start and b.stop <= a.stop for a, b in axes)

    def planes_alone(self) -> Iterator[Box]:
        """Yield the box of each of its planes."""
        for plane in range(self.planes.start, self.planes.stop):
            yield Box.of(plane, self.rows, self.columns)

    def divided(self, height: int, width: int) -> Iterator[Box]:
        """Yield boxes of at most height × width px that make it up, in raster order; planes are not divided."""
        for top in range(self.rows.start, self.rows.stop, height):
            for left in range(self.columns.start, self.columns.stop, width):
                rows = slice(top, min(top + height, self.rows.stop))
                yield Box(self.planes, rows, slice(left, min(left + width, self.columns.stop)))

    @property
    def axes(self) -> Slices:
        """(planes, rows, columns), to index an array (z, y, x)."""
        return self.planes, self.rows, self.columns


def middle(length: int, most: int) -> slice:
    """Return the middle of a side, at most so long, px."""
    size = min(length, most)
    start = (length - size) // 2
    return slice(start, start + size)


def plane_boxes(shape: tuple[int, int, int]) -> Iterator[Box]:
    """Yield the box of each plane of a volume (planes, height, width)."""
    yield from Box(*(slice(0, size) for size in shape)).planes_alone()


def _length(part: slice) -> int:
    return int(part.stop - part.start)
