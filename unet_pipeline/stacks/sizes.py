"""Fit: images of different sizes become planes of one size, padded or also resized.

```
sizes: square               plane
 image    h x w             square_px x square_px
┌──────────┐   x scale     ┌────────────────┐
│          │  ─────────►   │ fill           │  scale = square_px / max(h, w)
│          │   nearest     ├────────────────┤
└──────────┘   for labels  │ content        │  where labels count; around it nobody annotated
                           ├────────────────┤
                           │ fill           │
                           └────────────────┘
```
With `sizes: pad` the scale is 1, and the plane has the largest height and the largest width of the stack.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_pipeline.config.sections import Ingest
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import read_window
from unet_pipeline.images.planes import SourcePlanes
from unet_pipeline.objects.box import Box, Window

Array = npt.NDArray[Any]

LARGEST_PX = 2**26
"""Pixels of an image that is resized: it is held whole, as float32."""


LEAST_CONTENT = 0.02
"""Share of the pixels of padded planes that images must have."""


@dataclass(frozen=True)
class Content:
    """Where the content of an image lies in its plane, px.

    Attributes:
        top: first row.
        left: first column.
        height: rows, after resizing.
        width: columns, after resizing.
        scale: factor the sides were multiplied by, before rounding; 1 where nothing was resized.
    """

    top: int
    left: int
    height: int
    width: int
    scale: float = 1.0

    def window_in(self, block: Box) -> Window:
        """Return the part of a block that is content, as rows and columns of the block; perhaps empty."""
        return _part_in(block.rows, self.top, self.height), _part_in(block.columns, self.left, self.width)


def _part_in(part: slice, start: int, size: int) -> slice:
    low, high = (min(max(edge, part.start), part.stop) for edge in (start, start + size))
    return slice(low - part.start, high - part.start)


class Fitted:
    """A stack whose images were fitted into planes of one size.

    Attributes:
        planes: the images as they are.
        shape: (planes, channels, height, width) after fitting.
    """

    def __init__(self, planes: SourcePlanes, options: Ingest, labels: bool = False) -> None:
        """Decide the size; pixels are read later.

        Args:
            planes: the images, opened with `mixed` unless `options.sizes` is "same".
            options: section `ingest` of the configuration.
            labels: whether these are label values, of which the nearest is taken: a mean of two classes is a third.

        Raises:
            PipelineError: an image too large to be resized, or a grey value that its data type lacks.
        """
        self.planes, self._options, self._labels = planes, options, labels
        square = options.sizes == "square"
        size = (options.square_px, options.square_px) if square else planes.shape[2:]
        self.shape = (*planes.shape[:2], *size)
        self.untouched = all(self._whole(plane) for plane in range(planes.shape[0]))
        self._last: tuple[int, Array] | None = None
        self._lock = threading.Lock()
        if not self.untouched:
            self._check()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type, that of the images."""
        return self.planes.dtype

    def _whole(self, plane: int) -> bool:
        return self.planes.size(plane) == self.shape[2:]

    def _check(self) -> None:
        if self.dtype.kind in "iu" and self._options.fill == "grey" and not self._labels:
            grey, largest = self._options.grey, np.iinfo(self.dtype).max
            if grey > largest or grey != int(grey):
                raise PipelineError(
                    "ingest.grey", f"a value of {self.dtype} pixels", grey, nearest=min(int(grey), largest)
                )
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Refuse what fills memory or the disk: large images resized whole, planes of hardly anything but padding."""
        if self._options.sizes == "pad":
            content = sum(math.prod(self.planes.size(plane)) for plane in range(self.shape[0]))
            share = content / math.prod((self.shape[0], *self.shape[2:]))
            if share < LEAST_CONTENT:
                got = f"{100 * share:.2g} % of planes of {self.shape[2]} × {self.shape[3]}"
                fix = "use ingest.sizes: square, or name in column names the images that belong together"
                where, expected = self.planes.name(0), f"images that fill at least {100 * LEAST_CONTENT:g} %"
                raise PipelineError(f"{where} and others", expected, got, fix=fix)
        else:
            for plane in range(self.shape[0]):
                height, width = self.planes.size(plane)
                if height * width > LARGEST_PX:
                    fix = "use ingest.sizes: same or pad, which read such images piece by piece"
                    got = f"{height} × {width}"
                    raise PipelineError(self.planes.name(plane), f"an image of at most {LARGEST_PX} px", got, fix=fix)

    def content(self, plane: int) -> Content:
        """Return where the content of a plane lies: in the middle, rounded up and to the left."""
        height, width = self.planes.size(plane)
        scale = 1.0
        if self._options.sizes == "square":
            scale = self._options.square_px / max(height, width)
            height, width = (max(1, round(side * scale)) for side in (height, width))
        return Content((self.shape[2] - height) // 2, (self.shape[3] - width) // 2, height, width, scale)

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return a window of a plane, (channels, rows, columns); of labels, only what lies in `place` means anything.

        Raises:
            PipelineError: naming the file, if the pixels cannot be read.
        """
        if self._whole(plane):
            return self.planes.read(plane, rows, columns)
        place, content = self.content(plane), self._content(plane)
        size = rows.stop - rows.start, columns.stop - columns.start
        if self._options.fill == "mirror":
            return read_window(content, 0, rows.start - place.top, columns.start - place.left, size)
        part = place.window_in(Box.of(plane, rows, columns))
        origin = rows.start + part[0].start - place.top, columns.start + part[1].start - place.left
        values = np.full((self.shape[1], *size), 0 if self._labels else self._options.grey, self.dtype)
        ends = (start + part[axis].stop - part[axis].start for axis, start in enumerate(origin))
        wanted = [slice(start, end) for start, end in zip(origin, ends, strict=True)]
        if all(one.stop > one.start for one in wanted):
            values[:, *part] = content.read(0, wanted[0], wanted[1])
        return values

    def _content(self, plane: int) -> _Whole | _Part:
        if self._options.sizes != "square":
            return _Part(self.planes, plane)
        with self._lock:
            if self._last is None or self._last[0] != plane:
                place = self.content(plane)
                resize = nearest if self._labels else smooth
                whole = self.planes.read(plane, slice(None), slice(None))
                self._last = plane, resize(whole, (place.height, place.width))
            return _Whole(self._last[1])

    def pixel_um(self, pixel_um: tuple[float, float] | None) -> tuple[float, float] | None:
        """Return the (y, x) size of a pixel after fitting, micrometres; None if unknown, or not the same everywhere."""
        scales = {self.content(plane).scale for plane in range(self.shape[0])}
        if pixel_um is None or len(scales) > 1:
            return None
        scale = scales.pop()
        return pixel_um[0] / scale, pixel_um[1] / scale

    def record(self) -> dict[str, Any] | None:
        """Return what was done, for the record; None if nothing was.

        The place of an image is [top, left, height, width] of its content, px.
        """
        if self.untouched:
            return None
        pictures = []
        for plane in range(self.shape[0]):
            one = self.content(plane)
            place = [one.top, one.left, one.height, one.width]
            name, size = Path(self.planes.name(plane)).name, list(self.planes.size(plane))
            pictures.append({"name": name, "size": size, "scale": one.scale, "place": place})
        return {"sizes": self._options.sizes, "fill": self._options.fill, "pictures": pictures}


class _Part:
    """One image of a stack, as a stack of one plane."""

    def __init__(self, planes: SourcePlanes, plane: int) -> None:
        self._planes, self._plane = planes, plane
        self.shape = (1, planes.shape[1], *planes.size(plane))

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        return self._planes.read(self._plane + plane, rows, columns)


class _Whole:
    """An array (channels, height, width) as a stack of one plane."""

    def __init__(self, values: Array) -> None:
        self._values = values
        self.shape = (1, *values.shape)

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        return self._values[:, rows, columns].copy()


def nearest(values: Array, size: tuple[int, int]) -> Array:
    """Resize labels: every pixel takes the value of the nearest one, never a mean.

    Args:
        values: (channels, height, width) of any data type.
        size: (height, width) wanted.

    Returns:
        (channels, *size), values that were there before.
    """
    rows, columns = (
        (2 * np.arange(wanted) + 1) * there // (2 * wanted)
        for wanted, there in zip(size, values.shape[1:], strict=True)
    )
    return values[:, rows[:, None], columns[None, :]]


def smooth(values: Array, size: tuple[int, int]) -> Array:
    """Resize grey values linearly; where they shrink, each new pixel is a mean over all it covers (anti-aliasing).

    Args:
        values: (channels, height, width); computed as float32.
        size: (height, width) wanted.

    Returns:
        (channels, *size) in the data type of `values`; integers are rounded.
    """
    way = Image.Resampling.BILINEAR
    planes = [Image.fromarray(plane.astype(np.float32)).resize((size[1], size[0]), way) for plane in values]
    found = np.stack([np.asarray(plane) for plane in planes])
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        found = np.clip(np.rint(found.astype(np.float64)), limits.min, limits.max)
    return found.astype(values.dtype)
