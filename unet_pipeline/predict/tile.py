"""Tile: the plan of a stack on disk, and the empty OME-Zarr store that prediction jobs fill.

One rule creates all metadata before any job writes a shard, so jobs never touch metadata. The store is kept when it
already belongs to the same plan: repeating this step loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline import __version__
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.display import class_channels, class_values
from unet_pipeline.model.card import Architecture, ModelCard, architecture, geometry_z
from unet_pipeline.model.card import geometry as geometry_of
from unet_pipeline.model.voxels import Voxel
from unet_pipeline.predict.plan import AlongZ, Plan, plan
from unet_pipeline.predict.tile_size import automatic_px, automatic_volume
from unet_pipeline.records.checksums import files_below, parse_list, write_list
from unet_pipeline.records.claim import claim, replacing, sweep
from unet_pipeline.records.fields import Files
from unet_pipeline.records.files import Check, atomic_path, digest, link_on_way, sha256_file
from unet_pipeline.records.layout import CLASSES, INSTANCES, SEGMENTATION, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.volume_records import PlanNumbers, TileRecord
from unet_pipeline.stacks.stack import Stack

LABELS: Mapping[str, npt.DTypeLike] = {CLASSES: np.uint8, INSTANCES: np.uint32}
SHARD_PLANES = 128
"""Planes of a shard of a volume, about."""


def tile(
    stack: Stack,
    config: Config,
    regions: int,
    output: Path,
    card: ModelCard | None = None,
    dry_run: bool = False,
    out_of_fold: bool = False,
) -> str:
    """Plan a stack, create its segmentation store, and write `tiles.json`.

    Args:
        stack: an ingested stack.
        config: sections labels, store, model, tile and predict are used.
        regions: number of prediction jobs.
        output: `results/{stack}/tiles.json`; the store lies beside it.
        card: of a finished model; None takes the network of section model.
        dry_run: only describe, write nothing.
        out_of_fold: predict each plane by the member of a cross-validation that has not seen it (a training stack).

    Returns:
        A description for people.

    Raises:
        PipelineError: a tile or shard size the network cannot take (names the nearest that it can), or a model for
            other channels or classes.
    """
    if card:
        card.check_image(stack.channels, f"stack {stack.name}")
        card.check_classes(config.labels.classes)
    network = card.architecture if card else architecture(config.model, stack.channels, len(config.labels.classes))
    planned = plan_stack(stack, network, config, regions)
    text = describe(stack, planned, config)
    if dry_run:
        return text
    facts = numbers_of(planned) | {"classes": list(config.labels.classes)}
    facts |= {"out_of_fold": True} if out_of_fold else {}
    seen = [stack.ingested.image_id, __version__]  # shards of another image, or of other code, are never kept
    key = digest([facts, asdict(config.store), config.predict.probabilities, asdict(stack.grid), stack.name, *seen])
    store = output.parent / SEGMENTATION
    with claim(output, store, list_path(output)) as mine:
        record = TileRecord(
            stack=stack.name,
            ingest=stack.record.name,
            plan=build(PlanNumbers, numbers_of(planned), f"{output}: plan"),
            out_of_fold=out_of_fold,
            classes=config.labels.classes,
            digest=key,
            tiles=planned.tile_count(range(planned.shard_count)),
            files=_create_store(store, output, stack, config, planned, key, mine.check),
            provenance=provenance(sections_of(config, "tile"), [stack.record]),
        )
        mine.write(record)
    return text


def plan_stack(stack: Stack, network: Architecture, config: Config, regions: int) -> Plan:
    """Return the plan of a stack for a network; sections store and tile are used."""
    grid, geometry, tile_px = stack.grid, geometry_of(network), config.tile.tile_px
    if network.dimensions == 2:
        _, shard = ngff.clipped_edges(grid.height, grid.width, config.store)
        tile_px = automatic_px(network, geometry) if tile_px == "auto" else tile_px
        return plan(grid.shape, geometry, tile_px, shard, regions)
    Voxel.of(stack.name, grid)  # refuses what is no volume
    along_z = geometry_z(network)
    planes, tile_px = automatic_volume(network, tile_px, config.tile.tile_planes, grid.planes)
    along_z.check_keep(planes, "tile.tile_planes")
    _, shard = ngff.clipped_edges(grid.height, grid.width, ngff.volume_store(config.store))
    deep = min(max(1, SHARD_PLANES // planes) * planes, along_z.round_up(grid.planes))
    return plan(grid.shape, geometry, tile_px, shard, regions, AlongZ(along_z, planes, max(deep, along_z.stride)))


def numbers_of(planned: Plan) -> dict[str, Any]:
    """Return a plan as plain values; that of single planes says nothing of z, as ever."""
    facts = asdict(planned)
    if planned.along_z == AlongZ():
        del facts["along_z"]
    return facts


def _create_store(
    store: Path, output: Path, stack: Stack, config: Config, planned: Plan, key: str, check: Check
) -> Files:
    """Make the empty store; one that already belongs to this plan keeps its shards, and its metadata are mended."""
    channels, dtype = len(config.labels.classes), np.dtype(config.predict.probabilities)
    with replacing(store, check) as partial:
        volume = None if planned.along_z == AlongZ() else (ngff.volume_store(config.store), planned.along_z.shard)
        ngff.create_image(partial, stack.name, stack.grid, channels, dtype, config.store, LABELS, volume)
        ngff.show_channels(partial, class_channels(config.labels.classes, dtype))
        ngff.show_values(partial, CLASSES, class_values(config.labels.classes))
        ngff.mark(partial, key)
        fresh = {store / file.relative_to(partial): file for file in files_below(partial)}
        linked = any(link_on_way(place.parent, store) for place in fresh)  # shards would be written where it leads
        if not linked and _listed(output) == {place: sha256_file(file) for place, file in fresh.items()}:
            for place, file in fresh.items():
                _mend(place, file.read_bytes(), check)
            shutil.rmtree(partial)
    return write_list(output, sorted(fresh), check=check)


def _listed(output: Path) -> dict[Path, str] | None:
    """Return the metadata files of the store with their SHA-256; None without a readable list of them."""
    try:
        return parse_list(output)
    except PipelineError:
        return None


def _mend(place: Path, content: bytes, check: Check) -> None:
    sweep(place)
    if not place.is_file() or place.read_bytes() != content:
        with atomic_path(place, check) as partial:
            partial.write_bytes(content)


def describe(stack: Stack, planned: Plan, config: Config) -> str:
    """Return the plan in words and numbers: tiles, read amplification, bytes, files."""
    planes, height, width = planned.shape
    tiles = planned.tile_count(range(planned.shard_count))
    pixels = planes * height * width
    read, kept = tiles * prod(planned.read), tiles * prod(planned.keeps)
    stored = len(config.labels.classes) * np.dtype(config.predict.probabilities).itemsize + 1 + 4
    geometry, along_z, deep = planned.geometry, planned.along_z.geometry, planned.along_z != AlongZ()
    keep, read_px, shard = (_times(sizes, deep) for sizes in (planned.keeps, planned.read, planned.shards))
    margins = [
        f"network    stride {geometry.stride} px, reads {geometry.before} px before, {geometry.after} px after a tile"
    ]
    if deep:
        margins.append(
            f"           along z stride {along_z.stride}, reads {along_z.before} planes before, {along_z.after} after"
        )
    mirrored = f", of {planes} there are; the rest is mirrored" if deep and planned.read[0] > planes else ""
    lines = [
        f"stack      {stack.name}: {planes} plane(s) of {height} x {width} px, {stack.channels} channel(s)",
        *margins,
        f"tiles      {tiles}, each keeps {keep} px of {read_px} px read{mirrored}",
        f"cost       reads {read / pixels:.2f} px and computes {kept / pixels:.2f} px per image px",
        f"shards     {planned.shard_count} of {shard} px or less, in {planned.regions} region(s)",
        f"volume     {pixels * stored / 1e6:,.1f} MB before compression (probabilities, classes, instances)",
    ]
    return "\n".join(lines)


def _times(sizes: tuple[int, int, int], deep: bool) -> str:
    """Return "planes x height x width", of single planes without the first."""
    return " x ".join(map(str, sizes if deep else sizes[1:]))
