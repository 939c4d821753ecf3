"""The search for the way to make objects: what is tried, and how each is scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.config.sections import IGNORE
from unet_pipeline.evaluate.examples import Example
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.partitions import v_rand
from unet_pipeline.evaluate.pixels import pixel_scores
from unet_pipeline.evaluate.scores import average_precision, confusion, seg_score
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.machine.progress import Progress, unheard
from unet_pipeline.objects.decided import decided
from unet_pipeline.records.calibrate_record import Trial
from unet_pipeline.stitch.layers import InMemory, Layer, Volume
from unet_pipeline.stitch.objects import make_objects, parts_of

THRESHOLDS = (None, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
SEEDS = (0.8, 0.7, 0.9)
NECKS, ALL_NECKS = (0.7, 0.8, 0.9), (0.7, 0.5, 0.6, 0.8, 0.9, 0.97)
SMOOTH_SHARES = (0, 0.1, 0.2)
"""Of the radius of the median object: how far distances are averaged; the last with the best way alone."""
FIRST_GROWN_PX = (0, 2)
GROWN_PX = (0, 1, 2, 3, 4, 5, 6, 8)
AREA_SHARES = (0.1, 0.02, 0.05, 0.2, 0.3)
"""Of the median area of the reference's objects: the least area of an object."""
BETTER, BY_A_DETAIL = 0.002, 0.01
"""A score must be this much better to be taken before what comes earlier, which is simpler; the second counts for what
is tried with the best way alone: a small gain on few planes is mostly chance."""

PIXEL_SCORES = ("mean_iou", "dice")
OBJECT_SCORES: dict[str, Callable[[OverlapTable], float | None]] = {
    "seg": lambda table: seg_score(table).seg,
    "ap50": lambda table: average_precision(table, (0.5,))[0.5].average_precision,
    "mean_ap": lambda table: fmean(one.average_precision or 0.0 for one in average_precision(table).values()),
    "v_rand": lambda table: v_rand(table).value,
}


@dataclass
class Trials:
    """Scores ways to make objects of some planes or volumes.

    Attributes:
        examples: the planes or volumes.
        score: name of the score; several, joined by +, are averaged.
        tried: what was tried so far.
    """

    examples: Sequence[Example]
    score: str
    tried: list[Trial] = field(default_factory=list)
    _parts: tuple[ObjectSettings, list[tuple[Volume, Layer]]] | None = None

    def best(
        self, candidates: Sequence[ObjectSettings], progress: Progress | None = None, better: float = BETTER
    ) -> Trial:
        """Try settings, and return the best: of those that differ by less than `better` the first."""
        found: list[Trial] = []
        for settings in candidates:
            found.append(Trial(settings, self._scored(settings)))
            if progress:
                progress.advance(note=f"best {max(one.score for one in found):.3f}")
        self.tried += found
        best = found[0]
        for one in found[1:]:
            best = one if one.score > best.score + better else best
        return best

    def _scored(self, settings: ObjectSettings) -> float:
        if self.score in PIXEL_SCORES:
            return self._pixel_score(settings.threshold)
        table = OverlapTable.merge(
            OverlapTable.of(example.instances[example.annotated], found[example.annotated], plane)
            for plane, (example, found) in enumerate(zip(self.examples, self._objects(settings), strict=True))
        )
        return fmean(OBJECT_SCORES[name](table) or 0.0 for name in self.score.split("+"))

    def _pixel_score(self, threshold: float | None) -> float:
        size = len(self.examples[0].probabilities)
        counts = sum(
            confusion(example.classes, decided(example.probabilities, threshold), size, IGNORE)
            for example in self.examples
        )
        scores = pixel_scores(np.asarray(counts))
        return (scores.mean_iou if self.score == "mean_iou" else scores.mean_dice) or 0.0

    def _objects(self, settings: ObjectSettings) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield the objects of each example, uint32 of the shape of its reference."""
        for example, (volume, parts) in zip(self.examples, self._divided(settings), strict=True):
            yield objects_from(volume, parts, settings).reshape(example.classes.shape)

    def _divided(self, settings: ObjectSettings) -> list[tuple[Volume, Layer]]:
        """Return the parts of each example; those of the last settings are kept, as growing does not change them."""
        key = replace(settings, grow_px=0)
        if self._parts is None or self._parts[0] != key:
            self._parts = key, [divided(example.probabilities, settings, example.step_px) for example in self.examples]
        return self._parts[1]


def divided(
    probabilities: npt.NDArray[Any], settings: ObjectSettings, step_px: float | None = None
) -> tuple[Volume, Layer]:
    """Return a plane or a volume as one in memory, and the parts it is divided into.

    Args:
        probabilities: (classes, [z,] y, x) as stored.
        settings: how objects are made.
        step_px: distance of two planes of a volume, px; None of a plane.
    """
    probabilities = probabilities.reshape(len(probabilities), -1, *probabilities.shape[-2:])
    classes = decided(probabilities, settings.threshold)
    planes = ArrayPlanes(probabilities.swapaxes(0, 1)), ArrayPlanes(classes[:, None])
    deep, scratch = step_px is not None, InMemory(classes.shape)
    volume = Volume("calibrate", *planes, scratch, deep, step_px or 1.0)
    with unheard():
        return volume, parts_of(volume, settings)


def objects_from(volume: Volume, parts: Layer, settings: ObjectSettings) -> npt.NDArray[np.uint32]:
    """Return the objects, (z, y, x), that parts come to, as `stitch` makes them.

    Args:
        volume: from `divided`.
        parts: likewise; the settings may differ in growing only.
        settings: how objects are made.
    """
    target = volume.scratch.layer("objects")
    with unheard():
        make_objects(volume, parts, settings, target)
    rows, columns = (slice(0, length) for length in target.shape[2:])
    return np.stack([target.read_label(plane, rows, columns) for plane in range(target.shape[0])]).astype(np.uint32)


def ways(stated: ObjectSettings, smooth_px: Sequence[float]) -> list[ObjectSettings]:
    """Return every method with every threshold, the simple ones first, of settings that are else as stated.

    Args:
        stated: the settings.
        smooth_px: how far distances are averaged, px.
    """
    found = []
    for threshold in THRESHOLDS:
        base = replace(stated, threshold=threshold)
        methods = [replace(base, method="components")]
        methods += [replace(base, method="watershed", seed=seed) for seed in SEEDS if seed > (threshold or 0.5)]
        divided = replace(base, method="distance")
        methods += [replace(divided, neck=neck, smooth_px=smooth) for smooth in smooth_px for neck in NECKS]
        found += [replace(one, grow_px=grown) for one in methods for grown in FIRST_GROWN_PX]
    return sorted(found, key=lambda one: ("components", "watershed", "distance").index(one.method))


def radius_of(size: float, step_px: float | None) -> float:
    """Return the radius of a disc of so many px or, where planes lie `step_px` px apart, of a ball of voxels; px."""
    return math.sqrt(size / math.pi) if step_px is None else math.cbrt(3 * size * step_px / (4 * math.pi))


def _radius_px(examples: Sequence[Example], median_px: float) -> float:
    """Return the radius of the median object; through times, of its median plane, as times are no distance apart."""
    step_px = examples[0].step_px
    if step_px is None or math.isfinite(step_px):
        return radius_of(median_px, step_px)
    planes = (
        np.where(known, ids, 0) for one in examples for known, ids in zip(one.annotated, one.instances, strict=True)
    )
    areas = np.concatenate([np.unique(plane[plane > 0], return_counts=True)[1] for plane in planes])
    return radius_of(float(np.median(areas)) if len(areas) else 1.0, None)


def search(
    examples: Sequence[Example], score: str, stated: ObjectSettings, median_px: float
) -> tuple[Trial, Trial, list[Trial]]:
    """Choose how objects are made.

    Args:
        examples: the planes or volumes.
        score: name of the score.
        stated: the defaults that count without a calibration.
        median_px: median area of the reference's objects; of a volume its voxels.

    Returns:
        The choice, the trial of the stated defaults, and all trials in order.
    """
    trials = Trials(examples, score)
    plain = trials.best([stated])
    if score in PIXEL_SCORES:  # objects do not matter, so they stay as stated
        return trials.best([replace(stated, threshold=threshold) for threshold in THRESHOLDS]), plain, trials.tried
    areas = [max(1, round(share * median_px)) for share in AREA_SHARES]
    radius_px = _radius_px(examples, median_px)
    smooth_px = [round(share * radius_px, 1) for share in SMOOTH_SHARES]
    candidates = ways(replace(stated, min_area_px=areas[0]), smooth_px[:-1])
    with Progress(len(candidates), "calibrate: objects") as progress:
        best = trials.best(candidates, progress)
    # one key after the other: what is lost by a larger threshold is grown back, and what is small depends on both
    if best.settings.method == "distance":
        pairs = [(one, neck) for one in smooth_px for neck in ALL_NECKS]
        again = [replace(best.settings, smooth_px=one, neck=neck) for one, neck in pairs]
        best = trials.best([best.settings, *again], better=BY_A_DETAIL)
    details: tuple[Callable[[ObjectSettings], list[ObjectSettings]], ...] = (
        lambda base: [replace(base, grow_px=one) for one in GROWN_PX],
        lambda base: [replace(base, min_area_px=one) for one in areas],
        lambda base: [replace(base, fill_holes=one) for one in (True, False)],
    )
    for detail in details:
        best = trials.best([best.settings, *detail(best.settings)], better=BY_A_DETAIL)
    return (best if best.score > plain.score else plain), plain, trials.tried
