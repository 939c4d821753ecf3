"""Weigh: training targets and the paper's boundary weight of a labelled stack, block by block.

The store holds the target, in which a gap parts touching objects, and the boundary term of the weight map. The class
weights w_c of the formula depend on the whole training set, so training adds them: a new training stack then costs
only its own boundary term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
from unet_pipeline.objects.box import Box, Window
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim, replacing
from unet_pipeline.records.files import Check, digest
from unet_pipeline.records.layout import CLASSES, INSTANCES, WEIGHTS, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.stack_records import WeighRecord
from unet_pipeline.stacks.boundary_settings import BoundarySettings, boundary_settings
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weight_map import boundary_term, halo_px, open_gaps, vanished_ids

MANY = 2**18
"""Number of ids that may be gathered before they are sorted and each is kept once."""

BLOCK_PX = 1024
"""Edge of a block of work, px: keeps working memory flat whatever the shard."""


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
    halo = halo_px(options.w0, settings.sigma_px, options.formula, settings.gap_px)
    store = output.parent / WEIGHTS
    with claim(output, store, list_path(output)) as mine:
        with replacing(store, mine.check) as half_made:
            tally = _fill(half_made, stack, config, settings, Blocks(block_px, halo, threads), mine.check)
            found = {
                "stack": stack.name,
                "ingest": stack.record.name,
                "ingest_id": stack.ingested.id,
                **tally.as_record(config.labels.classes),
                **asdict(settings),
            }
            ngff.mark(half_made, digest(found))
        made_by = provenance(sections_of(config, "weigh"), [stack.record])
        files = write_list(output, [store], check=mine.check)
        last = {"id": digest(found), "files": asdict(files), "provenance": asdict(made_by)}
        record = build(WeighRecord, found | last, str(output))
        mine.write(record)
    return record


@dataclass(frozen=True)
class Blocks:
    """The division of a shard: blocks of `edge_px` with a halo of `halo_px`, `threads` of them at a time."""

    edge_px: int
    halo_px: int
    threads: int


def _fill(store: Path, stack: Stack, config: Config, settings: BoundarySettings, blocks: Blocks, check: Check) -> Tally:
    """Write targets and boundary terms shard by shard, and count."""
    targets, boundaries = _create(store, stack.grid, config, check)
    reference_classes, reference_instances = stack.reference(CLASSES), stack.reference(INSTANCES)
    tally, gap_px, sigma_px = Tally(), settings.gap_px, settings.sigma_px
    shards = list(targets.shards())

    def work(block: HaloBlock) -> BlockResult:
        ids = reference_instances.read_label(*block.outer.at)
        classes = reference_classes.read_label(*block.inner.at)
        parted = open_gaps(ids, gap_px)
        target, term = _block(parted, classes, block.local, config.weigh, sigma_px)
        before, after = present(ids[block.local]), present(parted[block.local])
        return BlockResult(block.place, target, term, before, after, np.bincount(target.ravel(), minlength=256))

    def write(shard: Box, target: npt.NDArray[Any], term: npt.NDArray[Any]) -> None:
        targets.write(*shard.at, target)
        boundaries.write(*shard.at, term)
        progress.advance()

    with Progress(len(shards), f"weigh {stack.name}") as progress:
        with behind(write) as write_soon:
            for shard in shards:
                target, term = np.empty(shard.size, np.uint8), np.empty(shard.size, np.float32)
                parts = halo_blocks(shard, blocks.edge_px, blocks.halo_px, targets.shape[2:])
                for found in ahead(work, parts, blocks.threads):
                    target[found.place], term[found.place] = found.target, found.term
                    tally.add(shard.plane, found)
                write_soon(shard, target, term)
        if vanished := tally.vanished():
            progress.say(f"{vanished} object(s) are so thin that the gap of {gap_px} px leaves nothing of them")
    return tally


class BlockResult(NamedTuple):
    """Target and boundary term of a block, its place in the shard, its ids before and after gaps, px per class."""

    place: Window
    target: npt.NDArray[np.uint8]
    term: npt.NDArray[np.float32]
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]


def present(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values (n,) of ids (y, x), ascending; from the ends of runs, as sorting all pixels takes longer."""
    ends = ids[:, 1:][ids[:, 1:] != ids[:, :-1]]
    return np.unique(np.concatenate([ids[:, 0], ends]))


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
        """Take in a block; planes come one after the other."""
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
        """Return how many objects of a plane have no pixel left."""
        self._close(-1)
        return self._gone

    def _close(self, plane: int) -> None:
        self._gone += len(vanished_ids(self._before.all(), self._after.all()))
        self._plane, self._before, self._after = plane, Gathered(), Gathered()


def _create(store: Path, grid: ngff.Grid, config: Config, check: Check) -> tuple[PlaneArray, PlaneArray]:
    group = zarr.create_group(store, zarr_format=3, attributes={"weigh": asdict(config.weigh)})
    ngff.create_array(group, "target", grid, None, np.uint8, config.store)
    ngff.create_array(group, "boundary", grid, None, np.float32, config.store)
    return open_array(store, "target", True, check), open_array(store, "boundary", True, check)


def _block(
    parted: npt.NDArray[Any], classes: npt.NDArray[Any], local: Window, options: Weigh, sigma_px: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return target and boundary term of a block.

    Args:
        parted: instance ids of the block and its halo, gaps opened.
        classes: class indices of the block alone.
        local: where the block lies in `parted`.
        options: the section `weigh`.
        sigma_px: sigma in px.
    """
    term = boundary_term(parted, options.w0, sigma_px, options.formula)[local]
    target = np.where((parted[local] == 0) & (classes != IGNORE), 0, classes).astype(np.uint8)
    return target, term
