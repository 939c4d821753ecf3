"""The plan of a stack: regions of shards, shards of tiles, and how a tile is read with mirroring.

A region is the run of shards one prediction job writes; a shard is the file one job writes whole; a tile is one pass of
the network. Tile origins are multiples of the pooling stride, which makes the stitched result independent of the
tile size, of the shards and of the regions (see `geometry`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import read_window
from unet_pipeline.images.planes import Planes
from unet_pipeline.model.geometry import Geometry

PLANNED_PX = 1024
"""Tile size of a plan that leaves it to the jobs (`tile.tile_px: auto`)."""


@dataclass(frozen=True)
class Tile:
    """One pass of the network.

    ```
                   read: the window the network sees, mirrored where it leaves the image
            +-----------------------------------------+
            |   before                                |
            |   +---------------------------+         |
            |   | keep: what it writes,     |  after  |
            |   | clipped at the image edge |         |
            |   +---------------------------+         |
            |                                         |
            +-----------------------------------------+
    ```

    Attributes:
        plane: plane of the stack.
        y, x: first kept pixel; multiples of the pooling stride.
        height, width: kept pixels, clipped at the image edge.
    """

    plane: int
    y: int
    x: int
    height: int
    width: int

    @property
    def write(self) -> tuple[slice, slice]:
        """Rows and columns of the volume it writes."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def local(self, geometry: Geometry) -> tuple[slice, slice]:
        """Rows and columns of the network's output that are kept."""
        crop = geometry.crop_px
        return slice(crop, crop + self.height), slice(crop, crop + self.width)

    def within(self, shard: Shard) -> tuple[slice, slice]:
        """Rows and columns of its shard that it writes."""
        y, x = self.y - shard.rows.start, self.x - shard.columns.start
        return slice(y, y + self.height), slice(x, x + self.width)


@dataclass(frozen=True)
class Shard:
    """The part of the volume one job writes whole: a plane, and rows and columns clipped at the image edge."""

    plane: int
    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), px."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Plan:
    """How one stack is predicted.

    Attributes:
        shape: (planes, height, width) of the stack.
        geometry: of the network.
        keep: (height, width) a tile keeps, px; the same for all tiles of a stack.
        shard: (height, width) of a shard, px; multiples of the stride.
        regions: number of prediction jobs; some are empty if there are more than shards.
    """

    shape: tuple[int, int, int]
    geometry: Geometry
    keep: tuple[int, int]
    shard: tuple[int, int]
    regions: int

    def __post_init__(self) -> None:
        for name, edges in (("tile.tile_px", self.keep), ("store.shard_px", self.shard)):
            for edge in edges:
                self.geometry.check_keep(edge, name)

    @property
    def shard_grid(self) -> tuple[int, int, int]:
        """(planes, rows, columns) of shards."""
        planes, height, width = self.shape
        return planes, -(-height // self.shard[0]), -(-width // self.shard[1])

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return int(np.prod(self.shard_grid))

    @property
    def read(self) -> tuple[int, int]:
        """(height, width) the network reads, px; the same for all tiles of a stack."""
        return self.geometry.read_px(self.keep[0]), self.geometry.read_px(self.keep[1])

    def region(self, index: int) -> range:
        """Return the shard numbers of region `index`; the regions divide the shards evenly; refuses other numbers."""
        if not 0 <= index < self.regions:
            raise PipelineError("region", f"0 to {self.regions - 1}", index, min(max(index, 0), self.regions - 1))
        return range(self.shard_count * index // self.regions, self.shard_count * (index + 1) // self.regions)

    def region_of(self, number: int) -> int:
        """Return the region that holds shard `number`."""
        return ((number + 1) * self.regions - 1) // self.shard_count

    def shard_number(self, plane: int, row: int, column: int) -> int:
        """Return the number of the shard that holds pixel (row, column) of a plane."""
        _, rows, columns = self.shard_grid
        return (plane * rows + row // self.shard[0]) * columns + column // self.shard[1]

    def shard_at(self, number: int) -> Shard:
        """Return shard `number`, counted in raster order (plane, row, column)."""
        plane, row, column = (int(part) for part in np.unravel_index(number, self.shard_grid))
        _, height, width = self.shape
        y, x = row * self.shard[0], column * self.shard[1]
        rows, columns = slice(y, min(y + self.shard[0], height)), slice(x, min(x + self.shard[1], width))
        return Shard(plane, rows, columns)

    def tiles(self, shard: Shard) -> Iterator[Tile]:
        """Yield the tiles of a shard in raster order; together they keep each of its pixels once."""
        for y in range(shard.rows.start, shard.rows.stop, self.keep[0]):
            for x in range(shard.columns.start, shard.columns.stop, self.keep[1]):
                height, width = min(self.keep[0], shard.rows.stop - y), min(self.keep[1], shard.columns.stop - x)
                yield Tile(shard.plane, y, x, height, width)

    def _tile_grid(self, shard: Shard) -> tuple[int, int]:
        """(rows, columns) of the tiles of a shard."""
        height, width = shard.size
        return -(-height // self.keep[0]), -(-width // self.keep[1])

    def tile_count(self, shards: Iterable[int]) -> int:
        """Return the number of tiles of some shards, without listing them."""
        grids = (self._tile_grid(self.shard_at(number)) for number in shards)
        return sum(rows * columns for rows, columns in grids)

    def shard_read(self, shard: Shard) -> tuple[int, int]:
        """(height, width) of what all tiles of a shard read together, px; begins `geometry.before` px before it."""
        rows, columns = self._tile_grid(shard)
        overlap = self.geometry.before + self.geometry.after
        return rows * self.keep[0] + overlap, columns * self.keep[1] + overlap

    def seen(self, tile: Tile, shard: Shard) -> tuple[slice, slice]:
        """Rows and columns that a tile reads, of what its shard reads."""
        y, x = tile.y - shard.rows.start, tile.x - shard.columns.start
        return slice(y, y + self.read[0]), slice(x, x + self.read[1])


def plan(shape: tuple[int, int, int], geometry: Geometry, tile_px: int, shard: tuple[int, int], regions: int) -> Plan:
    """Plan a stack.

    The kept size is at most `tile_px`, and less where that divides the image more evenly: 520 rows with tiles of
    512 px become two tiles of 264 rows, not one of 512 and one of 8.

    Args:
        shape: (planes, height, width).
        geometry: of the network.
        tile_px: largest kept size, px; a multiple of the pooling stride.
        shard: (height, width) of a shard, px; multiples of the pooling stride.
        regions: number of jobs.

    Raises:
        PipelineError: if a size would shift the pooling phase; names the nearest that does not.
    """
    geometry.check_keep(tile_px, "tile.tile_px")
    if geometry.whole_plane:
        tile_px = _whole_plane(shape, geometry, shard)
    keep = tuple(
        _even(geometry, min(edge, geometry.round_up(size)), tile_px)
        for edge, size in zip(shard, shape[1:], strict=True)
    )
    return Plan(shape, geometry, (keep[0], keep[1]), shard, regions)


def _whole_plane(shape: tuple[int, int, int], geometry: Geometry, shard: tuple[int, int]) -> int:
    """Return a tile size that holds a whole plane, and refuse planes of several shards."""
    if shape[1] > shard[0] or shape[2] > shard[1]:
        fix = "raise store.shard_px, or set model.resize_output: false, with which any size works"
        raise PipelineError(
            "model.resize_output", f"planes of one shard, {shard[0]} x {shard[1]} px", shape[1:], fix=fix
        )
    return geometry.round_up(max(shape[1:]))


def _even(geometry: Geometry, extent_px: int, tile_px: int) -> int:
    tiles = -(-extent_px // tile_px)
    return geometry.round_up(-(-extent_px // tiles))


def read_tile(image: Planes, tile: Tile, plan: Plan) -> npt.NDArray[Any]:
    """Read what the network sees of a tile: `(channels, *plan.read)`."""
    before = plan.geometry.before
    return read_window(image, tile.plane, tile.y - before, tile.x - before, plan.read)
