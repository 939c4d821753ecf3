"""Files that show a training while it runs, on request: scalars for TensorBoard, and images of a prediction.

None of it is part of the model. The event file begins anew whenever a training starts or goes on, with the rows of
history so far, so that no step stands in it twice, wherever the training was cut off. Images of steps that the
training has not come to, or of another training, are removed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_pipeline.config.sections import IGNORE, Watch
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.overlays import beside, rgb_png
from unet_pipeline.images.pictures import Rgb, as_classes, as_grey
from unet_pipeline.records.files import PARTIAL, Check, atomic_path, refuse_link, unclaimed
from unet_pipeline.train.history import Row
from unet_pipeline.train.validation import Sample

TENSORBOARD, SAMPLES = "tensorboard", "samples"
"""Folders in the model folder."""

EVENTS = "events.out.tfevents.*"
"""Names that TensorBoard gives its files."""


class Observer:
    """Writer of event files and pictures beside a model; it does nothing where section `watch` asks for nothing."""

    def __init__(self, options: Watch | None = None, folder: Path = Path(), classes: Sequence[str] = ()) -> None:
        """Prepare to write; nothing is written before `begin`.

        Args:
            options: section `watch`; None, as in all processes but the first, neither writes nor removes anything.
            folder: the model folder.
            classes: names of the classes.

        Raises:
            PipelineError: TensorBoard is asked for and its package is not installed.
        """
        self.options, self._silent = options or Watch(), options is None
        self._folder, self._classes, self._check = folder, tuple(classes), unclaimed
        self._make_writer = _writer() if self.options.tensorboard else None
        self._events: Any = None

    def begin(self, rows: Sequence[Row], check: Check) -> None:
        """Remove the files of other rows of history, and write these rows to a new event file.

        Args:
            rows: history of the training that goes on; empty for one that starts.
            check: called before anything is written.
        """
        if self._silent:
            return
        check()
        self._check = check
        for name in (TENSORBOARD, SAMPLES):
            refuse_link(self._folder / name)
        for path in (self._folder / TENSORBOARD).glob(EVENTS):
            path.unlink()
        validated = {_sample_name(row.step) for row in rows if row.validation_loss is not None}
        samples = self._folder / SAMPLES
        strange = [path for path in samples.glob("*.png") if path.stem.isdecimal() and path.name not in validated]
        for path in [*strange, *samples.glob(f".*{PARTIAL}")]:
            path.unlink()
        if self._make_writer is not None:
            # TensorBoard that is open meanwhile forgets what it showed from step 0 on.
            self._events = self._make_writer(logdir=str(self._folder / TENSORBOARD), purge_step=0)
            for row in rows:
                self._add_scalars(row)
                self._add_picture(row.step, _read_rgb(samples / _sample_name(row.step)))
            self._events.flush()

    def add(self, row: Row, sample: Callable[[], Sample | None]) -> None:
        """Show a row of history.

        Args:
            row: the row.
            sample: makes the sample prediction; called only where a validation was due and pictures are asked for.
        """
        picture = None
        if self.options.samples and row.validation_loss is not None and (made := sample()) is not None:
            picture = draw(made)
            with atomic_path(self._folder / SAMPLES / _sample_name(row.step), self._check) as partial:
                partial.write_bytes(rgb_png(picture))
        if self._events is not None:
            self._check()
            self._add_scalars(row)
            self._add_picture(row.step, picture)
            self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()

    def _add_scalars(self, row: Row) -> None:
        for name, value in scalars(row, self._classes).items():
            self._events.add_scalar(name, value, row.step)

    def _add_picture(self, step: int, picture: Rgb | None) -> None:
        if picture is not None:
            self._events.add_image("sample", picture, step, dataformats="HWC")


def scalars(row: Row, classes: Sequence[str]) -> dict[str, float]:
    """Return the scalars that TensorBoard shows of a row, by tag; those that the row lacks are left out.

    The mean IoU is over the classes that have a Dice; IoU = Dice / (2 - Dice).
    """
    dice = {f"dice/{name}": value for name, value in zip(classes, row.dice, strict=False)}
    ious = [value / (2 - value) for value in dice.values() if value is not None]
    values = {
        "loss/train": row.train_loss,
        "loss/validation": row.validation_loss,
        "learning_rate": row.learning_rate,
        "mean_iou": sum(ious) / len(ious) if ious else None,
        **dice,
    }
    return {name: value for name, value in values.items() if value is not None}


def draw(sample: Sample) -> Rgb:
    """Return image, labels and prediction side by side; each channel's grey values span from black to white."""
    low, high = (edge(sample.image, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    grey: npt.NDArray[Any] = (sample.image - low) / np.maximum(high - low, 1e-6)
    return beside([as_grey(grey), as_classes(sample.target, IGNORE), as_classes(sample.predicted, IGNORE)])


def _sample_name(step: int) -> str:
    return f"{step}.png"


def _read_rgb(path: Path) -> Rgb | None:
    if not path.exists():
        return None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _writer() -> Callable[..., Any]:
    """Return the class that writes event files, of a package that is not needed otherwise."""
    try:
        return importlib.import_module("tensorboardX").SummaryWriter  # type: ignore[no-any-return]
    except ImportError as error:
        fix = 'pip install "unet-pipeline[tensorboard]", or set watch.tensorboard: false'
        raise PipelineError("watch.tensorboard", "the package tensorboardX", "none: not installed", fix=fix) from error
