"""StarDist from scratch, as its example notebook trains it; its thresholds by its own `optimize_thresholds`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # StarDist wants Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

from comparison.clock import Clock
from comparison.planes import Found, Plane, large, looked_at
from comparison.variants import VALIDATIONS
from unet_pipeline.config.sections import IGNORE, Config

BATCH = 4
RATE = 1e-3
"""Its default, 0.0003 without batch norm, is for days: in a minute of CPU time it had learned less."""
STEP_S = 1.0
"""About what a step takes, to validate now and then; the budget is kept by the clock."""


class StarDist:
    """A star-convex polygon at each pixel, of which those stay that overlap little."""

    def __init__(self, config: Config, seed: int, learn: Sequence[Plane]) -> None:
        """Take device and threads of the configuration, and the size of tiles from that of objects."""
        tf.config.threading.set_intra_op_parallelism_threads(config.compute.threads)
        tf.config.threading.set_inter_op_parallelism_threads(config.compute.threads)
        if config.compute.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        tf.random.set_seed(seed)
        self.config, self.seed = config, seed
        edge, every = (256, 4) if large(learn) else (128, 2)  # a coarser grid sees more
        self.step_px = BATCH * edge**2
        self.network = StarDist2D(
            Config2D(
                n_rays=32,
                unet_batch_norm=True,
                grid=(every, every),
                train_patch_size=(edge, edge),
                train_batch_size=BATCH,
                train_learning_rate=RATE,
                train_reduce_lr=None,  # the clock lowers it
                train_tensorboard=False,
            ),
            basedir=None,
        )
        for layer in self.network.keras_model.layers:
            if isinstance(layer, tf_keras.layers.BatchNormalization):
                layer.momentum = 0.9  # Keras' 0.99 takes more steps to settle than a short training has

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return int(self.network.keras_model.count_params())

    def train(self, learn: Sequence[Plane], check: Sequence[Plane], clock: Clock) -> None:
        """Train until the budget is used; the weights with the least loss on the validation planes stay."""
        self.network.prepare_for_training()
        kept = Keeper(clock)
        self.network.callbacks.append(kept)
        each = max(5, round((clock.budget.seconds or 60) / STEP_S / VALIDATIONS))
        pairs = [([plane.image for plane in part], [_labels(plane) for plane in part]) for part in (learn, check)]
        self.network.train(
            *pairs[0],
            validation_data=pairs[1],
            augmenter=self._changed,
            seed=self.seed,
            epochs=1000,
            steps_per_epoch=each,
        )
        if kept.best:
            self.network.keras_model.set_weights(kept.best)

    def _changed(self, image: Any, labels: Any) -> tuple[Any, Any]:
        """Change a tile as the example notebook does: flips, quarter turns, brightness, noise."""
        free, rng = self.config.augment, np.random  # StarDist seeds this one
        if free.flip:
            axes = [axis for axis in (0, 1) if rng.random() < 0.5]
            image, labels = np.flip(image, axes), np.flip(labels, axes)
        if free.rotate != "none":
            turns = rng.randint(4)
            image, labels = np.rot90(image, turns), np.rot90(labels, turns)
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return image + 0.02 * rng.uniform(0, 1) * rng.normal(0, 1, image.shape), labels

    def choose(self, check: Sequence[Plane]) -> str:
        """Choose its two thresholds on the planes that `calibrate` would look at."""
        planes = looked_at(check, self.config)
        found = self.network.optimize_thresholds(
            [plane.image for plane in planes], [_labels(plane) for plane in planes]
        )
        return f"polygons: probability {found['prob']:.2f}, overlap {found['nms']:.2f}"

    def objects(self, plane: Plane) -> Found:
        """Find the objects of a plane."""
        return Found(self.network.predict_instances(plane.image)[0].astype(np.uint32), None)


def _labels(plane: Plane) -> npt.NDArray[np.int32]:
    """Return objects without holes, -1 where nobody annotated."""
    filled = fill_label_holes(plane.instances.astype(np.int32))
    return np.where((plane.classes == IGNORE) & (filled == 0), -1, filled).astype(np.int32)


class Keeper(tf_keras.callbacks.Callback):  # type: ignore[misc]
    """Times the steps, lowers the learning rate, keeps the best weights and stops when the budget is used."""

    def __init__(self, clock: Clock) -> None:
        """Begin with no weights."""
        super().__init__()
        self.clock, self.least, self.best = clock, np.inf, []
        self.compiled = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to time, but for the first step, in which TensorFlow compiles."""
        if self.compiled:
            self.clock.begin()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the learning rate."""
        self.model.optimizer.lr.assign(RATE * self.clock.rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a step."""
        if self.compiled:
            self.clock.end()
        self.compiled = True
        self.clock.begin()
        if self.clock.share >= 1:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep weights that are better than all before."""
        if logs["val_loss"] < self.least:
            self.least, self.best = logs["val_loss"], self.model.get_weights()


make = StarDist
