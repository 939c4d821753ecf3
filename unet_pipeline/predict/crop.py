"""A part of a stack, predicted in memory as jobs would predict it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.images.planes import Planes
from unet_pipeline.model.card import Architecture, geometry_z
from unet_pipeline.model.card import geometry as plane_geometry
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import AlongZ, Plan, plan
from unet_pipeline.predict.predict import predict_shard, read_shard
from unet_pipeline.predict.tile_size import automatic_px, automatic_volume


@dataclass(frozen=True)
class Crop:
    """A part of a stack as a stack of its own, mirrored at its edges.

    Attributes:
        image: the stack.
        part: planes, rows and columns of it.
    """

    image: Planes
    part: Box

    def in_memory(self) -> ArrayPlanes:
        """Return it decoded once, for a part that is read again and again."""
        planes, _, height, width = self.shape
        every = slice(0, height), slice(0, width)
        return ArrayPlanes(np.stack([self.read(plane, *every) for plane in range(planes)]))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, channels, height, width)."""
        planes, height, width = self.part.shape
        return planes, self.image.shape[1], height, width

    def read(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (channels, rows, columns) of a plane, counted from its corner."""
        first, top, left = self.part.corner
        return self.image.read(
            first + plane, slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop)
        )


def plan_crop(crop: Planes, network: Architecture) -> Plan:
    """Return the plan of a part of a stack by the sizes that are automatic: a shard is a whole plane, or a slab."""
    planes, _, *size = crop.shape
    geometry, along_z = plane_geometry(network), AlongZ()
    if network.dimensions == 3:
        deep, tile_px = automatic_volume(network, "auto", "auto", planes)
        along_z = AlongZ(geometry_z(network), deep, deep)
    else:
        tile_px = automatic_px(network, geometry)
    edge = geometry.round_up(max(size))
    return plan((planes, size[0], size[1]), geometry, tile_px, (edge, edge), 1, along_z)


def predict_crop(
    crop: Planes, planned: Plan, forward: Forward, dtype: np.dtype[Any], planes: slice | None = None
) -> npt.NDArray[Any]:
    """Return what prediction jobs store, region by region and shard by shard.

    Args:
        crop: a stack in memory, or a part of one.
        planned: its plan.
        forward: the network.
        dtype: of the probabilities.
        planes: what is asked for; None for all.

    Returns:
        (classes, planes, y, x) `dtype`.
    """
    deep, _, height, width = crop.shape
    wanted = Box(planes or slice(0, deep), slice(0, height), slice(0, width))
    probabilities = np.zeros((len(forward.card.classes), *wanted.shape), dtype)
    for region in range(planned.regions):
        for number in planned.region(region):
            shard = planned.shard_at(number)
            if shard.planes.start >= wanted.planes.stop or shard.planes.stop <= wanted.planes.start:
                continue
            (window,) = read_shard(crop, planned, number, forward).take()
            values = predict_shard(window, planned, shard, forward, dtype).array()
            shared = shard.shared_with(wanted)
            found = values[:, *shared.counted_from(shard).axes]
            probabilities[:, *shared.counted_from(wanted).axes] = found
    return probabilities
