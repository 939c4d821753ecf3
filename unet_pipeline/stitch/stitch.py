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
from unet_pipeline.config.object_settings import ObjectSettings, settled
from unet_pipeline.config.result_sections import Stitch
from unet_pipeline.config.sections import Config
from unet_pipeline.images import ngff
from unet_pipeline.images.halo_blocks import row_bands
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.images.pyramid import Reduction, build_pyramid, count_pyramid_blocks
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.model.calibration import read_calibration, settings_of, stated_settings
from unet_pipeline.model.card import ModelCard
from unet_pipeline.objects.components import ComponentSummary
from unet_pipeline.objects.decided import decided
from unet_pipeline.predict.plan import AlongZ
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import Check, atomic_path, partial_name, unclaimed
from unet_pipeline.records.layout import CLASSES, INSTANCES, TIFFS, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.volume_records import AreaSummary, ClassArea, StitchRecord
from unet_pipeline.stitch.depths import step_px
from unet_pipeline.stitch.layers import BLOCK_PX, OnDisk, Volume
from unet_pipeline.stitch.objects import make_objects, parts_of


def stitch(
    stack_plan: StackPlan,
    records: Sequence[Path],
    config: Config,
    output: Path,
    card: ModelCard | None = None,
    calibration: Path | None = None,
) -> StitchRecord:
    """Check the coverage, then write classes, instances, pyramids, optionally TIFF, and `stitch.json`.

    Args:
        stack_plan: the plan of the stack.
        records: the region records, in any order.
        config: sections labels, predict and stitch are used.
        output: `results/{stack}/stitch.json`.
        card: of the model that all regions must come from; None takes any one model.
        calibration: `calibrate.json` of that model; None where there is none.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: a region is missing, belongs to another plan or model, or a shard is missing, doubly written or
            changed; names the region and how it is made again. Or the calibration is that of another model.
    """
    tiffs = {name: output.with_name(file) for name, file in TIFFS.items() if config.stitch.tiff}
    with claim(output, stack_plan.store, *tiffs.values(), list_path(output)) as mine:
        work = None if card is None else stack_plan.work(card, config.predict)
        coverage, sums = check_coverage(stack_plan, records, work)
        chosen = None if calibration is None else read_calibration(calibration, card)
        settings = _settings(stack_plan, config.stitch, chosen, card)
        write_classes(stack_plan, settings.threshold, mine.check)
        objects = write_instances(stack_plan, settings, config.stitch.connect == "volume", check=mine.check)
        classes = class_areas(stack_plan)
        build_pyramids(stack_plan, mine.check)
        for name, path in tiffs.items():
            write_tiff(stack_plan.labels(name), path, stack_plan.stack.grid, mine.check)
        record = StitchRecord(
            stack=stack_plan.stack.name,
            tiles=stack_plan.record.name,
            connect=config.stitch.connect,
            made=settings,
            calibrated=chosen is not None and chosen.chosen_score is not None,
            coverage=coverage,
            classes=classes,
            objects=objects.count,
            area_px=_summary(objects),
            filled_px=objects.filled_px,
            files=write_list(output, [stack_plan.store, *tiffs.values()], sums, mine.check),
            tiffs=tuple(path.name for path in tiffs.values()),
            provenance=provenance(
                sections_of(config, "stitch"),
                [stack_plan.record, *sorted(records), *([calibration] if calibration else [])],
            ),
        )
        mine.write(record)
    return record


def _settings(
    stack_plan: StackPlan, options: Stitch, record: CalibrateRecord | None, card: ModelCard | None
) -> ObjectSettings:
    """Return how objects are made, and say so."""
    name, chosen, by_volume = stack_plan.stack.name, None, record is not None and record.in_volume
    if stack_plan.plan.along_z != AlongZ() and options.connect == "planes":
        alone = "the network sees volumes, objects are made plane by plane: set stitch.connect: volume to join them"
        tell(f"WARNING stack {name}: {alone}")
    if record is not None:
        chosen = settings_of(record, name, stack_plan.stack.grid.pixel_um)
        if by_volume != (options.connect == "volume") and options.method == "calibrated":
            looked, made = ("a volume", "planes") if by_volume else ("planes", "a volume")
            tell(f"stitch {name}: chosen by {looked}, for {made}; its least area is not taken over")
    elif options.method == "calibrated":
        tell(f"stitch {name}: no calibration beside the model, so objects are made by the stated defaults")
    settings = settled(options, chosen, stated_settings(card), by_volume)
    tell(f"stitch {name}: {settings}")
    return settings


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


def write_classes(stack_plan: StackPlan, threshold: float | None, check: Check = unclaimed) -> None:
    """Decide the class of each pixel from the stored probabilities; see `objects.decided`."""
    probabilities, classes = stack_plan.probabilities(), stack_plan.labels(CLASSES, True, check)
    shards = list(classes.shards())
    with Progress(len(shards), f"classes {stack_plan.stack.name}") as progress:
        for shard in shards:
            bands = row_bands(probabilities.read(*shard.at))
            classes.write(*shard.at, np.concatenate([decided(band, threshold) for band in bands]))
            progress.advance()


def write_instances(
    stack_plan: StackPlan, settings: ObjectSettings, deep: bool, block_px: int = BLOCK_PX, check: Check = unclaimed
) -> ComponentSummary:
    """Write the objects of a volume whose classes are written; see `stitch.objects`.

    Args:
        stack_plan: plan and store.
        settings: how objects are made.
        deep: whether they go from plane to plane.
        block_px: edge of a block of work; the result does not depend on it.
        check: called before each shard is written, so that a job that was taken over stops.

    Returns:
        The objects, counted before growing.
    """
    instances = stack_plan.labels(INSTANCES, True, check)
    # what is divided or grown is read beyond its shard: it lies in a store of its own meanwhile
    raw = stack_plan.store.with_name(partial_name(stack_plan.store))
    try:
        scratch = OnDisk(zarr.create_group(raw, zarr_format=3), instances)
        probabilities, classes = stack_plan.probabilities(), stack_plan.labels(CLASSES)
        name, by_distance = stack_plan.stack.name, deep and settings.method == "distance"
        step = step_px(name, stack_plan.stack.grid) if by_distance else 1.0
        volume = Volume(name, probabilities, classes, scratch, deep, step, check)
        return make_objects(volume, parts_of(volume, settings), settings, instances, block_px)
    finally:
        shutil.rmtree(raw, ignore_errors=True)


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


def _summary(objects: ComponentSummary) -> AreaSummary | None:
    if not objects.count:
        return None
    return AreaSummary(objects.median_area, int(objects.areas[0]), int(objects.areas[-1]))
