"""Connected components of a class volume of any size, block by block, the same for every block size.

Two passes over the blocks, so that no label of the volume stays in memory between them:

    pass 1  read a block, number its fragments (4-connected pixels of one class), note which fragments touch,
            inside the block and across its borders
    middle  a graph of fragments: join them to instances, drop the small ones, fill holes, number what is left
    pass 2  read the block again, number its fragments as before, write the instance of each

Memory: one block, two rows of pixels of the plane (of every plane, where components go across planes), and up to
200 bytes a fragment. Order: the area is checked first, then holes are filled. So a speck inside a cell does not keep
its hole open, and a thin ring is judged by its own pixels, not by the hole that it surrounds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.parallel import ahead
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.fragments import MAX_FRAGMENTS, Classes, Fragments, Keys, Survey, ends, join, number

Read = Callable[[int, slice, slice], Classes]
"""read(plane, rows, columns) → (y, x) class indices: 0 background, 255 ignored, all others foreground; always uint8, or
always uint32 for labels of parts that touch."""
Write = Callable[[int, slice, slice, NDArray[np.uint32]], object]
"""write(plane, rows, columns, instances (y, x) uint32), called once per block."""


@dataclass(frozen=True)
class ComponentOptions:
    """What counts as one instance.

    Attributes:
        connectivity: neighbours of a pixel in its plane, 4 or 8. Background, for holes, has the other one.
        across_planes: whether pixels of one class that lie over each other in neighbouring planes are connected.
        min_area_px: components of fewer pixels (voxels, across planes) become background.
        fill_holes: whether background (dropped components included) that does not reach the border of the plane, and
            touches exactly one instance, becomes part of it. Across planes, holes are 3D, and the first and last
            plane are border too. A hole with an ignored pixel stays open.
    """

    connectivity: Literal[4, 8] = 4
    across_planes: bool = False
    min_area_px: int = 0
    fill_holes: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.connectivity not in (4, 8):
            raise PipelineError("connectivity", "4 or 8", self.connectivity, nearest=4 if self.connectivity < 6 else 8)
        if self.min_area_px < 0:
            raise PipelineError("min_area_px", "an area of at least 0 px", self.min_area_px, nearest=0)


@dataclass(frozen=True)
class ComponentTable:
    """The instances, one entry each, in the order of their ids.

    Attributes:
        id: (n,) uint32, 1..n in the order of the first pixels.
        area: (n,) int64, px (voxels, across planes), filled holes included.
        class_index: (n,) uint8 or uint32, class of the instance, as it was read.
        first: (n, 3) int64, (plane, y, x) of the first pixel in raster order.
        filled_px: pixels that became part of an instance because they were in a hole of it.
    """

    id: NDArray[np.uint32]
    area: NDArray[np.int64]
    class_index: Classes
    first: NDArray[np.int64]
    filled_px: int

    @property
    def plane(self) -> NDArray[np.int64]:
        """Plane of the first pixel, (n,) int64."""
        return self.first[:, 0]


def label_components(
    read: Read,
    write: Write,
    shape: tuple[int, int, int],
    block_px: tuple[int, int],
    options: ComponentOptions,
    on_progress: Callable[[int, int], object] | None = None,
) -> ComponentTable:
    """Number the connected components of equal class (at least 1) of a volume.

    Args:
        read: gives the classes of a block; called twice a block, by another thread than this.
        write: takes the instances of a block; called once a block.
        shape: planes, height, width of the volume.
        block_px: height and width of the blocks, at least 1; those at the lower and right border are smaller. The
            result does not depend on it.
        options: what counts as one instance.
        on_progress: called after each block with the blocks done and their number; every block counts twice.

    Returns:
        The table of the instances. Their ids are 1..n over the whole stack, also where planes are separate.

    Raises:
        PipelineError: `read` gives another shape or type, or something else the second time; too many components.
    """
    if min(*shape, *block_px) < 1:
        raise PipelineError("block_px", "volume and blocks of at least 1 px", f"{shape} in blocks {block_px}")
    tell = on_progress or (lambda done, total: None)
    # a hole of 4-connected instances is 8-connected background: filling holes needs the corners too
    deep = options.across_planes and shape[0] > 1
    survey = Survey(shape, block_px, deep, options.connectivity == 8 or options.fill_holes, options.fill_holes)
    blocks = list(survey.blocks())
    # pass 1 in the order of the blocks: each one meets the kept rows and columns of those above and to its left
    with closing(ahead(partial(_classes, read), blocks)) as surveyed:
        for done, (block, classes) in enumerate(zip(blocks, surveyed, strict=True), 1):
            survey.add(block, classes)
            tell(done, 2 * len(blocks))
    fragments = survey.fragments()
    ids, table = _instances(fragments, shape, options)

    def numbered(index: int) -> NDArray[np.uint32]:
        classes = _classes(read, blocks[index])
        # the same classes get the same fragments, so pass 1 need not store them; other classes would be misnumbered
        if zlib.crc32(classes.data) != fragments.checksums[index]:
            raise PipelineError(blocks[index], "the classes read before", "others", fix="run again, undisturbed")
        made: NDArray[np.uint32] = ids[number(classes, options.fill_holes, fragments.offsets[index])[0]]
        return made

    with closing(ahead(numbered, range(len(blocks)))) as made:
        for done, (block, values) in enumerate(zip(blocks, made, strict=True), len(blocks) + 1):
            write(*block.at, values)
            tell(done, 2 * len(blocks))
    return table


def _classes(read: Read, block: Box) -> Classes:
    classes = read(*block.at)
    if classes.shape != block.size or classes.dtype not in (np.uint8, np.uint32):
        raise PipelineError(block, f"{block.size} uint8 or uint32 classes", f"{classes.shape} {classes.dtype}")
    return np.ascontiguousarray(classes)


def _instances(
    fragments: Fragments, shape: tuple[int, int, int], options: ComponentOptions
) -> tuple[NDArray[np.uint32], ComponentTable]:
    """Return the instance of every fragment (0 for background) and the table of the instances."""
    both = np.concatenate([fragments.straight, fragments.diagonal])
    foreground, background = (fragments.straight, both) if options.connectivity == 4 else (both, fragments.straight)
    # fragments of one class that touch are one component; contacts of different classes join nothing
    a, b = ends(foreground)
    root = join(len(fragments.area), foreground[fragments.class_index[a] == fragments.class_index[b]])
    area, first = np.zeros_like(fragments.area), fragments.first.copy()
    np.add.at(area, root, fragments.area)
    np.minimum.at(first, root, fragments.first)
    # small components go before holes are filled, so that a speck keeps no hole open
    kept = (fragments.class_index > 0) & (area[root] >= options.min_area_px)
    owner = np.where(kept, root, 0)
    if options.fill_holes:
        owner = _fill_holes(fragments, owner, background)
    # ids in the order of the first pixels: they depend neither on the blocks nor on the numbers of the fragments
    heads = np.unique(owner[kept])
    heads = heads[np.argsort(first[heads])]
    number = np.zeros(len(owner), np.uint32)
    number[heads] = np.arange(1, len(heads) + 1, dtype=np.uint32)
    ids = number[owner]
    total = np.zeros(len(heads) + 1, np.int64)
    np.add.at(total, ids, fragments.area)
    places = np.stack(np.unravel_index(first[heads], shape), axis=1).astype(np.int64)
    filled_px = int(fragments.area[(ids > 0) & ~kept].sum())
    return ids, ComponentTable(number[heads], total[1:], fragments.class_index[heads], places, filled_px)


def _fill_holes(fragments: Fragments, owner: NDArray[Any], contacts: Keys) -> NDArray[Any]:
    """Return `owner` with the fragments of every hole given to the one instance that the hole touches.

    owner: (fragments,) instance of each fragment, 0 for background; contacts: pairs that touch in the connectivity of
    the background.
    """
    # background that touches background is one hole or the outside, dropped components included
    a, b = ends(contacts)
    back = owner == 0
    hole = join(len(owner), contacts[back[a] & back[b]])
    is_open = np.zeros(len(owner), np.bool_)
    is_open[hole[fragments.is_open & back]] = True
    # contacts between background and instances; where smallest and largest neighbour agree there is only one
    rim = back[a] != back[b]
    inside, around = hole[np.where(back[a], a, b)[rim]], owner[np.where(back[a], b, a)[rim]]
    lowest, highest = np.full_like(owner, MAX_FRAGMENTS), np.zeros_like(owner)
    np.minimum.at(lowest, inside, around)
    np.maximum.at(highest, inside, around)
    fills = ~is_open & (lowest == highest)
    return np.where(back & fills[hole], lowest[hole], owner)
