"""A training step with all that surrounds it, against the bare step: `python benchmarks/train.py`.

Bare is what no loader can beat: forward, loss, backward and update on tensors that are already there.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from figures import Figure, asked, publish, step
from torch import nn

from unet_pipeline.config import Augment, Compute, Normalise, Train
from unet_pipeline.demo import cells
from unet_pipeline.modelcard import Architecture, ModelCard
from unet_pipeline.models import autocast, build
from unet_pipeline.normalise import Normaliser
from unet_pipeline.progress import Progress
from unet_pipeline.training.learner import Settings
from unet_pipeline.training.loop import train
from unet_pipeline.training.losses import pixel_weight, weighted_cross_entropy
from unet_pipeline.training.training_stack import MemoryPlanes, TrainingStack

CASES = (
    # name, depth, base channels, kept px, batch, steps
    ("default: depth 3, base 16, 160 px kept", 3, 16, 160, 1, 60),
    ("depth 4, base 16, 384 px kept", 4, 16, 384, 1, 24),
)


def stack() -> TrainingStack:
    """Return cells with targets, in memory."""
    grey, ids = cells((768, 768), np.random.default_rng(0), 30.0)
    boundary = np.random.default_rng(1).uniform(0, 5, (1, 768, 768)).astype(np.float32)
    planes = [(grey[None] * 100).astype(np.uint8), (ids[None] > 0).astype(np.uint8), boundary]
    image, target, term = (MemoryPlanes((1, *part.shape), {0: part}) for part in planes)
    return TrainingStack("cells", image, Normaliser((50.0,), (0.01,)), target, term)


def whole(case: tuple, precision: str, threads: int, source: TrainingStack) -> float:
    """Return the seconds of a step of the real loop: drawn, warped, changed, learned, logged."""
    _, depth, base, keep, batch, steps = case
    options = Train(
        steps=steps, batch=batch, tile_px=keep, precision=precision, warmup=0, checkpoint_every=10**6, select="last"
    )
    card = ModelCard(Architecture("unet", depth, base, 1, 2, 0.5), ("background", "cell"), Normalise(scope="stack"))
    settings = Settings(options, Augment(), Compute(device="cpu", threads=threads))
    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []

        class Clock(Progress):
            def advance(self, units: int = 1, note: str = "") -> None:
                times.append(time.perf_counter())

        with Clock(steps, "train", stream=io.StringIO()) as progress:
            train([source], [], card, np.ones(2), settings, Path(folder), "bench", progress)
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
        loss = weighted_cross_entropy(logits, target, pixel_weight(target, boundary, torch.ones(2)))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter())
    return float(np.median(np.diff(times[3:])))


def measure(threads: int, rounds: int) -> list[Figure]:
    """Measure each case in both precisions, both sides in turn."""
    source, figures = stack(), []
    for case in CASES:
        for precision in ("float32", "bfloat16"):
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
