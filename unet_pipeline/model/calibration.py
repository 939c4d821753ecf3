"""The calibration of a model: how objects are made of its probabilities, as the step `calibrate` chose it."""

from __future__ import annotations

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
    if pixel_um and record.pixel_um:
        factor = pixel_um[0] / record.pixel_um[0]
        if not 1 / NEAR <= factor <= NEAR:
            tell(
                f"WARNING stack {stack}: its pixels are {factor:.3g} times as large as those the calibration looked at "
                f"({pixel_um[0]:g} and {record.pixel_um[0]:g} um): areas and widths in px fit another size of object; "
                "set stitch.min_area_px and stitch.grow_px by hand"
            )
    return record.chosen
