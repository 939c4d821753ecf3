"""One file or store whose axes are decided: (planes, channels, height, width), upright, read window by window.

Readers say what a file declares; here alone it is decided what its dimensions are, whether its last channel is
transparency, and which way up it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.axes import UNKNOWN, find_layout, guess
from unet_pipeline.images.readers.blocks import Array, Declared, Reader, Window

FLIPS = {
    1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
    5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
}  # fmt: skip
"""Whether rows and columns are turned around, after the exchange of both that orientations from 5 on ask for."""
TURNED = 5
NARROW_PX = 8
"""A side of at most so many pixels is more likely the channels or the planes."""


class SourceImage:
    """One file or store.

    Attributes:
        declared: what the file declares.
        shape: (planes, channels, height, width) as read.
        plane_axis: "z" or "t".
        pixel_um: (y, x), None if unknown.
        step: between planes, None if unknown.
        channel_names: one per channel, or empty.
        block_px: (height, width) of what is stored together.
        palette: whether the pixels are indices of a palette of colours.
        sizes: empty: all planes have one size.
    """

    def __init__(self, reader: Reader, axes: str | None = None) -> None:
        """Decide what each dimension is.

        Args:
            reader: of the file.
            axes: the user's axes, or None to believe the file; with them, transparency counts as a channel.

        Raises:
            PipelineError: if the axes do not fit the file, or it does not say and nothing is clear.
        """
        self._reader = reader
        self.declared = said = reader.declared
        letters = said.letters
        if axes is None and set(letters) == {UNKNOWN}:
            letters = guess(said.where, said.shape)
        self._layout = layout = find_layout(said.where, said.shape, letters, axes)
        if said.rows is not None and (layout.y, layout.x) != (said.rows, said.rows + 1):
            height, width = said.shape[said.rows : said.rows + 2]
            got = f"{axes or letters} for pages of {height} × {width}"
            raise PipelineError(f"{said.where}: axes", "y and x where the pages of the file have them", got)
        self._alpha = axes is None and said.alpha is not None and said.alpha == layout.channel
        planes, channels, *size = layout.shape
        block = said.block[layout.y], said.block[layout.x]
        pixel = said.scale.pixel_um
        if said.orientation >= TURNED:
            size, block, pixel = size[::-1], block[::-1], pixel and pixel[::-1]
        self.shape = (planes, channels - self._alpha, size[0], size[1])
        self.plane_axis, self.block_px, self.pixel_um = layout.plane_axis, block, pixel
        self.step = said.scale.step(layout.plane_axis)
        self.channel_names = said.scale.channel_names if len(said.scale.channel_names) == channels else ()
        self.palette = said.palette
        self.sizes: tuple[tuple[int, int], ...] = ()
        self._asked = axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels as read."""
        return self.declared.dtype

    @property
    def files(self) -> tuple[Path, ...]:
        """The files."""
        return self.declared.files

    def read(self, plane: int, window: Window) -> Array:
        """Return (channels, rows, columns) of a plane as a new array, native byte order.

        Raises:
            PipelineError: naming file and plane, if the pixels cannot be decoded, or are not opaque.
        """
        layout, place = self._layout, f"plane {plane}"
        top, bottom, left, right = self._stored(window)
        spans = [(0, n) for n in self.declared.shape]
        spans[layout.y], spans[layout.x] = (top, bottom), (left, right)
        if layout.plane is not None:
            spans[layout.plane] = plane, plane + 1
        pixels = layout.canonical(self._reader.read(spans, place))[0]
        if self._alpha:
            opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
            if not (pixels[-1] == opaque).all():
                raise _transparent(self.declared, place)
            pixels = pixels[:-1]
        return np.ascontiguousarray(self._upright(pixels))

    def _stored(self, window: Window) -> Window:
        """Return where a window of the upright image lies in the file."""
        rows, columns = FLIPS[self.declared.orientation]
        top, bottom, left, right = window
        if rows:
            top, bottom = self.shape[2] - bottom, self.shape[2] - top
        if columns:
            left, right = self.shape[3] - right, self.shape[3] - left
        return (
            Window(left, right, top, bottom)
            if self.declared.orientation >= TURNED
            else Window(top, bottom, left, right)
        )

    def _upright(self, pixels: Array) -> Array:
        turned = pixels.swapaxes(1, 2) if self.declared.orientation >= TURNED else pixels
        flips = tuple(axis for axis, flip in enumerate(FLIPS[self.declared.orientation], 1) if flip)
        upright: Array = np.flip(turned, flips)
        return upright

    def notes(self) -> list[str]:
        """Return how the file is read, in sentences: its axes, and what is doubtful."""
        said, (planes, channels, height, width) = self.declared, self.shape
        by = "as the axes given say" if self._asked else "as the file says"
        if not self._asked and any(a == UNKNOWN and n > 1 for a, n in zip(said.letters, said.shape, strict=True)):
            by = "which the file does not say"
        stored = " × ".join(map(str, said.shape))
        sides = f"{planes} planes ({self.plane_axis}), {channels} channels, {height} × {width} px"
        notes = [f"{stored} ({said.letters}) {said.dtype} read as {sides}, {by}"]
        if not self._asked and planes == 1 and channels > 1:
            notes.append(f"{channels} channels; if they are planes, set axes: zyx")
        if not self._asked and planes > 1 and min(height, width) <= NARROW_PX:
            notes.append(f"planes of {height} × {width} px are narrow; if these are channels, set axes: yxc or cyx")
        if said.orientation != 1:
            notes.append(f"turned upright: orientation {said.orientation} of 8")
        return [*notes, *said.scale.notes, *self._reader.notes()]

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""
        return self._reader.fingerprint()

    def close(self) -> None:
        """Forget the blocks that are kept in memory."""
        self._reader.close()


def _transparent(declared: Declared, place: str) -> PipelineError:
    fix = "save the image without alpha, or set axes, such as yxc for four channels or zyx for four planes"
    got = "an alpha channel with transparent ones"
    return PipelineError(f"{declared.where}, {place}", "opaque pixels", got, fix=fix)
