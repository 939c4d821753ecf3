"""Calibrate: choose, on planes the network did not learn from, how objects are made of its probabilities.

The network's own threshold, one half, is the right one for pixels and seldom for objects: where cells touch, a surer
mask parts them, and what it loses is grown back. So method, threshold, seeds, necks, the least area, holes and growing
are tried, and what scores best is written beside the model. `stitch` makes objects of all stacks in that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.examples import look, unseen_planes
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.trials import PIXEL_SCORES, search
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.card import read_card
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.claim import claim
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.stacks.stack import Stack

BY_HAND = "set stitch.method by hand (components, watershed or distance), or let planes with objects validate"


def calibrate(model: Path, ingested: Sequence[Path], config: Config, output: Path) -> CalibrateRecord:
    """Choose how objects are made, and write `calibrate.json`.

    Args:
        model: model folder.
        ingested: `ingest.json` of the stacks of which planes validated: those with role val and, with `train.hold_out`
            or `train.folds`, those with role train.
        config: sections labels, predict, calibrate and compute are used.
        output: `calibrate.json` in the model folder.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: no plane validated, or there is no object in them.
    """
    card, stacks = read_card(model), [Stack.open(path) for path in ingested]
    if not any(unseen_planes(card, stack) for stack in stacks):
        got = f"none in {', '.join(stack.name for stack in stacks) or 'no stack'}"
        raise PipelineError(model / CARD_FILE, "planes that validated this model", got, fix=BY_HAND)
    with claim(output) as mine:
        examples = look(model, card, stacks, config)
        score = _score(config)
        areas = OverlapTable.merge(
            OverlapTable.of(one.instances[one.annotated], one.instances[one.annotated], plane)
            for plane, one in enumerate(examples.each)
        ).reference_areas()[1]
        if not len(areas) and score not in PIXEL_SCORES:
            names = ", ".join(f"{used.stack} {list(used.planes)}" for used in examples.used)
            raise PipelineError(f"planes {names}", "objects to calibrate by", "none", fix=BY_HAND)
        median_px = float(np.median(areas)) if len(areas) else 1.0
        best, stated, tried = search(examples.each, score, ObjectSettings(), median_px)
        record = CalibrateRecord(
            model=card.identity,
            score=score,
            planes=examples.used,
            objects=len(areas),
            pixel_um=examples.pixel_um,
            chosen=best.settings,
            chosen_score=best.score,
            stated_score=stated.score,
            trials=tuple(tried),
            compute=examples.compute,
            provenance=provenance(sections_of(config, "calibrate"), [model / CARD_FILE, *ingested]),
        )
        mine.write(record)
    tell(f"calibrated: {best.settings}; {score} {best.score:.3f}, as stated without calibration {stated.score:.3f}")
    return record


def _score(config: Config) -> str:
    """Return the name of the score."""
    if config.calibrate.score != "auto":
        return config.calibrate.score
    return "mean_iou" if config.labels.kind == "classes" else "seg+ap50"
