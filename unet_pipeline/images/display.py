"""What a viewer shows of a store without being asked: names, colours and windows of channels and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.images.colours import UNKNOWN, Colour, class_colour

RGB: tuple[Colour, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Channel:
    """How a viewer shows a channel (`omero` of OME-NGFF 0.5).

    Attributes:
        name: of the channel.
        colour: of its brightest value.
        window: the values shown black, and in the full colour.
        span: the least and the largest value to choose the window from.
        shown: whether it is seen at first.
    """

    name: str
    colour: Colour
    window: tuple[float, float]
    span: tuple[float, float]
    shown: bool = True


@dataclass(frozen=True)
class Value:
    """How a viewer shows a value of a label (`image-label` of OME-NGFF 0.5): its name, its colour, whether at all."""

    value: int
    name: str
    colour: Colour
    shown: bool = True


def class_channels(classes: Sequence[str], dtype: np.dtype[Any]) -> list[Channel]:
    """Return the channels of probabilities, one for each class; the background is there, but not shown.

    Args:
        classes: names, the background first.
        dtype: of the stored probabilities: uint8, or float up to 1.
    """
    span = (0.0, 255.0 if dtype == np.uint8 else 1.0)
    colours = [WHITE, *(class_colour(index) for index in range(1, len(classes)))]
    return [Channel(name, colours[index], span, span, index > 0) for index, name in enumerate(classes)]


def image_channels(dtype: np.dtype[Any], statistics: Any) -> list[Channel]:
    """Return the channels of an image: three are red, green and blue, of 8 bits with all their values as they are.

    Args:
        dtype: of its grey values.
        statistics: of a stack, as in its record (`stack_records.Statistics`).
    """
    count = len(statistics.min)
    photograph = count == 3 and dtype == np.uint8
    whole = dtype.kind in "ui" and dtype.itemsize <= 2
    found = []
    for channel in range(count):
        least, largest = float(statistics.min[channel]), float(statistics.max[channel])
        span = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if whole else (least, max(largest, least + 1))
        # the darkest and the brightest few pixels may be dirt: as normalise.low and high leave them out
        low, high = (float(statistics.quantiles[channel][tenth]) for tenth in (10, 998))
        window = span if photograph else (low, high if high > low else low + 1)
        colour = WHITE if count == 1 else RGB[channel] if count == 3 else class_colour(channel + 1)
        found.append(Channel(f"channel {channel}", colour, window, span))
    return found


def class_values(classes: Sequence[str], annotated: bool = False) -> list[Value]:
    """Return the values of labels of classes; the background is clear.

    Args:
        classes: names by value.
        annotated: whether 255 may stand for pixels nobody annotated.
    """
    values = [Value(index, name, class_colour(index), index > 0) for index, name in enumerate(classes)]
    return [*values, Value(IGNORE, "not annotated", UNKNOWN)] if annotated else values
