"""Objects and scores of a peer's prediction, by the same functions that score this package's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.object_settings import settled
from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.evaluate.isbi import combine_planes, isbi_scores
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.scores import average_precision, seg_score, v_info, v_rand
from unet_pipeline.objects.components import ComponentOptions, label_components
from unet_pipeline.objects.distances import grow
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.stack import Stack


def metrics_of(probabilities: npt.NDArray[np.uint8], stack: Stack, config: Config) -> dict[str, Any]:
    """Return what `metrics.json` says of a stack, as far as the table needs it.

    Args:
        probabilities: (planes, classes, y, x) uint8, 0..255; the likeliest class counts.
        stack: its reference is what is scored against.
        config: sections stitch and evaluate are used.
    """
    found = objects(probabilities.argmax(axis=1).astype(np.uint8), config)
    planes, height, width = stack.grid.shape
    whole = slice(0, height), slice(0, width)
    classes, instances = stack.reference(CLASSES), stack.reference(INSTANCES)
    tables, isbi = [], []
    for plane in range(planes):
        truth, known = instances.read_label(plane, *whole), classes.read_label(plane, *whole) != IGNORE
        tables.append(OverlapTable.of(truth[known], found[plane][known], plane=plane))
        if config.evaluate.isbi:
            isbi.append(isbi_scores(1 - probabilities[plane, 0].astype(np.float32) / 255, truth))
    table = OverlapTable.merge(tables)
    scored = {
        "seg": seg_score(table).seg,
        "v_rand": v_rand(table).as_dict(),
        "v_info": v_info(table).as_dict(),
        "ap": {"0.50": average_precision(table, (0.5,))[0.5].as_dict()},
    }
    return {"instances": scored, "isbi": combine_planes(isbi).as_dict() if isbi else None}


def objects(classes: npt.NDArray[np.uint8], config: Config) -> npt.NDArray[np.uint32]:
    """Return the objects, (planes, y, x) uint32, of classes (planes, y, x) uint8, as `stitch` does uncalibrated."""
    found = np.zeros(classes.shape, np.uint32)

    def read(plane: int, rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(classes[plane, rows, columns])

    def write(plane: int, rows: slice, columns: slice, ids: npt.NDArray[np.uint32]) -> None:
        found[plane, rows, columns] = ids

    chosen = settled(config.stitch)
    options = ComponentOptions(min_area_px=chosen.min_area_px, fill_holes=chosen.fill_holes)
    planes, height, width = classes.shape
    label_components(read, write, (planes, height, width), (height, width), options)
    return np.stack([grow(ids, chosen.grow_px) for ids in found]) if chosen.grow_px else found
