"""Weigh: training targets and the paper's boundary weight of a labelled stack, block by block.

The store holds the target, in which a gap parts touching objects, and the boundary term of the weight map. The class
weights w_c of the formula depend on the whole training set, so training adds them: a new training stack then costs
only its own boundary term.

With `weigh.across_planes` the distances run through the volume: a block then reads planes over and under its own too.
Where nobody annotated, no object is known: planes without annotation add nothing to the term of others, and have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import IGNORE, Config, Weigh
from unet_pipeline.images import ngff
from unet_pipeline.images.halo_blocks import HaloBlock, halo_blocks
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.machine.parallel import ahead, behind
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.objects.box import Box, Slices
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim, replacing
from unet_pipeline.records.files import Check, digest
from unet_pipeline.records.layout import CLASSES, INSTANCES, WEIGHTS, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.stack_records import WeighRecord
from unet_pipeline.stacks.boundary_settings import BoundarySettings, boundary_settings
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weight_map import (
    boundary_term,
    halo_planes,
    halo_px,
    open_gaps,
    open_volume_gaps,
    vanished_ids,
    volume_boundary_term,
)

MANY = 2**18
"""Number of ids that may be gathered before they are sorted and each is kept once."""

BLOCK_PX = 1024
"""Edge of a block of work, px: keeps working memory flat whatever the shard."""
VOLUME_BLOCK_PX = 256
"""The same where distances run across planes: with its halo a block takes about 0.3 GB then."""
VOLUME_SHARD_PLANES = 64
"""Planes of a shard where distances run across planes: most of what a block reads is its own."""


def weigh(stack: Stack, config: Config, output: Path, threads: int = 1, block_px: int = BLOCK_PX) -> WeighRecord:
    """Write `weights.zarr` (arrays `target` uint8 and `boundary` float32, both (planes, y, x)) and `weigh.json`.

    Args:
        stack: a labelled, ingested stack.
        config: sections labels, store and weigh are used.
        output: `results/{stack}/weigh.json`; the store lies beside it.
        threads: blocks worked on at a time; the result does not depend on it.
        block_px: edge of a block, px; the result does not depend on it.

    Returns:
        The record as it was written.
    """
    options, settings = config.weigh, boundary_settings(stack, config.weigh, config.labels)
    if settings.why:
        tell(f"weigh {stack.name}: {settings.why}")
    blocks = Blocks.of(options, settings, threads, block_px)
    store = output.parent / WEIGHTS
    with claim(output, store, list_path(output)) as mine:
        with replacing(store, mine.check) as half_made:
            tally = _fill(half_made, stack, config, settings, blocks, mine.check)
            found = {
                "stack": stack.name,
                "ingest": stack.record.name,
                "ingest_id": stack.ingested.id,
                **tally.as_record(config.labels.classes),
                **{name: value for name, value in asdict(settings).items() if value is not None},
            }
            ngff.mark(half_made, digest(found))
        made_by = provenance(sections_of(config, "weigh"), [stack.record])
        files = write_list(output, [store], check=mine.check)
        last = {"id": digest(found), "files": asdict(files), "provenance": asdict(made_by)}
        # the step is not part of the id where there is none: planes keep the ids they had
        record = build(WeighRecord, found | last | {"step_px": settings.step_px}, str(output))
        mine.write(record)
    return record


@dataclass(frozen=True)
class Blocks:
    """The division of a shard: blocks of `edge_px` with a halo of px and planes, `threads` of them at a time."""

    edge_px: int
    halo_px: int
    halo_planes: int
    threads: int

    @classmethod
    def of(cls, options: Weigh, settings: BoundarySettings, threads: int, edge_px: int) -> Blocks:
        """Return blocks with the halo that the weight map needs."""
        sigma_px, gap_px, step_px = settings.sigma_px, settings.gap_px, settings.step_px
        halo = halo_px(options.w0, sigma_px, options.formula, gap_px)
        if step_px is None:
            return cls(edge_px, halo, 0, threads)
        planes = halo_planes(step_px, options.w0, sigma_px, options.formula, gap_px)
        return cls(min(edge_px, VOLUME_BLOCK_PX), halo, planes, threads)

    def divide(self, shard: Box, shape: tuple[int, int, int]) -> Iterator[HaloBlock]:
        """Yield the blocks of a shard of an array (planes, height, width)."""
        low, high = shard.planes.start - self.halo_planes, shard.planes.stop + self.halo_planes
        planes = slice(max(0, low), min(high, shape[0]))
        return halo_blocks(shard, self.edge_px, self.halo_px, shape[1:], planes)


def _fill(store: Path, stack: Stack, config: Config, settings: BoundarySettings, blocks: Blocks, check: Check) -> Tally:
    """Write targets and boundary terms shard by shard, and count."""
    volume = settings.step_px is not None
    targets, boundaries = _create(store, stack.grid, config, volume, check)
    reference_classes, reference_instances = stack.reference(CLASSES), stack.reference(INSTANCES)
    tally, gap_px, shards = Tally(), settings.gap_px, list(targets.shards())

    def work(block: HaloBlock, shard: Box) -> BlockResult:
        ids, local = _read(reference_instances, block.outer), block.inner.counted_from(block.outer).axes
        parted, target, term = _block(ids, _read(reference_classes, block.inner), local, config.weigh, settings)
        before, after = present(ids[local]), present(parted[local])
        place = block.inner.counted_from(shard).axes
        return BlockResult(place, target, term, before, after, np.bincount(target.ravel(), minlength=256))

    def write(shard: Box, target: npt.NDArray[Any], term: npt.NDArray[Any]) -> None:
        targets.write_box(shard, target[None])
        boundaries.write_box(shard, term[None])
        progress.advance()

    with Progress(len(shards), f"weigh {stack.name}") as progress:
        with behind(write) as write_soon:
            for shard in shards:
                target, term = np.empty(shard.shape, np.uint8), np.empty(shard.shape, np.float32)
                parts = blocks.divide(shard, stack.grid.shape)
                for found in ahead(partial(work, shard=shard), parts, blocks.threads):
                    target[found.place], term[found.place] = found.target, found.term
                    tally.add(0 if volume else shard.plane, found)
                write_soon(shard, target, term)
        if vanished := tally.vanished():
            progress.say(f"{vanished} object(s) are so thin that the gap of {gap_px} px leaves nothing of them")
    return tally


def _read(array: PlaneArray, box: Box) -> npt.NDArray[Any]:
    """Return labels (planes, rows, columns)."""
    planes = [array.read_label(*one.at) for one in box.planes_alone()]
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


class BlockResult(NamedTuple):
    """Target and boundary term of a block, its place in the shard, its ids before and after gaps, px per class."""

    place: Slices
    target: npt.NDArray[np.uint8]
    term: npt.NDArray[np.float32]
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]


def present(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values (n,) of ids (..., x), ascending; from the ends of runs, as sorting all pixels takes longer."""
    ends = ids[..., 1:][ids[..., 1:] != ids[..., :-1]]
    return np.unique(np.concatenate([ids[..., 0].ravel(), ends]))


@dataclass
class Gathered:
    """The different ids of many blocks, in little more memory than they take once."""

    _parts: list[npt.NDArray[Any]] = field(default_factory=list)
    _settled: int = 0

    def add(self, ids: npt.NDArray[Any]) -> None:
        """Take in ids (n,)."""
        self._parts.append(ids)
        if sum(map(len, self._parts)) > 2 * self._settled + MANY:
            self._settled = len(self.all())

    def all(self) -> npt.NDArray[Any]:
        """Return the ids (n,), ascending, each once."""
        self._parts = [np.unique(np.concatenate(self._parts))] if self._parts else []
        return self._parts[0] if self._parts else np.zeros(0, np.uint32)


@dataclass
class Tally:
    """Counts over all blocks.

    Attributes:
        counts: pixels per class of the target, (256,).
        largest: the largest boundary term.
    """

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    largest: float = 0.0
    _gone: int = 0
    _plane: int = -1
    _before: Gathered = field(default_factory=Gathered)
    _after: Gathered = field(default_factory=Gathered)

    def add(self, plane: int, found: BlockResult) -> None:
        """Take in a block; planes come one after the other. Those of a volume, whose ids go through, count as one."""
        if plane != self._plane:
            self._close(plane)
        self._before.add(found.before)
        self._after.add(found.after)
        self.counts += found.counts
        self.largest = max(self.largest, float(found.term.max()))

    def as_record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the counted part of the record; `names` are those of the classes."""
        return {
            "class_counts": dict(zip(names, self.counts[: len(names)].tolist(), strict=True)),
            "ignored": int(self.counts[IGNORE]),
            "largest_boundary_term": self.largest,
            "vanished_objects": self.vanished(),
        }

    def vanished(self) -> int:
        """Return how many objects of a plane, or of the volume, have no pixel left."""
        self._close(-1)
        return self._gone

    def _close(self, plane: int) -> None:
        self._gone += len(vanished_ids(self._before.all(), self._after.all()))
        self._plane, self._before, self._after = plane, Gathered(), Gathered()


def _create(store: Path, grid: ngff.Grid, config: Config, volume: bool, check: Check) -> tuple[PlaneArray, PlaneArray]:
    group = zarr.create_group(store, zarr_format=3, attributes={"weigh": asdict(config.weigh)})
    edges = ngff.volume_store(config.store) if volume else config.store
    planes = min(VOLUME_SHARD_PLANES, grid.planes) if volume else 1
    ngff.create_array(group, "target", grid, None, np.uint8, edges, planes)
    ngff.create_array(group, "boundary", grid, None, np.float32, edges, planes)
    return open_array(store, "target", True, check), open_array(store, "boundary", True, check)


def _block(
    ids: npt.NDArray[Any], classes: npt.NDArray[Any], local: Slices, options: Weigh, settings: BoundarySettings
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return the instances with gaps opened, and target and boundary term of a block.

    Args:
        ids: (z, y, x) instances of the block and its halo; one plane where distances do not run across planes.
        classes: (z, y, x) class indices of the block alone.
        local: where the block lies in `ids`.
        options: the section `weigh`.
        settings: sigma, gap and the distance of planes.
    """
    sigma_px, gap_px, step_px = settings.sigma_px, settings.gap_px, settings.step_px
    annotated = classes != IGNORE
    if step_px is None:
        parted = open_gaps(ids[0], gap_px)[None]
        term = boundary_term(parted[0], options.w0, sigma_px, options.formula)[local[1:]][None]
    elif annotated.any():
        parted = open_volume_gaps(ids, gap_px, step_px)
        term = volume_boundary_term(parted, step_px, options.w0, sigma_px, options.formula, wanted=local)
        term[~annotated] = 0
    else:  # most blocks of a volume of which a few planes are annotated
        parted, term = ids, np.zeros(classes.shape, np.float32)
    target = np.where((parted[local] == 0) & annotated, 0, classes).astype(np.uint8)
    return parted, target, term
