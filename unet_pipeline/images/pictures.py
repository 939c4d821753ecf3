"""Pictures of images and results: arrays in, RGB and PNG out, the same bytes for the same arrays.

Colours are those of Okabe and Ito (2008) or perceptually uniform scales, which readers with any colour vision can tell
apart. A picture is enlarged by whole pixels, never smoothed, so that it shows the stored values.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from unet_pipeline.images.colours import UNKNOWN, class_colour

Rgb = npt.NDArray[np.uint8]
"""(y, x, 3), 0..255"""

SHOWN_PX = 680
"""Pictures are enlarged by a whole factor to about this many px at their longer side: twice the size they are shown."""

LEVELS = 236
"""Steps of a colour scale; few enough that a picture and its scale bar fit a palette of 256."""

INK, PAPER, UNMATCHED = (17, 24, 32), (255, 255, 255), (150, 156, 164)

FIELD, BLENDS = (34, 34, 34), 17
"""Grey behind a scale bar; the smooth edges of its letters take 16 greys, the multiples of 17."""


@dataclass(frozen=True)
class ScaleBar:
    """A length to show.

    Attributes:
        length_px: px of the image; need not be whole.
        label: with its unit, e.g. "20 µm", or in px where the pixel size is unknown.
    """

    length_px: float
    label: str


def scale_bar(width_px: int, pixel_um: float | None) -> ScaleBar:
    """Return the longest bar of 1, 2 or 5 times a power of ten that takes at most a quarter of the width.

    Args:
        width_px: width of the picture, px of the image.
        pixel_um: width of a pixel, micrometres; None where unknown.
    """
    if pixel_um is None:
        length = max(1.0, _round_below(width_px / 4))
        return ScaleBar(length, f"{length:.0f} px")
    length_um = _round_below(width_px / 4 * pixel_um)
    factor, unit = next(((f, u) for f, u in ((1e-3, "mm"), (1.0, "µm")) if length_um * f >= 1), (1e3, "nm"))
    return ScaleBar(length_um / pixel_um, f"{length_um * factor:.6g} {unit}")


def _round_below(value: float) -> float:
    power = math.floor(math.log10(value) + 1e-9)
    leading = next(digit for digit in (5, 2, 1) if digit <= value / 10.0**power + 1e-9)
    return float(f"{leading}e{power}")


def as_grey(values: npt.NDArray[Any]) -> Rgb:
    """Return normalised grey values as a picture: one channel grey, three red, green and blue, others added up.

    Args:
        values: (channels, y, x) float; 0 becomes black and 1 white, beyond is cut off.
    """
    clipped = np.clip(np.nan_to_num(values), 0, 1)
    channels = len(clipped)
    if channels == 1:
        return np.repeat(_bytes(clipped[0])[..., None], 3, axis=2)
    if channels == 3:
        return _bytes(np.moveaxis(clipped, 0, -1))
    mixed: npt.NDArray[Any] = np.tensordot(clipped, channel_colours(channels), axes=(0, 0))
    return _bytes(np.clip(mixed, 0, 1))


def channel_colours(channels: int) -> npt.NDArray[np.float64]:
    """Return (channels, 3) colours, 0..1, whose sum is white: magenta and green for two."""
    from matplotlib.colors import hsv_to_rgb  # here, as below: it takes most of the start of what draws nothing

    hues = (np.arange(channels) / channels + 5 / 6) % 1
    colours = hsv_to_rgb(np.stack([hues, np.ones(channels), np.ones(channels)], axis=1))
    balanced: npt.NDArray[np.float64] = colours / np.maximum(colours.sum(axis=0), 1)
    return balanced if channels > 2 else np.array([[1.0, 0, 1], [0, 1.0, 0]])


def as_scale(values: npt.NDArray[Any], scale: str) -> Rgb:
    """Return values (y, x) of 0..1 in the colours of a scale of matplotlib, such as "viridis"."""
    steps = np.rint(np.clip(values, 0, 1) * (LEVELS - 1)).astype(np.intp)
    return np.asarray(_scale(scale)[steps], np.uint8)


def scale_colours(scale: str, steps: int = 9) -> list[str]:
    """Return CSS colours at even steps of a scale, for its key."""
    table = _scale(scale)
    return [css(table[round(step * (LEVELS - 1) / (steps - 1))]) for step in range(steps)]


@cache
def _scale(name: str) -> npt.NDArray[np.uint8]:
    from matplotlib import colormaps

    return _bytes(colormaps[name](np.linspace(0, 1, LEVELS))[:, :3])


def as_instances(ids: npt.NDArray[Any]) -> Rgb:
    """Return instance ids (y, x) in colours that depend on the id alone; 0 is dark.

    Neighbouring numbers lie a golden angle apart in hue and differ in lightness.
    """
    from matplotlib.colors import hsv_to_rgb

    numbers, place = np.unique(ids, return_inverse=True)
    turns = numbers.astype(np.float64)
    hue, light, strength = (turns * 0.6180339887498949) % 1, np.array([1.0, 0.82, 0.92]), np.array([0.62, 0.8, 0.42])
    third = (numbers % 3).astype(np.intp)
    colours = hsv_to_rgb(np.stack([hue, strength[third], light[third]], axis=1))
    table = np.where((numbers > 0)[:, None], _bytes(colours), np.array(INK, np.uint8))
    return np.asarray(table[place].reshape(*ids.shape, 3), np.uint8)


def as_classes(classes: npt.NDArray[Any], unknown: int) -> Rgb:
    """Return class indices (y, x) in the colours of `class_colour`; `unknown` marks pixels nobody annotated."""
    table = np.array([class_colour(index) for index in range(256)], np.uint8)
    table[unknown] = UNKNOWN
    return np.asarray(table[classes], np.uint8)


def enlarged(rgb: Rgb, ids: npt.NDArray[Any] | None = None) -> tuple[Rgb, int]:
    """Return a picture enlarged by a whole factor, and the factor.

    Args:
        rgb: the picture.
        ids: (y, x) instance ids; where given, thin dark lines part touching objects.
    """
    factor = max(1, round(SHOWN_PX / max(rgb.shape[:2])))
    large = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    if ids is not None and factor > 1:
        fine = ids.repeat(factor, axis=0).repeat(factor, axis=1)
        for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            large[a][(fine[a] != fine[b]) & (fine[a] > 0) & (fine[b] > 0)] = INK
    return large, factor


def with_scale_bar(rgb: Rgb, bar: ScaleBar, factor: int) -> Rgb:
    """Return an enlarged picture with a scale bar at its lower right: white on a dark field, legible on anything.

    Args:
        rgb: the picture; it is widened with white where it is too narrow for the label.
        bar: the bar.
        factor: by which the picture was enlarged.
    """
    length = max(1, round(bar.length_px * factor))
    unit = max(10, round(max(rgb.shape[:2]) / 26))
    letters = font(unit)
    left, top, right, bottom = letters.getbbox(bar.label)
    wide, pad, thick = math.ceil(max(length, right - left)), unit // 2, max(2, unit // 5)
    field = wide + 2 * pad, math.ceil(bottom - top) + thick + 5 * pad // 2
    canvas = np.full((max(rgb.shape[0], field[1]), max(rgb.shape[1], field[0]), 3), PAPER, np.uint8)
    canvas[: rgb.shape[0], : rgb.shape[1]] = rgb
    image = Image.fromarray(canvas)
    x, y = image.width - field[0], image.height - field[1]
    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, image.width, image.height), fill=FIELD)
    draw.text((x + field[0] / 2 - (left + right) / 2, y + pad - top), bar.label, font=letters, fill=PAPER)
    image.paste(
        image.crop((x, y, *image.size)).point([round(grey / BLENDS) * BLENDS for grey in range(256)] * 3), (x, y)
    )
    start, end = x + (field[0] - length) // 2, image.height - pad
    draw.rectangle((start, end - thick, start + length - 1, end - 1), fill=PAPER)
    return np.asarray(image)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the letters of pictures, of a size in px: the same on every machine."""
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def png(rgb: Rgb) -> bytes:
    """Return a picture as PNG without any metadata; with a palette where 256 colours do."""
    packed = rgb.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    colours, place = np.unique(packed, return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(place.reshape(rgb.shape[:2]).astype(np.uint8))
        image.putpalette(colours.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())
    else:
        image = Image.fromarray(rgb)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def css(colour: npt.ArrayLike) -> str:
    """Return a colour, one-dimensional: red, green, blue, 0..255, as CSS writes it."""
    red, green, blue = np.asarray(colour).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.rint(values * 255), np.uint8)
