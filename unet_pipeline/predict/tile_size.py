"""The tile size of `tile.tile_px: auto`: what is fastest for this network on this machine, and fits its memory.

The result does not depend on it, so it may be measured. On a CPU some sizes are timed, in at most a twentieth of the
time the job takes anyway, and the choice is remembered beside the plan; a job too short for that takes a large tile,
whose rim is the smallest waste. On a GPU the largest that fits is taken without a measurement: there sums may
differ in their last bits between tile sizes, and two runs shall be equal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unet_pipeline.config.keys import plain
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.memory import available_bytes
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import PLANNED_PX, Plan, plan
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.files import Check
from unet_pipeline.records.layout import TILE_SIZE_FILE
from unet_pipeline.records.record import write_record
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import TileSize

SIZES_PX = (256, 384, 512, 768, 1024, 1536, 2048)
LARGEST_ON_GPU_PX = 1024
SHARE = 0.05
"""Largest part of a job's time that measuring may take."""
PASSES = 3
"""Network passes of one measurement; the first warms up."""
FASTER = 0.97
"""A size is only taken for another if it needs less than this part of its time."""
ROOM = 0.6
"""Part of the memory that is there for the activations of a pass."""
MODEST_BYTES = 2.4e9
"""Activations of a tile that is not measured, at most: a job shall stay below 3 GB."""


def choose_plan(
    stack_plan: StackPlan, shards: Sequence[int], forward: Forward, batch: int, check: Check
) -> tuple[Plan, str]:
    """Choose the tile size for one job: as planned, remembered, or measured now.

    Args:
        stack_plan: the plan of the stack; only `tile_px: auto` leaves a choice.
        shards: numbers of those the job predicts.
        forward: the network, on its device.
        batch: tiles per pass.
        check: called before the choice is written down.

    Returns:
        The plan, and what was measured, in words; empty if nothing was.

    Raises:
        PipelineError: if not even the smallest legal tile fits the memory.
    """
    if not stack_plan.auto:
        return stack_plan.plan, ""
    plans = _that_fit(stack_plan.plan, forward, batch)
    if forward.device.type == "cuda":
        return plans[max((px for px in plans if px <= LARGEST_ON_GPU_PX), default=min(plans))], ""
    memo, made_for = stack_plan.record.with_name(TILE_SIZE_FILE), _made_for(stack_plan, forward, batch)
    chosen, found = _remembered(memo, made_for), ""
    if chosen not in plans:
        modest = (px for px, each in plans.items() if forward.bytes_of(each.read, batch) <= MODEST_BYTES)
        usual = max(modest, default=min(plans))
        trials = Trials(plans, shards, batch, lambda each: _seconds(each, forward, batch), usual)
        chosen = trials.fastest()
        if trials.rates:
            write_record(memo, TileSize(made_for=made_for, tile_px=chosen, px_per_second=trials.rates), check)
            rates = ", ".join(f"{px} px {rate / 1e6:.3g} Mpx/s" for px, rate in trials.rates.items())
            found = f"tiles of {chosen} px are the fastest here: {rates}"
    return plans[chosen], found


def _that_fit(planned: Plan, forward: Forward, batch: int) -> dict[int, Plan]:
    """Return the plans for the sizes whose activations fit the memory; the smallest legal ones if no usual one does."""
    room, geometry = _room_bytes(forward.device), planned.geometry
    smaller = [px for px in (2**power for power in range(7, 0, -1)) if px >= geometry.stride]
    for sizes in (SIZES_PX, *([px] for px in smaller)):
        plans = {px: plan(planned.shape, geometry, px, planned.shard, planned.regions) for px in sizes}
        different = {each.keep: px for px, each in reversed(plans.items())}  # a small image makes large ones alike
        fitting = {px: plans[px] for px in different.values() if forward.bytes_of(plans[px].read, batch) <= room}
        if fitting:
            return fitting
    need = forward.bytes_of((geometry.read_px(geometry.stride),) * 2, batch)
    fix = "give the job more memory, lower predict.batch, or use a smaller network"
    raise PipelineError(
        "tile.tile_px", f"{need / ROOM / 1e6:.0f} MB for the smallest tile", f"{room / ROOM / 1e6:.0f} MB free", fix=fix
    )


def _room_bytes(device: torch.device) -> float:
    """Return the bytes for activations; of a GPU's whole memory, so that every job on such a GPU chooses alike."""
    if device.type == "cuda":
        return ROOM * float(torch.cuda.get_device_properties(device).total_memory)
    available = available_bytes()
    return math.inf if available is None else ROOM * available


@dataclass
class Trials:
    """Tile sizes tried on one job.

    Attributes:
        plans: by tile size, px.
        shards: numbers of those of the job.
        batch: tiles per pass.
        seconds: measures one pass of a plan.
        usual: tile size of a job that is too short to measure, px.
        rates: px of the job per second, by the tile sizes that were tried.
    """

    plans: Mapping[int, Plan]
    shards: Sequence[int]
    batch: int
    seconds: Callable[[Plan], float]
    usual: int
    rates: dict[str, float] = field(default_factory=dict)
    _spent: float = 0.0

    def fastest(self) -> int:
        """Try sizes from the planned one up while that pays, else down, and return the best."""
        sizes = sorted(self.plans)
        start = min(range(len(sizes)), key=lambda index: abs(sizes[index] - PLANNED_PX))
        if SHARE * self._passes(sizes[start]) < PASSES:  # too little to do
            return self.usual
        first = self._cost(sizes[start])
        for step in (1, -1):
            best, cost, index = start, first, start + step
            while 0 <= index < len(sizes) and self._affordable(sizes[index], sizes[best], cost):
                other = self._cost(sizes[index])
                if other > FASTER * cost:
                    break
                best, cost, index = index, other, index + step
            if best != start:
                return sizes[best]
        return sizes[start]

    def _passes(self, px: int) -> int:
        return -(-self.plans[px].tile_count(self.shards) // self.batch)

    def _cost(self, px: int) -> float:
        """Return the seconds the job would take."""
        each = self.seconds(self.plans[px])
        self._spent += PASSES * each
        area = sum(height * width for height, width in (self.plans[px].shard_at(n).size for n in self.shards))
        self.rates[str(px)] = round(area / (each * self._passes(px)))
        return each * self._passes(px)

    def _affordable(self, px: int, known: int, cost: float) -> bool:
        """Whether another measurement stays within the share, given the cost of the whole job with a known size."""
        larger = math.prod(self.plans[px].read) / math.prod(self.plans[known].read)
        return self._spent + PASSES * cost / self._passes(known) * larger <= SHARE * cost


def _seconds(planned: Plan, forward: Forward, batch: int) -> float:
    """Return the shortest of some passes over nothing."""
    windows = [torch.zeros(forward.card.architecture.in_channels, *planned.read)] * batch
    times = []
    for _ in range(PASSES):
        began = time.perf_counter()
        forward(windows)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _made_for(stack_plan: StackPlan, forward: Forward, batch: int) -> dict[str, Any]:
    """Return all that the speed of a tile size depends on."""
    return {
        "shape": list(stack_plan.plan.shape[1:]),
        "network": plain(forward.card.architecture),
        "precision": forward.precision,
        "mirror": forward.mirror,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


def _remembered(memo: Path, made_for: Mapping[str, Any]) -> int | None:
    """Return the size chosen earlier for the same work, if there is one; an altered note is measured again."""
    try:
        known = open_record(memo, TileSize)
    except PipelineError:
        return None
    return known.tile_px if known.made_for == made_for else None
