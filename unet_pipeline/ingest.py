"""Ingest: a stack of any format becomes an OME-Zarr image, a checked reference, and statistics.

An image that is a Zarr store already is used in place; only its reference and statistics are written.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline import ngff
from unet_pipeline.config import Config, Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.filelist import list_path, write_list
from unet_pipeline.halo import row_bands
from unet_pipeline.inputs import Planes, open_planes
from unet_pipeline.labels import LabelReader
from unet_pipeline.pipelining import ahead, behind
from unet_pipeline.plane_array import PlaneArray, open_array
from unet_pipeline.progress import Progress
from unet_pipeline.publish import claim, replacing
from unet_pipeline.pyramid import build_pyramid
from unet_pipeline.readers.zarr_nodes import is_zarr
from unet_pipeline.record import Check, digest, provenance, told
from unet_pipeline.stack import CLASSES, IMAGE, INSTANCES
from unet_pipeline.statistics import Histogram, Moments, as_record

Block = tuple[int, slice, slice]


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
    series: int | None = None


def ingest(source: Source, config: Config, output: Path) -> dict[str, Any]:
    """Read a stack, check it, and write `image.ome.zarr` beside `output`, then `output` itself.

    Args:
        source: the row of the table.
        config: its sections `labels` and `store` are used.
        output: the record to write, `results/{stack}/ingest.json`.

    Returns:
        The record: stack, grid, channels, dtype, image, labels, statistics, fingerprints, id, files, provenance.

    Raises:
        PipelineError: for anything wrong with the files; no record is left then.
    """
    image = open_planes(source.image, source.axes or None, planes=source.planes or None, series=source.series)
    labels = _open_labels(source, image) if source.labels else None
    store = output.parent / IMAGE
    with claim(output, store, list_path(output)) as mine:
        with replacing(store, mine.check) as partial:
            content = _fill(partial, source, config, image, labels, mine.check)
            found = {
                "stack": source.stack,
                "grid": asdict(_grid(source, image)),
                "channels": image.shape[1],
                "dtype": image.dtype.name,
                "image": _place(source),
                **content,
                "fingerprints": {"image": image.fingerprint(), "labels": labels.fingerprint() if labels else None},
            }
            if partial.exists():
                ngff.mark(partial, digest(found))
            else:
                shutil.rmtree(store, ignore_errors=True)  # of a time when the stack was no Zarr, or had labels
        made_by = provenance(config.section("labels", "store") | {"source": asdict(source)})
        record = {
            **found,
            "id": digest(found),
            "files": write_list(output, [store], check=mine.check),
            "provenance": made_by,
        }
        mine.write(record)
    return record


def _fill(
    store: Path, source: Source, config: Config, image: Planes, labels: Planes | None, check: Check
) -> dict[str, Any]:
    """Write the store, unless the image is used in place and has no labels; return what was counted."""
    grid, in_place = _grid(source, image), is_zarr(Path(source.image))
    _create(store, source.stack, grid, image, config.store, in_place, labels is not None)
    total = _count_blocks(grid, config.store) * (1 + (labels is not None))
    with Progress(total, f"ingest {source.stack}") as progress:
        target = None if in_place else open_array(store, "0", True, check)
        statistics = _copy_image(image, grid, config.store, target, source.image, progress)
        counts = _copy_labels(labels, source, config, store, progress, check) if labels else None
    _fill_pyramids(store, in_place, labels is not None, check)
    return {"labels": counts, "statistics": statistics}


def _place(source: Source) -> dict[str, Any]:
    return {
        "in_place": is_zarr(Path(source.image)),
        "source": told(source.image),
        "axes": source.axes,
        "planes": source.planes,
    }


def _open_labels(source: Source, image: Planes) -> Planes:
    labels = open_planes(
        source.labels, source.label_axes or None, planes=(source.label_planes or source.planes) or None
    )
    if labels.shape[1] != 1:
        fix = "save labels as one channel of integers; if these are 3 or 4 planes, set label_axes: zyx"
        raise PipelineError(source.labels, "labels with one channel", f"{labels.shape[1]} channels (RGB?)", fix=fix)
    expected, got = _size(image), _size(labels)
    if expected != got:
        fix = "check that labels and image belong together; columns planes and label_planes select matching planes"
        raise PipelineError(source.labels, f"the image's shape (planes, y, x) {expected}", got, fix=fix)
    return labels


def _size(planes: Planes) -> tuple[int, int, int]:
    return planes.shape[0], planes.shape[2], planes.shape[3]


def _grid(source: Source, image: Planes) -> ngff.Grid:
    count, height, width = _size(image)
    pixel_um = (source.pixel_um, source.pixel_um) if source.pixel_um else image.pixel_um
    return ngff.Grid(count, height, width, image.plane_axis, pixel_um, source.step or image.step)


def _create(
    store: Path, name: str, grid: ngff.Grid, image: Planes, options: Store, in_place: bool, labelled: bool
) -> None:
    labels: dict[str, npt.DTypeLike] = {CLASSES: np.uint8, INSTANCES: np.uint32} if labelled else {}
    if not in_place:
        ngff.create_image(store, name, grid, image.shape[1], image.dtype, options, labels)
    elif labelled:
        ngff.create_labels(store, grid, options, labels)


def _blocks(grid: ngff.Grid, options: Store) -> Iterator[Block]:
    _, (height, width) = ngff.clipped_edges(grid.height, grid.width, options)
    for plane in range(grid.planes):
        for y in range(0, grid.height, height):
            for x in range(0, grid.width, width):
                yield plane, slice(y, min(y + height, grid.height)), slice(x, min(x + width, grid.width))


def _count_blocks(grid: ngff.Grid, options: Store) -> int:
    return sum(1 for _ in _blocks(grid, options))


def _copy_image(
    image: Planes, grid: ngff.Grid, options: Store, target: PlaneArray | None, where: str, progress: Progress
) -> dict[str, Any]:
    """Copy every block to `target` (if any) and return the statistics."""
    moments, histogram = Moments(image.shape[1]), None
    small = image.dtype.kind in "ui" and image.dtype.itemsize <= 2
    if small:
        histogram = Histogram(image.dtype, moments.low, moments.high)
    write = target.write if target else lambda *_: None
    with closing(_read_ahead(image, _blocks(grid, options))) as parts, behind(write) as write_soon:
        for block, values in parts:
            _refuse_nan(values, f"{where}, plane {block[0]}")
            write_soon(*block, values)
            moments.add(values)
            if histogram:
                histogram.add(values)
            progress.advance()
    if histogram is None:
        histogram = Histogram(image.dtype, moments.low, moments.high)
        with closing(_read_ahead(target or image, _blocks(grid, options))) as parts:
            for _, values in parts:
                histogram.add(values)
    return as_record(moments, histogram)


def _read_ahead(planes: Planes | PlaneArray, blocks: Iterable[Block]) -> Generator[tuple[Block, Any], None, None]:
    return ahead(lambda block: (block, planes.read(*block)), blocks)


def _refuse_nan(values: npt.NDArray[Any], where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise PipelineError(where, "finite grey values", f"{count} NaN or infinite", fix="replace them before ingest")


def _copy_labels(
    labels: Planes, source: Source, config: Config, store: Path, progress: Progress, check: Check
) -> dict[str, Any]:
    """Write the reference as classes and instances; return counts for the record."""
    classes, instances = (open_array(store, f"labels/{name}/0", True, check) for name in (CLASSES, INSTANCES))
    reader = LabelReader(config.labels, source.labels)
    largest = 0
    with closing(_read_ahead(labels, classes.blocks())) as parts, behind(PlaneArray.write) as write_soon:
        for (plane, rows, columns), values in parts:
            place = f"plane {plane}, rows {rows.start}-{rows.stop - 1}, columns {columns.start}-{columns.stop - 1}"
            if config.labels.kind == "classes":
                found = [reader.classes(band, place) for band in row_bands(values[0])]
                write_soon(classes, plane, rows, columns, np.concatenate(found))
            else:
                pairs = [reader.instances(band, place) for band in row_bands(values[0])]
                ids, indices = map(np.concatenate, zip(*pairs, strict=True))
                write_soon(instances, plane, rows, columns, ids)
                write_soon(classes, plane, rows, columns, indices)
                largest = max(largest, int(ids.max()))
            progress.advance()
    reader.finish()
    if config.labels.kind == "classes":
        largest = _instances_of_classes(classes, instances)
    counts = dict(zip(config.labels.classes, reader.counts.tolist(), strict=True))
    return {"class_counts": counts, "ignored": reader.ignored, "largest_instance": largest}


def _instances_of_classes(classes: PlaneArray, instances: PlaneArray) -> int:
    """Number the connected components of every class but the background, plane by plane."""
    # Imported here: compiled loops take half a second to load, and most stacks bring instances.
    from unet_pipeline.objects.components import ComponentOptions, label_components

    planes, _, height, width = classes.shape
    table = label_components(
        classes.read_label, instances.write, (planes, height, width), classes.shard_px, ComponentOptions()
    )
    return len(table.area)


def _fill_pyramids(store: Path, in_place: bool, labelled: bool, check: Check) -> None:
    if not in_place:
        build_pyramid(store, "", "mean", check=check)
    for name in (CLASSES, INSTANCES) if labelled else ():
        build_pyramid(store, f"labels/{name}", "nearest", check=check)
