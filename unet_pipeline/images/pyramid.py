"""Pyramids: the coarser levels of an image or label, made from the finer ones shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.ngff import count_levels
from unet_pipeline.images.plane_array import Array, PlaneArray, open_array
from unet_pipeline.machine.parallel import ahead, behind
from unet_pipeline.objects.box import Box

Reduction = Literal["mean", "nearest"]

BAND_PX = 1024
"""Rows that are read and reduced at a time; an even number, since two of them make one of the next level."""


def build_pyramid(
    store: Path,
    name: str,
    reduction: Reduction,
    on_block: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fill the levels above 0 from level 0, one shard at a time.

    Args:
        store: the image.
        name: path of the multiscale group inside it: "" for the image, "labels/classes" for a label.
        reduction: "mean" of the pixels of a 2x2 block for intensities and probabilities, "nearest" for labels.
        on_block: called after each shard.
        check: called before each shard is written, so that a job that was taken over stops.
    """
    prefix = f"{name}/" if name else ""
    for level in range(1, count_levels(store, name)):
        fine = open_array(store, f"{prefix}{level - 1}")
        coarse = open_array(store, f"{prefix}{level}", writable=True, check=check)
        made = ahead(partial(_reduced, fine, reduction), coarse.shards())
        with closing(made), behind(coarse.write) as write_soon:
            for block, values in made:
                write_soon(*block.at, values)
                on_block()


def count_pyramid_blocks(store: Path, name: str = "") -> int:
    """Return how many shards `build_pyramid` writes."""
    prefix = f"{name}/" if name else ""
    arrays = (open_array(store, f"{prefix}{level}") for level in range(1, count_levels(store, name)))
    return sum(sum(1 for _ in array.shards()) for array in arrays)


def _reduced(fine: PlaneArray, reduction: Reduction, block: Box) -> tuple[Box, Array]:
    """Return a block of the next level and its values (channels, rows, columns)."""
    plane, rows, columns = block.at
    height, width = fine.shape[2:]
    y, x = (slice(2 * part.start, min(2 * part.stop, size)) for part, size in ((rows, height), (columns, width)))
    bands = (slice(top, min(top + BAND_PX, y.stop)) for top in range(y.start, y.stop, BAND_PX))
    reduce = _mean if reduction == "mean" else _nearest
    return block, np.concatenate([reduce(fine.read(plane, band, x)) for band in bands], axis=1)


def _nearest(values: Array) -> Array:
    """Return every other pixel of (channels, rows, columns)."""
    return values[:, ::2, ::2].copy()


def _mean(values: Array) -> Array:
    """Return the means of 2x2 pixels of (channels, rows, columns); at odd edges over the pixels there are."""
    odd = [(0, 0), (0, values.shape[1] % 2), (0, values.shape[2] % 2)]
    # Repeating the last row or column leaves the mean of the pixels that exist.
    even: npt.NDArray[np.floating[Any]] = np.pad(values, odd, mode="edge").astype(
        np.float64 if values.dtype.itemsize > 2 else np.float32
    )
    mean: Array = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    return (np.rint(mean) if values.dtype.kind in "ui" else mean).astype(values.dtype)
