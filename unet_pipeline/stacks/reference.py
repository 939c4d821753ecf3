"""The reference of a stack: labels read, checked, and written as classes and instances, block by block."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE, Labels
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.machine.parallel import ahead, behind
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.box import Box
from unet_pipeline.records.files import Check
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.labels import LabelReader
from unet_pipeline.stacks.sizes import Fitted

if TYPE_CHECKING:
    from unet_pipeline.objects.components import ComponentSummary, Write

LEAST_SCALE = 0.5
"""Labels made smaller than this have objects as thin as rims."""

LOSSY = (".jpg", ".jpeg")


def content(planes: Fitted, block: Box, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the part of a block that its source file had, (channels, rows, columns); perhaps empty.

    Args:
        planes: the fitted stack.
        block: a box of one plane.
        values: its values, (channels, rows, columns).
    """
    rows, columns = planes.content(block.plane).window_in(block)
    return values[:, rows, columns]


def read_ahead(planes: Fitted | PlaneArray, blocks: Iterable[Box]) -> Generator[tuple[Box, Any], None, None]:
    """Yield each block with its values (channels, rows, columns), read while the caller works."""
    return ahead(lambda block: (block, planes.read(*block.at)), blocks)


def copy_labels(
    labels: Fitted, where: str, options: Labels, store: Path, progress: Progress, check: Check
) -> tuple[dict[str, Any], list[str]]:
    """Write the reference as classes and instances.

    Args:
        labels: the label files, fitted as the image.
        where: file or folder of the labels, for messages.
        options: what their values mean.
        store: the store with the arrays of both, still empty.
        progress: advanced at each block.
        check: called before each shard is written.

    Returns:
        Counts for the record: class_counts, ignored, largest_instance; and what is doubtful, in sentences.

    Raises:
        PipelineError: for the reasons of `LabelReader`, or if a file cannot be read.
    """
    classes, instances = (open_array(store, f"labels/{name}/0", True, check) for name in (CLASSES, INSTANCES))
    reader = LabelReader(options, where, any(file.suffix.lower() in LOSSY for file in labels.planes.files))
    largest = 0
    with closing(read_ahead(labels, classes.shards())) as parts, behind(PlaneArray.write) as write_soon:
        for block, values in parts:
            given, place = content(labels, block, values)[0], _label_place(labels, block.plane)
            if labels.planes.palette:
                reader.count_palette(given)
            if options.kind == "classes":
                write_soon(classes, *block.at, _around(labels, block, reader.classes(given, place), IGNORE))
            else:
                ids, indices = reader.instances(given, place, labels.content(block.plane).scale >= LEAST_SCALE)
                write_soon(instances, *block.at, _around(labels, block, ids, 0))
                write_soon(classes, *block.at, _around(labels, block, indices, IGNORE))
                largest = max(largest, int(ids.max(initial=0)))
            reader.ignored += values[0].size - given.size
            progress.advance()
    notes = reader.finish()
    if options.kind == "classes":
        largest = _number_pieces(classes, instances)
    elif options.kind == "pieces":
        largest = _number_pieces(instances, instances)
    elif reader.shapes.only:
        _check_single(reader, classes)
    counts = dict(zip(options.classes, reader.counts.tolist(), strict=True))
    return {"class_counts": counts, "ignored": reader.ignored, "largest_instance": largest}, notes


def _label_place(labels: Fitted, plane: int) -> str:
    """Return file and plane for messages."""
    content = labels.content(plane)
    resized = f" resized to {content.height} × {content.width}" if content.scale != 1 else ""
    return f"{labels.planes.name(plane)}{resized}"


def _around(labels: Fitted, block: Box, given: npt.NDArray[Any], fill: int) -> npt.NDArray[Any]:
    """Return a block (rows, columns) with the values its source file gave, and `fill` around them."""
    if given.shape == block.size:
        return given
    whole = np.full(block.size, fill, given.dtype)
    whole[labels.content(block.plane).window_in(block)] = given
    return whole


def _number_pieces(values: PlaneArray, instances: PlaneArray) -> int:
    """Number the connected pieces of every class, or of every id, plane by plane; the arrays may be the same one.

    Blocks are whole shards, and each is read for the last time before it is written.
    """
    return _components(values, instances.write, 4).count


def _check_single(reader: LabelReader, classes: PlaneArray) -> None:
    """Refuse a mask of one value that has several pieces in a plane; those that touch at a corner count as one."""
    pieces = _components(classes, lambda *_: None, 8).per_plane
    if (most := int(pieces.max())) > 1:
        reader.refuse_single(most, int(pieces.argmax()))


def _components(values: PlaneArray, write: Write, connectivity: Literal[4, 8]) -> ComponentSummary:
    # Imported here: compiled loops take half a second to load, and most stacks bring instances.
    from unet_pipeline.objects.component_options import ComponentOptions
    from unet_pipeline.objects.components import label_components
    from unet_pipeline.objects.fragments import LARGEST_CLASS

    def read(plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        block = values.read_label(plane, rows, columns)
        if block.dtype == np.uint8:
            return block
        return np.where(block > 0, block + np.uint32(LARGEST_CLASS), np.uint32(0))

    planes, _, height, width = values.shape
    return label_components(
        read, write, (planes, height, width), values.shard_px, ComponentOptions(connectivity=connectivity)
    )
