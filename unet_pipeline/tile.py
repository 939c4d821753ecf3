"""Tile: the plan of a stack on disk, and the empty OME-Zarr store that prediction jobs fill.

One rule creates all metadata before any job writes a shard, so jobs never touch metadata. The store is kept when it
already belongs to the same plan: repeating this step loses nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from unet_pipeline import ngff
from unet_pipeline.config import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.geometry import Geometry, unpadded
from unet_pipeline.modelcard import ModelCard
from unet_pipeline.record import digest, provenance, read_json, write_json
from unet_pipeline.stack import CLASSES, INSTANCES, Stack
from unet_pipeline.tiling import Plan, plan

SEGMENTATION = "segmentation.ome.zarr"


@dataclass(frozen=True)
class StackPlan:
    """The plan of one stack, as `tiles.json` says it.

    Attributes:
        record: path of `tiles.json`.
        stack: the stack it belongs to.
        plan: regions, shards and tiles.
        classes: class names; the channels of the probabilities.
        digest: names the plan; every region record repeats it.
    """

    record: Path
    stack: Stack
    plan: Plan
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def open(cls, record: Path) -> StackPlan:
        """Open a plan by the record that `tile` wrote.

        Raises:
            PipelineError: if the record is missing or is not one of tile's.
        """
        facts = read_json(record, fix="run tile for this stack")
        try:
            stack = Stack.open(record.parent / facts["ingest"])
            stored = facts["plan"]
            shape, keep, shard = (tuple(stored[name]) for name in ("shape", "keep", "shard"))
            planned = Plan(shape, Geometry(**stored["geometry"]), keep, shard, stored["regions"])
            return cls(record, stack, planned, tuple(facts["classes"]), facts["digest"])
        except (KeyError, TypeError, ValueError) as error:
            raise PipelineError(record, "a record of tile", error, fix="run tile again") from error

    @property
    def store(self) -> Path:
        """The store the prediction jobs fill."""
        return self.record.parent / SEGMENTATION

    def probabilities(self, writable: bool = False) -> ngff.PlaneArray:
        """Open the probabilities at full size, one channel per class."""
        return ngff.open_array(self.store, "0", writable)

    def labels(self, name: str, writable: bool = False) -> ngff.PlaneArray:
        """Open "classes" (uint8) or "instances" (uint32) at full size."""
        return ngff.open_array(self.store, f"labels/{name}/0", writable)


def tile(
    stack: Stack, config: Config, regions: int, output: Path, card: ModelCard | None = None, dry_run: bool = False
) -> str:
    """Plan a stack, create its segmentation store, and write `tiles.json`.

    Args:
        stack: an ingested stack.
        config: sections labels, store, model, tile and predict are used.
        regions: number of prediction jobs.
        output: `results/{stack}/tiles.json`; the store lies beside it.
        card: of a finished model; None takes the paper's network with model.depth.
        dry_run: only describe, write nothing.

    Returns:
        A description for people.

    Raises:
        PipelineError: a tile or shard size the network cannot take (names the nearest that it can), or a model for
            other channels or classes.
    """
    if card:
        card.check_image(stack.channels, f"stack {stack.name}")
        card.check_classes(config.labels.classes)
    grid, geometry = stack.grid, card.geometry if card else unpadded(config.model.depth)
    _, shard = ngff.clipped_edges(grid.height, grid.width, config.store)
    planned = plan(grid.shape, geometry, config.tile.tile_px, shard, regions)
    text = describe(stack, planned, config)
    if dry_run:
        return text
    facts = asdict(planned) | {"classes": list(config.labels.classes)}
    key = digest([facts, asdict(config.store), config.predict.probabilities, asdict(grid), stack.name])
    _create_store(output.parent / SEGMENTATION, grid, config, key)
    sections = config.section("labels", "store", "model", "tile", "predict")
    record = {
        "stack": stack.name,
        "ingest": stack.record.name,
        "plan": asdict(planned),
        "classes": list(config.labels.classes),
        "digest": key,
        "tiles": planned.tile_count(range(planned.shard_count)),
        "provenance": provenance(sections, [stack.record]),
    }
    write_json(output, record)
    return text


def _create_store(path: Path, grid: ngff.Grid, config: Config, key: str) -> None:
    if _belongs(path, key):
        return
    channels, dtype = len(config.labels.classes), np.dtype(config.predict.probabilities)
    labels = {CLASSES: np.uint8, INSTANCES: np.uint32}
    ngff.create_image(path, grid, channels, dtype, config.store, labels, {"unet_pipeline": {"plan": key}})


def _belongs(path: Path, key: str) -> bool:
    try:
        stored: Any = zarr.open_group(path, mode="r", zarr_format=3).attrs.get("unet_pipeline")
    except (OSError, ValueError, KeyError):
        return False
    return isinstance(stored, dict) and stored.get("plan") == key


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
