"""An array in memory that is read and written window by window, as `PlaneArray` is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.objects.box import Box, plane_boxes

Array = npt.NDArray[Any]


class ArrayPlanes:
    """Planes of channels in memory; a plane is a shard."""

    def __init__(self, values: Array) -> None:
        """Wrap `values`, (planes, channels, y, x)."""
        self.values = values
        self.shape = (values.shape[0], values.shape[1], values.shape[2], values.shape[3])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""
        return self.values.dtype

    @property
    def shard_px(self) -> tuple[int, int]:
        """Height and width of a plane."""
        return self.shape[2:]

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return (channels, rows, columns)."""
        return self.values[plane, :, rows, columns]

    def read_label(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return (rows, columns) of the first channel."""
        return self.values[plane, 0, rows, columns]

    def write(self, plane: int, rows: slice, columns: slice, values: Array) -> None:
        """Set (rows, columns) of the first channel."""
        self.values[plane, 0, rows, columns] = values

    def shards(self) -> Iterator[Box]:
        """Yield every plane, whole."""
        planes, _, height, width = self.shape
        return plane_boxes((planes, height, width))
