"""Evaluate: scores of a stitched stack against its reference, block by block, written as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.audit.coverage import check_stitched
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.pixels import confusion_csv, pixel_scores
from unet_pipeline.evaluate.scores import average_precision, confusion, dice_iou, seg_score, v_info, v_rand
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.machine.progress import Progress
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import sha256_bytes, write_text
from unet_pipeline.records.layout import CLASSES, CONFUSION_FILE, INSTANCES
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record_shapes import open_record

ISBI_LARGEST_PX = 16 * 2**20
"""Largest plane that is scored as in ISBI 2012: thinning and warping need a plane whole."""


def evaluate(stitched: Path, config: Config, output: Path) -> dict[str, Any]:
    """Score a stack and write `metrics.json`, and beside it the confusion of classes as `confusion.csv`.

    Args:
        stitched: `stitch.json` of a stack that has a reference.
        config: sections labels and evaluate are used.
        output: `results/{stack}/metrics.json`.

    Returns:
        stack; instances (seg, objects, matched, found, v_rand, v_info, ap); classes; pixels, with the scores over all
        classes; confusion, px, reference class by row and result class by column; isbi or null; sum of the CSV.

    Raises:
        PipelineError: not a record of stitch, a volume that is not what it vouches for, or a stack without reference.
    """
    facts = open_record(stitched, "stitch")
    stack_plan = StackPlan.open(stitched.parent / facts["tiles"])
    table = output.with_name(CONFUSION_FILE)
    with claim(output, table) as mine:
        check_stitched(stitched, facts, stack_plan)
        record = _scored(stack_plan, stitched, facts, config)
        text = confusion_csv(np.array(record["confusion"]), stack_plan.classes)
        write_text(table, text, mine.check)
        record["confusion_sha256"] = sha256_bytes(text.encode())
        mine.write(record)
    return record


def _scored(stack_plan: StackPlan, stitched: Path, facts: dict[str, Any], config: Config) -> dict[str, Any]:
    in_volume = facts["provenance"]["config"]["stitch"]["connect"] == "volume"
    table, counts = _overlaps(stack_plan, in_volume)
    return {
        "stack": stack_plan.stack.name,
        "instances": _instances(table),
        "classes": _classes(counts, stack_plan.classes),
        "pixels": {"scored": int(counts.sum()), "of": int(np.prod(stack_plan.plan.shape))}
        | pixel_scores(counts).as_dict(),
        "confusion": counts.tolist(),
        "isbi": _isbi(stack_plan) if config.evaluate.isbi else None,
        "provenance": provenance(sections_of(config, "evaluate"), [stitched]),
    }


def _overlaps(stack_plan: StackPlan, in_volume: bool) -> tuple[OverlapTable, npt.NDArray[np.int64]]:
    """Return the overlaps of all objects, and the confusion of classes; pixels nobody annotated are left out."""
    stack, size = stack_plan.stack, len(stack_plan.classes)
    reference_classes, reference_instances = stack.reference(CLASSES), stack.reference(INSTANCES)
    classes, instances = stack_plan.labels(CLASSES), stack_plan.labels(INSTANCES)
    tables, counts = [], np.zeros((size, size), np.int64)
    shards = list(instances.shards())
    with Progress(len(shards), f"evaluate {stack.name}") as progress:
        for plane, rows, columns in (shard.at for shard in shards):
            reference = reference_classes.read_label(plane, rows, columns)
            annotated = reference != IGNORE
            counts += confusion(reference, classes.read_label(plane, rows, columns), size, IGNORE)
            expected, found = (
                array.read_label(plane, rows, columns)[annotated] for array in (reference_instances, instances)
            )
            tables.append(OverlapTable.of(expected, found, plane=0 if in_volume else plane))
            progress.advance()
    return OverlapTable.merge(tables), counts


def _instances(table: OverlapTable) -> dict[str, Any]:
    seg = seg_score(table)
    return {
        "seg": seg.seg,
        "objects": seg.objects,
        "matched": seg.matched,
        "found": int((table.result_areas()[0] > 0).sum()),
        "v_rand": v_rand(table).as_dict(),
        "v_info": v_info(table).as_dict(),
        "ap": {f"{threshold:.2f}": score.as_dict() for threshold, score in average_precision(table).items()},
    }


def _classes(counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": name} | score.as_dict() for name, score in zip(names, dice_iou(counts), strict=True)]


def _isbi(stack_plan: StackPlan) -> dict[str, Any]:
    """Return the scores of ISBI 2012, or the reason why there are none."""
    from unet_pipeline.evaluate.isbi import combine_planes, isbi_scores  # its libraries take a second to start

    planes, height, width = stack_plan.plan.shape
    if height * width > ISBI_LARGEST_PX:
        return {"skipped": f"planes of {height} x {width} px are larger than {ISBI_LARGEST_PX} px"}
    probabilities, reference = stack_plan.probabilities(), stack_plan.stack.reference(INSTANCES)
    scored = []
    with Progress(planes, f"isbi {stack_plan.stack.name}") as progress:
        for plane in range(planes):
            interior = _interior(probabilities, plane)
            scored.append(isbi_scores(interior, reference.read_label(plane, slice(0, height), slice(0, width))))
            progress.advance()
    return combine_planes(scored).as_dict()


def _interior(probabilities: PlaneArray, plane: int) -> npt.NDArray[np.float32]:
    """Return the probability of not being background, (y, x) float32 in 0..1."""
    height, width = probabilities.shape[2:]
    background = probabilities.read(plane, slice(0, height), slice(0, width))[0].astype(np.float32)
    whole = 255 if probabilities.dtype == np.uint8 else 1
    return np.asarray(1 - background / whole, dtype=np.float32)
