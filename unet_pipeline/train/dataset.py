"""Training and validation tiles: how they are chosen and read.

A training tile is a pure function of (seed, step, index) and the kind of device it is made on: there is no sampler
state, so a resumed training sees the same tiles, and threads that read ahead cannot change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.sections import IGNORE, Augment
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.train import augment
from unet_pipeline.train.sources import Source, Windows, as_tensor
from unet_pipeline.train.training_stack import TrainingStack

TRIES = 32
"""Draws of a training tile, or looks for a validation tile, before one without any annotated pixel is taken."""


class Tile(NamedTuple):
    """One training example; a batch is the same with a leading axis n.

    Attributes:
        image: (channels, y, x) float32, normalised, the size the network reads.
        target: (y, x) uint8 class index or `IGNORE`, the size the network returns.
        boundary: (y, x) float32, the boundary term, of the same size.
    """

    image: torch.Tensor
    target: torch.Tensor
    boundary: torch.Tensor


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
    """

    sources: tuple[Source, ...]
    geometry: Geometry
    tile_px: int
    options: Augment
    seed: int

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
            inner = source.view(plane, self._output(positions))
            target = inner.target()
            if source.annotated or bool((target != IGNORE).any()):  # asking a GPU means waiting for it
                break
        image = source.view(plane, positions).image()
        return Tile(augment.grey(image, transform, generator), target, inner.boundary())

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
    """A block of a validation plane, on the grid of `tile_px` that starts at pixel (0, 0)."""

    stack: TrainingStack
    plane: int
    row: int
    column: int

    def read(self, geometry: Geometry, tile_px: int) -> Tile:
        """Read the tile, unaugmented: image as the network reads it, target and boundary of the kept block.

        Target pixels beyond the plane are `IGNORE`, so that no pixel counts twice.
        """
        axes = [
            torch.arange(start - geometry.before, start + tile_px + geometry.after, dtype=torch.float64)
            for start in (self.row, self.column)
        ]
        positions = augment.mirror(torch.stack(torch.meshgrid(axes, indexing="ij")), self.stack.size)
        image = Windows(self.stack).view(self.plane, positions).image()
        target = torch.full((tile_px, tile_px), IGNORE, dtype=torch.uint8)
        boundary = torch.zeros((tile_px, tile_px), dtype=torch.float32)
        rows, columns = self.inside(tile_px)
        inner = slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start)
        target[inner] = as_tensor(self.stack.target.read_label(self.plane, rows, columns), np.uint8)
        boundary[inner] = as_tensor(self.stack.boundary.read_label(self.plane, rows, columns), np.float32)
        return Tile(image, target, boundary)

    def inside(self, tile_px: int) -> tuple[slice, slice]:
        """Return the (rows, columns) of the kept block, clipped to the plane."""
        height, width = self.stack.size
        return slice(self.row, min(self.row + tile_px, height)), slice(self.column, min(self.column + tile_px, width))


def validation_tiles(stacks: Sequence[TrainingStack], tile_px: int, count: int) -> list[ValidationTile]:
    """Choose up to `count` tiles, spread evenly over all blocks of all planes; no randomness.

    The blocks in raster order are divided into `count` runs; of each run the first block from its middle that has an
    annotated pixel is taken, after at most `TRIES` looks.
    """
    counts = [_blocks(stack, tile_px) for stack in stacks]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if counts else 0
    count = min(count, total)
    chosen = []
    for run in range(count):
        first, last = run * total // count, (run + 1) * total // count
        middle = (first + last) // 2
        order = [*range(middle, last), *range(first, middle)][:TRIES]
        tiles = (_nth_block(stacks, ends, number, tile_px) for number in order)
        chosen.append(next((tile for tile in tiles if _annotated(tile, tile_px)), None))
    return [tile for tile in chosen if tile is not None]


def _blocks(stack: TrainingStack, tile_px: int) -> int:
    height, width = stack.size
    return len(stack.used) * -(-height // tile_px) * -(-width // tile_px)


def _nth_block(stacks: Sequence[TrainingStack], ends: Any, number: int, tile_px: int) -> ValidationTile:
    which = int(np.searchsorted(ends, number, side="right"))
    stack = stacks[which]
    down, across = (-(-size // tile_px) for size in stack.size)
    plane, row, column = np.unravel_index(
        number - (int(ends[which - 1]) if which else 0), (len(stack.used), down, across)
    )
    return ValidationTile(stack, stack.used[int(plane)], int(row) * tile_px, int(column) * tile_px)


def _annotated(tile: ValidationTile, tile_px: int) -> bool:
    rows, columns = tile.inside(tile_px)
    return bool((tile.stack.target.read_label(tile.plane, rows, columns) != IGNORE).any())
