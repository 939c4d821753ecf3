"""Stitch: prove that every shard was written once, then make objects, pyramid and files for others.

Tiles never overlap and need no blending, so nothing is left to join but the objects that cross shards, which no single
job can see.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.audit.coverage import check_coverage
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config, Stitch
from unet_pipeline.images import ngff
from unet_pipeline.images.halo_blocks import halo_blocks, row_bands
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.images.pyramid import Reduction, build_pyramid, count_pyramid_blocks
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.card import ModelCard
from unet_pipeline.objects.components import ComponentOptions, ComponentTable
from unet_pipeline.objects.distances import grow
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import Check, atomic_path, partial_name, unclaimed
from unet_pipeline.records.layout import CLASSES, INSTANCES, TIFFS, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.volume_records import AreaSummary, ClassArea, StitchRecord
from unet_pipeline.stitch.watershed import divide, label_blocks

BLOCK_PX = 2048
"""Edge of a block of work, px: keeps memory flat whatever the shard."""


def stitch(
    stack_plan: StackPlan, records: Sequence[Path], config: Config, output: Path, card: ModelCard | None = None
) -> StitchRecord:
    """Check the coverage, then write instances, pyramids, optionally TIFF, and `stitch.json`.

    Args:
        stack_plan: the plan of the stack.
        records: the region records, in any order.
        config: sections labels, predict and stitch are used.
        output: `results/{stack}/stitch.json`.
        card: of the model that all regions must come from; None takes any one model.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: a region is missing, belongs to another plan or model, or a shard is missing, doubly written or
            changed; names the region and how it is made again.
    """
    tiffs = {name: output.with_name(file) for name, file in TIFFS.items() if config.stitch.tiff}
    with claim(output, stack_plan.store, *tiffs.values(), list_path(output)) as mine:
        work = None if card is None else stack_plan.work(card, config.predict)
        coverage, sums = check_coverage(stack_plan, records, work)
        table = write_instances(stack_plan, config.stitch, check=mine.check)
        classes = class_areas(stack_plan)
        build_pyramids(stack_plan, mine.check)
        for name, path in tiffs.items():
            write_tiff(stack_plan.labels(name), path, stack_plan.stack.grid, mine.check)
        record = StitchRecord(
            stack=stack_plan.stack.name,
            tiles=stack_plan.record.name,
            connect=config.stitch.connect,
            coverage=coverage,
            classes=classes,
            objects=len(table.area),
            area_px=_summary(table.area),
            filled_px=int(table.filled_px),
            files=write_list(output, [stack_plan.store, *tiffs.values()], sums, mine.check),
            tiffs=tuple(path.name for path in tiffs.values()),
            provenance=provenance(sections_of(config, "stitch"), [stack_plan.record, *sorted(records)]),
        )
        mine.write(record)
    return record


def class_areas(stack_plan: StackPlan) -> tuple[ClassArea, ...]:
    """Return the pixels and the area of each class of a stack, in class order.

    Returns:
        One for each class; the pixels are those of all planes.
    """
    array, names, pixel = stack_plan.labels(CLASSES), stack_plan.classes, stack_plan.stack.grid.pixel_um
    counts, shards = np.zeros(256, np.int64), list(array.shards())
    with Progress(len(shards), f"areas {stack_plan.stack.name}") as progress:
        for shard in shards:
            for band in row_bands(array.read_label(*shard.at)):
                counts += np.bincount(band.ravel(), minlength=256)
            progress.advance()
    total = int(counts.sum())
    return tuple(
        ClassArea(name, pixels, pixels / total, None if pixel is None else pixels * pixel[0] * pixel[1])
        for name, pixels in zip(names, counts[: len(names)].tolist(), strict=True)
    )


def write_instances(
    stack_plan: StackPlan, options: Stitch, block_px: int = BLOCK_PX, check: Check = unclaimed
) -> ComponentTable:
    """Write the objects: connected components of the classes or their parts, sifted by area, filled, then grown.

    Args:
        stack_plan: plan and store, with all classes written.
        options: the section `stitch`.
        block_px: edge of a block of work; the result does not depend on it.
        check: called before each shard is written, so that a job that was taken over stops.

    Returns:
        The table of objects before growing.
    """
    classes, instances = stack_plan.labels(CLASSES), stack_plan.labels(INSTANCES, True, check)
    chosen = ComponentOptions(
        across_planes=options.connect == "volume", min_area_px=options.min_area_px, fill_holes=options.fill_holes
    )
    name = f"objects {stack_plan.stack.name}"
    # Growing and flooding read beyond their shard, so they cannot work in place: what they read is a store of its own.
    raw = stack_plan.store.with_name(partial_name(stack_plan.store))
    try:
        group = zarr.create_group(raw, zarr_format=3)
        divided = options.method == "watershed"
        source = divide(stack_plan, group, instances, options, check) if divided else classes
        if not options.grow_px:
            return label_blocks(source.read_label, instances, chosen, name)
        components = ngff.create_like(group, "0", instances)
        table = label_blocks(source.read_label, components, chosen, name)
        _grow(components, instances, options.grow_px, block_px, stack_plan.stack.name)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
    return table


def _grow(source: PlaneArray, target: PlaneArray, radius_px: int, block_px: int, name: str) -> None:
    shards = list(target.shards())
    with Progress(len(shards), f"grow {name}") as progress:
        for shard in shards:
            grown = np.empty(shard.size, np.uint32)
            for block in halo_blocks(shard, block_px, radius_px, source.shape[2:]):
                grown[block.place] = grow(source.read_label(*block.outer.at), radius_px)[block.local]
            target.write(*shard.at, grown)
            progress.advance()


def build_pyramids(stack_plan: StackPlan, check: Check = unclaimed) -> None:
    """Fill the coarser levels: mean of probabilities, nearest of labels; `check` is called before each write."""
    store = stack_plan.store
    names: dict[str, Reduction] = {
        "": "mean",
        f"labels/{CLASSES}": "nearest",
        f"labels/{INSTANCES}": "nearest",
    }
    total = sum(count_pyramid_blocks(store, name) for name in names)
    with Progress(total, f"pyramid {stack_plan.stack.name}") as progress:
        for name, reduction in names.items():
            build_pyramid(store, name, reduction, progress.advance, check)


def write_tiff(array: PlaneArray, path: Path, grid: ngff.Grid, check: Check = unclaimed) -> None:
    """Write labels as TIFF, (planes, y, x), BigTIFF where needed, one band of rows at a time."""
    import tifffile

    pixel = grid.pixel_um
    centimetre = None if pixel is None else (1e4 / pixel[1], 1e4 / pixel[0])
    # One plane is a page of tiles; the generator keeps one row of tiles in memory.
    edge, large = 512, array.array.nbytes > 2**31
    with (
        atomic_path(path, check) as partial,
        tifffile.TiffWriter(partial, bigtiff=large) as tiff,
    ):
        tiff.write(
            _tiff_tiles(array, edge),
            shape=(grid.planes, grid.height, grid.width),
            dtype=array.dtype,
            photometric="minisblack",  # else three or four planes would be taken for colours
            tile=(edge, edge),
            compression="zlib",
            resolution=centimetre,
            resolutionunit="CENTIMETER" if centimetre else None,
            metadata={"axes": f"{grid.plane_axis.upper()}YX"},
        )


def _tiff_tiles(array: PlaneArray, edge: int) -> Iterator[npt.NDArray[Any]]:
    planes, _, height, width = array.shape
    for plane in range(planes):
        for y in range(0, height, edge):
            band = array.read_label(plane, slice(y, min(y + edge, height)), slice(0, width))
            for x in range(0, width, edge):
                part = band[:, x : x + edge]
                yield np.pad(part, ((0, edge - part.shape[0]), (0, edge - part.shape[1])))


def _summary(areas: npt.NDArray[Any]) -> AreaSummary | None:
    if not len(areas):
        return None
    return AreaSummary(float(np.median(areas)), int(areas.min()), int(areas.max()))
