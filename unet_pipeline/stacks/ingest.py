"""Ingest: a stack of any format becomes an OME-Zarr image, a checked reference, and statistics.

An image that is a Zarr store already is used in place; only its reference and statistics are written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Config, Ingest, Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.display import class_values, image_channels
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.images.plane_numbers import parse_planes
from unet_pipeline.images.planes import SourcePlanes
from unet_pipeline.images.pyramid import build_pyramid
from unet_pipeline.images.readers.zarr_nodes import is_zarr
from unet_pipeline.machine.parallel import behind
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.box import Box, plane_boxes
from unet_pipeline.records.checksums import files_below, with_sums, write_list
from unet_pipeline.records.claim import claim, replacing
from unet_pipeline.records.files import Check, digest
from unet_pipeline.records.layout import CLASSES, IMAGE, INSTANCES, list_path
from unet_pipeline.records.provenance import portable_path, provenance
from unet_pipeline.records.stack_records import IngestRecord, Statistics
from unet_pipeline.stacks.channels import check_channels
from unet_pipeline.stacks.pairs import pair_files
from unet_pipeline.stacks.reference import content, copy_labels, read_ahead
from unet_pipeline.stacks.sizes import Fitted
from unet_pipeline.stacks.statistics import Moments, Quantiles, as_record

METADATA = Path("zarr.json")
"""Of the root group of a store."""


@dataclass(frozen=True)
class Source:
    """Where a stack comes from, as its row of the table says; empty text means "as the file says".

    Attributes:
        stack: name.
        image, labels: file, folder, glob or Zarr store.
        axes, label_axes: letters, e.g. "tcyx".
        pixel_um: pixel size in the plane, micrometres.
        step: distance between planes, micrometres or seconds.
        planes, label_planes: which planes, e.g. "0-17,20".
        names: list of the files of the folders `image` and `labels` that are used.
        series: which series of a file that holds several images, from 0; None where there is one.
    """

    stack: str
    image: str
    labels: str = ""
    axes: str = ""
    label_axes: str = ""
    pixel_um: float | None = None
    step: float | None = None
    planes: str = ""
    label_planes: str = ""
    names: str = ""
    series: int | None = None


def ingest(source: Source, config: Config, output: Path, table: str = "") -> IngestRecord:
    """Read a stack, check it, and write `image.ome.zarr` beside `output`, then `output` itself.

    Args:
        source: the row of the table.
        config: its sections `labels`, `ingest` and `store` are used.
        output: the record to write, `results/{stack}/ingest.json`.
        table: the table of stacks; where the stack is one that trains, the others must have as many channels.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: for anything wrong with the files; no record is left then.
    """
    if table:
        check_channels(table, source.stack)
    image = open_image(source, config.ingest)
    labels = open_labels(source, config.ingest, image) if source.labels else None
    store = output.parent / IMAGE
    with claim(output, store, list_path(output)) as mine:
        with replacing(store, mine.check) as partial:
            counted = _fill(partial, source, config, image, labels, mine.check)
            found = {
                "stack": source.stack,
                "grid": asdict(grid_of(source, image)),
                "channels": image.shape[1],
                "dtype": image.dtype.name,
                "image": _place(source, image),
                "names": {"image": _names(image.planes), "labels": _names(labels.planes) if labels else None},
                "fit": image.record(),
                **counted,
                "fingerprints": {
                    "image": image.planes.fingerprint(),
                    "labels": labels.planes.fingerprint() if labels else None,
                },
            }
            sums = {file.relative_to(partial): total for file, total in with_sums(files_below(partial), {})}
            found["image_id"] = _image_id(found, sums)
            identity = digest([found, sorted((str(name), total) for name, total in sums.items())])
            if partial.exists():
                ngff.mark(partial, identity)
                del sums[METADATA]  # the mark is in it
            else:
                shutil.rmtree(store, ignore_errors=True)  # of a time when the stack was no Zarr, or had labels
        made_by = provenance(sections_of(config, "ingest") | {"source": asdict(source)})
        files = write_list(output, [store], {store / name: total for name, total in sums.items()}, mine.check)
        last = {"id": identity, "files": asdict(files), "provenance": asdict(made_by)}
        record = build(IngestRecord, found | last, str(output))
        mine.write(record)
    return record


def _image_id(found: Mapping[str, Any], sums: Mapping[Path, str]) -> str:
    """Name the grey values of a stack and their statistics, from what was found and the checksums of the store's files.

    From the stored bytes, not from the options that led to them: whatever changes a grey value changes the name, and
    nothing else does.
    """
    place = found["image"]
    stored = sorted(
        (str(name), total) for name, total in sums.items() if name.parts[0] not in ("labels", METADATA.name)
    )
    read_in_place = [found["fingerprints"]["image"], place["axes"], place["planes"]] if place["in_place"] else []
    return digest([found["statistics"], read_in_place, stored])


def _fill(
    store: Path, source: Source, config: Config, image: Fitted, labels: Fitted | None, check: Check
) -> dict[str, Any]:
    """Write the store, unless the image is used in place and has no labels; return what was counted."""
    grid, in_place = grid_of(source, image), _in_place(source, image)
    _create(store, source.stack, grid, image, config.store, in_place, labels is not None)
    total = _count_blocks(grid, config.store) * (1 + (labels is not None))
    with Progress(total, f"ingest {source.stack}") as progress:
        target = None if in_place else open_array(store, "0", True, check)
        statistics = _copy_image(image, grid, config.store, target, source.image, progress)
        counts: dict[str, Any] | None = None
        notes: list[str] = []
        if labels:
            counts, notes = copy_labels(labels, source.labels, config.labels, store, progress, check)
        notes = [*image.planes.notes(), *(labels.planes.notes() if labels else []), *notes]
        for note in notes:
            progress.say(note)
    _fill_pyramids(store, in_place, labels is not None, check)
    if not in_place:
        ngff.show_channels(store, image_channels(image.dtype, statistics))
    if labels:
        ngff.show_values(store, CLASSES, class_values(config.labels.classes, annotated=True))
    return {"labels": counts, "statistics": asdict(statistics), "notes": notes}


def _in_place(source: Source, image: Fitted) -> bool:
    return is_zarr(Path(source.image)) and image.untouched


def _place(source: Source, image: Fitted) -> dict[str, Any]:
    return {
        "in_place": _in_place(source, image),
        "source": portable_path(source.image),
        "axes": source.axes,
        "planes": source.planes,
    }


def open_image(source: Source, options: Ingest) -> Fitted:
    """Open the image of a stack, and decide how each of its files is placed on the planes; no pixel is read.

    Raises:
        PipelineError: naming the file, for anything in it that cannot be used.
    """
    image = open_planes(
        source.image,
        source.axes or None,
        planes=source.planes or None,
        series=source.series,
        names=source.names or None,
        mixed=options.sizes != "same",
        colours=True,
    )
    return Fitted(image, options)


def open_labels(source: Source, options: Ingest, image: Fitted) -> Fitted:
    """Open the labels of a stack, each plane matched with one of its image; no pixel is read.

    Raises:
        PipelineError: naming the file, for anything in it that cannot be used, or that does not match the image.
    """
    labels = open_planes(
        source.labels, source.label_axes or None, names=source.names or None, mixed=options.sizes != "same"
    )
    labels = labels.take(_matching(source, image.planes, labels))
    if labels.shape[1] != 1:
        fix = (
            "save labels as one channel of integers, class indices or ids of objects (a palette PNG is read as its "
            "indices): colours are not classes; if these are 3 or 4 planes, set label_axes: zyx"
        )
        raise PipelineError(source.labels, "labels with one channel", f"{labels.shape[1]} channels (RGB?)", fix=fix)
    _check_sizes(source, image.planes, labels)
    return Fitted(labels, options, labels=True)


def _matching(source: Source, image: SourcePlanes, labels: SourcePlanes) -> Sequence[int]:
    """Return the planes of the labels that belong to those of the image: by name where both are files, one a plane."""
    if source.label_planes or image.file(0) is None or labels.file(0) is None:
        return parse_planes(source.labels, source.label_planes or source.planes, labels.shape[0])
    return pair_files(image.files, labels.files, image.numbers if source.planes else None)


def _names(planes: SourcePlanes) -> list[str] | None:
    """Return the file name of each plane, None where the planes are of one file or store."""
    files = [planes.file(plane) for plane in range(planes.shape[0])]
    return [file.name for file in files if file is not None] or None


def _check_sizes(source: Source, image: SourcePlanes, labels: SourcePlanes) -> None:
    """Hold every label plane against its image plane, as they are in the files."""
    expected, got = _size(image.shape), _size(labels.shape)
    fix = "check that labels and image belong together; columns planes and label_planes select matching planes"
    if expected[0] != got[0]:
        raise PipelineError(source.labels, f"the image's shape (planes, y, x) {expected}", got, fix=fix)
    for plane in range(expected[0]):
        if image.size(plane) != labels.size(plane):
            what = f"the image's shape (y, x) {image.size(plane)}, that of {image.name(plane)}"
            raise PipelineError(labels.name(plane), what, labels.size(plane), fix=fix)


def _size(shape: tuple[int, int, int, int]) -> tuple[int, int, int]:
    return shape[0], shape[2], shape[3]


def grid_of(source: Source, image: Fitted) -> ngff.Grid:
    """Return the planes of a stack, their size, and that of a voxel: as the table says it, else as the file does."""
    planes = image.planes
    given = (source.pixel_um, source.pixel_um) if source.pixel_um else planes.pixel_um
    return ngff.Grid(*_size(image.shape), planes.plane_axis, image.pixel_um(given), source.step or planes.step)


def _create(
    store: Path, name: str, grid: ngff.Grid, image: Fitted, options: Store, in_place: bool, labelled: bool
) -> None:
    labels: dict[str, npt.DTypeLike] = {CLASSES: np.uint8, INSTANCES: np.uint32} if labelled else {}
    if not in_place:
        ngff.create_image(store, name, grid, image.shape[1], image.dtype, options, labels)
    elif labelled:
        ngff.create_labels(store, grid, options, labels)


def _blocks(grid: ngff.Grid, options: Store) -> Iterator[Box]:
    _, (height, width) = ngff.clipped_edges(grid.height, grid.width, options)
    for plane in plane_boxes(grid.shape):
        yield from plane.divided(height, width)


def _count_blocks(grid: ngff.Grid, options: Store) -> int:
    return sum(1 for _ in _blocks(grid, options))


def _copy_image(
    image: Fitted, grid: ngff.Grid, options: Store, target: PlaneArray | None, where: str, progress: Progress
) -> Statistics:
    """Copy every block to `target` (if any) and return the statistics, of the images without their padding."""
    moments, quantiles = Moments(image.shape[1]), Quantiles(image.dtype, image.shape[1])
    write = target.write if target else lambda *_: None
    with closing(read_ahead(image, _blocks(grid, options))) as parts, behind(write) as write_soon:
        for block, values in parts:
            _refuse_nan(values, f"{where}, plane {block.plane}")
            write_soon(*block.at, values)
            progress.advance()
            given = content(image, block, values)
            if given.size:
                moments.add(given)
                quantiles.add(given)
    if quantiles.refine():
        with closing(read_ahead(target or image, _blocks(grid, options))) as parts:
            for block, values in parts:
                given = content(image, block, values)
                if given.size:
                    quantiles.add(given)
    return as_record(moments, quantiles)


def _refuse_nan(values: npt.NDArray[Any], where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise PipelineError(where, "finite grey values", f"{count} NaN or infinite", fix="replace them before ingest")


def _fill_pyramids(store: Path, in_place: bool, labelled: bool, check: Check) -> None:
    if not in_place:
        build_pyramid(store, "", "mean", check=check)
    for name in (CLASSES, INSTANCES) if labelled else ():
        build_pyramid(store, f"labels/{name}", "nearest", check=check)
