"""Stitch: prove that every shard was written once, then make objects, pyramid and files for others.

Tiles never overlap and need no blending: stitching is checking. What is left to do is what no single job can see:
objects that cross shards.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from unet_pipeline import ngff
from unet_pipeline.config import Config, Stitch
from unet_pipeline.errors import PipelineError
from unet_pipeline.halo import halo_blocks
from unet_pipeline.objects.components import ComponentOptions, ComponentTable, label_components
from unet_pipeline.objects.distances import grow
from unet_pipeline.progress import Progress
from unet_pipeline.pyramid import Reduction, build_pyramid, count_pyramid_blocks
from unet_pipeline.record import atomic_path, provenance, read_json, write_json
from unet_pipeline.stack import CLASSES, INSTANCES
from unet_pipeline.tile import StackPlan

BLOCK_PX = 2048
"""Edge of a block of work, px: keeps memory flat whatever the shard."""


def stitch(stack_plan: StackPlan, records: Sequence[Path], config: Config, output: Path) -> dict[str, Any]:
    """Check the coverage, then write instances, pyramids, optionally TIFF, and `stitch.json`.

    Args:
        stack_plan: the plan of the stack.
        records: the region records, in any order.
        config: sections labels and stitch are used.
        output: `results/{stack}/stitch.json`.

    Returns:
        The record: coverage, objects, areas, provenance.

    Raises:
        PipelineError: a region is missing, belongs to another plan, or a shard is missing, doubly written or
            changed; names the region and what to delete so that it is made again.
    """
    coverage = check_coverage(stack_plan, records)
    table = write_instances(stack_plan, config.stitch)
    build_pyramids(stack_plan)
    files = write_tiffs(stack_plan, output.parent) if config.stitch.tiff else []
    record = {
        "stack": stack_plan.stack.name,
        "tiles": stack_plan.record.name,
        "coverage": coverage,
        "objects": len(table.area),
        "area_px": _summary(table.area),
        "filled_px": int(table.filled_px),
        "files": files,
        "provenance": provenance(config.section("labels", "stitch"), [stack_plan.record, *sorted(records)]),
    }
    write_json(output, record)
    return record


def check_coverage(stack_plan: StackPlan, records: Sequence[Path]) -> dict[str, Any]:
    """Prove that the records cover the volume exactly once and that every file still is what was written.

    Raises:
        PipelineError: if they do not; names the record to delete so that its region is made again.
    """
    seen: dict[int, Path] = {}
    arrays = {"probabilities": stack_plan.probabilities(), "classes": stack_plan.labels(CLASSES)}
    models = set()
    with Progress(stack_plan.plan.shard_count, f"check {stack_plan.stack.name}") as progress:
        for path in records:
            facts = read_json(path, fix=_again(path))
            _check_region(stack_plan, path, facts)
            models.add(facts["model"])
            for entry in facts["shards"]:
                if entry["shard"] in seen:
                    other = seen[entry["shard"]]
                    raise PipelineError(
                        path, "each shard in one region", f"shard {entry['shard']} also in {other}", fix=_again(path)
                    )
                seen[entry["shard"]] = path
                _check_shard(stack_plan, path, entry, arrays)
                progress.advance()
    missing = sorted(set(range(stack_plan.plan.shard_count)) - set(seen))
    if missing:
        got = f"{len(missing)} shard(s) in no record, the first {missing[0]}"
        raise PipelineError(
            stack_plan.store, f"all {stack_plan.plan.shard_count} shards", got, fix="give all region records"
        )
    if len(models) > 1:
        raise PipelineError(
            stack_plan.store, "regions predicted by one model", f"{len(models)} models", fix="rerun predict"
        )
    return {"shards": len(seen), "regions": len(records), "covered_once": True, "model": next(iter(models), None)}


def _check_region(stack_plan: StackPlan, path: Path, facts: dict[str, Any]) -> None:
    if not {"plan", "region", "model", "shards"} <= set(facts):
        raise PipelineError(path, "a region record", f"keys {sorted(facts)[:6]}", fix=_again(path))
    if facts["plan"] != stack_plan.digest:
        raise PipelineError(path, f"a record of plan {stack_plan.digest}", f"plan {facts['plan']}", fix=_again(path))
    expected = list(stack_plan.plan.region(facts["region"]))
    got = [entry["shard"] for entry in facts["shards"]]
    if got != expected:
        raise PipelineError(path, f"shards {expected[:4]}... of region {facts['region']}", got[:4], fix=_again(path))


def _check_shard(stack_plan: StackPlan, path: Path, entry: dict[str, Any], arrays: dict[str, ngff.PlaneArray]) -> None:
    shard = stack_plan.plan.shard_at(entry["shard"])
    for name, array in arrays.items():
        place = shard.plane, shard.rows.start, shard.columns.start
        found = array.shard_sha256(*place)
        if found is None or found != entry.get(name):
            got = "no file" if found is None else "a file that was changed since"
            raise PipelineError(array.shard_file(*place), f"the shard that {path} vouches for", got, fix=_again(path))


def _again(path: Path) -> str:
    return f"delete {path} and run the workflow again: this region alone is predicted again"


def write_instances(stack_plan: StackPlan, options: Stitch, block_px: int = BLOCK_PX) -> ComponentTable:
    """Write the objects: connected components of the classes, filled, sifted by area, then grown.

    Args:
        stack_plan: plan and store, with all classes written.
        options: the section `stitch`.
        block_px: edge of a block of work; the result does not depend on it.

    Returns:
        The table of objects before growing.
    """
    classes, instances = stack_plan.labels(CLASSES), stack_plan.labels(INSTANCES, writable=True)
    chosen = ComponentOptions(
        across_planes=options.connect == "volume", min_area_px=options.min_area_px, fill_holes=options.fill_holes
    )
    if not options.grow_px:
        return _components(classes, instances, chosen, stack_plan.stack.name)
    # Growing reads beyond its shard, so it cannot work in place: components go to a store of their own first.
    raw = stack_plan.store.with_name(f".{stack_plan.store.name}.components.zarr")
    shutil.rmtree(raw, ignore_errors=True)
    try:
        group = zarr.create_group(raw, zarr_format=3)
        components = ngff.create_like(group, "0", instances)
        table = _components(classes, components, chosen, stack_plan.stack.name)
        _grow(components, instances, options.grow_px, block_px, stack_plan.stack.name)
    finally:
        shutil.rmtree(raw, ignore_errors=True)
    return table


def _components(
    source: ngff.PlaneArray, target: ngff.PlaneArray, options: ComponentOptions, name: str
) -> ComponentTable:
    planes, _, height, width = source.shape
    blocks = sum(1 for _ in target.blocks())
    with Progress(2 * blocks, f"objects {name}") as progress:

        def tell(done: int, total: int) -> None:
            progress.advance()

        return label_components(
            source.read_label, target.write, (planes, height, width), target.shard_px, options, tell
        )


def _grow(source: ngff.PlaneArray, target: ngff.PlaneArray, radius_px: int, block_px: int, name: str) -> None:
    blocks = list(target.blocks())
    with Progress(len(blocks), f"grow {name}") as progress:
        for plane, rows, columns in blocks:
            grown = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.uint32)
            for block in halo_blocks(rows, columns, block_px, radius_px, source.shape[2:]):
                grown[block.place] = grow(source.read_label(plane, *block.outer), radius_px)[block.local]
            target.write(plane, rows, columns, grown)
            progress.advance()


def build_pyramids(stack_plan: StackPlan) -> None:
    """Fill the coarser levels: mean of probabilities, nearest of labels."""
    store = stack_plan.store
    names: dict[str, Reduction] = {
        "": "mean",
        f"labels/{CLASSES}": "nearest",
        f"labels/{INSTANCES}": "nearest",
    }
    total = sum(count_pyramid_blocks(store, name) for name in names)
    with Progress(total, f"pyramid {stack_plan.stack.name}") as progress:
        for name, reduction in names.items():
            build_pyramid(store, name, reduction, progress.advance)


def write_tiffs(stack_plan: StackPlan, folder: Path) -> list[str]:
    """Write classes.tif and instances.tif, (planes, y, x), BigTIFF where needed, one band of rows at a time."""
    for name in (CLASSES, INSTANCES):
        _write_tiff(stack_plan.labels(name), folder / f"{name}.tif", stack_plan.stack.grid)
    return [f"{CLASSES}.tif", f"{INSTANCES}.tif"]


def _write_tiff(array: ngff.PlaneArray, path: Path, grid: ngff.Grid) -> None:
    pixel = grid.pixel_um
    centimetre = None if pixel is None else (1e4 / pixel[1], 1e4 / pixel[0])
    # One plane is a page of tiles; the generator keeps one row of tiles in memory.
    edge, large = 512, array.array.nbytes > 2**31
    with (
        atomic_path(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=large) as tiff,
    ):
        tiff.write(
            _tiff_tiles(array, edge),
            shape=(grid.planes, grid.height, grid.width),
            dtype=array.dtype,
            tile=(edge, edge),
            compression="zlib",
            resolution=centimetre,
            resolutionunit="CENTIMETER" if centimetre else None,
            metadata={"axes": f"{grid.plane_axis.upper()}YX"},
        )


def _tiff_tiles(array: ngff.PlaneArray, edge: int) -> Iterator[npt.NDArray[Any]]:
    planes, _, height, width = array.shape
    for plane in range(planes):
        for y in range(0, height, edge):
            band = array.read_label(plane, slice(y, min(y + edge, height)), slice(0, width))
            for x in range(0, width, edge):
                part = band[:, x : x + edge]
                yield np.pad(part, ((0, edge - part.shape[0]), (0, edge - part.shape[1])))


def _summary(areas: npt.NDArray[Any]) -> dict[str, float] | None:
    if not len(areas):
        return None
    return {"median": float(np.median(areas)), "smallest": int(areas.min()), "largest": int(areas.max())}
