"""How deep the pixels of pieces lie: in each plane, or through the planes of a volume; on disk, in flat memory.

The squared distance of a voxel is the least, over the planes, of (distance within the plane)² + (step · planes)². So
the planes are transformed one by one and kept in a layer; then each plane looks at those above and below it, the
nearest first, until a further one cannot be nearer than what was found: as many planes as the deepest object of a block
needs. A plane is read once for each that looks at it; some blocks lie in memory, however many planes there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.images.halo_blocks import halo_blocks
from unet_pipeline.images.ngff import Grid
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.objects.basins import (
    REACH_PX,
    STEPS_A_PX,
    basin_heights,
    heights_of,
    plane_squares,
    reach_px,
    smooth_reach,
)
from unet_pipeline.objects.box import Box
from unet_pipeline.stitch import layers
from unet_pipeline.stitch.layers import Layer, Volume

WITHOUT = "fill in columns pixel_um and step of the table"


def step_px(name: str, grid: Grid) -> float:
    """Return the distance of two planes in px; infinite between times. Says aloud where voxels are taken for cubes.

    Args:
        name: of the stack.
        grid: its size and scale.
    """
    if grid.plane_axis == "t":
        return math.inf
    if grid.pixel_um is None or grid.step is None:
        tell(f"WARNING stack {name}: the size of its voxels is unknown, so distances take them for cubes; {WITHOUT}")
        return 1.0
    return grid.step / math.sqrt(math.prod(grid.pixel_um))


def write_depths(volume: Volume, pieces: Layer, target: Layer, smooth_px: float) -> None:
    """Write `objects.basins.basin_heights` of all pieces to `target`, uint32.

    Where objects go from plane to plane, distances and averages do too, as long along z as across.

    Args:
        volume: says whether, and how far planes lie apart; its scratch takes what is needed on the way.
        pieces: uint32, 0 beside them.
        target: in the shards of the objects.
        smooth_px: see `basin_heights`.
    """
    if not volume.deep or math.isinf(volume.step_px):
        _write(volume, target, reach_px(smooth_px), lambda box: basin_heights(pieces.read_label(*box.at), smooth_px))
        return
    flat = volume.scratch.layer("flat")
    _write(volume, flat, REACH_PX + 1, lambda box: plane_squares(*(_plane(pieces, box, by) for by in (0, -1, 1))))
    if not smooth_px:
        _write(volume, target, 0, lambda box: heights_of(pieces.read_label(*box.at), _steps(flat, box, volume.step_px)))
        return
    steps = volume.scratch.layer("steps")  # float32 by their bits, as all layers are uint32
    _write(volume, steps, 0, lambda box: _steps(flat, box, volume.step_px).astype(np.float32).view(np.uint32))

    def averaged(box: Box) -> NDArray[np.uint16]:
        along = _averaged_along_z(steps, box, smooth_px / volume.step_px)
        return heights_of(pieces.read_label(*box.at), along, smooth_px)

    _write(volume, target, smooth_reach(smooth_px), averaged)


def _write(volume: Volume, target: Layer, halo_px: int, made: Callable[[Box], NDArray[Any]]) -> None:
    """Write what `made` gives for a box of one plane, (y, x), in blocks that see `halo_px` around them."""
    shards = list(target.shards())
    with Progress(len(shards), f"distances {volume.name}") as progress:
        for shard in shards:
            values = np.empty(shard.size, np.uint32)
            for block in halo_blocks(shard, layers.BLOCK_PX, halo_px, target.shape[2:]):
                values[block.place] = made(block.outer)[block.local]
            volume.check()
            target.write(*shard.at, values)
            progress.advance()


def _plane(layer: Layer, box: Box, by: int) -> NDArray[Any]:
    """Return a box, some planes further on, (y, x); beyond the first and the last plane these again."""
    plane = min(max(box.plane + by, 0), layer.shape[0] - 1)
    return layer.read_label(plane, *box.window)


def _steps(flat: Layer, box: Box, step: float) -> NDArray[np.float64]:
    """Return the distances of a box of one plane through the volume, (y, x), in steps."""
    squares = flat.read_label(*box.at).astype(np.float64)
    for planes in range(1, flat.shape[0]):
        along = (planes * step) ** 2
        if along >= squares.max(initial=0):  # further planes are further than everything found
            break
        for plane in (box.plane - planes, box.plane + planes):
            if 0 <= plane < flat.shape[0]:
                np.minimum(squares, flat.read_label(plane, *box.window) + along, out=squares)
    return np.sqrt(squares) * STEPS_A_PX


def _averaged_along_z(steps: Layer, box: Box, deviation: float) -> NDArray[np.float64]:
    """Return the Gaussian average along z of a box of one plane, (y, x); `deviation` in planes."""
    reach = smooth_reach(deviation)
    along = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (along / deviation) ** 2)
    # beyond the first and the last plane these again, which are read once
    planes, total = np.clip(box.plane + along, 0, steps.shape[0] - 1), np.zeros(box.size)
    for plane in np.unique(planes).tolist():
        weight = weights[planes == plane].sum() / weights.sum()
        total += weight * steps.read_label(plane, *box.window).view(np.float32)
    return total
