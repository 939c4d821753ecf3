"""The scores of labels in memory against a reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import Compared, scores
from unet_pipeline.face.arrays import Settings, as_planes, settings_of
from unet_pipeline.face.open_stack import OpenStack
from unet_pipeline.face.segmentation import Segmentation
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.components import label_components
from unet_pipeline.stacks.labels import LabelReader

Array = npt.NDArray[Any]


def score(
    result: Segmentation | Array, reference: Array | OpenStack, *, config: Settings | None = None
) -> dict[str, Any]:
    """Return the scores of `evaluate`, as they stand in `metrics.json`.

    Args:
        result: of `predict`; or instances alone, (y, x) or (planes, y, x), 0 background, whose classes are then object
            or not.
        reference: labels of the same shape: instances, 0 background; or classes, with section labels.
        config: sections labels (kind, classes, values, ignore), evaluate (isbi) and stitch (connect, where `result` is
            an array) of the configuration, as a mapping or a YAML file.

    Returns:
        instances: seg, objects, matched, found, v_rand, v_info, variation_of_information, adapted_rand_error, ap;
        faults: how many objects are missed, joined, split, spurious or rough, and where the worst lie;
        classes: Dice, IoU, recall, precision of each; pixels: accuracy and means; confusion: px, reference class by
        row, result class by column; isbi or None.

    Raises:
        PipelineError: shapes that differ, or labels that ingest would refuse.

    >>> import numpy as np
    >>> reference = np.zeros((8, 8), np.uint8)
    >>> reference[1:5, 1:5], reference[6:8, 6:8] = 1, 2
    >>> result = np.where(reference == 1, 7, 0)  # found one cell of two
    >>> found = score(result, reference)["instances"]
    >>> found["seg"], found["matched"], found["ap"]["0.50"]["average_precision"]
    (0.5, 1, 0.5)
    """
    settings = settings_of(config)
    probabilities, in_volume = None, settings.stitch.connect == "volume"
    if isinstance(result, Segmentation):
        settings = replace(settings, labels=replace(settings.labels, classes=result.class_names))
        ids, classes, in_volume = result.instances, result.classes, result.across_planes
        probabilities = result.probabilities[None] if ids.ndim == 2 else result.probabilities
    else:
        ids = np.asarray(result)
        classes = (ids != 0).astype(np.uint8)
    found, expected = as_planes(ids, "result"), as_planes(reference, "reference")
    if found.shape != expected.shape:
        raise PipelineError("reference", f"labels of the result's shape {found.shape}", expected.shape)
    reference_classes, reference_instances = _reference(expected, settings, in_volume)
    compared = Compared(
        name="result",
        class_names=settings.labels.classes,
        in_volume=in_volume,
        reference_classes=_readable(reference_classes),
        reference_instances=_readable(reference_instances),
        classes=_readable(as_planes(classes, "result")),
        instances=_readable(found),
        probabilities=None if probabilities is None else ArrayPlanes(probabilities),
    )
    return scores(compared, settings.evaluate.isbi)


def _readable(labels: Array) -> ArrayPlanes:
    return ArrayPlanes(labels[:, None])


def _reference(labels: Array, settings: Config, in_volume: bool) -> tuple[Array, Array]:
    """Return classes (uint8, 255: not annotated) and instances (uint32), both (planes, y, x), as `evaluate` does."""
    reader = LabelReader(settings.labels, "reference")
    classes, instances = np.empty(labels.shape, np.uint8), np.empty(labels.shape, np.uint32)
    for plane, values in enumerate(labels):
        place = f"reference, plane {plane}"
        if settings.labels.kind == "classes":
            classes[plane] = reader.classes(values, place)
        else:
            instances[plane], classes[plane] = reader.instances(values, place)
    reader.finish()
    if settings.labels.kind == "classes":
        _number(classes, instances, in_volume)
    return classes, instances


def _number(classes: Array, instances: Array, in_volume: bool) -> None:
    """Number the connected components of classes (planes, y, x) in `instances`, of the same shape."""

    def write(plane: int, rows: slice, columns: slice, values: Array) -> None:
        instances[plane, rows, columns] = values

    planes, height, width = classes.shape
    read = _readable(classes).read_label
    label_components(read, write, (planes, height, width), (height, width), ComponentOptions(4, in_volume))
