"""Prediction of one image, in memory or on disk, by the stages of the workflow in a temporary folder.

That is the way to the same bytes: grey values are measured, planes cut and objects joined by one code. It also keeps
the memory that the stages need as flat as theirs.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import AutoPrecision
from unet_pipeline.errors import PipelineError
from unet_pipeline.face.arrays import ArrayLike, Settings, changed, settings_of, write_array
from unet_pipeline.face.open_stack import OpenStack
from unet_pipeline.face.segment import segment
from unet_pipeline.model.card import ModelCard, read_card
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.ingest import Source

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Model:
    """A trained network.

    Attributes:
        folder: where it lies.
        card: all that is known of it (`model.json`): architecture, normalisation, record of the training.
        network: the torch module, on the CPU, in evaluation mode; (n, channels, y, x) float32 to logits.
    """

    folder: Path
    card: ModelCard
    network: nn.Module

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """Read a model folder, such as `results/model`.

        Raises:
            PipelineError: if a file is missing or altered, or the folder is no model.

        >>> model = Model.load("results/model")
        >>> model.classes, model.channels
        (('background', 'cell'), 1)
        >>> model.geometry.stride, model.geometry.read_px(32)  # px: tiles begin on multiples; a tile of 32 reads more
        (4, 72)
        """
        import torch

        from unet_pipeline.model.models import load_model

        network, card = load_model(Path(folder), torch.device("cpu"))
        return cls(Path(folder), card, network)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the first is the background."""
        return self.card.classes

    @property
    def channels(self) -> int:
        """Channels of the images it takes."""
        return self.card.architecture.in_channels

    @property
    def geometry(self) -> Geometry:
        """Size arithmetic: pooling stride, and how far a tile is read beyond what is kept."""
        return self.card.geometry


@dataclass(frozen=True)
class Segmentation:
    """What `predict` found; of an image without a plane axis all arrays are without one too.

    Attributes:
        probabilities: (planes, classes, y, x), uint8 0..255 or, with `predict.probabilities: float16`, 0..1.
        classes: (planes, y, x) uint8, index of the class of each pixel.
        instances: (planes, y, x) uint32, ids of objects, 0 where there is none.
        class_names: names of the classes.
        pixel_um: (y, x) size of a pixel, micrometres; None where unknown.
        across_planes: whether objects were joined from plane to plane (`stitch.connect: volume`).
    """

    probabilities: Array
    classes: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint32]
    class_names: tuple[str, ...]
    pixel_um: tuple[float, float] | None
    across_planes: bool


def predict(
    image: ArrayLike | OpenStack | str | Path,
    model: Model | str | Path,
    *,
    axes: str = "",
    device: Literal["auto", "cpu", "cuda"] | None = None,
    threads: int | None = None,
    precision: AutoPrecision | None = None,
    tile_px: int | Literal["auto"] | None = None,
    config: Settings | None = None,
) -> Segmentation:
    """Segment an image: the same bytes as the volume the workflow makes of it.

    Image and volume pass through a temporary folder (`TMPDIR`) as large as both. The result is held in memory; for
    an image too large for that, use the verb `segment` and open its stores with `open_stack`.

    Args:
        image: (y, x) or (planes, y, x) numbers, anything with more axes needs `axes`; or an opened stack; or a path.
        model: a loaded model, or its folder.
        axes: of an array: one letter of t z c y x for each axis, such as "zcyx" or "yxc".
        device: "auto" takes CUDA where there is a GPU.
        threads: CPU threads (default 2); they may move float32 sums, so compare runs at the same number.
        precision: number format of the convolutions: auto, float32, bfloat16 or float16.
        tile_px: kept size of a tile, px; a multiple of the pooling stride, or "auto".
        config: sections predict, stitch, store, tile and compute of the configuration, as a mapping or a YAML file;
            the options above go first.

    Raises:
        PipelineError: other channels than the model's, axes that do not fit, NaN, no such device, an illegal setting.

    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(0, 255, (100, 130), dtype=np.uint8)
    >>> found = predict(image, Model.load("results/model"), threads=1, config={"stitch": {"min_area_px": 10}})
    >>> found.probabilities.shape, found.classes.shape, found.instances.dtype.name
    ((2, 100, 130), (100, 130), 'uint32')
    >>> bool((found.classes[found.instances > 0] > 0).any())
    True
    """
    settings = changed(settings_of(config), "compute", {"device": device, "threads": threads})
    settings = changed(settings, "predict", {"precision": precision})
    settings = changed(settings, "tile", {"tile_px": tile_px})
    with tempfile.TemporaryDirectory(prefix="unet_pipeline-") as place:
        folder = Path(place)
        source, flat = _source(image, axes, folder / "image.zarr")
        stack_plan = segment(source, _folder(model), settings, folder / "result")
        return _read(stack_plan, settings.stitch.connect == "volume", flat)


def _source(image: ArrayLike | OpenStack | str | Path, axes: str, copy: Path) -> tuple[Source, bool]:
    """Return what ingest reads, and whether it is an array without planes; an array is copied first."""
    if isinstance(image, str | Path):
        return Source("image", str(image), axes=axes), False
    if isinstance(image, OpenStack):
        if axes:
            raise PipelineError("axes", "none for an opened stack", repr(axes), fix="give them to open_stack")
        return image.source, False
    letters = write_array(image, axes, copy)
    return Source("image", str(copy), axes=letters), not {"z", "t"} & set(letters)


def _folder(model: Model | str | Path) -> Path:
    """Return the folder of a model, which must still hold what was loaded: the stages read it again."""
    if not isinstance(model, Model):
        return Path(model)
    if read_card(model.folder) != model.card:
        raise PipelineError(model.folder, "the model that was loaded", "another", fix="load it again: Model.load")
    return model.folder


def _read(stack_plan: StackPlan, across_planes: bool, flat: bool) -> Segmentation:
    """Read a volume into memory."""
    stored, grid = stack_plan.probabilities(), stack_plan.stack.grid
    rows, columns = slice(0, grid.height), slice(0, grid.width)
    probabilities = np.empty(stored.shape, stored.dtype)
    labels = {name: np.empty(grid.shape, stack_plan.labels(name).dtype) for name in (CLASSES, INSTANCES)}
    for plane in range(grid.planes):
        probabilities[plane] = stored.read(plane, rows, columns)
        for name, values in labels.items():
            values[plane] = stack_plan.labels(name).read_label(plane, rows, columns)
    parts = [part[0] if flat else part for part in (probabilities, labels[CLASSES], labels[INSTANCES])]
    return Segmentation(parts[0], parts[1], parts[2], stack_plan.classes, grid.pixel_um, across_planes)
