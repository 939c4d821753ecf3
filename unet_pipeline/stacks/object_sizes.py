"""How large the labelled objects of a stack are and how much they touch, from a few planes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE, Labels
from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.box import middle
from unet_pipeline.objects.distances import near_another
from unet_pipeline.records.layout import INSTANCES
from unet_pipeline.stacks.labels import LabelReader
from unet_pipeline.stacks.sizes import Fitted
from unet_pipeline.stacks.stack import Stack

PLANES = 8
"""Planes of a stack that are looked at, evenly."""
NEAR_PX = 4.0
"""Objects as near as this touch as far as a network is concerned; many who annotate leave a gap between them."""
WINDOW_PX = 2048
"""Largest side of what is looked at of a plane: its middle."""


@dataclass(frozen=True)
class ObjectSizes:
    """What was found in the planes that were looked at.

    Attributes:
        diameters_px: (objects,) float64, of the disc with the area of each object, px.
        outline_px: pixels of objects with a pixel of none, or of another, beside them.
        contact_px: those of them with another object within `NEAR_PX`.
        planes: number of planes looked at.
        empty: those of them without an object.
    """

    diameters_px: npt.NDArray[np.float64]
    outline_px: int
    contact_px: int
    planes: int
    empty: int

    @classmethod
    def merge(cls, parts: Iterable[ObjectSizes]) -> ObjectSizes:
        """Return what was found in several stacks together."""
        found = list(parts)
        return cls(
            np.concatenate([np.zeros(0), *(one.diameters_px for one in found)]),
            sum(one.outline_px for one in found),
            sum(one.contact_px for one in found),
            sum(one.planes for one in found),
            sum(one.empty for one in found),
        )

    def diameter_px(self, percent: float) -> float:
        """Return a percentile of the diameters, px; there must be an object."""
        return float(np.percentile(self.diameters_px, percent))

    @property
    def contact_share(self) -> float:
        """Share of the outlines along which another object lies, 0 to 1."""
        return self.contact_px / max(1, self.outline_px)


def look_at_objects(labels: Fitted, options: Labels, where: str) -> ObjectSizes:
    """Measure the objects of some planes; of class labels, the connected pieces of each class but the first.

    Args:
        labels: the opened labels of a stack.
        options: section `labels`.
        where: file or folder of the labels, for messages.

    Raises:
        PipelineError: for the reasons of ingest, as far as these planes show them.
    """
    count, _, height, width = labels.shape
    chosen, rows, columns = _window(count, height, width)
    reader, parts, most = LabelReader(options, where), [], (0, 0)
    for plane in chosen:
        values, place = labels.read(plane, rows, columns)[0], labels.planes.name(plane)
        if options.kind == "classes":
            ids = _pieces(np.where((found := reader.classes(values, place)) == IGNORE, 0, found))
        else:
            ids, _ = reader.instances(values, place)
            if options.kind == "pieces":
                ids = _pieces(ids)
            elif reader.shapes.only is not None:  # one value so far
                most = max(most, (_labelled(ids > 0, np.ones((3, 3)))[1], plane))
        parts.append(measure(ids))
    if any(len(part.diameters_px) for part in parts):
        reader.finish()
        if options.kind == "instances" and reader.shapes.only is not None and most[0] > 1:
            reader.refuse_single(*most)
    else:
        fix = "check that this is the label file, and what labels.kind and labels.values say"
        raise PipelineError(where, "labelled objects", f"none in the {len(chosen)} planes looked at", fix=fix)
    return ObjectSizes.merge(parts)


def look_at_stack(stack: Stack) -> ObjectSizes:
    """Measure the objects of the same planes of an ingested stack; there may be none."""
    chosen, rows, columns = _window(*stack.grid.shape)
    reference = stack.reference(INSTANCES)
    return ObjectSizes.merge(measure(reference.read_label(plane, rows, columns)) for plane in chosen)


def _window(count: int, height: int, width: int) -> tuple[list[int], slice, slice]:
    """Return the planes that are looked at, and the rows and columns of them."""
    chosen = sorted({number * count // min(count, PLANES) for number in range(min(count, PLANES))})
    return chosen, middle(height, WINDOW_PX), middle(width, WINDOW_PX)


def measure(ids: npt.NDArray[np.uint32]) -> ObjectSizes:
    """Measure the objects of one plane, (y, x), 0 background."""
    _, index = np.unique(ids, return_inverse=True)
    areas = np.bincount(index.ravel())[int((ids == 0).any()) :]
    edge = np.zeros(ids.shape, np.bool_)
    for axis in (0, 1):
        values, found = np.moveaxis(ids, axis, 0), np.moveaxis(edge, axis, 0)
        unlike = values[1:] != values[:-1]
        found[1:] |= unlike
        found[:-1] |= unlike
    edge &= ids > 0
    contact = edge & near_another(ids, NEAR_PX)
    return ObjectSizes(2 * np.sqrt(areas / np.pi), int(edge.sum()), int(contact.sum()), 1, int(not len(areas)))


def _labelled(mask: npt.NDArray[np.bool_], beside: npt.NDArray[Any] | None = None) -> tuple[npt.NDArray[np.int32], int]:
    from scipy.ndimage import label  # here, because it would be most of the start of weigh

    pieces, count = label(mask, beside)
    return pieces, int(count)


def _pieces(values: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return the connected pieces of each value but 0, numbered, (y, x) uint32."""
    ids, last = np.zeros(values.shape, np.uint32), 0
    for value in np.unique(values[values > 0]).tolist():
        pieces, count = _labelled(values == value)
        ids[pieces > 0] = pieces[pieces > 0] + last
        last += count
    return ids
