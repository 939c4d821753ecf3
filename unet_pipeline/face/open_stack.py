"""An image of any format, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.open import open_planes
from unet_pipeline.images.planes import SourcePlanes
from unet_pipeline.stacks.ingest import Source

Array = npt.NDArray[Any]


class OpenStack:
    """The planes of an image of any format, read when they are asked for.

    `stack[3]` is plane 3 as an array (channels, y, x), `np.asarray(stack)` all of them.

    Attributes:
        source: the image, and how it is read.
        shape: (planes, channels, height, width).
        dtype: data type of the pixels.
        plane_axis: what the planes are, "z" or "t".
        pixel_um: (y, x) size of a pixel, micrometres; None where the file does not say.
        step: distance of planes, micrometres or seconds; None where the file does not say.
        channel_names: one for each channel, or none.
    """

    def __init__(self, source: Source, planes: SourcePlanes) -> None:
        """Wrap what `open_stack` opened."""
        self.source, self._planes = source, planes
        self.shape, self.dtype, self.plane_axis = planes.shape, planes.dtype, planes.plane_axis
        self.pixel_um, self.step, self.channel_names = planes.pixel_um, planes.step, planes.channel_names

    def __len__(self) -> int:
        """Return the number of planes."""
        return self.shape[0]

    def __getitem__(self, plane: int) -> Array:
        """Return one plane, (channels, y, x)."""
        return self.read(range(len(self))[plane])

    def read(self, plane: int, rows: slice = slice(None), columns: slice = slice(None)) -> Array:
        """Return a window of a plane, (channels, rows, columns).

        Raises:
            PipelineError: naming file and plane, if its pixels cannot be read.
        """
        return self._planes.read(plane, rows, columns)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return all planes, (planes, channels, y, x)."""
        return np.stack(list(self)).astype(self.dtype if dtype is None else dtype, copy=False)

    def __iter__(self) -> Iterator[Array]:
        """Yield the planes, (channels, y, x) each."""
        return (self[plane] for plane in range(len(self)))


def open_stack(
    path: str | Path,
    *,
    axes: str = "",
    planes: str = "",
    series: int | None = None,
    pixel_um: float | None = None,
    step: float | None = None,
    labels: bool = False,
) -> OpenStack:
    """Open an image of any format the pipeline reads; pixels are read later, plane by plane or window by window.

    Args:
        path: TIFF, PNG or JPEG file; folder or glob of such, one a plane; Zarr array or OME-Zarr image.
        axes: letters of t z c y x, one for each axis longer than 1; empty: as the file says.
        planes: which planes, such as "0-17,20"; empty: all.
        series: which image of a TIFF that holds several, from 0.
        pixel_um: pixel size in micrometres instead of what the file says.
        step: distance of planes, micrometres or seconds, likewise.
        labels: whether these are labels: a palette PNG is then read as its indices, not as its colours.

    Raises:
        PipelineError: naming the file, for anything in it that cannot be used.

    >>> stack = open_stack("cells.tif", pixel_um=0.5)
    >>> stack.shape, stack.pixel_um, stack.channel_names
    ((2, 1, 100, 130), (0.5, 0.5), ())
    >>> stack[0].shape, stack.read(1, slice(0, 64), slice(0, 64)).dtype
    ((1, 100, 130), dtype('uint8'))
    """
    source = Source("image", str(path), axes=axes, planes=planes, series=series, pixel_um=pixel_um, step=step)
    size = None if pixel_um is None else (pixel_um, pixel_um)
    found = open_planes(str(path), axes or None, size, step, planes or None, series, colours=not labels)
    return OpenStack(source, found)
