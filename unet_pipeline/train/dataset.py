"""Training and validation tiles: how they are chosen and read.

A training tile is a pure function of (seed, step, index) and the kind of device it is made on: there is no sampler
state, so a resumed training sees the same tiles, and threads that read ahead cannot change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.sections import IGNORE, Augment
from unet_pipeline.images.mirrored import mirrored
from unet_pipeline.model.geometry import ALONE, Geometry
from unet_pipeline.train import augment
from unet_pipeline.train.sources import Source, Windows, as_tensor
from unet_pipeline.train.training_stack import TrainingStack

TRIES = 32
"""Draws of a training tile, or looks for a validation tile, before one without any annotated pixel is taken."""

SPREAD = np.array([0.7548776662466927, 0.5698402909980532])
"""Steps of the points that spread over a plane: 1/g and 1/g² with g³ = g + 1, so that they fill it evenly."""


class Tile(NamedTuple):
    """One training example; a batch is the same with a leading axis n, and of volumes there is a z before each y.

    Attributes:
        image: (channels, y, x) float32, normalised, the size the network reads.
        target: (y, x) uint8 class index or `IGNORE`, the size the network returns.
        boundary: (y, x) float32, the boundary term, of the same size.
    """

    image: torch.Tensor
    target: torch.Tensor
    boundary: torch.Tensor


@dataclass(frozen=True)
class Deep:
    """Along z, the tiles of a network of volumes.

    Attributes:
        geometry: size arithmetic along z.
        planes: planes of an output tile.
    """

    geometry: Geometry
    planes: int


@dataclass(frozen=True)
class Sampler:
    """Random training tiles.

    A stack is chosen in proportion to its pixels, a plane evenly, the tile's centre evenly over the plane; whatever
    lies beyond the plane is mirrored. A tile without annotated pixels is drawn again, at most `TRIES` times.

    Attributes:
        sources: the training stacks.
        geometry: size arithmetic of the network.
        tile_px: output tile, px; a multiple of the stride.
        options: section `augment`.
        seed: `train.seed`.
        deep: sizes along z; None of a network of planes.
    """

    sources: tuple[Source, ...]
    geometry: Geometry
    tile_px: int
    options: Augment
    seed: int
    deep: Deep | None = None

    @cached_property
    def _share(self) -> npt.NDArray[np.float64]:
        pixels = np.cumsum([source.stack.pixels for source in self.sources], dtype=np.float64)
        share: npt.NDArray[np.float64] = pixels / pixels[-1]
        return share

    def tile(self, step: int, index: int) -> Tile:
        """Return tile `index` of the batch of `step`; the same arguments give the same tile."""
        generator = np.random.default_rng([self.seed, step, index])
        for _ in range(TRIES):
            source, plane, positions, transform = self._draw(generator)
            planes, kept = self._planes(source.stack, plane, generator)
            inner = source.view(kept, self._output(positions))
            target = inner.target()
            if source.annotated or bool((target != IGNORE).any()):  # asking a GPU means waiting for it
                break
        unique, places = np.unique(planes, return_inverse=True)  # mirrored planes are read once
        image = source.view(unique.tolist(), positions).image()
        if self.deep is None:
            return Tile(augment.grey(image, transform, generator)[:, 0], target[0], inner.boundary()[0])
        tile = Tile(augment.grey(image[:, places], transform, generator), target, inner.boundary())
        # only where voxels are cubes is z like y and x
        return self._turned(tile, generator) if source.stack.cubes else tile

    def _planes(self, stack: TrainingStack, plane: int, generator: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return the planes that a tile around a plane reads, mirrored beyond the stack, and those it returns."""
        if self.deep is None:
            return [plane], [plane]
        sizes = self.deep.geometry
        size = sizes.training_px(self.deep.planes)
        planes = mirrored(plane - size // 2, size, stack.image.shape[0]).tolist()
        if self.options.flip and generator.integers(2):
            planes.reverse()
        first = sizes.lost // 2
        return planes, planes[first : first + sizes.output_px(size)]

    def _turned(self, tile: Tile, generator: np.random.Generator) -> Tile:
        """Let z change places with y, x or none, where tiles are cubes; with the turns in the plane, these are all."""
        if len(set(tile.image.shape[1:])) > 1 or self.options.rotate == "none":
            return tile
        other = int(generator.integers(3))
        return Tile(*(part.transpose(-3, other - 3) for part in tile))

    def _draw(self, generator: np.random.Generator) -> tuple[Source, int, torch.Tensor, augment.Transform]:
        """Draw a place and a transform; positions are (2, y, x) float64 px within the plane, on the source's device."""
        source = self.sources[int(np.searchsorted(self._share, generator.random(), side="right"))]
        stack = source.stack
        plane = stack.used[int(generator.integers(len(stack.used)))]
        read_px = self.geometry.training_px(self.tile_px)
        # the centre of an even tile lies between pixels: without deformation, pixels are read as they are
        centre = [int(generator.integers(size)) + 0.5 * (1 - read_px % 2) for size in stack.size]
        transform = augment.draw(self.options, generator, stack.image.shape[1], (read_px, read_px))
        # float64: px of a large plane with the fractions that bilinear interpolation needs
        positions = augment.coordinates(transform, (read_px, read_px), source.device).double()
        for axis, middle in zip(positions, centre, strict=True):
            axis += middle
        return source, plane, augment.mirror(positions, stack.size), transform

    def _output(self, positions: torch.Tensor) -> torch.Tensor:
        """Cut the positions that the network reads down to those it returns."""
        first = self.geometry.lost // 2
        window = slice(first, first + self.geometry.output_px(positions.shape[-1]))
        return positions[:, window, window]

    def batch(self, step: int, indices: Iterable[int]) -> Tile:
        """Return these tiles of the batch of a step, stacked."""
        return stack_tiles([self.tile(step, index) for index in indices])


def stack_tiles(tiles: Sequence[Tile]) -> Tile:
    """Return a batch: each part stacked along a new first axis."""
    return Tile(*(torch.stack(parts) for parts in zip(*tiles, strict=True)))


@dataclass(frozen=True)
class ValidationTile:
    """A block of a validation plane, on the grid of `tile_px` that starts at pixel (0, 0).

    Of a volume, `plane` is its first, a multiple of the planes of a tile.
    """

    stack: TrainingStack
    plane: int
    row: int
    column: int

    def read(self, geometry: Geometry, tile_px: int, deep: Deep | None = None) -> Tile:
        """Read the tile, unaugmented: image as the network reads it, target and boundary of the kept block.

        Target pixels beyond the stack, or in planes that are not used, are `IGNORE`: no pixel counts twice.
        """
        axes = [
            torch.arange(start - geometry.before, start + tile_px + geometry.after, dtype=torch.float64)
            for start in (self.row, self.column)
        ]
        positions = augment.mirror(torch.stack(torch.meshgrid(axes, indexing="ij")), self.stack.size)
        along_z, deep_px = (deep.geometry, deep.planes) if deep else (ALONE, 1)
        planes = mirrored(self.plane - along_z.before, along_z.read_px(deep_px), self.stack.image.shape[0])
        unique, places = np.unique(planes, return_inverse=True)
        image = Windows(self.stack).view(unique.tolist(), positions).image()[:, places]
        target = torch.full((deep_px, tile_px, tile_px), IGNORE, dtype=torch.uint8)
        boundary = torch.zeros(target.shape, dtype=torch.float32)
        rows, columns = self.inside(tile_px)
        own = self.planes(deep_px)
        inner = slice(0, len(own)), slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start)
        target[inner] = as_tensor(self.stack.read_target(own, rows, columns), np.uint8)
        boundary[inner] = as_tensor(self.stack.read_boundary(own, rows, columns), np.float32)
        return Tile(image, target, boundary) if deep else Tile(image[:, 0], target[0], boundary[0])

    def planes(self, count: int) -> range:
        """Return the planes of the kept block, clipped to the stack."""
        return range(self.plane, min(self.plane + count, self.stack.image.shape[0]))

    def inside(self, tile_px: int) -> tuple[slice, slice]:
        """Return the (rows, columns) of the kept block, clipped to the plane."""
        height, width = self.stack.size
        return slice(self.row, min(self.row + tile_px, height)), slice(self.column, min(self.column + tile_px, width))


def validation_tiles(
    stacks: Sequence[TrainingStack], tile_px: int, count: int, classes: int = 2, planes: int = 1
) -> tuple[list[ValidationTile], set[int]]:
    """Choose up to `count` tiles, spread over planes, rows and columns; the same arguments give the same tiles.

    The blocks, plane after plane in raster order, are divided into `count` runs. Of each run one block is taken: near a
    point that jumps about the plane from run to run (in raster order the middles of all runs may lie in one column).
    Of the `TRIES` nearest the first that shows every class is preferred, else the one that shows most.

    Args:
        stacks: the validation stacks.
        tile_px: height and width of a block, px.
        count: most tiles.
        classes: number of classes of the target.
        planes: of a block.

    Returns:
        The tiles, and the classes that none of them shows.
    """
    slabs = [sorted({plane // planes * planes for plane in stack.used}) for stack in stacks]
    counts = [len(slab) * _blocks(stack, tile_px) for slab, stack in zip(slabs, stacks, strict=True)]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if counts else 0
    count = min(count, total)
    chosen, absent = [], set(range(classes))
    for run in range(count):
        first, last = run * total // count, (run + 1) * total // count
        which = int(np.searchsorted(ends, (first + last) // 2, side="right"))
        before = int(ends[which - 1]) if which else 0
        point = (0.5 + SPREAD * run) % 1
        run_of_blocks = range(first - before, last - before)
        tiles = _nearest_blocks(stacks[which], slabs[which], tile_px, run_of_blocks, point)
        tile, shown = _most_classes(tiles, tile_px, classes, planes)
        if tile is not None:
            chosen.append(tile)
            absent -= shown
    return chosen, absent


def _nearest_blocks(
    stack: TrainingStack, slabs: Sequence[int], tile_px: int, run: range, point: npt.NDArray[np.float64]
) -> Iterator[ValidationTile]:
    """Yield blocks of the plane or slab in the middle of a run, near `point` first, (y, x) in [0, 1) of it."""
    down, across = (-(-size // tile_px) for size in stack.size)
    plane = (run.start + run.stop) // 2 // (down * across)
    start = plane * down * across
    places = np.arange(max(run.start - start, 0), min(run.stop - start, down * across))
    distance = np.hypot((places // across + 0.5) / down - point[0], (places % across + 0.5) / across - point[1])
    for place in places[np.argsort(distance, kind="stable")[:TRIES]].tolist():
        yield ValidationTile(stack, slabs[plane], place // across * tile_px, place % across * tile_px)


def _most_classes(
    tiles: Iterable[ValidationTile], tile_px: int, classes: int, planes: int
) -> tuple[ValidationTile | None, set[int]]:
    """Return the first tile that shows every class, else the one that shows most, and its classes."""
    best: tuple[ValidationTile | None, set[int]] = None, set()
    for tile in tiles:
        shown = _shown(tile, tile_px, planes)
        if len(shown) > len(best[1]):
            best = tile, shown
        if len(shown) == classes:
            break
    return best


def _blocks(stack: TrainingStack, tile_px: int) -> int:
    height, width = stack.size
    return -(-height // tile_px) * -(-width // tile_px)


def _shown(tile: ValidationTile, tile_px: int, planes: int) -> set[int]:
    """Return the classes of a block; none where nobody annotated it."""
    rows, columns = tile.inside(tile_px)
    return set(np.unique(tile.stack.read_target(tile.planes(planes), rows, columns)).tolist()) - {IGNORE}
