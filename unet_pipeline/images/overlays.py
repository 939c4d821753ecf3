"""Pictures of classes with the image: laid over it, cut out of it, beside it; the colours are those of `pictures`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_pipeline.images.colours import UNKNOWN, class_colour
from unet_pipeline.images.pictures import PAPER, Rgb, as_classes

STRENGTH = 0.45
"""Share of the class's colour in an overlay; the rest is the image."""

GAP_PX = 4
"""White between pictures side by side."""


def overlay(image: Rgb, classes: npt.NDArray[Any], ids: npt.NDArray[Any]) -> Rgb:
    """Return the image tinted in the colours of its classes, the background as it is, and white lines around objects.

    Args:
        image: the picture of the image.
        classes: (y, x) class indices.
        ids: (y, x) instance ids; 0 is none.
    """
    mixed = np.where((classes > 0)[..., None], (1 - STRENGTH) * image + STRENGTH * as_classes(classes, 255), image)
    drawn: Rgb = np.rint(mixed).astype(np.uint8)
    drawn[_outlines(ids)] = PAPER
    return drawn


def cut_out(image: Rgb, classes: npt.NDArray[Any]) -> Rgb:
    """Return the image where a class other than the background is, and black elsewhere; classes are (y, x)."""
    return np.where((classes > 0)[..., None], image, 0).astype(np.uint8)


def beside(pictures: Sequence[Rgb]) -> Rgb:
    """Return pictures of one height side by side, from left to right, with white between them."""
    gap = np.full((pictures[0].shape[0], GAP_PX, 3), PAPER, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def mask_png(classes: npt.NDArray[Any], unknown: int) -> bytes:
    """Return classes (y, x) as PNG with a palette: pixel values are class indices, colours those of the page.

    Args:
        classes: (y, x) class indices, 0..255.
        unknown: the value of pixels nobody annotated, shown grey.
    """
    palette = np.array([class_colour(index) for index in range(256)], np.uint8)
    palette[unknown] = UNKNOWN
    image = Image.fromarray(classes.astype(np.uint8))
    image.putpalette(palette.tobytes())
    return _saved(image)


def rgb_png(rgb: Rgb) -> bytes:
    """Return a picture as PNG; unlike `pictures.png` it looks for no palette, which takes long for large pictures."""
    return _saved(Image.fromarray(rgb))


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _outlines(ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels (y, x) of objects whose upper, lower, left or right neighbour is not of the same object."""
    edge = np.zeros(ids.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = ids[one] != ids[other]
        edge[one] |= differs
        edge[other] |= differs
    return edge & (ids > 0)
