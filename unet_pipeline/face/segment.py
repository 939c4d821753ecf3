"""Segment: one image through ingest, tile, predict and stitch, without a table.

The stages are those of the workflow and leave the same files, so the volume is the same bytes, and `verify`, `record`,
`differs` and `evaluate` know them. Started again after a kill, it goes on after the last finished shard.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from unet_pipeline.config.sections import Config, Labels
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.records.files import PARTIAL
from unet_pipeline.records.layout import (
    IMAGE,
    INGEST_FILE,
    REGIONS,
    SEGMENTATION,
    STITCH_FILE,
    TIFFS,
    TILES_FILE,
    calibration_in,
    list_path,
)
from unet_pipeline.records.provenance import possible_paths
from unet_pipeline.records.stack_records import IngestRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.stacks.ingest import Source, ingest, open_image
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stitch.stitch import stitch

RECORDS = (INGEST_FILE, TILES_FILE, STITCH_FILE)
OURS = {
    *RECORDS,
    *(list_path(Path(name)).name for name in RECORDS),
    *(IMAGE, SEGMENTATION, REGIONS, *TIFFS.values()),
}
"""Names in the folder of a segmented image."""


def segment(source: Source, model: Path, config: Config, folder: Path) -> StackPlan:
    """Segment one image; `folder` is then what `results/{stack}` is in the workflow.

    Args:
        source: the image, and how it is read; its labels are not used.
        model: model folder.
        config: sections ingest, store, tile, predict, stitch and compute are used; the classes are the model's.
        folder: new, empty, or of this image.

    Returns:
        The plan, which opens probabilities, classes and instances.

    Raises:
        PipelineError: before anything is written: no image or model there, other channels or classes than the model's,
            no such device, a folder that holds something else. Later: for the reasons of the stages.
    """
    card = _checked(source, model, config)
    config = replace(config, labels=replace(config.labels, classes=card.classes))
    _check_folder(source, folder)
    record, tiles = folder / INGEST_FILE, folder / TILES_FILE
    ingest(source, config, record)
    tile(Stack.open(record), config, 1, tiles, card)
    stack_plan = StackPlan.open(tiles)
    region = stack_plan.region_record(0)
    _predict(stack_plan, model, config, region)
    calibration = calibration_in(model) if config.stitch.method == "calibrated" else None
    stitch(stack_plan, [region], config, folder / STITCH_FILE, card, calibration)
    return stack_plan


def _predict(stack_plan: StackPlan, model: Path, config: Config, region: Path) -> None:
    from unet_pipeline.predict.predict import predict  # starts torch

    predict(stack_plan, 0, model, config, region)


def _checked(source: Source, model: Path, config: Config) -> ModelCard:
    """Return the card of the model; refuse now what the stages would refuse only after minutes of reading."""
    from unet_pipeline.model.device import choose_device
    from unet_pipeline.model.models import load_model

    _, card = load_model(model, choose_device(config.compute))
    card.check_image(open_image(source, config.ingest).shape[1], source.image)
    if config.labels.classes != Labels().classes:
        card.check_classes(config.labels.classes)
    return card


def _check_folder(source: Source, folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier, perhaps interrupted, segmentation of this image."""
    fix = "name a new folder with --output, or remove this one"
    if folder.exists() and not folder.is_dir():
        raise PipelineError(folder, "a folder to write to", "a file", fix=fix)
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in names if name not in OURS and not (name[0] == "." and _of_a_job(name))]
    if strange:
        raise PipelineError(folder, "a new or empty folder, or an earlier result of this image", strange[0], fix=fix)
    record = folder / INGEST_FILE
    if record.exists():
        ingested = open_record(record, IngestRecord)
        held = ingested.image.source
        if ingested.labels is not None or Path(os.path.normpath(Path.cwd() / source.image)) not in possible_paths(
            held, record
        ):
            raise PipelineError(folder, f"results of {source.image}", f"those of {held}", fix=fix)


def _of_a_job(name: str) -> bool:
    """Whether a hidden name is that of a claim or of something half-written, as a killed job leaves them."""
    return name.endswith((".owner", PARTIAL))
