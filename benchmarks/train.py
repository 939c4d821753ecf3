"""A training step with all that surrounds it, against the bare step: `python benchmarks/train.py`.

Bare is what no loader can beat: forward, loss, backward and update on tensors that are already there.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from figures import Figure, asked, has_bfloat16, publish, sized, step
from timed_training import options, stack_of_cells, times_of_steps
from torch import nn

from unet_pipeline.config.sections import Compute
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.device import autocast
from unet_pipeline.model.models import build
from unet_pipeline.train.losses import Loss, pixel_weight
from unet_pipeline.train.training_stack import TrainingStack

CASES = sized(
    (
        # name, depth, base channels, kept px, batch, steps
        ("depth 3, base 16, 160 px kept", 3, 16, 160, 1, 60),
        ("depth 4, base 16, 384 px kept", 4, 16, 384, 1, 24),
    ),
    (("depth 1, base 2, 32 px kept", 1, 2, 32, 1, 8),),
)

FORMATS = sized(("float32", "bfloat16"), ("float32",)) if has_bfloat16() else ("float32",)
"""A processor without units for bfloat16 would train in float32 twice."""


def whole(case: tuple, precision: str, threads: int, source: TrainingStack) -> float:
    """Return the seconds of a step of the real loop: drawn, warped, changed, learned, logged."""
    _, depth, base, keep, batch, steps = case
    architecture = Architecture("unet", depth, base, 1, 2, 0.5)
    compute = Compute(device="cpu", threads=threads)
    times = times_of_steps(source, architecture, options(steps, batch, keep, precision), compute)
    return float(np.median(np.diff(times[3:-1])))


def bare(case: tuple, precision: str, threads: int) -> float:
    """Return the seconds of a bare step."""
    _, depth, base, keep, batch, steps = case
    torch.set_num_threads(threads)
    architecture = Architecture("unet", depth, base, 1, 2, 0.5)
    network = build(architecture).to(memory_format=torch.channels_last).train()
    geometry = ModelCard(architecture, ("a", "b")).geometry
    read = geometry.read_px(keep)
    image = torch.rand(batch, 1, read, read).contiguous(memory_format=torch.channels_last)
    size = read - geometry.lost
    target, boundary = torch.randint(0, 2, (batch, size, size)), torch.rand(batch, size, size)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99)
    times = [time.perf_counter()]
    for _ in range(steps):
        with autocast(torch.device("cpu"), precision):
            logits = network(image)
        loss = Loss()(logits, target, pixel_weight(target, boundary, torch.ones(2)))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter())
    return float(np.median(np.diff(times[3:])))


def measure(threads: int, rounds: int) -> list[Figure]:
    """Measure each case in both precisions, both sides in turn."""
    source, figures = stack_of_cells(1, 768), []
    for case in CASES:
        for precision in FORMATS:
            step(f"{case[0]}, {precision}")
            mine, other = [], []
            for _ in range(rounds):
                mine.append(whole(case, precision, threads, source))
                other.append(bare(case, precision, threads))
            pair = 1 / float(np.median(mine)), 1 / float(np.median(other))
            figures.append(Figure(f"train {precision}: {case[0]}, against bare steps", *pair, "steps/s", 0.85))
    return figures


if __name__ == "__main__":
    given = asked(__doc__, torch.get_num_threads())
    publish("train", measure(given.threads, given.rounds), f"{given.threads} threads; medians of steps.")
