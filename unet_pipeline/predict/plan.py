"""The plan of a stack: regions of shards, shards of tiles, and how a tile is read with mirroring.

A region is the run of shards one prediction job writes; a shard is the file one job writes whole; a tile is one pass of
the network. All tiles of a stack have one size, and lie on one grid that begins in the corner of each plane, whatever
the shards: so a pixel is always computed by the same pass, of the same shape and at the same place in it, and shards,
regions and jobs cannot change a bit of it. Tile origins are also multiples of the pooling stride, without which
the tile size would change more than the order of sums (see `geometry`).

A network of volumes divides z likewise: its shards and tiles hold several planes, whose origins are multiples of its
own stride along z, and z is mirrored like y and x. To a network of planes each plane is alone, and all is 1 along z.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import mirrored, read_window
from unet_pipeline.images.planes import Planes
from unet_pipeline.model.geometry import ALONE, Geometry
from unet_pipeline.objects.box import Box, Slices


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
        z, y, x: first pixel of the kept block; multiples of its planes, height and width.
        write: what it writes of the volume: the block, cut where its shard or the stack ends.
    """

    z: int
    y: int
    x: int
    write: Box

    @property
    def part(self) -> Slices:
        """Planes, rows and columns of its kept block that it writes."""
        corner = Box(*(slice(first, first) for first in (self.z, self.y, self.x)))
        return self.write.counted_from(corner).axes


@dataclass(frozen=True)
class AlongZ:
    """The division of a stack along z; as it stands here, each plane is alone.

    Attributes:
        geometry: of the network along z.
        keep: planes a tile keeps.
        shard: planes of a shard; a multiple of the stride.
    """

    geometry: Geometry = ALONE
    keep: int = 1
    shard: int = 1


@dataclass(frozen=True)
class Plan:
    """The division of one stack into regions, shards and tiles.

    Attributes:
        shape: (planes, height, width) of the stack.
        geometry: of the network along y and x.
        keep: (height, width) a tile keeps, px; the same for all tiles of a stack.
        shard: (height, width) of a shard, px; multiples of the stride.
        regions: number of prediction jobs; some are empty if there are more than shards.
        along_z: the same along z.
    """

    shape: tuple[int, int, int]
    geometry: Geometry
    keep: tuple[int, int]
    shard: tuple[int, int]
    regions: int
    along_z: AlongZ = AlongZ()

    def __post_init__(self) -> None:
        for name, edges in (("tile.tile_px", self.keep), ("store.shard_px", self.shard)):
            for edge in edges:
                self.geometry.check_keep(edge, name)
        for planes in (self.along_z.keep, self.along_z.shard):
            self.along_z.geometry.check_keep(planes, "tile.tile_planes")

    @property
    def geometries(self) -> tuple[Geometry, Geometry, Geometry]:
        """Sizes of the network along z, y and x."""
        return self.along_z.geometry, self.geometry, self.geometry

    @property
    def keeps(self) -> tuple[int, int, int]:
        """(planes, height, width) a tile keeps."""
        return self.along_z.keep, *self.keep

    @property
    def shards(self) -> tuple[int, int, int]:
        """(planes, height, width) of a shard."""
        return self.along_z.shard, *self.shard

    @property
    def shard_grid(self) -> tuple[int, int, int]:
        """Number of shards along z, y and x."""
        deep, down, across = (-(-size // edge) for size, edge in zip(self.shape, self.shards, strict=True))
        return deep, down, across

    @property
    def shard_count(self) -> int:
        """Number of shards."""
        return int(np.prod(self.shard_grid))

    @property
    def read(self) -> tuple[int, int, int]:
        """(planes, height, width) the network reads; the same for all tiles of a stack."""
        planes, height, width = (one.read_px(keep) for one, keep in zip(self.geometries, self.keeps, strict=True))
        return planes, height, width

    @property
    def block(self) -> Slices:
        """Planes, rows and columns of the network's output that are a tile's kept block; the same for all tiles."""
        planes, rows, columns = (
            slice(one.crop_px, one.crop_px + keep) for one, keep in zip(self.geometries, self.keeps, strict=True)
        )
        return planes, rows, columns

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
        return (plane // self.along_z.shard * rows + row // self.shard[0]) * columns + column // self.shard[1]

    def shard_at(self, number: int) -> Box:
        """Return shard `number`, counted in raster order (z, y, x)."""
        places = (int(part) for part in np.unravel_index(number, self.shard_grid))
        axes = zip(places, self.shards, self.shape, strict=True)
        return Box(*(slice(place * edge, min((place + 1) * edge, size)) for place, edge, size in axes))

    def tiles(self, shard: Box) -> Iterator[Tile]:
        """Yield the tiles of a shard in raster order; together they write each of its pixels once.

        A tile that lies in two shards is yielded for both.
        """
        for corner in product(*self._starts(shard)):
            block = Box(*(slice(first, first + keep) for first, keep in zip(corner, self.keeps, strict=True)))
            yield Tile(*corner, block.shared_with(shard))

    def _starts(self, shard: Box) -> tuple[range, range, range]:
        """Return the first planes, rows and columns of the tiles of a shard."""
        planes, rows, columns = (
            range(part.start // keep * keep, part.stop, keep) for part, keep in zip(shard.axes, self.keeps, strict=True)
        )
        return planes, rows, columns

    def tile_count(self, shards: Iterable[int]) -> int:
        """Return the number of tiles of some shards, without listing them."""
        grids = (self._starts(self.shard_at(number)) for number in shards)
        return sum(len(planes) * len(rows) * len(columns) for planes, rows, columns in grids)

    def read_shard(self, image: Planes, shard: Box) -> npt.NDArray[Any]:
        """Read the window of all tiles of a shard together: `(channels, z, y, x)`."""
        starts = self._starts(shard)
        origin = [one.start - sizes.before for one, sizes in zip(starts, self.geometries, strict=True)]
        size = [
            len(one) * keep + sizes.before + sizes.after
            for one, keep, sizes in zip(starts, self.keeps, self.geometries, strict=True)
        ]
        return read_box(image, origin, size)

    def window_of(self, tile: Tile, shard: Box) -> Slices:
        """Return the planes, rows and columns that a tile reads, counted in the window of `read_shard`."""
        planes, rows, columns = (
            slice(first - starts.start, first - starts.start + read)
            for first, starts, read in zip((tile.z, tile.y, tile.x), self._starts(shard), self.read, strict=True)
        )
        return planes, rows, columns


def plan(
    shape: tuple[int, int, int],
    geometry: Geometry,
    tile_px: int,
    shard: tuple[int, int],
    regions: int,
    along_z: AlongZ = AlongZ(),
) -> Plan:
    """Plan a stack.

    The kept size is at most `tile_px`, and less where that divides the image more evenly: 520 rows in one shard with
    tiles of 512 px become two tiles of 264 rows, not one of 512 and one of 8. Rows or columns in several shards keep
    `tile_px`, or a shard where that is smaller; a size that divides the shard is cheapest, since a tile that lies in
    two shards is computed for each. Planes are divided likewise.

    Args:
        shape: (planes, height, width).
        geometry: of the network along y and x.
        tile_px: largest kept size, px; a multiple of the pooling stride.
        shard: (height, width) of a shard, px; multiples of the pooling stride.
        regions: number of jobs.
        along_z: sizes along z, the kept one the largest.

    Raises:
        PipelineError: if a size would shift the pooling phase; names the nearest that does not.
    """
    geometry.check_keep(tile_px, "tile.tile_px")
    along_z.geometry.check_keep(along_z.keep, "tile.tile_planes")
    if geometry.whole_plane:
        tile_px = _whole_plane(shape, geometry, shard)
    height, width = (_kept(geometry, size, edge, tile_px) for size, edge in zip(shape[1:], shard, strict=True))
    planes = _kept(along_z.geometry, shape[0], along_z.shard, along_z.keep)
    return Plan(shape, geometry, (height, width), shard, regions, replace(along_z, keep=planes))


def _whole_plane(shape: tuple[int, int, int], geometry: Geometry, shard: tuple[int, int]) -> int:
    """Return a tile size that holds a whole plane, and refuse planes of several shards."""
    if shape[1] > shard[0] or shape[2] > shard[1]:
        fix = "raise store.shard_px, or set model.resize_output: false, with which any size works"
        raise PipelineError(
            "model.resize_output", f"planes of one shard, {shard[0]} x {shard[1]} px", shape[1:], fix=fix
        )
    return geometry.round_up(max(shape[1:]))


def _kept(geometry: Geometry, extent_px: int, shard_px: int, tile_px: int) -> int:
    if extent_px > shard_px:
        return min(shard_px, tile_px)
    tiles = -(-extent_px // tile_px)
    return geometry.round_up(-(-extent_px // tiles))


def read_tile(image: Planes, tile: Tile, plan: Plan) -> npt.NDArray[Any]:
    """Read the window of a tile: `(channels, *plan.read)`."""
    corner = zip((tile.z, tile.y, tile.x), plan.geometries, strict=True)
    return read_box(image, [first - sizes.before for first, sizes in corner], plan.read)


def read_box(image: Planes, origin: Sequence[int], size: Sequence[int]) -> npt.NDArray[Any]:
    """Read a window of several planes, mirrored where it leaves the stack along any axis.

    Args:
        image: the stack; each plane is read once, however often mirroring shows it.
        origin: first plane, row and column; may be negative.
        size: (planes, height, width).

    Returns:
        `(channels, planes, height, width)` in the data type of the image.
    """
    (z, y, x), (deep, height, width) = origin, size
    planes = mirrored(z, deep, image.shape[0]).tolist()
    if deep == 1:
        return read_window(image, planes[0], y, x, (height, width))[:, None]
    read: dict[int, int] = {}
    first = read_window(image, planes[0], y, x, (height, width))
    window = np.empty((len(first), deep, height, width), first.dtype)
    for place, plane in enumerate(planes):
        again = read.setdefault(plane, place)
        if again < place:
            window[:, place] = window[:, again]
        else:
            window[:, place] = first if place == 0 else read_window(image, plane, y, x, (height, width))
    return window
