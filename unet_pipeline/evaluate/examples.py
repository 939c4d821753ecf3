"""The planes or volumes by which objects are calibrated: what the network makes of them, and their reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.machine.progress import Progress, tell, unheard
from unet_pipeline.model.calibration import other_size
from unet_pipeline.model.card import ModelCard
from unet_pipeline.objects.box import Box, Window, middle
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.predict.crop import Crop, plan_crop, predict_crop
from unet_pipeline.predict.forward import Forward, describe_compute
from unet_pipeline.records.calibrate_record import LEAST_PLANES, PlanesUsed
from unet_pipeline.records.fields import ComputeUsed
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stitch.depths import step_px
from unet_pipeline.stitch.watershed import label_blocks

CROP_PX, VOLUME_PX = 2048, 256
"""Largest side of what is looked at of a plane, px; less of a volume, which has as many pixels in several planes."""


@dataclass(frozen=True)
class Example:
    """A plane, or planes of a volume that lie over each other, or the middle of them, that no network learned from.

    Attributes:
        probabilities: (classes, y, x) as `predict` stores them; of a volume (classes, z, y, x).
        classes: (y, x) or (z, y, x) uint8, the reference; 255 where nobody annotated.
        instances: likewise, uint32, the reference, 0 background.
        step_px: distance of two planes of a volume, px; None of a plane.
    """

    probabilities: npt.NDArray[Any]
    classes: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint32]
    step_px: float | None = None

    @property
    def annotated(self) -> npt.NDArray[np.bool_]:
        """Which pixels somebody annotated, of the shape of the reference."""
        return np.asarray(self.classes != IGNORE)


@dataclass(frozen=True)
class Examples:
    """All planes that are looked at.

    Attributes:
        each: one for each plane or, where objects are joined through the planes, for each stack.
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


def run_of_planes(planes: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the middle of the longest run of neighbours among planes (ascending), at most so many of them."""
    runs = [[plane for _, plane in run] for _, run in groupby(enumerate(planes), lambda one: one[1] - one[0])]
    longest = max(runs, key=len)
    first = max(0, len(longest) - most) // 2
    return tuple(longest[first : first + most])


def _runs(stacks: Sequence[Stack], card: ModelCard, most_px: float) -> list[tuple[int, int]]:
    """Return the (stack, plane) places of a run of neighbours in each stack that has enough of them."""
    runs: list[tuple[int, int]] = []
    with_planes = [(index, planes) for index, stack in enumerate(stacks) if (planes := unseen_planes(card, stack))]
    for index, planes in with_planes:
        area = math.prod(_size(_window(stacks[index], VOLUME_PX)))
        run = run_of_planes(planes, max(LEAST_PLANES, int(most_px / len(with_planes) // area)))
        if len(run) >= LEAST_PLANES:
            runs += [(index, plane) for plane in run]
        else:
            tell(
                f"stack {stacks[index].name}: fewer than {LEAST_PLANES} neighbouring planes validated, too few to "
                "calibrate objects of volumes by; give a stack of neighbours role val"
            )
    if with_planes and not runs:  # then no planes that are looked at instead are such neighbours: see `in_volume`
        tell("objects are calibrated by planes")
    return runs


def _planes(
    stacks: Sequence[Stack], card: ModelCard, windows: Sequence[Window], most_px: float
) -> list[tuple[int, int]]:
    """Return the (stack, plane) places of planes, evenly from all."""
    areas = [math.prod(_size(window)) for window in windows]
    places = [(index, plane) for index, stack in enumerate(stacks) for plane in unseen_planes(card, stack)]
    return chosen_planes(places, [areas[index] for index, _ in places], most_px)


def _window(stack: Stack, edge: int) -> Window:
    """Return the middle of the planes of a stack, at most `edge` px wide and high."""
    return middle(stack.grid.height, edge), middle(stack.grid.width, edge)


def _size(window: Window) -> tuple[int, int]:
    """Return the height and the width of a window."""
    rows, columns = window
    return rows.stop - rows.start, columns.stop - columns.start


def look(model: Path, card: ModelCard, stacks: Sequence[Stack], config: Config) -> Examples:
    """Predict the planes that validated.

    Args:
        model: model folder.
        card: its card.
        stacks: ingested stacks with labels.
        config: sections labels, predict, calibrate, compute and key stitch.connect are used.
    """
    most_px = config.calibrate.mpx * 1e6
    runs = _runs(stacks, card, most_px) if config.stitch.connect == "volume" else []
    deep = bool(runs) or card.architecture.dimensions == 3  # such a network makes a whole slab for one plane
    windows = [_window(stack, VOLUME_PX if deep else CROP_PX) for stack in stacks]
    chosen = runs or _planes(stacks, card, windows, most_px)
    found, used, compute, pixel_um = [], [], None, None
    with Progress(len(chosen), "calibrate: predict") as progress:
        for index, stack in enumerate(stacks):
            planes = tuple(plane for at, plane in chosen if at == index)
            if not planes:
                continue
            forward = Forward.load(model, stack, config.predict, config.compute)
            compute = compute or describe_compute(forward, config.compute)
            each = []
            for example in _examples(stack, planes, windows[index], forward, np.dtype(config.predict.probabilities)):
                each.append(example)
                progress.advance()
            found += [_volume(each, stack, config.labels.kind)] if runs else each
            pixel_um = pixel_um or stack.grid.pixel_um
            if factor := other_size(stack.grid.pixel_um, pixel_um):
                tell(
                    f"WARNING stack {stack.name}: its pixels are {factor:.3g} times as wide as those of other planes "
                    "looked at: areas and widths in px, chosen for all of them, fit some of them better"
                )
            used.append(PlanesUsed(stack.name, stack.ingested.id, planes, _size(windows[index])))
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


def _volume(planes: Sequence[Example], stack: Stack, kind: str) -> Example:
    """Return planes that lie over each other as one example."""
    classes, instances = (
        np.stack(parts) for parts in zip(*((one.classes, one.instances) for one in planes), strict=True)
    )
    if kind == "classes":  # ingest numbers the pieces of each plane; `evaluate` joins them, too
        whole, joined = ArrayPlanes(classes[:, None]), ArrayPlanes(np.zeros_like(instances[:, None]))
        with unheard():
            label_blocks(whole.read_label, joined, ComponentOptions(4, True), "reference", None)
        instances = joined.values[:, 0]
    elif kind == "pieces":
        tell(
            f"WARNING stack {stack.name}: with labels.kind: pieces the reference's objects are those of planes, so "
            "they say little of objects that go through the planes (stitch.connect: volume): set stitch.method by hand"
        )
    probabilities = np.stack([one.probabilities for one in planes], axis=1)
    return Example(probabilities, classes, instances, step_px(stack.name, stack.grid))
