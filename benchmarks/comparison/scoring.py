"""Objects and scores of a peer's prediction, by the same functions that make and score this package's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from comparison.planes import Found, Plane, areas_of
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.evaluate.examples import Example
from unet_pipeline.evaluate.isbi import combine_planes, isbi_scores
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.partitions import v_info, v_rand
from unet_pipeline.evaluate.scores import average_precision, seg_score
from unet_pipeline.evaluate.trials import divided, objects_from, search
from unet_pipeline.records.calibrate_record import Trial


def choose(probabilities: Sequence[npt.NDArray[np.uint8]], planes: Sequence[Plane], config: Config) -> Trial:
    """Choose how objects are made, as `calibrate` does.

    Args:
        probabilities: (2, y, x) of each plane, background and object, 0..255.
        planes: their reference.
        config: the score is that of section calibrate.
    """
    examples = [Example(one, plane.classes, plane.instances) for one, plane in zip(probabilities, planes, strict=True)]
    best, _, _ = search(examples, config.calibrate.score, ObjectSettings(), float(np.median(areas_of(planes))))
    return best


def objects_of(probabilities: npt.NDArray[np.uint8], settings: ObjectSettings) -> npt.NDArray[np.uint32]:
    """Return the objects, (y, x), of probabilities (2, y, x), as `stitch` makes them."""
    volume, parts = divided(probabilities, settings)
    return objects_from(volume, parts, settings)[0]


def metrics_of(found: Sequence[Found], planes: Sequence[Plane], config: Config) -> dict[str, Any]:
    """Return what `metrics.json` says of a stack, as far as the table needs it.

    Args:
        found: of each plane.
        planes: their reference is what is scored against.
        config: section evaluate is used.
    """
    tables, isbi = [], []
    for number, (one, plane) in enumerate(zip(found, planes, strict=True)):
        known = plane.classes != IGNORE
        tables.append(OverlapTable.of(plane.instances[known], one.instances[known], plane=number))
        if config.evaluate.isbi and one.background is not None:
            isbi.append(isbi_scores(1 - one.background.astype(np.float32) / 255, plane.instances))
    table = OverlapTable.merge(tables)
    scored = {
        "seg": seg_score(table).seg,
        "v_rand": v_rand(table).as_dict(),
        "v_info": v_info(table).as_dict(),
        "ap": {"0.50": average_precision(table, (0.5,))[0.5].as_dict()},
    }
    return {"instances": scored, "isbi": combine_planes(isbi).as_dict() if isbi else None}
