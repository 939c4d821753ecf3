"""Small synthetic stacks for the tests of training: bright discs on a dark ground, in memory."""

from __future__ import annotations

import numpy as np

from unet_pipeline.config.sections import IGNORE, Augment, Compute, Normalise, Train, Watch
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.train.learner import Settings
from unet_pipeline.train.training_stack import MemoryPlanes, TrainingStack

ARCHITECTURE = Architecture("unet", depth=2, base_channels=2, in_channels=1, classes=2, dropout=0.3)
CARD = ModelCard(ARCHITECTURE, ("background", "cell"), Normalise(scope="stack"))


def planes(values):
    """(planes, channels, y, x) as a source."""
    return MemoryPlanes(values.shape, dict(enumerate(values)))


def discs(seed=0, shape=(2, 60, 70), channels=1, name="discs"):
    """Discs of radius 6 px, target 1 inside; a column of pixels nobody annotated."""
    generator = np.random.default_rng(seed)
    count, height, width = shape
    y, x = np.mgrid[:height, :width]
    target = np.zeros((count, 1, height, width), np.uint8)
    for plane in target:
        for centre in generator.uniform(0, (height, width), size=(5, 2)):
            plane[0][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 36] = 1
    image = 60 + 100 * target + generator.normal(0, 12, (count, channels, height, width))
    boundary = generator.uniform(0, 2, target.shape).astype(np.float32)
    target[..., :3] = IGNORE
    normaliser = Normaliser((60.0,) * channels, (0.01,) * channels)
    raw = np.clip(image, 0, 255).astype(np.uint8)
    return TrainingStack(name, planes(raw), normaliser, planes(target), planes(boundary))


def every(steps):
    """Return what stands for `checkpoint.Cadence` where checkpoints shall be so many steps apart."""

    class Counted:
        def __init__(self, minutes):
            self.calls = 0

        def due(self):
            self.calls += 1
            return self.calls % steps == 0

    return Counted


def settings(watch=None, **train):
    """Settings of a training of seconds."""
    values = {
        "steps": 24, "tile_px": 16, "batch": 2, "optimiser": "sgd", "learning_rate": 0.01, "warmup": 4, "momentum": 0.9,
        "validate_every": 7, "validate_tiles": 3, "seed": 3, "loss": "cross_entropy",
    }  # fmt: skip
    return Settings(Train(**{**values, **train}), Augment(), Compute("cpu", 1, checkpoint_minutes=0), watch or Watch())
