"""Views: the planes and windows of a stack that show most, found on a coarse level of its labels.

Memory is flat: whatever the size of the stack, only a coarse level of a few planes is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import PlaneArray, Vouch, open_array, unlisted

COARSE_PX = 1024
"""Longest side of the level that is searched, px, where the pyramid has one that small."""

CANDIDATES = 8
"""Planes that are searched for each plane shown, evenly spaced."""

Interest = Callable[[int], npt.NDArray[np.bool_]]
"""Plane number -> (y, x), true where there is something to see, on a coarse level."""


@dataclass(frozen=True)
class View:
    """A window of a plane, px."""

    plane: int
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), px."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Coarse:
    """One level of a pyramid.

    Attributes:
        array: the level.
        factor: px of the image along a side of a pixel of the level.
    """

    array: PlaneArray
    factor: int

    def read(self, plane: int) -> npt.NDArray[Any]:
        """Return a plane of the level, (channels, y, x)."""
        return self.array.read(plane, slice(0, self.array.shape[2]), slice(0, self.array.shape[3]))


def coarse_level(store: Path, name: str = "", vouch: Vouch = unlisted) -> Coarse:
    """Return the finest level that fits `COARSE_PX`, or the coarsest, of an image ("") or label of a store.

    `vouch` is called with each file before it is read.
    """
    prefix = f"{name}/" if name else ""
    levels = ngff.count_levels(store, name)
    for level in range(levels):
        array = open_array(store, f"{prefix}{level}", vouch=vouch)
        if max(array.shape[2:]) <= COARSE_PX:
            break
    return Coarse(array, 2**level)


def borders(ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels (y, x) whose right or lower neighbour is of another object."""
    found = np.zeros(ids.shape, bool)
    found[:-1] |= ids[:-1] != ids[1:]
    found[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return found


def interest(
    found: npt.NDArray[Any] | None, reference: npt.NDArray[Any] | None, classes: npt.NDArray[Any] | None
) -> npt.NDArray[np.bool_]:
    """Return the pixels worth seeing, (y, x): borders of objects, and where result and reference differ.

    Args:
        found: (y, x) ids of the result, if there is one.
        reference: (y, x) ids of the reference, if there is one.
        classes: (y, x) classes of the reference, `IGNORE` where nobody annotated.
    """
    given = [ids for ids in (found, reference) if ids is not None]
    seen = np.logical_or.reduce([borders(ids) for ids in given])
    if found is not None and reference is not None:
        seen |= (found > 0) != (reference > 0)
    if classes is not None:
        seen &= classes != IGNORE
    return np.asarray(seen, bool)


def choose_views(
    size: tuple[int, int, int], planes: int, window_px: int, factor: int, interesting: Interest
) -> list[View]:
    """Return one window from each of `planes` even runs of the stack's planes: the one with most to see in its run.

    Args:
        size: (planes, height, width) of the stack, px.
        planes: number of windows, at most; a stack has no more than planes.
        window_px: largest side of a window, px.
        factor: px of the image along a side of a pixel of the coarse level.
        interesting: what is to be seen on the coarse level of a plane.
    """
    views = []
    for run in _runs(size[0], planes):
        best: tuple[int, View] | None = None
        for plane in run:
            score, y, x = _densest(interesting(plane), -(-window_px // factor))
            rows, columns = _window(y * factor, window_px, size[1]), _window(x * factor, window_px, size[2])
            if best is None or score > best[0]:
                best = score, View(plane, rows, columns)
        if best:
            views.append(best[1])
    return views


def _runs(planes: int, wanted: int) -> Iterator[list[int]]:
    """Yield the candidate planes of each run, at most `CANDIDATES`, the middle one first."""
    runs = min(planes, wanted)
    for index in range(runs):
        start, stop = planes * index // runs, planes * (index + 1) // runs
        count = min(CANDIDATES, stop - start)
        chosen = [start + (stop - start) * (2 * part + 1) // (2 * count) for part in range(count)]
        yield sorted(chosen, key=lambda plane: (abs(2 * plane + 1 - start - stop), plane))


def _densest(seen: npt.NDArray[np.bool_], window: int) -> tuple[int, int, int]:
    """Return (sum, y, x) of the window that holds most; where nothing is to be seen, the middle."""
    height, width = (min(window, size) for size in seen.shape)
    sums = np.zeros((seen.shape[0] + 1, seen.shape[1] + 1), np.int64)
    sums[1:, 1:] = seen.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    if not inside.any():
        return 0, (seen.shape[0] - height) // 2, (seen.shape[1] - width) // 2
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(inside[y, x]), int(y), int(x)


def _window(start: int, size: int, length: int) -> slice:
    first = max(0, min(start, length - size))
    return slice(first, min(first + size, length))
