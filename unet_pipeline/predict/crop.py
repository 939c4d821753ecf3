"""A part of one plane, predicted in memory as jobs would predict it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.planes import Planes
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import Plan
from unet_pipeline.predict.predict import predict_shard, read_shard


@dataclass(frozen=True)
class Crop:
    """A part of one plane as an image of its own, mirrored at its edges.

    Attributes:
        image: the stack.
        plane: number of the plane.
        rows, columns: the part, px.
    """

    image: Planes
    plane: int
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(1, channels, height, width)."""
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return 1, self.image.shape[1], height, width

    def read(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (channels, rows, columns) of its only plane, counted from its corner."""
        top, left = self.rows.start, self.columns.start
        return self.image.read(
            self.plane, slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop)
        )


def predict_crop(crop: Planes, planned: Plan, forward: Forward, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return what prediction jobs store of plane 0, region by region and shard by shard: (classes, y, x) `dtype`."""
    probabilities = np.zeros((len(forward.card.classes), *crop.shape[2:]), dtype)
    for region in range(planned.regions):
        for number in planned.region(region):
            shard = planned.shard_at(number)
            (window,) = read_shard(crop, planned, number, forward).take()
            values = predict_shard(window, planned, shard, forward, dtype)
            probabilities[:, shard.rows, shard.columns] = values.array()
    return probabilities
