"""Tile: the plan of a stack on disk, and the empty OME-Zarr store that prediction jobs fill.

One rule creates all metadata before any job writes a shard, so jobs never touch metadata. The store is kept when it
already belongs to the same plan: repeating this step loses nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import Config, Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import PlaneArray, Repair, open_array
from unet_pipeline.model.card import ModelCard, architecture
from unet_pipeline.model.card import geometry as geometry_of
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.predict.plan import PLANNED_PX, Plan, plan
from unet_pipeline.records.checksums import files_below, list_path, parse_list, write_list
from unet_pipeline.records.claim import claim, replacing, sweep
from unet_pipeline.records.files import Check, atomic_path, sha256_file, unclaimed
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import again, digest
from unet_pipeline.records.record_shapes import open_record
from unet_pipeline.stacks.stack import CLASSES, INSTANCES, Stack

SEGMENTATION = "segmentation.ome.zarr"
LABELS: Mapping[str, npt.DTypeLike] = {CLASSES: np.uint8, INSTANCES: np.uint32}


@dataclass(frozen=True)
class StackPlan:
    """The plan of one stack, as `tiles.json` says it.

    Attributes:
        record: path of `tiles.json`.
        stack: the stack it belongs to.
        plan: regions, shards and tiles.
        classes: class names; the channels of the probabilities.
        digest: names the plan; every region record repeats it.
        auto: whether each job chooses its tile size (see `tile_size`); the plan's is then only a first guess.
        out_of_fold: whether each plane is predicted by the member of a cross-validation that has not seen it.
    """

    record: Path
    stack: Stack
    plan: Plan
    classes: tuple[str, ...]
    digest: str
    auto: bool = False
    out_of_fold: bool = False

    @classmethod
    def open(cls, record: Path) -> StackPlan:
        """Open a plan by the record that `tile` wrote.

        Raises:
            PipelineError: if the record is missing or is not one of tile's.
        """
        facts = open_record(record, "tile")
        stack, stored = Stack.open(record.parent / facts["ingest"]), facts["plan"]
        shape, keep, shard = (tuple(stored[name]) for name in ("shape", "keep", "shard"))
        if shape != stack.grid.shape:
            expected = f"a plan of {stack.grid.shape} planes, rows and columns, as {stack.record} has"
            raise PipelineError(record, expected, shape, fix=again(record))
        geometry = Geometry(**{field.name: stored["geometry"][field.name] for field in fields(Geometry)})
        planned = Plan(shape, geometry, keep, shard, stored["regions"])
        return cls(
            record, stack, planned, tuple(facts["classes"]), facts["digest"], facts["auto"], facts["out_of_fold"]
        )

    @property
    def store(self) -> Path:
        """The store the prediction jobs fill."""
        return self.record.parent / SEGMENTATION

    def work(self, card: ModelCard, options: Predict) -> str:
        """Name what a region is made from: plan, model and the section `predict`; `stitch` accepts no other."""
        return digest([self.digest, card.weights_sha256, asdict(options)])

    def region_record(self, region: int) -> Path:
        """Return the place of a region's record."""
        return self.record.parent / "regions" / f"{region}.json"

    def owner(self, file: Path) -> Path | None:
        """Return the record of the step that makes a file of the store; None for a file that none makes alone."""
        if file.name == "zarr.json":
            return self.record
        arrays = self.probabilities(), self.labels(CLASSES)
        for number in range(self.plan.shard_count):
            shard = self.plan.shard_at(number)
            place = shard.plane, shard.rows.start, shard.columns.start
            if file in [array.shard_file(*place) for array in arrays]:
                return self.region_record(self.plan.region_of(number))
        return None

    def probabilities(self, writable: bool = False, check: Check = unclaimed) -> PlaneArray:
        """Open the probabilities at full size, one channel per class."""
        return self._open("0", writable, check, self._repair_region)

    def labels(self, name: str, writable: bool = False, check: Check = unclaimed) -> PlaneArray:
        """Open "classes" (uint8) or "instances" (uint32) at full size."""
        repair = self._repair_region if name == CLASSES else self._repair_stitch
        return self._open(f"labels/{name}/0", writable, check, repair)

    def _open(self, name: str, writable: bool, check: Check, repair: Repair) -> PlaneArray:
        if not ngff.belongs(self.store, self.digest):
            raise PipelineError(self.store, f"the store of {self.record}", "another or none", fix=again(self.record))
        return open_array(self.store, name, writable, check, repair, again(self.record))

    def _repair_region(self, plane: int, row: int, column: int) -> str:
        return again(self.region_record(self.plan.region_of(self.plan.shard_number(plane, row, column))))

    def _repair_stitch(self, plane: int, row: int, column: int) -> str:
        return again(self.record.with_name("stitch.json"))


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
    geometry = card.geometry if card else geometry_of(architecture(config.model, stack.channels, classes))
    _, shard = ngff.clipped_edges(grid.height, grid.width, config.store)
    tile_px = config.tile.tile_px
    planned = plan(grid.shape, geometry, PLANNED_PX if tile_px == "auto" else tile_px, shard, regions)
    text = describe(stack, planned, config)
    if dry_run:
        return text
    facts = asdict(planned) | {"classes": list(config.labels.classes)}
    facts |= {"out_of_fold": True} if out_of_fold else {}
    key = digest([facts, asdict(config.store), config.predict.probabilities, asdict(grid), stack.name])
    sections = config.section("labels", "store", "model", "tile", "predict")
    record = {
        "stack": stack.name,
        "ingest": stack.record.name,
        "plan": asdict(planned),
        "auto": tile_px == "auto",
        "out_of_fold": out_of_fold,
        "classes": list(config.labels.classes),
        "digest": key,
        "tiles": planned.tile_count(range(planned.shard_count)),
        "provenance": provenance(sections, [stack.record]),
    }
    store = output.parent / SEGMENTATION
    with claim(output, store, list_path(output)) as mine:
        files = _create_store(store, output, stack, config, key, mine.check)
        mine.write({**record, "files": files})
    return text


def _create_store(store: Path, output: Path, stack: Stack, config: Config, key: str, check: Check) -> dict[str, Any]:
    """Make the empty store; one that already belongs to this plan keeps its shards, and its metadata are mended."""
    channels, dtype = len(config.labels.classes), np.dtype(config.predict.probabilities)
    with replacing(store, check) as partial:
        ngff.create_image(partial, stack.name, stack.grid, channels, dtype, config.store, LABELS)
        ngff.mark(partial, key)
        fresh = {store / file.relative_to(partial): file for file in files_below(partial)}
        if _listed(output) == {place: sha256_file(file) for place, file in fresh.items()}:
            for place, file in fresh.items():
                _mend(place, file.read_bytes(), check)
            shutil.rmtree(partial)
    return write_list(output, sorted(fresh), check=check)


def _listed(output: Path) -> dict[Path, str] | None:
    """Return the metadata files of the store that is there, None where it cannot be known."""
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
    free = "; a job may take another size (tile.tile_px: auto)" if config.tile.tile_px == "auto" else ""
    lines = [
        f"stack      {stack.name}: {planes} plane(s) of {height} x {width} px, {stack.channels} channel(s)",
        f"network    stride {geometry.stride} px, reads {geometry.before} px before, {geometry.after} px after a tile",
        f"tiles      {tiles}, each keeps {keep[0]} x {keep[1]} px of {read_px[0]} x {read_px[1]} px read{free}",
        f"cost       reads {read / pixels:.2f} px and computes {kept / pixels:.2f} px per image px",
        f"shards     {planned.shard_count} of {shard[0]} x {shard[1]} px or less, in {planned.regions} region(s)",
        f"volume     {pixels * stored / 1e6:,.1f} MB before compression (probabilities, classes, instances)",
    ]
    return "\n".join(lines)
