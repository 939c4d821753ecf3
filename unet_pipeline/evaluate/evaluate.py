"""Evaluate: scores of a stitched stack against its reference, block by block, written as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.faults import Boxes, find_faults
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.partitions import adapted_rand_error, v_info, v_rand, variation_of_information
from unet_pipeline.evaluate.pixels import confusion_csv, pixel_scores
from unet_pipeline.evaluate.scores import average_precision, confusion, dice_iou, seg_score
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import partial_name, sha256_bytes, write_text
from unet_pipeline.records.layout import CLASSES, CONFUSION_FILE, INSTANCES
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.score_records import EvaluateRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import StitchRecord
from unet_pipeline.stitch.layers import OnDisk
from unet_pipeline.stitch.watershed import label_blocks

ISBI_LARGEST_PX = 16 * 2**20
"""Largest plane that is scored as in ISBI 2012: thinning and warping need a plane whole."""


def evaluate(stitched: Path, config: Config, output: Path) -> EvaluateRecord:
    """Score a stack and write `metrics.json`, and beside it the confusion of classes as `confusion.csv`.

    Args:
        stitched: `stitch.json` of a stack that has a reference.
        config: sections labels and evaluate are used.
        output: `results/{stack}/metrics.json`.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: not a record of stitch, a volume that is not what it vouches for, or a stack without reference.
    """
    volume = open_record(stitched, StitchRecord)
    stack_plan = StackPlan.of_stitched(stitched, volume)
    table = output.with_name(CONFUSION_FILE)
    with claim(output, table) as mine, _compared(stack_plan, volume.connect == "volume", config) as compared:
        scored = scores(compared, config.evaluate.isbi)
        text = confusion_csv(np.array(scored["confusion"]), stack_plan.classes)
        write_text(table, text, mine.check)
        made_by = provenance(sections_of(config, "evaluate"), [stitched])
        facts = {"stack": stack_plan.stack.name, **scored, "provenance": asdict(made_by)}
        record = build(EvaluateRecord, facts | {"confusion_sha256": sha256_bytes(text.encode())}, str(output))
        mine.write(record)
    return record


class LabelPlanes(Protocol):
    """Labels of a stack, read window by window; a `PlaneArray` is one."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, 1, height, width)."""

    def read_label(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (rows, columns)."""

    def shards(self) -> Iterator[Box]:
        """Yield boxes of one plane each that cover the stack once."""


@dataclass(frozen=True)
class Compared:
    """A result and its reference, all of one size.

    Attributes:
        name: of the stack, for the progress.
        class_names: by class index.
        in_volume: whether ids of objects span the planes; else each plane has objects of its own.
        reference_classes, reference_instances: the reference; class 255 where nobody annotated.
        classes, instances: the result.
        probabilities: of the result, one channel for each class; None where there are none.
    """

    name: str
    class_names: tuple[str, ...]
    in_volume: bool
    reference_classes: LabelPlanes
    reference_instances: LabelPlanes
    classes: LabelPlanes
    instances: LabelPlanes
    probabilities: Planes | None


def scores(compared: Compared, isbi: bool) -> dict[str, Any]:
    """Return all scores of a result as `metrics.json` has them; isbi only if asked for.

    Raises:
        PipelineError: if isbi is asked for and there are no probabilities.
    """
    table, faults, counts = _overlaps(compared)
    planes, _, height, width = compared.instances.shape
    return {
        "instances": _instances(table),
        "faults": faults,
        "classes": _classes(counts, compared.class_names),
        "pixels": {"scored": int(counts.sum()), "of": planes * height * width} | pixel_scores(counts).as_dict(),
        "confusion": counts.tolist(),
        "isbi": _isbi(compared) if isbi else None,
    }


@contextmanager
def _compared(stack_plan: StackPlan, in_volume: bool, config: Config) -> Iterator[Compared]:
    """Give the result of a stack and its reference, whose objects go through the planes where the result's do."""
    stack, raw = stack_plan.stack, stack_plan.store.with_name(partial_name(stack_plan.store))
    instances: LabelPlanes = stack.reference(INSTANCES)
    try:
        if in_volume and config.labels.kind == "classes":
            # ingest numbers the pieces of each plane; those of the volume are what the result is to be held against
            scratch = OnDisk(zarr.create_group(raw, zarr_format=3), stack_plan.labels(INSTANCES))
            joined, read = scratch.layer("reference"), stack.reference(CLASSES).read_label
            label_blocks(read, joined, ComponentOptions(4, True), f"reference {stack.name}", scratch.folder)
            instances = joined
        elif in_volume and config.labels.kind == "pieces":
            tell(
                f"WARNING stack {stack.name}: with labels.kind: pieces the reference's objects are those of planes, "
                "those of the result (stitch.connect: volume) are not: their scores mean little"
            )
        yield Compared(
            name=stack.name,
            class_names=stack_plan.classes,
            in_volume=in_volume,
            reference_classes=stack.reference(CLASSES),
            reference_instances=instances,
            classes=stack_plan.labels(CLASSES),
            instances=stack_plan.labels(INSTANCES),
            probabilities=stack_plan.probabilities(),
        )
    finally:
        shutil.rmtree(raw, ignore_errors=True)


def _overlaps(compared: Compared) -> tuple[OverlapTable, dict[str, Any], npt.NDArray[np.int64]]:
    """Return overlaps and faults of all objects, and the confusion of classes; without what nobody annotated."""
    size = len(compared.class_names)
    tables, counts = [], np.zeros((size, size), np.int64)
    boxes: tuple[list[Boxes], list[Boxes]] = ([], [])
    shards = list(compared.instances.shards())
    with Progress(len(shards), f"evaluate {compared.name}") as progress:
        for shard in shards:
            reference = compared.reference_classes.read_label(*shard.at)
            annotated = reference != IGNORE
            counts += confusion(reference, compared.classes.read_label(*shard.at), size, IGNORE)
            arrays, plane = (compared.reference_instances, compared.instances), 0 if compared.in_volume else shard.plane
            expected, found = (np.where(annotated, array.read_label(*shard.at), 0) for array in arrays)
            tables.append(OverlapTable.of(expected[annotated], found[annotated], plane))
            for part, labels in zip(boxes, (expected, found), strict=True):
                part.append(Boxes.of(labels, shard, plane))
            progress.advance()
    table = OverlapTable.merge(tables)
    return table, find_faults(table, *map(Boxes.merged, boxes)), counts


def _instances(table: OverlapTable) -> dict[str, Any]:
    seg = seg_score(table)
    return {
        "seg": seg.seg,
        "objects": seg.objects,
        "matched": seg.matched,
        "found": int((table.result_areas()[0] > 0).sum()),
        "v_rand": v_rand(table).as_dict(),
        "v_info": v_info(table).as_dict(),
        "variation_of_information": variation_of_information(table).as_dict(),
        "adapted_rand_error": adapted_rand_error(table),
        "ap": {f"{threshold:.2f}": score.as_dict() for threshold, score in average_precision(table).items()},
    }


def _classes(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": name} | score.as_dict() for name, score in zip(names, dice_iou(counts), strict=True)]


def _isbi(compared: Compared) -> dict[str, Any]:
    """Return the scores of ISBI 2012, or the reason why there are none; an error without probabilities."""
    from unet_pipeline.evaluate.isbi import combine_planes, isbi_scores  # its libraries take a second to start

    planes, _, height, width = compared.instances.shape
    if height * width > ISBI_LARGEST_PX:
        return {"skipped": f"planes of {height} x {width} px are larger than {ISBI_LARGEST_PX} px"}
    if compared.probabilities is None:
        raise PipelineError(
            "evaluate.isbi", "a result with probabilities", "labels alone", fix="set evaluate.isbi: false"
        )
    scored = []
    with Progress(planes, f"isbi {compared.name}") as progress:
        for plane in range(planes):
            whole = plane, slice(0, height), slice(0, width)
            interior = _interior(compared.probabilities.read(*whole))
            scored.append(isbi_scores(interior, compared.reference_instances.read_label(*whole)))
            progress.advance()
    return combine_planes(scored).as_dict()


def _interior(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the probability of not being background, (y, x) float32 in 0..1, of those stored, (classes, y, x)."""
    whole = 255 if probabilities.dtype == np.uint8 else 1
    return np.asarray(1 - probabilities[0].astype(np.float32) / whole, dtype=np.float32)
