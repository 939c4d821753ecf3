"""Pyramids: the coarser levels of an image or label, made from the finer ones shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unet_pipeline.ngff import count_levels
from unet_pipeline.plane_array import Array, PlaneArray, open_array

Reduction = Literal["mean", "nearest"]


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
        for plane, rows, columns in coarse.blocks():
            coarse.write(plane, rows, columns, _reduce(fine, plane, rows, columns, reduction))
            on_block()


def count_pyramid_blocks(store: Path, name: str = "") -> int:
    """Return how many shards `build_pyramid` writes."""
    prefix = f"{name}/" if name else ""
    arrays = (open_array(store, f"{prefix}{level}") for level in range(1, count_levels(store, name)))
    return sum(sum(1 for _ in array.blocks()) for array in arrays)


def _reduce(fine: PlaneArray, plane: int, rows: slice, columns: slice, reduction: Reduction) -> Array:
    """Return `(channels, rows, columns)` of the next level; at odd edges the mean is over the pixels there are."""
    height, width = fine.shape[2:]
    y, x = (slice(2 * part.start, min(2 * part.stop, size)) for part, size in ((rows, height), (columns, width)))
    values = fine.read(plane, y, x)
    if reduction == "nearest":
        return values[:, ::2, ::2]
    odd = [(0, 0), (0, values.shape[1] % 2), (0, values.shape[2] % 2)]
    # Repeating the last row or column leaves the mean of the pixels that exist.
    even: npt.NDArray[np.floating[Any]] = np.pad(values, odd, mode="edge").astype(
        np.float64 if fine.dtype.itemsize > 2 else np.float32
    )
    mean: Array = (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4
    return (np.rint(mean) if fine.dtype.kind in "ui" else mean).astype(fine.dtype)
