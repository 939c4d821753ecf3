"""Windows of a stack at a level of its pyramid, whatever their size: what is read is as small as what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import Vouch, open_array, unlisted
from unet_pipeline.report.views import View
from unet_pipeline.stacks.stack import Stack

STRIP_PX = 256
"""Rows that are read at a time of an image without a pyramid of ours."""

LARGEST_SOURCE_PX = 4096
"""A longer window of such an image is not read: there is nothing smaller to read instead."""


def fitting_level(shape: tuple[int, int], most_px: int) -> int:
    """Return the finest level at which a window of (height, width) px is at most `most_px` long."""
    level = 0
    while -(-max(shape) // 2**level) > most_px:
        level += 1
    return level


def read_level(store: Path, name: str, view: View, level: int, vouch: Vouch = unlisted) -> npt.NDArray[Any]:
    """Return a window, (channels, y, x): every 2^level-th pixel of a label, the mean of as many of an image.

    Beyond the coarsest level there is, pixels are left out.

    Args:
        store: an OME-Zarr image of this pipeline.
        name: "" for the image, or of a label, such as "labels/instances".
        view: the window at full size; it begins at multiples of 2^level.
        level: from 0.
        vouch: called with each file before it is read.
    """
    stored = min(level, ngff.count_levels(store, name) - 1)
    array = open_array(store, f"{name}/{stored}" if name else str(stored), vouch=vouch)
    rows, columns = (slice(part.start >> stored, -(-part.stop >> stored)) for part in (view.rows, view.columns))
    step = 2 ** (level - stored)
    return array.read(view.plane, rows, columns)[:, ::step, ::step]


def read_image(stack: Stack, view: View, level: int) -> npt.NDArray[Any] | None:
    """Return a window of the image, (channels, y, x) as of `read_level`, also in place; None where it is too large."""
    if not stack.ingested.image.in_place:
        return read_level(stack.store, "", view, level, stack.vouch)
    if max(view.shape) > LARGEST_SOURCE_PX:
        return None
    step = 2**level
    high = max(STRIP_PX, step)  # a multiple of the step: both are powers of two
    starts = range(view.rows.start, view.rows.stop, high)
    strips = (stack.image.read(view.plane, slice(y, min(y + high, view.rows.stop)), view.columns) for y in starts)
    return np.concatenate([strip[:, ::step, ::step] for strip in strips], axis=1)
