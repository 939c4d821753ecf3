"""Pictures of a volume from three sides, with the outlines of objects, and its brightest planes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images import pictures
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.records.layout import INSTANCES
from unet_pipeline.report.outlined import DRAWN, FOUND, GREYS, line_px, outlined
from unet_pipeline.report.panels import Panel, shown_normaliser
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import View
from unet_pipeline.stacks.stack import Stack

MOST_PLANES = 256
"""Planes that are looked through, around the one that is shown: whatever the volume, few pixels are read."""

Sections = dict[str, npt.NDArray[Any]]
"""Of one array: "xy" (channels, rows, columns), "xz" (channels, planes, columns), "yz" (channels, planes, rows)."""


def is_volume(result: StackResult) -> bool:
    """Whether a stack was looked at as a volume: by the network, by its weights, or by its objects."""
    deep = result.model.card.architecture.dimensions == 3 or (
        result.stitch is not None and result.stitch.connect == "volume"
    )
    weighed = result.weigh is not None and result.weigh.step_px is not None
    return result.stack.grid.plane_axis == "z" and result.stack.grid.planes > 1 and (deep or weighed)


def volume_panels(result: StackResult, view: View) -> list[Panel]:
    """Return the panels xy, xz, yz and the maximum projection of a window; none of a stack that is no volume.

    The planes of xz and yz lie below each other, each as high as it is thick, in whole pixels.

    Args:
        result: the stack.
        view: the window; the sections go through its middle row and column.
    """
    if not is_volume(result):
        return []
    planes = _around(view.plane, result.stack.grid.planes)
    image = _image_sections(result.stack, view, planes)
    labels: list[tuple[Sections, tuple[int, int, int], str]] = []
    if result.stack.labelled:
        labels.append((_label_sections(result.stack.reference(INSTANCES), view, planes), DRAWN, "drawn"))
    if result.plan is not None:
        labels.append((_label_sections(result.plan.labels(INSTANCES), view, planes), FOUND, "found"))
    drawing = _Drawing(result, view, _thickness(result), [(pictures.css(colour), word) for _, colour, word in labels])
    row, column = (_middle(part) for part in (view.rows, view.columns))
    words = {
        "xy": f"plane {view.plane}.",
        "xz": f"row {row}, planes {planes.start} to {planes.stop - 1} from above.",
        "yz": f"column {column}, planes {planes.start} to {planes.stop - 1} from above, rows to the right.",
    }
    shown = [
        drawing.panel(side, image[side], [(one[side], colour) for one, colour, _ in labels], text)
        for side, text in words.items()
    ]
    most = f"the brightest of planes {planes.start} to {planes.stop - 1} at each pixel."
    return [*shown, drawing.panel("Maximum projection", image["most"], [], most)]


def _around(plane: int, planes: int) -> range:
    count = min(planes, MOST_PLANES)
    first = min(max(0, plane - count // 2), planes - count)
    return range(first, first + count)


def _middle(part: slice) -> int:
    return int(part.start + part.stop) // 2


def _image_sections(stack: Stack, view: View, planes: range) -> Sections:
    """Read a window of the image plane by plane; "most" is the largest value of each channel at each pixel."""
    rows, columns = [], []
    shown = most = None
    for plane in planes:
        values = stack.image.read(plane, view.rows, view.columns)
        rows.append(values[:, view.shape[0] // 2])
        columns.append(values[:, :, view.shape[1] // 2])
        most = values if most is None else np.maximum(most, values)
        shown = values if plane == view.plane else shown
    assert shown is not None and most is not None  # the plane of the view is among them
    return {"xy": shown, "xz": np.stack(rows, axis=1), "yz": np.stack(columns, axis=1), "most": most}


def _label_sections(array: PlaneArray, view: View, planes: range) -> Sections:
    """Read the sections of a label: a row and a column of each plane."""
    row, column = (slice(_middle(part), _middle(part) + 1) for part in (view.rows, view.columns))
    across = [array.read(plane, row, view.columns)[:, 0] for plane in planes]
    down = [array.read(plane, view.rows, column)[:, :, 0] for plane in planes]
    whole = array.read(view.plane, view.rows, view.columns)
    return {"xy": whole, "xz": np.stack(across, axis=1), "yz": np.stack(down, axis=1)}


def _thickness(result: StackResult) -> int:
    """Return how many pixels high a plane is shown from the side: as many as it is thick, 1 where that is unknown."""
    grid = result.stack.grid
    return max(1, round(grid.step / grid.pixel_um[1])) if grid.step and grid.pixel_um else 1


@dataclass(frozen=True)
class _Drawing:
    """What the panels of a volume share."""

    result: StackResult
    view: View
    thickness: int
    keys: Sequence[tuple[str, str]]

    def panel(
        self, side: str, values: npt.NDArray[Any],
        labels: Sequence[tuple[npt.NDArray[Any], tuple[int, int, int]]], words: str,
    ) -> Panel:  # fmt: skip
        """Return a panel of values (channels, down, across) with outlines of labels (1, down, across)."""
        high = self.thickness if side in ("xz", "yz") else 1
        rgb = pictures.as_grey(shown_normaliser(self.result.stack)(values)).repeat(high, axis=0)
        large, factor = pictures.enlarged(rgb if len(values) > 1 else rgb // GREYS * GREYS)
        fine = line_px(large)
        layers = [
            (
                ids[0].repeat(high * factor, axis=0).repeat(factor, axis=1),
                colour,
                fine if colour == FOUND else 5 * fine // 2,
            )
            for ids, colour in labels
        ]
        pixel = self.result.stack.grid.pixel_um
        bar = pictures.scale_bar(rgb.shape[1], pixel[0 if side == "yz" else 1] if pixel else None)
        shown = pictures.with_scale_bar(outlined(large, layers), bar, factor)
        alt = f"{side} of stack {self.result.name}, {words} The scale bar is {bar.label}"
        return Panel(side, pictures.png(shown), alt, words, self.keys if labels else ())
