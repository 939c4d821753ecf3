"""Predict: the tiles of one region through the network, into whole shards, each written once.

A region record says which shards were written, with the checksum of each file; `stitch` trusts nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline import __version__
from unet_pipeline.config import Compute, Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.forward import Forward
from unet_pipeline.journal import Journal, journal_path
from unet_pipeline.plane_array import PlaneArray, Planes
from unet_pipeline.progress import Progress
from unet_pipeline.publish import claim
from unet_pipeline.record import Check, digest, provenance
from unet_pipeline.stack import CLASSES
from unet_pipeline.tile import StackPlan
from unet_pipeline.tiling import Plan, Shard, Tile, read_tile

A = TypeVar("A")
B = TypeVar("B")
Array = npt.NDArray[Any]
AHEAD = 2
"""Batches that are read while the network works on another."""


def predict(stack_plan: StackPlan, region: int, model: Path, config: Config, output: Path) -> dict[str, Any]:
    """Predict one region and write its record.

    Args:
        stack_plan: the plan of the stack, with the store to fill.
        region: number of the region, from 0.
        model: model folder.
        config: sections predict and compute are used.
        output: `results/{stack}/regions/{region}.json`.

    Returns:
        The record: plan, region, shards (number and checksum of each file), tiles, device, provenance.
    """
    forward = Forward.load(model, stack_plan.stack, config.predict.precision, config.compute)
    _check_fit(stack_plan, forward, config)
    numbers, plan = stack_plan.plan.region(region), stack_plan.plan
    made_by = stack_plan.work(forward.card, config.predict)
    compute = describe_compute(forward, config.compute)
    with claim(output, journal_path(output)) as mine:
        journal = Journal(mine, digest([made_by, region, compute, __version__]))
        written = _predict_region(stack_plan, region, forward, config, journal, mine.check)
        record = {
            "stack": stack_plan.stack.name,
            "plan": stack_plan.digest,
            "region": region,
            "model": forward.card.weights_sha256,
            "made_by": made_by,
            "shards": written,
            "tiles": plan.tile_count(numbers),
            "compute": compute,
            "provenance": provenance(config.section("predict"), [stack_plan.record, model / "model.json"]),
        }
        mine.write(record)
    return record


def _predict_region(
    stack_plan: StackPlan, region: int, forward: Forward, config: Config, journal: Journal, check: Check
) -> list[dict[str, Any]]:
    """Write the shards that are not yet finished; return what the record says of all."""
    plan, numbers, written = stack_plan.plan, stack_plan.plan.region(region), []
    probabilities, classes = stack_plan.probabilities(True, check), stack_plan.labels(CLASSES, True, check)
    arrays = {"probabilities": probabilities, "classes": classes}
    done = {n: entry for n in numbers if (entry := journal.finished(n, plan.shard_at(n), arrays))}
    with Progress(plan.tile_count(numbers), f"predict {stack_plan.stack.name} region {region}") as progress:
        if done:
            progress.say(f"{len(done)} of {len(numbers)} shards were finished by an earlier job")
            progress.skip(sum(plan.tile_count(range(n, n + 1)) for n in done))
        for number in numbers:
            if number not in done:
                shard = plan.shard_at(number)
                dtype, batch = probabilities.dtype, config.predict.batch
                values = predict_shard(stack_plan.stack.image, plan, shard, forward, dtype, batch, progress.advance)
                done[number] = {"shard": number} | _write(arrays, shard, values)
                journal.add(done[number])
            written.append(done[number])
    return written


def predict_shard(
    image: Planes,
    plan: Plan,
    shard: Shard,
    forward: Forward,
    dtype: np.dtype[Any],
    batch: int,
    on_tiles: Callable[[int], None] = lambda count: None,
) -> tuple[Array, Array]:
    """Return what one shard holds, assembled in memory.

    Args:
        image: the stack.
        plan: its plan.
        shard: the shard.
        forward: the network.
        dtype: of the probabilities: uint8 (0..255), float16 or float32 (0..1).
        batch: tiles per pass.
        on_tiles: called with the number of tiles after each pass.

    Returns:
        Probabilities (classes, height, width) and the class of highest probability (height, width) uint8.
    """
    size = shard.rows.stop - shard.rows.start, shard.columns.stop - shard.columns.start
    probabilities = np.empty((len(forward.card.classes), *size), dtype)
    classes = np.empty(size, np.uint8)
    for tiles, windows in ahead(
        lambda group: [read_tile(image, tile, plan) for tile in group], _groups(plan.tiles(shard), batch)
    ):
        logits = forward(windows)
        shares, best = quantised(logits, dtype), logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        for index, tile in enumerate(tiles):
            inside, local = _relative(tile, shard), tile.local(plan.geometry)
            probabilities[:, *inside] = shares[index][:, *local]
            classes[inside] = best[index][local]
        on_tiles(len(tiles))
    return probabilities, classes


def quantised(logits: torch.Tensor, dtype: np.dtype[Any]) -> Array:
    """Return the softmax of logits (n, classes, y, x) as `dtype`; uint8 is the probability times 255, rounded."""
    shares = torch.softmax(logits, dim=1)
    if dtype == np.uint8:
        return shares.mul(255).round().to(torch.uint8).cpu().numpy()
    return shares.cpu().numpy().astype(dtype)


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int = AHEAD) -> Iterator[tuple[A, B]]:
    """Yield `(item, function(item))` in order, while a thread works on the next `depth` items."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[A, Future[B]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


def describe_compute(forward: Forward, compute: Compute) -> dict[str, Any]:
    """Return what the machine did: device, threads, precision, torch."""
    cuda = forward.device.type == "cuda"
    name = torch.cuda.get_device_name(forward.device) if cuda else "cpu"
    return {"device": name, "threads": compute.threads, "precision": forward.precision, "torch": str(torch.__version__)}


def _groups(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    while group := list(islice(tiles, size)):
        yield group


def _relative(tile: Tile, shard: Shard) -> tuple[slice, slice]:
    y, x = tile.y - shard.rows.start, tile.x - shard.columns.start
    return slice(y, y + tile.height), slice(x, x + tile.width)


def _write(arrays: Mapping[str, PlaneArray], shard: Shard, values: tuple[Array, Array]) -> dict[str, str | None]:
    """Write a shard of both arrays and return the checksums of the files as they lie on disk."""
    sums: dict[str, str | None] = {}
    for (name, array), value in zip(arrays.items(), values, strict=True):
        array.write(shard.plane, shard.rows, shard.columns, value)
        sums[name] = array.shard_sha256(shard.plane, shard.rows.start, shard.columns.start)
    return sums


def _check_fit(stack_plan: StackPlan, forward: Forward, config: Config) -> None:
    """Refuse a model that is not the one the plan was made for."""
    card, where = forward.card, str(stack_plan.record)
    if card.geometry != stack_plan.plan.geometry:
        fix = "rerun tile with this model (--model), or set model.depth as the model has it"
        raise PipelineError(
            where, f"a plan for the model's geometry {card.geometry}", stack_plan.plan.geometry, fix=fix
        )
    card.check_classes(stack_plan.classes)
    wanted, stored = np.dtype(config.predict.probabilities), stack_plan.probabilities().dtype
    if wanted != stored:
        raise PipelineError("predict.probabilities", f"{stored}, as the store has it", wanted, fix="rerun tile")
