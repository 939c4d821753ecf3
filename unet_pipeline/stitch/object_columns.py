"""The columns of a table of objects, from their sums: each as scikit-image's `regionprops_table` defines it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.images.ngff import Grid
from unet_pipeline.objects.measures import Part
from unet_pipeline.records.tables import Kind, Rows

IN_A_PLANE = ("perimeter", "eccentricity", "solidity")
"""Measures that objects of a volume do not have."""

KINDS: dict[str, Kind] = {"i": "whole", "f": "number", "b": "yes or no", "U": "text"}


@dataclass(frozen=True)
class Columns:
    """What the table of a stack shows.

    Attributes:
        measures: names of `measure.measures`.
        grid: size and scale of the stack.
        deep: whether objects go from plane to plane.
        classes: names of the object classes.
        shifts: by channel, what was taken off the grey values that were summed.
        certain: the stored probability that means 1.
    """

    measures: tuple[str, ...]
    grid: Grid
    deep: bool
    classes: tuple[str, ...]
    shifts: tuple[float, ...]
    certain: float

    def kinds(self, empty: Part) -> dict[str, Kind]:
        """Return the names and kinds of all columns, in order, by a part without objects."""
        return {name: KINDS[values.dtype.kind] for name, values in self.rows(np.zeros(0, np.uint32), empty).items()}

    def rows(self, ids: NDArray[np.integer[Any]], part: Part) -> Rows:
        """Return the columns of some objects, (n,) each; NaN is no value.

        Args:
            ids: of these objects, (n,).
            part: their sums, (n,).
        """
        of = self._class_index(part)
        found: dict[str, NDArray[Any]] = {
            "id": ids.astype(np.int64),
            "plane": part["start"][:, 0],
            "class": np.array(self.classes)[of],
        }
        by_name: dict[str, Callable[[Part], Rows]] = {
            "area": self._area,
            "centroid": self._centroid,
            "box": self._box,
            "perimeter": self._perimeter,
            "eccentricity": self._eccentricity,
            "solidity": lambda part: {"solidity": part["area"] / part["hull"]},
            "intensity_mean": lambda part: self._by_channel("mean", _mean(part) + self.shifts),
            "intensity_min": lambda part: self._by_channel("min", part["least"]),
            "intensity_max": lambda part: self._by_channel("max", part["largest"]),
            "intensity_std": lambda part: self._by_channel("std", _std(part)),
            "probability": lambda part: {"probability": self._probability(part, of)},
            "touches_border": lambda part: {"touches_border": self.touches_border(part)},
        }
        for name, columns in by_name.items():
            if name in self.measures and not (self.deep and name in IN_A_PLANE):
                found |= columns(part)
        return found

    def _class_index(self, part: Part) -> NDArray[np.int64]:
        """Return the class of most pixels of each object, from 0: those it grew by and its holes are of another."""
        if len(self.classes) == 1:
            return np.zeros(len(part), np.int64)
        return np.asarray(part["of_class"].argmax(axis=1))

    @property
    def _pixel_um(self) -> tuple[float, float, float]:
        """Size of a pixel along planes, rows and columns, micrometres; NaN where it is unknown."""
        known = self.grid.step if self.grid.plane_axis == "z" else None
        return (np.nan if known is None else known, *(self.grid.pixel_um or (np.nan, np.nan)))

    def _area(self, part: Part) -> Rows:
        z, y, x = self._pixel_um
        if self.deep:
            return {"volume_px": part["area"], "volume_um3": part["area"] * (z * y * x)}
        return {"area_px": part["area"], "area_um2": part["area"] * (y * x)}

    def _centroid(self, part: Part) -> Rows:
        centre = part["first"] / part["area"][:, None]
        size = np.array(self._pixel_um)
        names = ("z", "y", "x")[0 if self.deep else 1 :]
        places = {"z": 0, "y": 1, "x": 2}
        in_px = {f"centroid_{name}_px": centre[:, places[name]] for name in names}
        return in_px | {f"centroid_{name}_um": centre[:, places[name]] * size[places[name]] for name in names}

    def _box(self, part: Part) -> Rows:
        """Return first and last rows and columns, the last ones excluded."""
        start, stop = part["start"], part["stop"]
        planes = {"box_front": start[:, 0], "box_back": stop[:, 0]} if self.deep else {}
        sides = {"box_top": start[:, 1], "box_left": start[:, 2], "box_bottom": stop[:, 1], "box_right": stop[:, 2]}
        return planes | sides

    def _perimeter(self, part: Part) -> Rows:
        straight, diagonal, bent = part["rim"].T  # no product of matrices, whose last digit depends on their size
        length = straight + np.sqrt(2) * diagonal + (1 + np.sqrt(2)) / 2 * bent
        _, y, x = self._pixel_um
        return {"perimeter_px": length, "perimeter_um": length * (x if x == y else np.nan)}

    def _eccentricity(self, part: Part) -> Rows:
        """Return that of the ellipse with the same second moments, 0 (a circle) to 1, seen in µm where known."""
        _, y, x = self._pixel_um
        y, x = (y, x) if y == y else (1.0, 1.0)
        count, rows, columns = part["area"], part["first"][:, 1], part["first"][:, 2]
        middle_y, middle_x = _rounded(rows, count), _rounded(columns, count)
        yy, yx, xx = part["second"].T
        # about the pixel nearest to the centroid, in whole numbers; then about the centroid itself
        off_y, off_x = (rows - middle_y * count) / count, (columns - middle_x * count) / count
        yy = (yy - 2 * middle_y * rows + middle_y * middle_y * count) / count - off_y**2
        xx = (xx - 2 * middle_x * columns + middle_x * middle_x * count) / count - off_x**2
        yx = (yx - middle_y * columns - middle_x * rows + middle_y * middle_x * count) / count - off_y * off_x
        yy, yx, xx = yy * y * y, yx * y * x, xx * x * x
        # eigenvalues of [[yy, yx], [yx, xx]] are middle ± half; 1 - small / large is 2 half / (middle + half)
        middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
        large = middle + half
        share = np.divide(2 * half, large, out=np.zeros(len(part)), where=large > 0)
        return {"eccentricity": np.sqrt(np.clip(share, 0, 1))}

    def _by_channel(self, name: str, values: NDArray[Any]) -> Rows:
        # numbers also where they are whole, so that tables of all stacks have the same columns
        return {f"intensity_{name}_{channel}": one.astype(np.float64) for channel, one in enumerate(values.T)}

    def _probability(self, part: Part, of: NDArray[np.int64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.take_along_axis(part["probability"], of[:, None], axis=1)[:, 0]
        return sums / (part["area"] * self.certain)

    def touches_border(self, part: Part) -> NDArray[np.bool_]:
        """Return which objects reach the border of their plane or, of a volume, that of the volume, (n,).

        Along planes there is a border only where there are several: of one plane all objects would reach it.
        """
        axes = slice(0 if self.deep and self.grid.planes > 1 else 1, 3)
        ends = np.array(self.grid.shape)[axes]
        touches: NDArray[np.bool_] = ((part["start"][:, axes] == 0) | (part["stop"][:, axes] == ends)).any(axis=1)
        return touches


def _rounded(sums: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((2 * sums + counts) // (2 * counts))


def _mean(part: Part) -> NDArray[np.float64]:
    """Return the mean of the shifted grey values, (n, channels)."""
    return np.asarray(part["grey"] / part["area"][:, None])


def _std(part: Part) -> NDArray[np.float64]:
    """Return the standard deviation of the grey values, (n, channels)."""
    sums, squares, count = part["grey"], part["square"], part["area"][:, None]
    # about a value near the mean, a whole number where the sums are: the difference of two large sums would lose digits
    near = np.rint(sums / count).astype(sums.dtype)
    off = (sums - near * count) / count
    variance = (squares - 2 * near * sums + near * near * count) / count - off**2
    return np.asarray(np.sqrt(np.clip(variance, 0, None)))
