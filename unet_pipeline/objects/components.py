"""Connected components of a class volume of any size, block by block, the same for every block size.

Two passes over the blocks, so that no label of the volume stays in memory between them:

    pass 1  read a block, number its fragments (4-connected pixels of one class), settle those that lie inside of it,
            and note which of the others touch, inside the block and across its borders
    middle  a graph of the others: join them to instances, drop the small ones, fill holes; then number all instances
    pass 2  read the block again, number its fragments as before, write the instance of each

Memory: one block, two rows of pixels of the plane (of every plane, where components go across planes), about 150 bytes
a component for each block whose border it reaches (across planes: a fragment), and 32 bytes an instance of one row of
blocks. Order: the area is checked first, then holes are filled. So a speck inside a cell does not keep its hole open,
and a thin ring is judged by its own pixels, not by the hole that it surrounds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.parallel import ahead
from unet_pipeline.objects.box import Box, plane_boxes
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.fragments import Classes, number
from unet_pipeline.objects.settling import holes, joined
from unet_pipeline.objects.survey import Spool, Survey

Read = Callable[[int, slice, slice], Classes]
"""read(plane, rows, columns) → (y, x) class indices: 0 background, 255 ignored, all others foreground; always uint8, or
always uint32 for labels of parts that touch."""
Write = Callable[[int, slice, slice, NDArray[np.uint32]], object]
"""write(plane, rows, columns, instances (y, x) uint32), called once per shard."""


@dataclass(frozen=True)
class ComponentSummary:
    """The instances, counted: their ids are 1..n in the order of their first pixels.

    Attributes:
        per_plane: (planes,) int64, instances whose first pixel lies in the plane.
        areas: (areas,) int64, the different areas, ascending, px (voxels, across planes), filled holes included.
        counts: (areas,) int64, instances of each area.
        filled_px: pixels that became part of an instance because they were in a hole of it.
    """

    per_plane: NDArray[np.int64]
    areas: NDArray[np.int64]
    counts: NDArray[np.int64]
    filled_px: int

    @property
    def count(self) -> int:
        """Number of instances."""
        return int(self.per_plane.sum())

    @property
    def median_area(self) -> float:
        """Median area; there must be an instance."""
        ends = np.cumsum(self.counts)
        middle = np.searchsorted(ends, [(self.count - 1) // 2, self.count // 2], side="right")
        return float(self.areas[middle].mean())


def label_components(
    read: Read,
    write: Write,
    shape: tuple[int, int, int],
    block_px: tuple[int, int],
    options: ComponentOptions,
    on_progress: Callable[[int, int], object] | None = None,
    shard_px: tuple[int, int] | None = None,
    folder: Path | None = None,
) -> ComponentSummary:
    """Number the connected components of equal class (at least 1) of a volume.

    Args:
        read: gives the classes of a block; called twice a block, by another thread than this.
        write: takes the instances of a shard; called once a shard.
        shape: planes, height, width of the volume.
        block_px: height and width of the blocks, at least 1; those at the lower and right border are smaller. The
            result does not depend on it.
        options: what counts as one instance.
        on_progress: called after each block with the blocks done and their number; every block counts twice.
        shard_px: height and width of what is written at a time, a multiple of the blocks'; None: a block.
        folder: for files that are gone afterwards; None keeps in memory what is settled of each block, 8 bytes a
            fragment and 24 an instance.

    Returns:
        The number and the areas of the instances. Their ids are 1..n over the whole stack, also where planes are
        separate.

    Raises:
        PipelineError: `read` gives another shape or type, or something else the second time; too many components.
    """
    if min(*shape, *block_px) < 1:
        raise PipelineError("block_px", "volume and blocks of at least 1 px", f"{shape} in blocks {block_px}")
    tell = on_progress or (lambda done, total: None)
    survey = Survey(shape, block_px, options.across_planes and shape[0] > 1, options, folder)
    blocks = list(survey.blocks())
    with ExitStack() as files:
        made = Spool(folder)
        for spool in (survey.becomes, survey.area, survey.first, made):
            files.enter_context(spool)
        # pass 1 in the order of the blocks: each one meets the kept rows and columns of those above and to its left
        with closing(ahead(partial(_classes, read), blocks)) as surveyed:
            for done, (block, classes) in enumerate(zip(blocks, surveyed, strict=True), 1):
                survey.add(block, classes)
                tell(done, 2 * len(blocks))
        nodes, summary = _identified(survey, blocks, made)
        numbered, done = Numbered(read, survey, blocks, made, nodes), len(blocks)
        shards = [shard for plane in plane_boxes(shape) for shard in plane.divided(*(shard_px or block_px))]
        with closing(ahead(numbered.shard, shards)) as written:
            for shard, (values, count) in zip(shards, written, strict=True):
                write(*shard.at, values)
                for _ in range(count):
                    done += 1
                    tell(done, 2 * len(blocks))
    return summary


class Numbered:
    """Pass 2: the instances of a shard, whose blocks are read and numbered as before."""

    def __init__(self, read: Read, survey: Survey, blocks: list[Box], made: Spool, nodes: NDArray[np.uint32]) -> None:
        """Take what pass 1 found: `made` holds the ids of each block's objects, `nodes` those of the nodes."""
        self.read, self.survey, self.made, self.nodes = read, survey, made, nodes
        self.index = {_corner(block): index for index, block in enumerate(blocks)}

    def shard(self, shard: Box) -> tuple[NDArray[np.uint32], int]:
        """Return the instances of a shard, (y, x) uint32, and its number of blocks."""
        blocks = list(shard.divided(*self.survey.block_px))
        if len(blocks) == 1:
            return self._block(shard), 1
        values = np.empty(shard.size, np.uint32)
        for block in blocks:
            values[block.counted_from(shard).window] = self._block(block)
        return values, len(blocks)

    def _block(self, block: Box) -> NDArray[np.uint32]:
        classes, index = _classes(self.read, block), self.index[_corner(block)]
        # the same classes get the same fragments, so pass 1 need not store them; other classes would be misnumbered
        if zlib.crc32(classes.data) != self.survey.checksums[index]:
            raise PipelineError(block, "the classes read before", "others", fix="run again, undisturbed")
        becomes, objects = self.survey.becomes.get(index), np.append(0, self.made.get(index)).astype(np.uint32)
        ids = np.where(becomes > 0, objects[np.maximum(becomes, 0)], self.nodes[np.maximum(-becomes, 0)])
        found: NDArray[np.uint32] = ids[number(classes, self.survey.options.fill_holes)[0]]
        return found


def _corner(block: Box) -> tuple[int, int, int]:
    return block.plane, block.rows.start, block.columns.start


def _classes(read: Read, block: Box) -> Classes:
    classes = read(*block.at)
    if classes.shape != block.size or classes.dtype not in (np.uint8, np.uint32):
        raise PipelineError(block, f"{block.size} uint8 or uint32 classes", f"{classes.shape} {classes.dtype}")
    return np.ascontiguousarray(classes)


@dataclass(frozen=True)
class Owned:
    """The graph of the nodes, joined.

    Attributes:
        owner: (nodes,) int64, the node that stands for the instance of each; 0 for background.
        first: (nodes,) int64, first pixel of an instance, at the node that stands for it.
        area: (nodes,) int64, area of an instance, there.
        filled_px: pixels of holes in instances.
    """

    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    area: NDArray[np.int64]
    filled_px: int


def _owned(survey: Survey) -> Owned:
    """Join the nodes to instances, drop the small ones, fill holes."""
    nodes, (foreground, background) = survey.nodes(), survey.edges()
    whole = joined(nodes.class_index, nodes.area, nodes.first, foreground)
    # small components go before holes are filled, so that a speck keeps no hole open
    kept = (nodes.class_index > 0) & (whole.area[whole.root] >= survey.options.min_area_px)
    owner = np.where(kept, whole.root, 0)
    if survey.options.fill_holes:
        found = holes(owner, nodes.is_open, background)
        fills = ~found.is_open & (found.lowest == found.highest)
        owner = np.where(~kept & fills[found.root], found.lowest[found.root], owner)
    area = np.zeros_like(nodes.area)
    np.add.at(area, owner, nodes.area + nodes.filled)
    filled_px = int(nodes.filled[owner > 0].sum() + nodes.area[(owner > 0) & ~kept].sum())
    return Owned(owner, whole.first, area, filled_px)


def _bands(survey: Survey, blocks: list[Box]) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of the blocks of each row of blocks, and the index of the pixel behind its last."""
    planes, height, width = survey.shape
    if survey.deep:  # all objects are nodes, and the blocks do not come in the order of their pixels
        yield list(range(len(blocks))), planes * height * width
        return
    rows = groupby(range(len(blocks)), lambda index: (blocks[index].plane, blocks[index].rows.stop))
    for (plane, stop), indices in rows:
        yield list(indices), (plane * height + stop) * width


def _identified(survey: Survey, blocks: list[Box], made: Spool) -> tuple[NDArray[np.uint32], ComponentSummary]:
    """Number all instances: spool the ids of each block's objects, return those of the nodes and the summary.

    Ids are in the order of the first pixels, so they depend neither on the blocks nor on the numbers of the fragments;
    and a row of blocks holds a run of them.
    """
    owned, plane_px = _owned(survey), survey.shape[1] * survey.shape[2]
    heads = np.unique(owned.owner[owned.owner > 0])
    heads = heads[np.argsort(owned.first[heads])]
    number, per_plane = np.zeros(len(owned.owner), np.uint32), np.zeros(survey.shape[0], np.int64)
    areas, counts, last, begin = np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0
    for indices, stop in _bands(survey, blocks):
        end = int(np.searchsorted(owned.first[heads], stop))
        across, begin = heads[begin:end], end
        inner = [survey.first.get(index) for index in indices]
        firsts = np.concatenate([owned.first[across], *inner])
        ids = np.empty(len(firsts), np.int64)
        ids[np.argsort(firsts)] = np.arange(last + 1, last + 1 + len(firsts))
        number[across], last = ids[: len(across)], last + len(firsts)
        for part in np.split(ids, np.cumsum([len(across), *map(len, inner)])[:-1])[1:]:
            made.add(part)
        per_plane += np.bincount(firsts // plane_px, minlength=len(per_plane))
        sizes = np.concatenate([areas, owned.area[across], *map(survey.area.get, indices)])
        areas, place = np.unique(sizes, return_inverse=True)
        counts = np.bincount(place, np.append(counts, np.ones(len(firsts)))).astype(np.int64)
    return number[owned.owner], ComponentSummary(per_plane, areas, counts, survey.filled_px + owned.filled_px)
