"""The real training loop with a clock at each step, for the benchmarks of training."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import numpy as np

from unet_pipeline.config.sections import Augment, Compute, Normalise, Train
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.stacks.demo import cells
from unet_pipeline.train.learner import Settings
from unet_pipeline.train.loop import train
from unet_pipeline.train.training_stack import MemoryPlanes, TrainingStack


def stack_of_cells(planes: int, edge: int) -> TrainingStack:
    """Return planes of cells with targets and a boundary term, in memory."""
    grey, ids = cells((edge, edge), np.random.default_rng(0), 30.0)
    boundary = np.random.default_rng(1).uniform(0, 5, (1, edge, edge)).astype(np.float32)
    parts = [(grey[None] * 100).astype(np.uint8), (ids[None] > 0).astype(np.uint8), boundary]
    image, target, term = (MemoryPlanes((planes, *part.shape), dict.fromkeys(range(planes), part)) for part in parts)
    return TrainingStack("cells", image, Normaliser((50.0,), (0.01,)), target, term)


def options(steps: int, batch: int, keep: int, precision: str) -> Train:
    """Return a training of nothing but steps: no validation, no checkpoint between."""
    return Train(steps=steps, batch=batch, tile_px=keep, precision=precision, warmup=0, select="last")


def times_of_steps(source: TrainingStack, architecture: Architecture, given: Train, compute: Compute) -> list[float]:
    """Train, with all augmentation, and return when each step ended, s."""
    card = ModelCard(architecture, ("background", "cell"), Normalise(scope="stack"))
    marks: list[float] = []

    class Clock(Progress):
        def advance(self, units: int = 1, note: str = "") -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, Clock(given.steps, "train", stream=io.StringIO()) as progress:
        train([source], [], card, np.ones(2), Settings(given, Augment(), compute), Path(folder), "bench", progress)
    return marks
