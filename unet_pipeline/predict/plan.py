"""The plan of a stack: regions of shards, shards of tiles, and how a tile is read with mirroring.

A region is the run of shards one prediction job writes; a shard is the file one job writes whole; a tile is one pass of
the network. All tiles of a stack have one size, and lie on one grid that begins in the corner of each plane, whatever
the shards: so a pixel is always computed by the same pass, of the same shape and at the same place in it, and shards,
regions and jobs cannot change a bit of it. Tile origins are also multiples of the pooling stride, without which
the tile size would change more than the order of sums (see `geometry`).
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


@dataclass(frozen=True)
class Tile:
    """One pass of the network.

    ```
                   read: the window the network sees, mirrored where it leaves the image
            +-----------------------------------------+
            |   before                                |
            |   +---------------------------+         |
            |   | keep: what it writes, cut |  after  |
            |   | where shard or image ends |         |
            |   +---------------------------+         |
            |                                         |
            +-----------------------------------------+
    ```

    Attributes:
        plane: plane of the stack.
        y, x: first pixel of the kept block; multiples of the block's height and width.
        rows, columns: what it writes of the volume: the block, cut where its shard or the image ends.
    """

    plane: int
    y: int
    x: int
    rows: slice
    columns: slice

    @property
    def write(self) -> tuple[slice, slice]:
        """Rows and columns of the volume it writes."""
        return self.rows, self.columns

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns of its kept block that it writes."""
        return _moved(self.rows, -self.y), _moved(self.columns, -self.x)

    def window_in(self, shard: Shard) -> tuple[slice, slice]:
        """Rows and columns of its shard that it writes."""
        return _moved(self.rows, -shard.rows.start), _moved(self.columns, -shard.columns.start)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


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
    """The division of one stack into regions, shards and tiles.

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

    @property
    def block(self) -> tuple[slice, slice]:
        """Rows and columns of the network's output that are a tile's kept block; the same for all tiles of a stack."""
        first = self.geometry.crop_px
        return slice(first, first + self.keep[0]), slice(first, first + self.keep[1])

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
        """Yield the tiles of a shard in raster order; together they write each of its pixels once.

        A tile that lies in two shards is yielded for both.
        """
        rows, columns = self._starts(shard)
        for y in rows:
            inside = slice(max(y, shard.rows.start), min(y + self.keep[0], shard.rows.stop))
            for x in columns:
                stop = min(x + self.keep[1], shard.columns.stop)
                yield Tile(shard.plane, y, x, inside, slice(max(x, shard.columns.start), stop))

    def _starts(self, shard: Shard) -> tuple[range, range]:
        """Return the first rows and the first columns of the tiles of a shard."""
        rows, columns = (
            range(part.start // keep * keep, part.stop, keep)
            for part, keep in zip((shard.rows, shard.columns), self.keep, strict=True)
        )
        return rows, columns

    def tile_count(self, shards: Iterable[int]) -> int:
        """Return the number of tiles of some shards, without listing them."""
        grids = (self._starts(self.shard_at(number)) for number in shards)
        return sum(len(rows) * len(columns) for rows, columns in grids)

    def read_shard(self, image: Planes, shard: Shard) -> npt.NDArray[Any]:
        """Read the window of all tiles of a shard together: `(channels, y, x)`."""
        (rows, columns), before = self._starts(shard), self.geometry.before
        size = (len(starts) * keep for starts, keep in zip((rows, columns), self.keep, strict=True))
        height, width = (edge + before + self.geometry.after for edge in size)
        return read_window(image, shard.plane, rows.start - before, columns.start - before, (height, width))

    def window_of(self, tile: Tile, shard: Shard) -> tuple[slice, slice]:
        """Return the rows and columns that a tile reads, counted in the window of `read_shard`."""
        rows, columns = self._starts(shard)
        y, x = tile.y - rows.start, tile.x - columns.start
        return slice(y, y + self.read[0]), slice(x, x + self.read[1])


def plan(shape: tuple[int, int, int], geometry: Geometry, tile_px: int, shard: tuple[int, int], regions: int) -> Plan:
    """Plan a stack.

    The kept size is at most `tile_px`, and less where that divides the image more evenly: 520 rows in one shard with
    tiles of 512 px become two tiles of 264 rows, not one of 512 and one of 8. Rows or columns in several shards keep
    `tile_px`, or a shard where that is smaller; a size that divides the shard is cheapest, since a tile that lies in
    two shards is computed for each.

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
    height, width = (
        _even(geometry, size, tile_px) if size <= edge else min(edge, tile_px)
        for edge, size in zip(shard, shape[1:], strict=True)
    )
    return Plan(shape, geometry, (height, width), shard, regions)


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
    """Read the window of a tile: `(channels, *plan.read)`."""
    before = plan.geometry.before
    return read_window(image, tile.plane, tile.y - before, tile.x - before, plan.read)
