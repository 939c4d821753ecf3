"""Predict: the tiles of one region through the network, into whole shards, each written once.

```
reading threads    windows of shard i + 1 and later: read, mirrored, normalised
this thread        tiles of shard i through the network, probabilities into the shard's array
writing threads    shard i - 1 and before: compressed, written, checksum, journal
```
So the network waits for the first window and the last write only, if there are threads enough
(`compute.io_threads`). A region record says which shards were written, with
the checksum of each file; `stitch` trusts nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Compute, Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.parallel import ahead, behind, cores
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.copies import Arriving, Beside, mark
from unet_pipeline.model.device import explain_memory
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.empty_blocks import empty_pixels
from unet_pipeline.predict.forward import CPU, FULL, Forward, describe_compute
from unet_pipeline.predict.journal import Journal
from unet_pipeline.predict.plan import Plan, Tile
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile_size import check_memory
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import Check, digest, refuse_link, sync_folders
from unet_pipeline.records.layout import CARD_FILE, journal_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.volume_records import PredictRecord, ShardWritten

Array = npt.NDArray[Any]
STORED = {"uint8": torch.uint8, "float16": torch.float16, "float32": torch.float32}
"""Number formats of stored probabilities."""
MOST_IO = 4
"""Readers, and writers, of a GPU at most: more than these and the disk is what bounds it."""


def predict(
    stack_plan: StackPlan, region: int, model: Path, config: Config, output: Path, forward: Forward | None = None
) -> PredictRecord:
    """Predict one region and write its record.

    Args:
        stack_plan: the plan of the stack, with the store to fill.
        region: number of the region, from 0.
        model: model folder.
        config: sections predict and compute are used.
        output: `results/{stack}/regions/{region}.json`.
        forward: the model where it is loaded already; None loads it.

    Returns:
        The record: plan, region, shards (number and checksum of each file), tiles, those of them that were empty and
        skipped, device, provenance.
    """
    with explain_memory(*FULL):
        forward = forward or Forward.load(model, stack_plan.stack, config.predict, config.compute)
    _check_fit(stack_plan, forward, config)
    if forward.device.type == "cpu":
        check_memory(stack_plan.plan, forward.card.architecture)
    numbers, plan = stack_plan.plan.region(region), stack_plan.plan
    made_by = stack_plan.work(forward.card, config.predict)
    compute = describe_compute(forward, config.compute)
    refuse_link(output.parent)
    with claim(output, journal_path(output)) as mine:
        journal = Journal(mine, digest([made_by, region, asdict(compute)]))
        with explain_memory(*FULL):
            written = _predict_region(stack_plan, region, forward, config, journal, mine.check)
        record = PredictRecord(
            stack=stack_plan.stack.name,
            plan=stack_plan.digest,
            region=region,
            model=forward.card.weights_sha256,
            made_by=made_by,
            shards=written,
            tiles=plan.tile_count(numbers),
            tiles_skipped=sum(entry.tiles_skipped for entry in written),
            compute=compute,
            provenance=provenance(sections_of(config, "predict"), [stack_plan.record, model / CARD_FILE]),
        )
        mine.write(record)
    return record


def _predict_region(
    stack_plan: StackPlan, region: int, forward: Forward, config: Config, journal: Journal, check: Check
) -> tuple[ShardWritten, ...]:
    """Write the shards that are not yet finished; return what the record says of all."""
    plan, numbers = stack_plan.plan, stack_plan.plan.region(region)
    probabilities = stack_plan.probabilities(True, check)
    # a job that was cut off left finished shards: those whose files still are what the journal says are not made again
    done = {n: entry for n in numbers if (entry := journal.finished(n, plan.shard_at(n), probabilities))}
    workers, noting = io_threads(config.compute, forward.device), Lock()

    def write(number: int, values: Values) -> None:
        # waits for the GPU here, in a writing thread, so that the network goes on with the next shard meanwhile
        total = _write(probabilities, plan.shard_at(number), values.array())
        skipped = 0 if values.empty is None else _count_empty(plan, plan.shard_at(number), values.empty)
        facts = {"shard": number, "probabilities": total, "tiles_skipped": skipped}
        with noting:
            done[number] = build(ShardWritten, facts, f"shard {number}")
            # noted last: of a job killed before this line the shard counts as unwritten, and is written again whole
            journal.add(done[number])

    missing = [n for n in numbers if n not in done]
    with Progress(plan.tile_count(numbers), f"predict {stack_plan.stack.name} region {region}") as progress:
        if done:
            progress.say(f"{len(done)} of {len(numbers)} shards were finished by an earlier job")
            progress.skip(plan.tile_count(done))
        skip_below, image = config.predict.skip_below, stack_plan.stack.image
        # read ahead: chunks of the next shards are decoded while the network is at work on this one
        windows = ahead(lambda number: look_at_shard(image, plan, number, forward, skip_below), missing, workers)
        with closing(windows), behind(write, workers) as write_soon:
            for number, (empty, arriving) in zip(missing, windows, strict=True):
                shard = plan.shard_at(number)
                (window,) = arriving.take()
                (network, _), *others = _members(stack_plan, forward, shard)
                values = predict_shard(window, plan, shard, network, probabilities.dtype, progress.advance, empty)
                for member, planes in others:
                    more = predict_shard(window, plan, shard, member, probabilities.dtype, empty=empty)
                    values = values.taking(planes, more)
                write_soon(number, values)
    written = (probabilities.shard_file(*plan.shard_at(number).corner) for number in numbers)
    sync_folders({file.parent for file in written}, stack_plan.store)  # before the record that vouches for the shards
    return tuple(done[number] for number in numbers)


def _members(stack_plan: StackPlan, forward: Forward, shard: Box) -> list[tuple[Forward, list[int]]]:
    """Return the networks that predict a shard, each with its planes, counted from the first of the shard.

    Out of fold the member may change from plane to plane, so a shard of a volume may need several.
    """
    if not stack_plan.out_of_fold:
        return [(forward, [])]
    members: dict[int, tuple[Forward, list[int]]] = {}
    for place, plane in enumerate(range(shard.planes.start, shard.planes.stop)):
        member = forward.without(stack_plan.stack, plane)
        members.setdefault(id(member.network), (member, []))[1].append(place)
    return list(members.values())


def io_threads(compute: Compute, device: torch.device) -> int:
    """Return the number of reading and of writing threads of a prediction, each of which holds a shard in memory."""
    if compute.io_threads != "auto":
        return compute.io_threads
    # on a CPU they share the cores with the network, which is slower than one of each
    return 1 if device.type == "cpu" else min(MOST_IO, max(1, cores() // 4))


def look_at_shard(
    image: Planes, plan: Plan, number: int, forward: Forward, skip_below: float | None
) -> tuple[Array | None, Arriving]:
    """Return which pixels of a shard lie in empty blocks, and the window that its tiles read.

    Returns:
        (z, y, x) bool, None where nothing is skipped; and (channels, z, y, x) float32, on the device, of size 0 where
        all is empty.
    """
    if skip_below is None:
        return None, read_shard(image, plan, number, forward)
    shard = plan.shard_at(number)
    empty = np.stack([
        empty_pixels(image, plane, forward.normaliser, skip_below) for plane in shard.planes_alone()
    ])  # fmt: skip
    return empty, Arriving((torch.empty(0),)) if empty.all() else read_shard(image, plan, number, forward)


def read_shard(image: Planes, plan: Plan, number: int, forward: Forward) -> Arriving:
    """Return the window that all tiles of a shard read, normalised, on the device: one part.

    Each chunk is decoded once, where tile by tile would decode those at the tiles' edges again.

    Returns:
        (channels, z, y, x) float32.
    """
    return forward.arriving(plan.read_shard(image, plan.shard_at(number)))


@dataclass(frozen=True)
class Values:
    """The values of a shard, perhaps still being computed by a GPU.

    Attributes:
        probabilities: (classes, planes, height, width), on the device.
        empty: (planes, height, width) bool, in memory, pixels of empty blocks; None where nothing is skipped.
        ready: happens when they are computed; None on a CPU.
        down: what copies them into memory.
    """

    probabilities: torch.Tensor
    empty: Array | None = None
    ready: torch.cuda.Event | None = None
    down: Beside = Beside(CPU)

    def taking(self, planes: list[int], other: Values) -> Values:
        """Return the same values with some planes of others."""
        self.probabilities[:, planes] = other.probabilities[:, planes]
        return replace(self, ready=mark(self.probabilities.device))

    def array(self) -> Array:
        """Wait for the device; return probabilities (classes, z, y, x), in memory."""
        return self.down.fetch(self.probabilities, self.ready)


def predict_shard(
    window: torch.Tensor,
    plan: Plan,
    shard: Box,
    forward: Forward,
    dtype: np.dtype[Any],
    on_tiles: Callable[[int], None] = lambda count: None,
    empty: Array | None = None,
) -> Values:
    """Return the values of one shard.

    Args:
        window: (channels, z, y, x) float32, from `read_shard`; anything where all is empty.
        plan: of the stack.
        shard: the shard.
        forward: the network.
        dtype: of the probabilities: uint8 (0..255), float16 or float32 (0..1).
        on_tiles: called with the number of tiles after each pass.
        empty: (z, y, x) bool, pixels of the shard that are background whatever the network says; a tile of nothing else
            is not run.
    """
    # on the device until the shard is whole: one copy to memory, instead of one for each tile that waits for the GPU
    count, device = len(forward.card.classes), forward.device
    probabilities = torch.empty((count, *shard.shape), dtype=STORED[dtype.name], device=device)
    # a tile of empty blocks alone is not run; where a tile is partly empty, its empty pixels are cleared below
    looked = [
        tile for tile in plan.tiles(shard) if empty is None or not empty[tile.write.counted_from(shard).axes].all()
    ]
    for tiles in _groups(iter(looked), forward.batch):
        logits = forward([window[:, *plan.window_of(tile, shard)] for tile in tiles])
        for tile_logits, tile in zip(logits, tiles, strict=True):
            # the whole block first, then the part inside the shard: see `stored`
            block = stored(tile_logits[:, *plan.block], forward, dtype)
            probabilities[:, *tile.write.counted_from(shard).axes] = block[:, *tile.part]
        on_tiles(len(tiles))
    if empty is not None:
        _clear(probabilities, empty)
        on_tiles(_count_empty(plan, shard, empty))
    return Values(probabilities, empty, mark(device), forward.down)


def _clear(probabilities: torch.Tensor, empty: Array) -> None:
    """Make empty pixels background: class 0 with probability 1."""
    mask = torch.from_numpy(empty).to(probabilities.device)
    probabilities.masked_fill_(mask, 0)
    probabilities[0].masked_fill_(mask, 255 if probabilities.dtype == torch.uint8 else 1)


def _count_empty(plan: Plan, shard: Box, empty: Array) -> int:
    """Return the number of tiles that the network need not see."""
    return sum(bool(empty[tile.write.counted_from(shard).axes].all()) for tile in plan.tiles(shard))


def stored(logits: torch.Tensor, forward: Forward, dtype: np.dtype[Any]) -> torch.Tensor:
    """Return the stored probabilities, `dtype`, of logits, both (classes, z, y, x) or (classes, y, x).

    Vectorised exponentials differ in the last bit from those of the last few pixels of an array. So they are computed
    for the whole block of a tile, which is cut afterwards: no probability depends on where a shard or the image ends.
    """
    return quantised(forward.probabilities(logits), dtype)


def quantised(probabilities: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """Return probabilities (classes, ..., y, x) as `dtype`; uint8 is the probability times 255, rounded."""
    return ((probabilities * 255).round_() if dtype == np.uint8 else probabilities).to(STORED[dtype.name])


def _groups(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    while group := list(islice(tiles, size)):
        yield group


def _write(array: PlaneArray, shard: Box, values: Array) -> str | None:
    """Write a shard and return the checksum of its file as it lies on disk."""
    # of the file, not of the array: `stitch` compares bytes on disk, and what the disk lost shows at once
    array.write_box(shard, values)
    return array.shard_sha256(*shard.corner)


def _check_fit(stack_plan: StackPlan, forward: Forward, config: Config) -> None:
    """Refuse a model that is not the one the plan was made for."""
    card, where = forward.card, str(stack_plan.record)
    sizes, planned = (card.geometry_z, card.geometry), (stack_plan.plan.along_z.geometry, stack_plan.plan.geometry)
    for axis, wanted, found in zip(("z", "y and x"), sizes, planned, strict=True):
        if wanted != found:
            fix = "rerun tile with this model (--model), or set section model as the model has it"
            raise PipelineError(where, f"a plan for the model's geometry along {axis}, {wanted}", found, fix=fix)
    card.check_classes(stack_plan.classes)
    asked, stored = np.dtype(config.predict.probabilities), stack_plan.probabilities().dtype
    if asked != stored:
        raise PipelineError("predict.probabilities", f"{stored}, as the store has it", asked, fix="rerun tile")
