"""The levels of `model.z_levels: auto`: those that see z, by how long voxels are along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.ngff import Grid


@dataclass(frozen=True)
class Voxel:
    """How long a voxel of a stack is.

    Attributes:
        stack: its name.
        across_um: along y and x, micrometres; None where unknown.
        along_z_um: distance of its planes, micrometres; None where unknown.
    """

    stack: str
    across_um: float | None
    along_z_um: float | None

    @classmethod
    def of(cls, stack: str, grid: Grid) -> Voxel:
        """Return the voxel of a stack; refuses a time series, and one plane alone, which are no volume."""
        where, fix = (
            f"stack {stack}",
            "set model.dimensions: 2, or axes: zyx in the table if planes lie above each other",
        )
        if grid.plane_axis == "t":
            raise PipelineError(where, "planes along z with model.dimensions: 3", "a time series", fix=fix)
        if grid.planes == 1:
            raise PipelineError(where, "several planes with model.dimensions: 3", "one plane", fix=fix)
        return cls(stack, None if grid.pixel_um is None else math.sqrt(math.prod(grid.pixel_um)), grid.step)

    @property
    def ratio(self) -> float:
        """How much longer it is along z; refuses what is not known."""
        if self.across_um is None or self.along_z_um is None:
            lacking = "pixel_um" if self.across_um is None else "step"
            fix = f"fill in column {lacking} of the table, or set model.z_levels (all levels, depth + 1, for cubes)"
            expected = "a known size of voxels, by which levels leave z alone"
            raise PipelineError(f"stack {self.stack}", expected, f"no {lacking}", fix=fix)
        return self.along_z_um / self.across_um

    def __str__(self) -> str:
        """Return the ratio and the stack, for messages."""
        return f"{self.ratio:.3g} times as long along z as across ({self.stack})"


def automatic_z_levels(poolings: int, voxels: Sequence[Voxel]) -> tuple[int, str]:
    """Return what `model.z_levels: auto` comes to, and why.

    A level leaves z alone, in convolutions and pooling, as long as voxels are longer along it; each such pooling
    doubles them along y and x. At least the bottom sees z.

    Args:
        poolings: depth of the network.
        voxels: of the stacks that train and validate, at least one.

    Raises:
        PipelineError: a size that is not known, or two that want other networks.
    """
    planar = [min(max(round(math.log2(one.ratio)), 0), poolings) for one in voxels]
    low, high = planar.index(min(planar)), planar.index(max(planar))
    if planar[low] != planar[high]:
        fix = "train one model for each, or set model.z_levels"
        got = f"{voxels[low]}, {voxels[high]}"
        raise PipelineError("model.z_levels", "voxels of one shape in all stacks that are learned from", got, fix=fix)
    levels = poolings + 1 - planar[low]
    return levels, f"{levels} of {poolings + 1}: voxels are {voxels[low]}"
