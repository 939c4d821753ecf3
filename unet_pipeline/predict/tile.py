"""Tile: the plan of a stack on disk, and the empty OME-Zarr store that prediction jobs fill.

One rule creates all metadata before any job writes a shard, so jobs never touch metadata. The store is kept when it
already belongs to the same plan: repeating this step loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_pipeline import __version__
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.display import class_channels, class_values
from unet_pipeline.model.card import ModelCard, architecture
from unet_pipeline.model.card import geometry as geometry_of
from unet_pipeline.predict.plan import Plan, plan
from unet_pipeline.predict.tile_size import automatic_px
from unet_pipeline.records.checksums import files_below, parse_list, write_list
from unet_pipeline.records.claim import claim, replacing, sweep
from unet_pipeline.records.fields import Files
from unet_pipeline.records.files import Check, atomic_path, digest, link_on_way, sha256_file
from unet_pipeline.records.layout import CLASSES, INSTANCES, SEGMENTATION, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.volume_records import PlanNumbers, TileRecord
from unet_pipeline.stacks.stack import Stack

LABELS: Mapping[str, npt.DTypeLike] = {CLASSES: np.uint8, INSTANCES: np.uint32}


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
    grid, classes = stack.grid, len(config.labels.classes)
    network = card.architecture if card else architecture(config.model, stack.channels, classes)
    geometry = geometry_of(network)
    _, shard = ngff.clipped_edges(grid.height, grid.width, config.store)
    tile_px = automatic_px(network, geometry) if config.tile.tile_px == "auto" else config.tile.tile_px
    planned = plan(grid.shape, geometry, tile_px, shard, regions)
    text = describe(stack, planned, config)
    if dry_run:
        return text
    facts = asdict(planned) | {"classes": list(config.labels.classes)}
    facts |= {"out_of_fold": True} if out_of_fold else {}
    seen = [stack.ingested.image_id, __version__]  # shards of another image, or of other code, are never kept
    key = digest([facts, asdict(config.store), config.predict.probabilities, asdict(grid), stack.name, *seen])
    store = output.parent / SEGMENTATION
    with claim(output, store, list_path(output)) as mine:
        record = TileRecord(
            stack=stack.name,
            ingest=stack.record.name,
            plan=build(PlanNumbers, asdict(planned), f"{output}: plan"),
            out_of_fold=out_of_fold,
            classes=config.labels.classes,
            digest=key,
            tiles=planned.tile_count(range(planned.shard_count)),
            files=_create_store(store, output, stack, config, key, mine.check),
            provenance=provenance(sections_of(config, "tile"), [stack.record]),
        )
        mine.write(record)
    return text


def _create_store(store: Path, output: Path, stack: Stack, config: Config, key: str, check: Check) -> Files:
    """Make the empty store; one that already belongs to this plan keeps its shards, and its metadata are mended."""
    channels, dtype = len(config.labels.classes), np.dtype(config.predict.probabilities)
    with replacing(store, check) as partial:
        ngff.create_image(partial, stack.name, stack.grid, channels, dtype, config.store, LABELS)
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
    read = tiles * planned.read[0] * planned.read[1]
    kept = planned.keep[0] * planned.keep[1] * tiles
    stored = len(config.labels.classes) * np.dtype(config.predict.probabilities).itemsize + 1 + 4
    geometry, keep, read_px, shard = planned.geometry, planned.keep, planned.read, planned.shard
    lines = [
        f"stack      {stack.name}: {planes} plane(s) of {height} x {width} px, {stack.channels} channel(s)",
        f"network    stride {geometry.stride} px, reads {geometry.before} px before, {geometry.after} px after a tile",
        f"tiles      {tiles}, each keeps {keep[0]} x {keep[1]} px of {read_px[0]} x {read_px[1]} px read",
        f"cost       reads {read / pixels:.2f} px and computes {kept / pixels:.2f} px per image px",
        f"shards     {planned.shard_count} of {shard[0]} x {shard[1]} px or less, in {planned.regions} region(s)",
        f"volume     {pixels * stored / 1e6:,.1f} MB before compression (probabilities, classes, instances)",
    ]
    return "\n".join(lines)
