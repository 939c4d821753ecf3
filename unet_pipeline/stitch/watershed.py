"""Objects that touch, divided by seeds or at their necks: in a stack of any size, the same for every division of it.

```
pieces   connected pixels of one class                          numbered block by block, as objects are
seeds    connected pixels that are surely of their class        the same
parts    with seeds: a piece with several is flooded from them, downwards from the most probable pixels
         by distance: a piece is divided into the basins of the distance to what lies beside it
```
What a piece is divided into depends on its own pixels alone, so pieces are divided one by one, each within the smallest
box around it, wherever it lies. Memory: some arrays of a block, 68 bytes a piece that lies in several blocks, what
`objects.components` takes, and a box, 14 bytes a px. A box of more than `floods.IN_MEMORY_PX` lies in files beside the
store, whose pages the system takes back where memory is short: that takes disk and time instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.basins import basins
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.components import ComponentSummary, Read, label_components
from unet_pipeline.objects.decided import LARGEST_UINT8, as_stored
from unet_pipeline.objects.flood import flood
from unet_pipeline.objects.fragments import LARGEST_CLASS
from unet_pipeline.objects.pieces import Pieces, measure, merged
from unet_pipeline.stitch import layers
from unet_pipeline.stitch.depths import write_depths
from unet_pipeline.stitch.floods import Floods, Layers
from unet_pipeline.stitch.layers import Layer, Volume

MERGE = 2**16
"""Pieces in several blocks that are merged at a time, at least."""
ONE_FLOAT16 = 0x3C00
"""The bits of 1 in float16; they grow with the value."""


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
    limit, folder = seed_height(settings.seed, volume.probabilities.dtype), volume.scratch.folder

    def sure(plane: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        heights = read_heights(volume.probabilities, Box.of(plane, rows, columns))
        return np.where(heights <= limit, volume.classes.read_label(plane, rows, columns), np.uint8(0))

    # seeds and pieces are 4-connected like the flood's neighbours: a piece holds all pixels that its seeds can reach
    seeds, pieces = volume.scratch.layer("seeds"), volume.scratch.layer("pieces")
    chosen = ComponentOptions(4, volume.deep, settings.least_seed_px)
    found = label_blocks(sure, seeds, chosen, f"seeds {volume.name}", folder)
    chosen = ComponentOptions(4, volume.deep)
    whole = label_blocks(volume.classes.read_label, pieces, chosen, f"pieces {volume.name}", folder)
    _check_count(volume, found.count + whole.count)

    # only pieces with several seeds need a flood, mostly few; the others are their own part
    def several(pieces: Pieces) -> NDArray[np.bool_]:
        return pieces.lowest < pieces.highest

    layers = Layers(pieces, seeds, lambda box: read_heights(volume.probabilities, box))
    across = _across(volume, layers)
    return _parts(volume, Floods(layers, across, several, flood, found.count, folder))


def _by_distance(volume: Volume, settings: ObjectSettings) -> Layer:
    """Divide at necks; see `objects.basins`. A piece too small for two objects stays one part."""
    pieces, depths, folder = volume.scratch.layer("pieces"), volume.scratch.layer("depths"), volume.scratch.folder
    # holes are filled first: distances to them would make necks of their rims
    chosen = ComponentOptions(4, volume.deep, fill_holes=settings.fill_holes)
    whole = label_blocks(volume.classes.read_label, pieces, chosen, f"pieces {volume.name}", folder)
    write_depths(volume, pieces, depths, settings.smooth_px)
    last = whole.count  # parts that are divided are numbered behind those that are not, whatever the order

    def number(heights: NDArray[np.uint16], labels: NDArray[np.uint32], queue: NDArray[np.int64]) -> None:
        nonlocal last
        count = basins(heights, labels, queue, settings.neck)
        _check_count(volume, last + count)
        labels[labels > 0] += np.uint32(last)
        last += count

    def several(pieces: Pieces) -> NDArray[np.bool_]:
        return pieces.area >= 2 * max(1, settings.min_area_px)

    layers = Layers(pieces, None, lambda box: depths.read_label(*box.at).astype(np.uint16))
    return _parts(volume, Floods(layers, _across(volume, layers), several, number, 0, folder))


def _check_count(volume: Volume, count: int) -> None:
    if LARGEST_CLASS + count >= 2**32:
        fix = "use stitch.method: components"
        raise PipelineError(f"stack {volume.name}", "less than 4294967040 objects and seeds", "more", fix=fix)


def _across(volume: Volume, layers: Layers) -> Pieces:
    """Return the pieces that lie in several blocks, wholly measured."""
    found, waiting = Pieces.none(), []
    for shard in layers.pieces.shards():
        for block in shard.divided(*block_edges(layers.pieces)):
            ids, seeds = layers.read_pieces(block)
            here = measure(ids, seeds, block)
            waiting.append(here if volume.deep else here.chosen(here.reaching(block, layers.pieces.shape[2:])))
        # merged now and then, as a piece may lie in many blocks
        if sum(len(part.ids) for part in waiting) > max(MERGE, len(found.ids)):
            found, waiting = merged([found, *waiting]), []
    return merged([found, *waiting])


def _parts(volume: Volume, floods: Floods) -> Layer:
    """Write the parts of all shards."""
    parts = volume.scratch.layer("parts")
    shards = list(parts.shards())
    with Progress(len(shards), f"divide {volume.name}") as progress:
        for shard in shards:
            made = np.empty(shard.size, np.uint32)
            for block in shard.divided(*block_edges(parts)):
                # a flood may take long before the shard is written: ask before it too whether the job was taken over
                volume.check()
                made[block.counted_from(shard).window] = floods.parts(block)
            parts.write(*shard.at, made)
            progress.advance()
    return parts


def block_edges(layer: Layer) -> tuple[int, int]:
    """Return height and width of the blocks of work: equal parts of a shard, at most `layers.BLOCK_PX`."""
    height, width = (_edge(length) for length in layer.shard_px)
    return height, width


def _edge(length: int) -> int:
    return next(length // parts for parts in range(-(-length // layers.BLOCK_PX), length + 1) if length % parts == 0)


def label_blocks(
    read: Read, target: Layer, options: ComponentOptions, name: str, folder: Path | None
) -> ComponentSummary:
    """Write the connected components of what `read` gives to all shards of `target`; `name` is for the progress."""
    planes, _, height, width = target.shape
    edges = block_edges(target)
    blocks = sum(1 for shard in target.shards() for _ in shard.divided(*edges))
    with Progress(2 * blocks, name) as progress:

        def tell(done: int, total: int) -> None:
            progress.advance()

        shape, shard_px = (planes, height, width), target.shard_px
        return label_components(read, target.write, shape, edges, options, tell, shard_px, folder)


def read_heights(probabilities: Layer, box: Box) -> NDArray[np.uint16]:
    """Return how far the most probable class of each pixel is from certain, (y, x) uint16; 0 is probability 1."""
    heights = np.empty(box.size, np.uint16)
    # in blocks, because the probabilities of all classes take many times the memory of the heights
    for block in box.divided(layers.BLOCK_PX, layers.BLOCK_PX):
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
