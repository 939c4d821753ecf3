"""Measure: the objects of a stitched stack as a table, read block by block and joined where they cross blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.hulls import Extents
from unet_pipeline.objects.measures import HALO_PX, Block, fields
from unet_pipeline.objects.outlines import Edges
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim, remove
from unet_pipeline.records.files import Check, partial_name
from unet_pipeline.records.layout import CLASSES, INSTANCES, OBJECT_FILES, list_path
from unet_pipeline.records.measure_record import MeasureRecord, SizeBin
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.tables import MOST_ROWS, csv_table, parquet_table, pyarrow
from unet_pipeline.records.volume_records import StitchRecord
from unet_pipeline.stitch.across import Across
from unet_pipeline.stitch.geojson import features, geojson_file
from unet_pipeline.stitch.layers import Layer
from unet_pipeline.stitch.object_columns import IN_A_PLANE, Columns
from unet_pipeline.stitch.sums import Sums
from unet_pipeline.stitch.watershed import block_edges

Put = Callable[[Any], None]
"""Function that takes a feature of GeoJSON."""

WRITERS = {"parquet": parquet_table, "csv": csv_table}

EDGES_PX = np.unique(np.ceil(2 ** (np.arange(126) / 2)).astype(np.int64))
"""Least sizes of the bins of `MeasureRecord.sizes`, px: each √2 times the one before."""


def measure(stitched: Path, config: Config, output: Path) -> MeasureRecord:
    """Write the objects of a stack as tables, in the formats of `measure.formats`, and `measure.json`.

    Args:
        stitched: `stitch.json` of the stack.
        config: section measure is used.
        output: `results/{stack}/measure.json`; the tables lie beside it.

    Returns:
        The record as it was written.

    Raises:
        PipelineError: not a record of stitch, a volume or an image that is not what its record vouches for, no pyarrow
            for a Parquet file, or no room on the disk.
    """
    volume = open_record(stitched, StitchRecord)
    options, plan = config.measure, StackPlan.of_stitched(stitched, volume)
    files: dict[str, Path] = {
        name: output.with_name(file) for name, file in OBJECT_FILES.items() if name in options.formats
    }
    if "parquet" in files:
        pyarrow(files["parquet"])  # before the work, not after it
    with claim(output, *files.values(), list_path(output)) as mine:
        mine.check()
        for file in set(OBJECT_FILES.values()) - {file.name for file in files.values()}:
            remove(output.with_name(file))  # that of a run which wanted it: nothing would vouch for it
        _say_what_is_left_out(plan.stack.name, volume, options.measures)
        source = Source.of(plan, volume, tuple(options.measures))
        path = output.with_name(partial_name(output))
        try:
            with ExitStack() as opened:
                geojson = files.get("geojson")
                put = opened.enter_context(geojson_file(geojson, mine.check)) if geojson else None
                sums = source.summed(path, volume.objects, mine.check, put=put)
            sizes, touching = _written(sums, source.columns, files, mine.check)
        finally:
            remove(path)
        record = MeasureRecord(
            stack=plan.stack.name,
            stitch=stitched.name,
            connect=volume.connect,
            objects=volume.objects,
            touching=touching,
            sizes=sizes,
            columns=tuple(source.columns.kinds(sums.none)),
            tables=tuple(file.name for file in files.values()),
            files=write_list(output, list(files.values()), check=mine.check),
            provenance=provenance(sections_of(config, "measure"), [stitched]),
        )
        mine.write(record)
    return record


def _say_what_is_left_out(name: str, volume: StitchRecord, measures: tuple[str, ...]) -> None:
    if not volume.objects:
        tell(f"measure {name}: no object was found, so the table has its columns and no row")
    flat = [one for one in IN_A_PLANE if one in measures]
    if volume.connect == "volume" and flat:
        tell(f"measure {name}: {', '.join(flat)} are measures of planes, left out of objects of a volume")


@dataclass(frozen=True)
class Source:
    """What objects are measured on.

    Attributes:
        name: of the stack, for the progress.
        instances: ids of the objects, uint32.
        classes: class indices, uint8.
        probabilities: as stored, a channel for each class.
        image: the grey values.
        stored: their type.
        columns: what is wanted.
        growth_px: by how much objects grew: pixels of one may lie so far from its others.
    """

    name: str
    instances: Layer
    classes: Layer
    probabilities: Layer
    image: Planes
    stored: np.dtype[Any]
    columns: Columns
    growth_px: int

    @classmethod
    def of(cls, plan: StackPlan, volume: StitchRecord, measures: tuple[str, ...]) -> Source:
        """Open a stitched stack."""
        stack, probabilities = plan.stack, plan.probabilities()
        shifts = tuple(float(round(mean)) for mean in stack.ingested.statistics.mean)
        certain, deep = 255.0 if probabilities.dtype == np.uint8 else 1.0, volume.connect == "volume"
        columns = Columns(measures, stack.grid, deep, plan.classes[1:], shifts, certain)
        labels = plan.labels(INSTANCES), plan.labels(CLASSES)
        return cls(stack.name, *labels, probabilities, stack.image, stack.dtype, columns, volume.made.grow_px)

    def wants(self, *measures: str) -> bool:
        """Return whether any of some measures is asked for."""
        return any(name in self.columns.measures for name in measures)

    @property
    def kind(self) -> np.dtype[Any]:
        """Type of the sums of an object: only what is asked for has room."""
        grey = self.wants("intensity_mean", "intensity_min", "intensity_max", "intensity_std")
        exact = self.stored.kind in "ui" and self.stored.itemsize <= 2
        classes = len(self.columns.classes) if self.wants("probability") or len(self.columns.classes) > 1 else 0
        return fields(classes, len(self.columns.shifts) if grey else 0, exact)

    def summed(self, path: Path, count: int, check: Check, block_px: int | None = None, put: Put | None = None) -> Sums:
        """Return the sums of all objects.

        Args:
            path: file to keep them in.
            count: number of objects.
            check: called before each block.
            block_px: edge of a block, px; None takes that of stitch. The result does not depend on it.
            put: called with the outline of each object as a feature of GeoJSON; None asks for none.
        """
        sums = Sums(path, count, self.kind)
        shards = list(self.instances.shards()) if count else []
        height, width = (block_px, block_px) if block_px else block_edges(self.instances)
        hulls, outlines = self._across(sums, put)
        with Progress(len(shards), f"measure {self.name}") as progress:
            for _, band in groupby(shards, key=lambda shard: (shard.plane, shard.rows.start)):
                for shard in band:
                    for inner in shard.divided(height, width):
                        check()
                        block = self._measured(inner, HALO_PX if put or self.wants("perimeter") else 0)
                        sums.add(block.ids, block.part)
                        corner = inner.rows.start, inner.columns.start
                        if self.wants("solidity") and not self.columns.deep:
                            hulls.add(Extents.of(block.ids, block.inner, corner), block, inner)
                        if put:
                            outlines.add(Edges.of(block.ids, block.local, HALO_PX, corner), block, inner)
                    progress.advance()
                for across in (hulls, outlines):  # an outline comes with its measures
                    across.settle(shard.plane, shard.rows.stop)
        return sums

    def _across(self, sums: Sums, put: Put | None) -> tuple[Across[Extents], Across[Edges]]:
        """Return what collects hulls, and what collects outlines."""

        def set_hulls(whole: Extents, plane: int) -> None:
            sums.set_hulls(*whole.areas)

        def put_outlines(whole: Edges, plane: int) -> None:
            for feature in features(whole, plane, sums, self.columns) if put else ():
                put(feature)  # type: ignore[misc]

        common = sums, self.instances.shape[2:], self.growth_px + 1
        return Across(Extents.merged, set_hulls, *common), Across(Edges.merged, put_outlines, *common)

    def _measured(self, inner: Box, halo_px: int) -> Block:
        """Return the measures of a block that are asked for."""
        outer = inner.grown(halo_px, self.instances.shape[2:])
        block = Block(self.instances.read_label(*outer.at), outer, inner, self.kind)
        if not len(block.ids):
            return block
        if self.wants("perimeter"):
            block.add_rims()
        if len(self.columns.classes) > 1:
            block.add_classes(self.classes.read_label(*inner.at))
        if self.wants("probability"):
            for index, values in enumerate(self.probabilities.read(*inner.at)[1:]):
                block.add_probability(index, values)
        if self.kind["grey"].shape[0]:
            for channel, values in enumerate(self.image.read(*inner.at)):
                block.add_grey(channel, values, self.columns.shifts[channel])
        return block


def _written(sums: Sums, columns: Columns, files: dict[str, Path], check: Check) -> tuple[tuple[SizeBin, ...], int]:
    """Write the tables; return how many objects there are of each size, and how many reach the border."""
    counts, touching = np.zeros(len(EDGES_PX), np.int64), 0
    kinds = columns.kinds(sums.none)
    with ExitStack() as opened:
        wanted = [(WRITERS[name], path) for name, path in files.items() if name in WRITERS]
        writers = [opened.enter_context(table(path, kinds, check)) for table, path in wanted]
        for first, part in _parts(sums):
            rows = columns.rows(np.arange(first, first + len(part)), part)
            for write in writers:
                write(rows)
            counts += np.bincount(np.searchsorted(EDGES_PX, part["area"], "right") - 1, minlength=len(EDGES_PX))
            touching += int(columns.touches_border(part).sum())
    there = np.flatnonzero(counts)
    bins = range(there[0], there[-1] + 1) if len(there) else range(0)
    return tuple(SizeBin(int(EDGES_PX[index]), int(counts[index])) for index in bins), touching


def _parts(sums: Sums) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first id and the sums of some objects after the other."""
    for start in range(0, sums.count, MOST_ROWS):
        yield start + 1, sums.part(start, min(start + MOST_ROWS, sums.count))
