"""Calibrate: choose, on planes the network did not learn from, how objects are made of its probabilities.

The network's own threshold, one half, is the right one for pixels and seldom for objects: where cells touch, a surer
mask parts them, and what it loses is grown back. So method, threshold, seeds, necks, the least area, holes and growing
are tried, and what scores best is written beside the model. `stitch` makes objects of all stacks in that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.examples import Examples, look, unseen_planes
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.trials import PIXEL_SCORES, search
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.calibration import stated_settings
from unet_pipeline.model.card import read_card
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.claim import claim
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.stacks.stack import Stack

FEW_OBJECTS = 30
"""Below, chance has a large part in what scores best."""

BY_HAND = "set stitch.method by hand (components, watershed or distance), or let planes with objects validate"


def calibrate(model: Path, ingested: Sequence[Path], config: Config, output: Path) -> CalibrateRecord:
    """Choose how objects are made, and write `calibrate.json`.

    Where no plane validated, or those that were drawn by the seed have no object, nothing can be chosen: the stated
    defaults are written, and that is said aloud.

    Args:
        model: model folder.
        ingested: `ingest.json` of the stacks of which planes validated: those with role val and, with `train.hold_out`
            or `train.folds`, those with role train.
        config: sections labels, predict, calibrate and compute are used.
        output: `calibrate.json` in the model folder.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: there is no object in the stacks that were named for validation.
    """
    card, stacks = read_card(model), [Stack.open(path) for path in ingested]
    stated = CalibrateRecord(
        model=card.identity,
        score=_score(config),
        planes=(),
        objects=0,
        pixel_um=None,
        chosen=stated_settings(card),
        chosen_score=None,
        stated_score=None,
        trials=(),
        compute=None,
        provenance=provenance(sections_of(config, "calibrate"), [model / CARD_FILE, *ingested]),
    )
    with claim(output) as mine:
        if any(unseen_planes(card, stack) for stack in stacks):
            record = _chosen(stated, look(model, card, stacks, config), bool(card.training.get("validation_stacks")))
        else:
            record = _uncalibrated(stated, "no plane of these stacks validated this model")
        mine.write(record)
    return record


def _chosen(stated: CalibrateRecord, examples: Examples, named: bool) -> CalibrateRecord:
    """Return the record with what makes the best objects of these planes; `named` by their role, or else drawn."""
    areas = OverlapTable.merge(
        OverlapTable.of(one.instances[one.annotated], one.instances[one.annotated], plane)
        for plane, one in enumerate(examples.each)
    ).reference_areas()[1]
    seen = replace(stated, planes=examples.used, pixel_um=examples.pixel_um, compute=examples.compute)
    if not len(areas) and stated.score not in PIXEL_SCORES:
        where = "planes " + ", ".join(f"{used.stack} {list(used.planes)}" for used in examples.used)
        if named:
            raise PipelineError(where, "objects to calibrate by", "none", fix=f"{BY_HAND}; calibrate.mpx looks at more")
        return _uncalibrated(seen, f"no object in {where}, which the seed held out")
    median_px = float(np.median(areas)) if len(areas) else 1.0
    best, plain, tried = search(examples.each, stated.score, stated.chosen, median_px)
    planes = sum(len(used.planes) for used in examples.used)
    tell(
        f"calibrated on {len(areas)} objects in {planes} planes: {best.settings}; "
        f"{stated.score} {best.score:.3f}, as stated without calibration {plain.score:.3f}"
    )
    if len(areas) < FEW_OBJECTS and stated.score not in PIXEL_SCORES:
        tell(f"warning: {len(areas)} objects are few to choose by: let more planes validate (role val, train.hold_out)")
    return replace(
        seen,
        objects=len(areas),
        chosen=best.settings,
        chosen_score=best.score,
        stated_score=plain.score,
        trials=tuple(tried),
    )


def _uncalibrated(record: CalibrateRecord, why: str) -> CalibrateRecord:
    """Say that the stated defaults stay."""
    tell(f"warning: objects are not calibrated, {why}: {record.chosen}; {BY_HAND}")
    return record


def _score(config: Config) -> str:
    """Return the name of the score."""
    if config.calibrate.score != "auto":
        return config.calibrate.score
    return "mean_iou" if config.labels.kind == "classes" else "seg+ap50"
