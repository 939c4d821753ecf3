"""Objects that touch, divided by seeded watershed, for a stack of any size and the same for every division of it.

```
seeds    connected pixels that are surely of their class        numbered block by block, as objects are
pieces   connected pixels of one class                          the same
parts    a piece with several seeds is flooded from them, downwards from the most probable pixels; others are one part
```
What a piece is divided into depends on its own pixels alone, so pieces are flooded one by one, each within the smallest
box around it, wherever it lies. Memory: some arrays of a shard, 200 bytes a connected piece or seed (see
`objects.components`), and a box; a box of more than `IN_MEMORY_PX` lies in files beside the store, which takes disk and
time instead.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from unet_pipeline.config.sections import Stitch
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.compiled import compiled
from unet_pipeline.objects.components import ComponentOptions, ComponentTable, Read, label_components
from unet_pipeline.objects.flood import OUTSIDE, flood
from unet_pipeline.objects.fragments import LARGEST_CLASS
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.files import Check, unclaimed
from unet_pipeline.records.layout import CLASSES

IN_MEMORY_PX = 2**24
"""Largest box that is flooded in memory, px: 14 bytes each."""
BLOCK_PX = 2048
"""Edge of what is read at a time, px."""
LARGEST_UINT8, ONE_FLOAT16 = 255, 0x3C00
"""Probability 1 as it is stored: in float16 the bits of it, which grow with the value."""


@dataclass(frozen=True)
class Layers:
    """Three layers of a volume: the pieces, their seeds, and the heights, which say how far a pixel is from certain."""

    pieces: PlaneArray
    seeds: PlaneArray
    probabilities: PlaneArray

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
        """Return pieces uint32, seeds uint32 and heights uint16, each (y, x), of a box of one plane."""
        heights = read_heights(self.probabilities, box)
        return self.pieces.read_label(*box.at), self.seeds.read_label(*box.at), heights


def divide(
    stack_plan: StackPlan, scratch: zarr.Group, like: PlaneArray, options: Stitch, check: Check = unclaimed
) -> PlaneArray:
    """Divide the connected pixels of each class among their seeds.

    A seed is a connected set of at least `seed_min_area_px` pixels whose class has at least the probability `seed`,
    rounded as the stored probabilities are. A piece without a seed stays one part.

    Args:
        stack_plan: plan and store, with all classes and probabilities written.
        scratch: group for what is needed on the way; its folder is the caller's to delete.
        like: an array with the shape and the shards of the parts, uint32.
        options: the section `stitch`.
        check: called before each shard, so that a job that was taken over stops.

    Returns:
        The parts: 0 background, each other value, from 256 on, one connected part.
    """
    classes, probabilities, name = stack_plan.labels(CLASSES), stack_plan.probabilities(), stack_plan.stack.name
    seeds, pieces, parts = (ngff.create_like(scratch, each, like) for each in ("seeds", "pieces", "parts"))
    deep, limit = options.connect == "volume", seed_height(options.seed, probabilities.dtype)

    def sure(plane: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        heights = read_heights(probabilities, Box.of(plane, rows, columns))
        return np.where(heights <= limit, classes.read_label(plane, rows, columns), np.uint8(0))

    # seeds and pieces are 4-connected like the flood's neighbours: a piece holds all pixels that its seeds can reach
    found = label_blocks(sure, seeds, ComponentOptions(4, deep, least_seed_px(options)), f"seeds {name}")
    whole = label_blocks(classes.read_label, pieces, ComponentOptions(4, deep), f"pieces {name}")
    if LARGEST_CLASS + len(found.id) + len(whole.id) >= 2**32:
        raise PipelineError(stack_plan.store, "less than 4294967040 objects and seeds", "more", fix="use components")
    # only pieces with several seeds need a flood, mostly few; the others are their own part
    boxes, several = _survey(pieces, seeds, len(whole.id))
    floods = Floods(Layers(pieces, seeds, probabilities), boxes, several, len(found.id), scratch_folder(scratch))
    shards = list(parts.shards())
    with Progress(len(shards), f"watershed {name}") as progress:
        progress.say(f"{int(several.sum())} of {len(whole.id)} pieces have several seeds")
        for shard in shards:
            # a flood may take long before the shard is written: ask before it too whether the job was taken over
            check()
            parts.write(*shard.at, floods.parts(shard))
            progress.advance()
    return parts


def scratch_folder(group: zarr.Group) -> Path:
    """Return the folder of a group on disk."""
    return Path(str(group.store.root)) / group.path  # type: ignore[attr-defined]


def label_blocks(read: Read, target: PlaneArray, options: ComponentOptions, name: str) -> ComponentTable:
    """Write the connected components of what `read` gives to all shards of `target`; `name` is for the progress."""
    planes, _, height, width = target.shape
    shards = sum(1 for _ in target.shards())
    with Progress(2 * shards, name) as progress:

        def tell(done: int, total: int) -> None:
            progress.advance()

        return label_components(read, target.write, (planes, height, width), target.shard_px, options, tell)


def read_heights(probabilities: PlaneArray, box: Box) -> NDArray[np.uint16]:
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
    stored = round(seed * LARGEST_UINT8) if dtype == np.uint8 else seed
    return int(heights_of(np.array([stored], dtype))[0])


def least_seed_px(options: Stitch) -> int:
    """Return the least area of a seed, px: that of section `stitch`, or a third of the least area of an object."""
    return options.min_area_px // 3 if options.seed_min_area_px == "auto" else options.seed_min_area_px


def _survey(pieces: PlaneArray, seeds: PlaneArray, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
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
    """Floods a piece when the first shard that holds some of it is written, and keeps it if other shards need it too.

    Attributes:
        layers: pieces, seeds and heights.
        boxes: (pieces + 1, 6) int64, of planes, rows, columns.
        several: (pieces + 1,) bool, pieces to flood.
        seed_count: number of seeds; parts that were not flooded are numbered behind them.
        folder: for the files of large and of kept boxes.
    """

    layers: Layers
    boxes: NDArray[np.int64]
    several: NDArray[np.bool_]
    seed_count: int
    folder: Path
    _kept: dict[int, int] = field(default_factory=dict)
    _end: int = 0

    def parts(self, shard: Box) -> NDArray[np.uint32]:
        """Return the parts of a shard, (y, x) uint32; call it for the shards in raster order."""
        here = self.layers.read(shard)
        ids = here[0]
        # parts that are not flooded are numbered behind the seeds, which number those that are: no number comes twice
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
        flood(heights, labels, queue.reshape(-1))
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
        fix = "free space or choose another disk (--directory), or take stitch.method: components"
        raise PipelineError(path.parent, f"room for {size / 1e6:.0f} MB more", error, fix=fix) from error


def _fill(
    labels: NDArray[np.uint32], heights: NDArray[np.uint16], piece: int, layers: tuple[NDArray[Any], ...]
) -> None:
    """Put seeds and heights of one piece, from its layers (pieces, seeds, heights), where they are flooded."""
    own = layers[0] == piece
    labels[...] = np.where(own, layers[1], 0)
    heights[...] = np.where(own, layers[2], OUTSIDE)
