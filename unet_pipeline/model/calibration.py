"""The calibration of a model: how objects are made of its probabilities, as the step `calibrate` chose it."""

from __future__ import annotations

import math
from pathlib import Path

from unet_pipeline.config.keys import build
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.card import ModelCard
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.steps import open_record

NEAR = 1.2
"""Pixel sizes within this factor count as equal."""


def read_calibration(file: Path, card: ModelCard | None) -> CalibrateRecord:
    """Read a calibration.

    Args:
        file: `calibrate.json`.
        card: of the model whose volume is stitched; None takes that of any.

    Raises:
        PipelineError: it is damaged, or that of another model.
    """
    record = open_record(file, CalibrateRecord)
    if card is not None and record.model != card.identity:
        raise PipelineError(file, "the calibration of this model", "that of another", fix=how_to_remake(file))
    return record


def stated_settings(card: ModelCard | None) -> ObjectSettings:
    """Return how objects are made without a calibration: as thick again as they were before the gaps of the training.

    Args:
        card: of the model; None, and a card that does not say, count as one that was trained with the least gap.
    """
    gap_px = None if card is None else card.training.get("gap_px")
    return ObjectSettings() if gap_px is None else build(ObjectSettings, {"grow_px": gap_px}, "training.gap_px")


def settings_of(record: CalibrateRecord, stack: str, pixel_um: tuple[float, float] | None) -> ObjectSettings:
    """Return the chosen settings; say so aloud if the stack's pixels have another size than those calibrated on.

    Args:
        record: the calibration.
        stack: name of the stack, for the message.
        pixel_um: (y, x) pixel size of the stack, micrometres; None where unknown.
    """
    factor = other_size(pixel_um, record.pixel_um)
    if factor:
        tell(
            f"WARNING stack {stack}: its pixels are {factor:.3g} times as wide as those the calibration looked at: "
            "areas and widths in px fit another size of object; set stitch.min_area_px and stitch.grow_px by hand"
        )
    return record.chosen


def other_size(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float | None:
    """Return how many times as wide pixels (y, x) are as others, in the mean of both axes; None where about as wide."""
    if not one or not other:
        return None
    factor = math.sqrt(one[0] * one[1] / (other[0] * other[1]))
    return None if 1 / NEAR <= factor <= NEAR else factor
