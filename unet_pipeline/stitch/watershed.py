"""Objects that touch, divided by seeds or at their necks: in a stack of any size, the same for every division of it.

```
pieces   connected pixels of one class                          numbered block by block, as objects are
seeds    connected pixels that are surely of their class        the same
parts    with seeds: a piece with several is flooded from them, downwards from the most probable pixels
         by distance: a piece is divided into the basins of the distance to what lies beside it
```
What a piece is divided into depends on its own pixels alone, so pieces are divided one by one, each within the smallest
box around it, wherever it lies. Memory: some arrays of a shard, 200 bytes a connected piece or seed (see
`objects.components`), and a box; a box of more than `IN_MEMORY_PX` lies in files beside the store, which takes disk and
time instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.halo_blocks import halo_blocks
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.basins import basin_heights, basins, reach_px
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.compiled import compiled
from unet_pipeline.objects.components import ComponentOptions, ComponentTable, Read, label_components
from unet_pipeline.objects.decided import LARGEST_UINT8, as_stored
from unet_pipeline.objects.flood import OUTSIDE, flood
from unet_pipeline.objects.fragments import LARGEST_CLASS
from unet_pipeline.stitch.layers import Layer, Volume

IN_MEMORY_PX = 2**24
"""Largest box that is flooded in memory, px: 14 bytes each."""
BLOCK_PX = 2048
"""Edge of what is read at a time, px."""
ONE_FLOAT16 = 0x3C00
"""The bits of 1 in float16; they grow with the value."""


Divide = Callable[[NDArray[np.uint16], NDArray[np.uint32], NDArray[np.int64]], None]
"""divide(heights, labels, queue): label the pixels of one piece, (planes, y, x), in place."""


@dataclass(frozen=True)
class Layers:
    """Three layers of a volume: the pieces, their seeds, and the heights from which they are divided.

    Attributes:
        pieces: uint32.
        seeds: uint32; None where a piece is divided without.
        heights: gives those of a box of one plane, (y, x) uint16.
    """

    pieces: Layer
    seeds: Layer | None
    heights: Callable[[Box], NDArray[np.uint16]]

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
        """Return pieces uint32, seeds uint32 and heights uint16, each (y, x), of a box of one plane."""
        pieces = self.pieces.read_label(*box.at)
        seeds = np.zeros_like(pieces) if self.seeds is None else self.seeds.read_label(*box.at)
        return pieces, seeds, self.heights(box)


def divide(volume: Volume, settings: ObjectSettings) -> Layer:
    """Divide the connected pixels of each class, by `settings.method`: "watershed" or "distance".

    Args:
        volume: classes and probabilities, both written.
        settings: how objects are made.

    Returns:
        The parts: 0 background, each other value, from 256 on, one connected part.
    """
    return (_by_seeds if settings.method == "watershed" else _by_distance)(volume, settings)


def _by_seeds(volume: Volume, settings: ObjectSettings) -> Layer:
    """Divide by seeds: connected sets of `least_seed_px` pixels or more whose class is at least as probable as `seed`.

    A piece without a seed stays one part.
    """
    limit = seed_height(settings.seed, volume.probabilities.dtype)

    def sure(plane: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        heights = read_heights(volume.probabilities, Box.of(plane, rows, columns))
        return np.where(heights <= limit, volume.classes.read_label(plane, rows, columns), np.uint8(0))

    # seeds and pieces are 4-connected like the flood's neighbours: a piece holds all pixels that its seeds can reach
    seeds, pieces = volume.scratch.layer("seeds"), volume.scratch.layer("pieces")
    found = label_blocks(sure, seeds, ComponentOptions(4, volume.deep, settings.least_seed_px), f"seeds {volume.name}")
    whole = label_blocks(volume.classes.read_label, pieces, ComponentOptions(4, volume.deep), f"pieces {volume.name}")
    _check_count(volume, len(found.id) + len(whole.id))
    # only pieces with several seeds need a flood, mostly few; the others are their own part
    boxes, several = _survey(pieces, seeds, len(whole.id))
    layers = Layers(pieces, seeds, lambda box: read_heights(volume.probabilities, box))
    return _parts(volume, Floods(layers, boxes, several, flood, len(found.id), volume.scratch.folder))


def _by_distance(volume: Volume, settings: ObjectSettings) -> Layer:
    """Divide at necks; see `objects.basins`. A piece too small for two objects stays one part."""
    pieces, depths = volume.scratch.layer("pieces"), volume.scratch.layer("depths")
    # holes are filled first: distances to them would make necks of their rims
    chosen = ComponentOptions(4, volume.deep, fill_holes=settings.fill_holes)
    whole = label_blocks(volume.classes.read_label, pieces, chosen, f"pieces {volume.name}")
    for shard in depths.shards():
        heights = np.empty(shard.size, np.uint32)
        for block in halo_blocks(shard, BLOCK_PX, reach_px(settings.smooth_px), pieces.shape[2:]):
            heights[block.place] = basin_heights(pieces.read_label(*block.outer.at), settings.smooth_px)[block.local]
        volume.check()
        depths.write(*shard.at, heights)
    boxes, several = _survey(pieces, pieces, len(whole.id))
    several[whole.id] = whole.area >= 2 * max(1, settings.min_area_px)
    last = len(whole.id)  # parts that are divided are numbered behind those that are not, whatever the order

    def number(heights: NDArray[np.uint16], labels: NDArray[np.uint32], queue: NDArray[np.int64]) -> None:
        nonlocal last
        count = basins(heights, labels, queue, settings.neck)
        _check_count(volume, last + count)
        labels[labels > 0] += np.uint32(last)
        last += count

    layers = Layers(pieces, None, lambda box: depths.read_label(*box.at).astype(np.uint16))
    return _parts(volume, Floods(layers, boxes, several, number, 0, volume.scratch.folder))


def _check_count(volume: Volume, count: int) -> None:
    if LARGEST_CLASS + count >= 2**32:
        fix = "use stitch.method: components"
        raise PipelineError(f"stack {volume.name}", "less than 4294967040 objects and seeds", "more", fix=fix)


def _parts(volume: Volume, floods: Floods) -> Layer:
    """Write the parts of all shards."""
    parts = volume.scratch.layer("parts")
    shards, several = list(parts.shards()), floods.several
    with Progress(len(shards), f"divide {volume.name}") as progress:
        progress.say(f"{int(several.sum())} of {len(several) - 1} pieces may be several objects")
        for shard in shards:
            # a flood may take long before the shard is written: ask before it too whether the job was taken over
            volume.check()
            parts.write(*shard.at, floods.parts(shard))
            progress.advance()
    return parts


def label_blocks(read: Read, target: Layer, options: ComponentOptions, name: str) -> ComponentTable:
    """Write the connected components of what `read` gives to all shards of `target`; `name` is for the progress."""
    planes, _, height, width = target.shape
    shards = sum(1 for _ in target.shards())
    with Progress(2 * shards, name) as progress:

        def tell(done: int, total: int) -> None:
            progress.advance()

        return label_components(read, target.write, (planes, height, width), target.shard_px, options, tell)


def read_heights(probabilities: Layer, box: Box) -> NDArray[np.uint16]:
    """Return how far the most probable class of each pixel is from certain, (y, x) uint16; 0 is probability 1."""
    heights = np.empty(box.size, np.uint16)
    # in blocks, because the probabilities of all classes take many times the memory of the heights
    for block in box.divided(BLOCK_PX, BLOCK_PX):
        heights[block.counted_from(box).window] = heights_of(probabilities.read(*block.at).max(axis=0))
    return heights


def heights_of(probability: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the number of steps from a stored probability, uint8 or float16, up to 1: uint16, same shape."""
    if probability.dtype == np.uint8:
        return LARGEST_UINT8 - probability.astype(np.uint16)
    return ONE_FLOAT16 - np.minimum(probability.view(np.uint16), np.uint16(ONE_FLOAT16))


def seed_height(seed: float, dtype: np.dtype[Any]) -> int:
    """Return the height up to which pixels are seeds, for the least probability of seeds."""
    return int(heights_of(np.array([as_stored(seed, dtype)], dtype))[0])


def _survey(pieces: Layer, seeds: Layer, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the boxes of the pieces, (count + 1, 6) of planes, rows, columns, and which have several seeds."""
    boxes = np.tile(np.array([2**62, 0] * 3), (count + 1, 1))
    seed, several = np.zeros(count + 1, np.uint32), np.zeros(count + 1, np.bool_)
    for shard in pieces.shards():
        ids, own = (array.read_label(*shard.at) for array in (pieces, seeds))
        _extend(ids, own, shard.plane, shard.rows.start, shard.columns.start, boxes, seed, several)
    return boxes, several


@compiled
def _extend(ids: Any, seeds: Any, plane: int, top: int, left: int, boxes: Any, seed: Any, several: Any) -> None:
    """Extend the boxes by the pixels of a block; note the first seed of each piece and whether there is another."""
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            piece = ids[y, x]
            if piece != 0:
                box = boxes[piece]
                box[0], box[1] = min(box[0], plane), max(box[1], plane + 1)
                box[2], box[3] = min(box[2], top + y), max(box[3], top + y + 1)
                box[4], box[5] = min(box[4], left + x), max(box[5], left + x + 1)
                if seeds[y, x] != 0 and seed[piece] == 0:
                    seed[piece] = seeds[y, x]
                several[piece] |= seeds[y, x] != 0 and seed[piece] != seeds[y, x]


@dataclass
class Floods:
    """Divides a piece when the first shard that holds some of it is written, and keeps it if other shards need it too.

    Attributes:
        layers: pieces, seeds and heights.
        boxes: (pieces + 1, 6) int64, of planes, rows, columns.
        several: (pieces + 1,) bool, pieces to divide.
        divide: labels the pixels of a piece.
        seed_count: number of seeds; parts that were not divided are numbered behind them.
        folder: for the files of large and of kept boxes.
    """

    layers: Layers
    boxes: NDArray[np.int64]
    several: NDArray[np.bool_]
    divide: Divide
    seed_count: int
    folder: Path
    _kept: dict[int, int] = field(default_factory=dict)
    _end: int = 0

    def parts(self, shard: Box) -> NDArray[np.uint32]:
        """Return the parts of a shard, (y, x) uint32; call it for the shards in raster order."""
        here = self.layers.read(shard)
        ids = here[0]
        # parts that are not divided are numbered behind the seeds, which number those that are: no number comes twice
        parts = np.where(ids > 0, ids + np.uint32(LARGEST_CLASS + self.seed_count), np.uint32(0))
        for piece in np.unique(ids[self.several[ids]]).tolist():
            box = self._box(piece)
            shared = box.shared_with(shard)
            inside, own = shared.counted_from(shard).window, shared.counted_from(box)
            flooded = self._flooded(piece, box, shard, here)[own.at]
            # 0 in the box is another piece, or none
            parts[inside] = np.where(flooded > 0, flooded + np.uint32(LARGEST_CLASS), parts[inside])
        return parts

    def _box(self, piece: int) -> Box:
        planes, rows, columns = self.boxes[piece].reshape(3, 2).tolist()
        return Box(slice(*planes), slice(*rows), slice(*columns))

    def _flooded(self, piece: int, box: Box, shard: Box, here: tuple[NDArray[Any], ...]) -> NDArray[np.uint32]:
        """Return the seed of each pixel of a piece, in its box (planes, y, x) uint32, 0 around the piece."""
        if piece in self._kept:
            return self._map("kept", box, np.uint32, self._kept[piece])
        pixels, inside = int(np.prod(box.shape)), shard.holds(box)
        large = pixels > IN_MEMORY_PX
        # kept in a file if other shards will ask for the rest of the piece, or if it is too large for memory
        labels = np.zeros(box.shape, np.uint32) if inside and not large else self._keep(piece, box, pixels)
        heights = self._map("heights", box, np.uint16) if large else np.empty(box.shape, np.uint16)
        queue = self._map("queue", box, np.int64) if large else np.empty(box.shape, np.int64)
        if inside:
            window = box.counted_from(shard).window
            _fill(labels[0], heights[0], piece, tuple(layer[window] for layer in here))
        else:
            self._read(piece, box, labels, heights)
        self.divide(heights, labels, queue.reshape(-1))
        return labels

    def _read(self, piece: int, box: Box, labels: NDArray[np.uint32], heights: NDArray[np.uint16]) -> None:
        for plane in range(box.planes.start, box.planes.stop):
            for block in Box.of(plane, *box.window).divided(BLOCK_PX, BLOCK_PX):
                at = block.counted_from(box).at
                _fill(labels[at], heights[at], piece, self.layers.read(block))

    def _keep(self, piece: int, box: Box, pixels: int) -> NDArray[np.uint32]:
        self._kept[piece] = self._end
        self._end += pixels * np.dtype(np.uint32).itemsize
        return self._map("kept", box, np.uint32, self._kept[piece])

    def _map(self, name: str, box: Box, dtype: type, offset: int = 0) -> NDArray[Any]:
        """Return an array of a box that lies in a file, from a byte of it on; the file grows as needed."""
        path = self.folder / f"{name}.flood"
        _reserve(path, offset, int(np.prod(box.shape)) * np.dtype(dtype).itemsize)
        return np.asarray(np.memmap(path, dtype, "r+", offset, box.shape))


def _reserve(path: Path, offset: int, size: int) -> None:
    """Take the room on disk: writing to a mapped file on a full disk would kill the process without a word."""
    try:
        with path.open("ab") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), offset, size)
    except OSError as error:
        fix = "free space or choose another disk (--directory), or set stitch.method: components"
        raise PipelineError(path.parent, f"room for {size / 1e6:.0f} MB more", error, fix=fix) from error


def _fill(
    labels: NDArray[np.uint32], heights: NDArray[np.uint16], piece: int, layers: tuple[NDArray[Any], ...]
) -> None:
    """Put seeds and heights of one piece, from its layers (pieces, seeds, heights), where they are flooded."""
    own = layers[0] == piece
    labels[...] = np.where(own, layers[1], 0)
    heights[...] = np.where(own, layers[2], OUTSIDE)
