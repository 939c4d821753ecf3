"""Pictures of the image with the outlines of objects: a plane whole, and the places where the result is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.images import pictures
from unet_pipeline.images.pictures import Rgb
from unet_pipeline.images.plane_array import Vouch
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.records.score_records import Fault
from unet_pipeline.report import differences
from unet_pipeline.report.levels import fitting_level, read_image, read_level
from unet_pipeline.report.panels import Panel, shown_normaliser
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import View

FOUND, DRAWN, MISSED, MARK = (240, 228, 66), (86, 180, 233), (213, 94, 0), (255, 255, 255)
"""Colours of outlines: of the result, of the reference, of reference objects without a partner, and of frames."""

GREYS = 8
"""Steps between the greys of a picture of one channel: few greys make a small file."""

WRONG, TINT = (213, 94, 0), 0.4
"""The colour of the object that is wrong, and its share in that of its pixels."""

KEYS = (
    (pictures.css(DRAWN), "drawn"),
    (pictures.css(FOUND), "found"),
    (pictures.css(WRONG), "the object that is wrong"),
)
"""The meaning of the colours of a crop."""

SPACE = 2.5
"""Sides of a crop over those of the object it shows."""

LEAST_CROP_PX, MOST_CROP_PX = 64, 512
"""Sides of a crop, px of the image and of the level that is read."""


@dataclass(frozen=True)
class Marked:
    """A fault with the number that it has on the page."""

    number: int
    result: StackResult
    fault: Fault

    @property
    def of_result(self) -> bool:
        """Whether the object is one of the result, else of the reference."""
        return self.fault.kind in ("joined", "spurious")

    @property
    def store(self) -> tuple[Path, Vouch]:
        """The store whose instances have the object, and what vouches for it."""
        if self.of_result:
            assert self.result.plan is not None  # it is scored
            return self.result.plan.store, self.result.plan.vouch
        return self.result.stack.store, self.result.stack.vouch

    @property
    def is_stored(self) -> bool:
        """Whether the object has its number in the store: `evaluate` joins classes through a volume on its own."""
        assert self.result.metrics is not None and self.result.stitch is not None
        labels = self.result.metrics.provenance.config.get("labels", {})
        own = labels.get("kind") == "classes" and self.result.stitch.connect == "volume"
        return not own or self.of_result


def outlined(rgb: Rgb, layers: Sequence[tuple[npt.NDArray[Any], tuple[int, int, int], int]]) -> Rgb:
    """Return a picture with lines within the border of objects.

    Args:
        rgb: (y, x, 3).
        layers: ids (y, x), the colour of their outlines and how wide these are, px; later ones lie on top.
    """
    drawn = rgb.copy()
    for ids, colour, width in layers:
        drawn[_rims(ids, width)] = colour
    return drawn


def _rims(ids: npt.NDArray[Any], width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of objects, (y, x), with a pixel that is not of the same object at most `width` px away.

    Only rows and columns are looked along. The border of the picture is no border of objects.
    """
    rims = np.zeros(ids.shape, bool)
    for far in range(1, width + 1):
        for one, other in ((np.s_[far:], np.s_[:-far]), (np.s_[:, far:], np.s_[:, :-far])):
            differs = ids[one] != ids[other]
            rims[one] |= differs
            rims[other] |= differs
    return rims & (ids > 0)


def overview(result: StackResult, plane: int, most_px: int, marks: Sequence[Marked] = ()) -> Panel | None:
    """Return a plane whole, with the outlines of what was found and frames around faults; None if it is not predicted.

    Args:
        result: the stack.
        plane: its plane.
        most_px: longest side of the picture, px.
        marks: faults of this stack and plane.
    """
    if result.plan is None:
        return None
    _, height, width = result.stack.grid.shape
    view = View(plane, slice(0, height), slice(0, width))
    level = fitting_level((height, width), most_px)
    found = read_level(result.plan.store, f"labels/{INSTANCES}", view, level, result.plan.vouch)[0]
    layers, keys = [(found, FOUND, 1)], [(pictures.css(FOUND), "found")]
    if result.stack.labelled:
        lost = _without_partner(result, view, level, found)
        layers, keys = [(lost, MISSED, 2), *layers], [*keys, (pictures.css(MISSED), "drawn, not found as one object")]
    image = read_image(result.stack, view, level)
    shades = np.zeros((*found.shape, 3), np.uint8) if image is None else _shades(result, image)
    factor = max(1, most_px // max(shades.shape[:2]))
    large = [(_enlarged(ids, factor), colour, wide) for ids, colour, wide in layers]
    rgb = _framed(outlined(_enlarged(shades, factor), large), factor / 2**level, marks)
    pixel = result.stack.grid.pixel_um
    bar = pictures.scale_bar(width, pixel[1] if pixel else None)
    shown = pictures.with_scale_bar(rgb, bar, factor / 2**level)
    words = (
        f"plane {plane}, whole:"
        if image is not None
        else f"plane {plane}, whole, without its image, which is too large to read here:"
    )
    more = "Frames: the numbered places below." if marks else ""
    alt = f"Plane {plane} of stack {result.name} with the outlines of the objects found; the scale bar is {bar.label}"
    return Panel(result.name, pictures.png(shown), alt, words, keys, more=more)


def crop(marked: Marked, view: View, words: str) -> Panel:
    """Return the surroundings of a fault: the image with the outlines of both, drawn wide and found narrow.

    Args:
        marked: the fault; its stack is predicted and has a reference.
        view: its window, from `crop_view`.
        words: what is wrong, for the caption.
    """
    result = marked.result
    assert result.plan is not None
    level = fitting_level(view.shape, MOST_CROP_PX)
    name = f"labels/{INSTANCES}"
    found = read_level(result.plan.store, name, view, level, result.plan.vouch)[0]
    drawn = read_level(result.stack.store, name, view, level, result.stack.vouch)[0]
    image = read_image(result.stack, view, level)
    shades = np.zeros((*found.shape, 3), np.uint8) if image is None else _shades(result, image)
    named = found if marked.of_result else drawn
    wrong = (named == marked.fault.object) & marked.is_stored
    large, factor = pictures.enlarged(_tinted(shades, wrong))
    fine = line_px(large)
    layers = [(_enlarged(drawn, factor), DRAWN, 5 * fine // 2), (_enlarged(found, factor), FOUND, fine)]
    pixel = result.stack.grid.pixel_um
    bar = pictures.scale_bar(view.shape[1], pixel[1] if pixel else None)
    shown = pictures.with_scale_bar(outlined(large, layers), bar, factor / 2**level)
    alt = f"{words} Stack {result.name}, plane {view.plane}; the scale bar is {bar.label}"
    return Panel(f"{marked.number} {marked.fault.kind}", pictures.png(shown), alt, words)


def crop_view(marked: Marked) -> View:
    """Return the window around a fault, in a plane that shows its object, at whole pixels of its level."""
    (_, *start), (_, *stop) = marked.fault.start, marked.fault.stop
    size = marked.result.stack.grid.shape[1:]
    side = max(LEAST_CROP_PX, *(round(SPACE * (b - a)) for a, b in zip(start, stop, strict=True)))
    step = 2 ** fitting_level((side, side), MOST_CROP_PX)
    firsts = (
        max(0, min((a + b - side) // 2, length - side)) // step * step
        for a, b, length in zip(start, stop, size, strict=True)
    )
    rows, columns = (slice(first, min(length, first + side)) for first, length in zip(firsts, size, strict=True))
    return View(_plane_of(marked), rows, columns)


def _plane_of(marked: Marked) -> int:
    """Return the plane nearest to the middle of an object's box that shows it; the middle one where none is found."""
    (first, top, left), (last, bottom, right) = marked.fault.start, marked.fault.stop
    middle = (first + last) // 2
    if last - first == 1 or not marked.is_stored:
        return middle
    level = fitting_level((bottom - top, right - left), MOST_CROP_PX)
    rows, columns = (slice(part >> level << level, end) for part, end in ((top, bottom), (left, right)))
    store, vouch = marked.store
    for plane in sorted(range(first, last), key=lambda plane: (abs(plane - middle), plane)):
        labels = read_level(store, f"labels/{INSTANCES}", View(plane, rows, columns), level, vouch)
        if (labels == marked.fault.object).any():
            return plane
    return middle


def _without_partner(result: StackResult, view: View, level: int, found: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the reference objects (y, x) at a level that no object covers by more than half, as `differences` does."""
    drawn, classes = (
        read_level(result.stack.store, f"labels/{name}", view, level, result.stack.vouch)[0]
        for name in (INSTANCES, CLASSES)
    )
    drawn = np.where(classes == IGNORE, 0, drawn)
    names = differences.partners(drawn, np.where(classes == IGNORE, 0, found))
    return np.where(differences.translated(drawn, names) == 0, drawn, 0)


def _shades(result: StackResult, values: npt.NDArray[Any]) -> Rgb:
    """Return the image as a picture; greys are rounded, colours not."""
    rgb = pictures.as_grey(shown_normaliser(result.stack)(values))
    return rgb if len(values) > 1 else rgb // GREYS * GREYS


def _enlarged(values: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def _tinted(rgb: Rgb, chosen: npt.NDArray[np.bool_]) -> Rgb:
    """Mix the colour of what is wrong into some pixels, (y, x)."""
    mixed: Rgb = np.rint((1 - TINT) * rgb + TINT * np.array(WRONG)).astype(np.uint8)
    return np.where(chosen[..., None], mixed, rgb)


def line_px(rgb: Rgb) -> int:
    """Return how wide an outline is drawn in an enlarged picture, px."""
    height, width = rgb.shape[:2]
    return max(1, max(int(height), int(width)) // 300)


def _framed(rgb: Rgb, scale: float, marks: Sequence[Marked]) -> Rgb:
    """Draw a frame with its number around each fault; `scale`: px of the picture for one of the image."""
    image = Image.fromarray(rgb)
    draw, font = ImageDraw.Draw(image), pictures.font(max(14, max(rgb.shape[:2]) // 45))
    for one in marks:
        (_, top, left), (_, bottom, right) = one.fault.start, one.fault.stop
        box = (left * scale - 6, top * scale - 6, right * scale + 5, bottom * scale + 5)
        draw.rectangle(box, outline=MARK, width=2)
        text = str(one.number)
        x0, y0, x1, y1 = font.getbbox(text)
        wide, high = x1 - x0 + 8, y1 - y0 + 8
        x, y = min(max(0, box[0]), image.width - wide), max(0, box[1] - high)
        draw.rectangle((x, y, x + wide, y + high), fill=MARK)
        draw.text((x + 4 - x0, y + 4 - y0), text, font=font, fill=pictures.INK)
    return np.asarray(image)
