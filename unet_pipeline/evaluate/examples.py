"""The planes by which objects are calibrated: what the network makes of them, and their reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.model.calibration import other_size
from unet_pipeline.model.card import ModelCard
from unet_pipeline.objects.box import Box, Window, middle
from unet_pipeline.predict.crop import Crop, plan_crop, predict_crop
from unet_pipeline.predict.forward import Forward, describe_compute
from unet_pipeline.records.calibrate_record import PlanesUsed
from unet_pipeline.records.fields import ComputeUsed
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.stack import Stack

CROP_PX, VOLUME_PX = 2048, 512
"""Largest side of what is looked at of a plane, px; less of a volume, of which several planes are in memory."""


@dataclass(frozen=True)
class Example:
    """A plane, or the middle of it, that the network did not learn from.

    Attributes:
        probabilities: (classes, y, x) as `predict` stores them.
        classes: (y, x) uint8, the reference; 255 where nobody annotated.
        instances: (y, x) uint32, the reference, 0 background.
    """

    probabilities: npt.NDArray[Any]
    classes: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint32]

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """Which pixels somebody annotated, (y, x)."""
        return np.asarray(self.classes != IGNORE)


@dataclass(frozen=True)
class Examples:
    """All planes that are looked at.

    Attributes:
        each: one for each plane.
        used: which planes they are.
        pixel_um: pixel size of the first stack that says one.
        compute: what the network ran on.
    """

    each: tuple[Example, ...]
    used: tuple[PlanesUsed, ...]
    pixel_um: tuple[float, float] | None
    compute: ComputeUsed


def unseen_planes(card: ModelCard, stack: Stack) -> tuple[int, ...]:
    """Return the planes of a stack by which the model, or a member of it, was validated and not trained, ascending."""
    training = card.training
    if stack.name in training.get("validation_stacks", ()):
        return tuple(range(stack.grid.planes))
    places = [*training.get("held_out", ()), *_of_members(card)]
    return tuple(sorted({int(n) for place in places if place.get("id") == stack.ingested.id for n in place["planes"]}))


def _of_members(card: ModelCard) -> Iterator[dict[str, Any]]:
    for member in card.training.get("members", ()):
        yield from member.get("held_out", ())


def chosen_planes(places: Sequence[tuple[int, int]], pixels: Sequence[int], most_px: float) -> list[tuple[int, int]]:
    """Return (stack, plane) places, at least one, evenly from all, that together have at most about `most_px` px."""
    count = min(len(places), max(1, int(most_px * len(places) // max(1, sum(pixels)))))
    return [places[number * len(places) // count] for number in range(count)]


def look(model: Path, card: ModelCard, stacks: Sequence[Stack], config: Config) -> Examples:
    """Predict the planes that validated.

    Args:
        model: model folder.
        card: its card.
        stacks: ingested stacks with labels.
        config: sections predict, calibrate and compute are used.
    """
    places = [(index, plane) for index, stack in enumerate(stacks) for plane in unseen_planes(card, stack)]
    most_px = CROP_PX if card.architecture.dimensions == 2 else VOLUME_PX
    windows = [(middle(stack.grid.height, most_px), middle(stack.grid.width, most_px)) for stack in stacks]
    sizes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in windows]
    pixels = [sizes[index][0] * sizes[index][1] for index, _ in places]
    chosen = chosen_planes(places, pixels, config.calibrate.mpx * 1e6)
    found, used, compute, pixel_um = [], [], None, None
    with Progress(len(chosen), "calibrate: predict") as progress:
        for index, stack in enumerate(stacks):
            planes = tuple(plane for at, plane in chosen if at == index)
            if not planes:
                continue
            forward = Forward.load(model, stack, config.predict, config.compute)
            compute = compute or describe_compute(forward, config.compute)
            for example in _examples(stack, planes, windows[index], forward, np.dtype(config.predict.probabilities)):
                found.append(example)
                progress.advance()
            pixel_um = pixel_um or stack.grid.pixel_um
            if factor := other_size(stack.grid.pixel_um, pixel_um):
                tell(
                    f"WARNING stack {stack.name}: its pixels are {factor:.3g} times as wide as those of other planes "
                    "looked at: areas and widths in px, chosen for all of them, fit some of them better"
                )
            used.append(PlanesUsed(stack.name, stack.ingested.id, planes, sizes[index]))
    assert compute is not None  # there is a plane: `calibrate` refuses none
    return Examples(tuple(found), tuple(used), pixel_um, compute)


def _examples(
    stack: Stack, planes: Sequence[int], part: Window, forward: Forward, dtype: np.dtype[Any]
) -> Iterator[Example]:
    """Predict planes by the members that have not seen them; of a volume, those of a slab together."""
    crop = Crop(stack.image, Box(slice(0, stack.grid.planes), *part))
    planned = plan_crop(crop, forward.card.architecture)
    members = [place for place in _of_members(forward.card) if place.get("id") == stack.ingested.id]
    held_out = {plane for place in members for plane in place["planes"]}
    networks = {plane: forward.without(stack, plane) if plane in held_out else forward for plane in planes}

    def together(plane: int) -> tuple[int, int]:
        return plane // planned.along_z.shard, id(networks[plane].network)

    for _, run in groupby(planes, together):
        first, *others = run
        span = slice(first, (others or [first])[-1] + 1)
        probabilities = predict_crop(crop, planned, networks[first], dtype, span)
        for plane in (first, *others):
            yield Example(
                probabilities[:, plane - first],
                stack.reference(CLASSES).read_label(plane, *part),
                stack.reference(INSTANCES).read_label(plane, *part),
            )
