"""A network for other programs: its outputs, its legal inputs, the facts beside it, and the comparison it must pass."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from unet_pipeline import __version__
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: torch.softmax(logits, dim=1),
    "sigmoid": torch.sigmoid,
}

TOLERANCE = 1e-4
"""Largest difference from the original, as a part of its largest absolute value: float32 sums in another order
differ by 1e-6 or so, a layer that means something else by far more."""

EXTRA = "pip install 'unet-pipeline[export]'"


class Exported(nn.Module):
    """A network that returns logits, or the probabilities of its classes.

    Attributes:
        card: of the model.
        probabilities: whether the activation of the model follows the network.
        same_size: whether the network mirrors the image beyond its edges by itself, so that the output has its size.
        trim_px: output pixels that are dropped on each side.
    """

    def __init__(
        self, network: nn.Module, card: ModelCard, probabilities: bool, same_size: bool = False, trim_px: int = 0
    ) -> None:
        """Wrap a network in evaluation mode."""
        super().__init__()
        self.network = network
        self.card = card
        self.probabilities = probabilities
        self.same_size = same_size
        self.trim_px = 0 if same_size else trim_px
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (n, classes, y - lost_px, x - lost_px) float32 for a normalised image (n, channels, y, x) float32."""
        geometry = self.card.geometry
        read = nn.functional.pad(image, 2 * (geometry.before, geometry.after), "reflect") if self.same_size else image
        logits: torch.Tensor = self.network(read)
        if self.same_size:
            start, (height, width) = geometry.crop_px, image.shape[2:]
            logits = logits[:, :, start : start + height, start : start + width]
        elif self.trim_px:
            logits = logits[:, :, self.trim_px : -self.trim_px, self.trim_px : -self.trim_px]
        return ACTIVATIONS[self.card.activation](logits) if self.probabilities else logits

    @property
    def lost_px(self) -> int:
        """Pixels by which the output is smaller than the input, along one axis."""
        return 0 if self.same_size else self.card.geometry.lost + 2 * self.trim_px

    @property
    def smallest_px(self) -> int:
        """The smallest input size that keeps a whole block of the stride; legal sizes go on in steps of the stride."""
        geometry = self.card.geometry
        if self.same_size:  # a mirror image is at most as large as the image, less the edge
            return geometry.round_up(max(geometry.before, geometry.after) + 1)
        return max(geometry.read_px(geometry.stride), geometry.smallest_px)

    @property
    def output_name(self) -> str:
        """Name of the output: "probabilities" or "logits"."""
        return "probabilities" if self.probabilities else "logits"


def example(module: Exported, images: int, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return a random image (images, channels, y, x) float32 of a legal size, mean 0 and deviation 1.

    Args:
        module: the network.
        images: how many.
        rows: strides more than the smallest size, down.
        columns: strides more than the smallest size, across.
        seed: of the random numbers.
    """
    size = [module.smallest_px + blocks * module.card.geometry.stride for blocks in (rows, columns)]
    shape = (images, module.card.architecture.in_channels, *size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def traced_example(module: Exported) -> torch.Tensor:
    """Return the image (2, channels, y, x) with which a network is traced; `compare` takes other sizes."""
    return example(module, images=2, rows=1, columns=2)


def compare(name: str, module: Exported, exported: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Compare an exported network with the original at two sizes that it was not traced with.

    Args:
        name: what it was exported to, for the message.
        module: the original.
        exported: the exported network, read back: (n, channels, y, x) to (n, classes, y', x').

    Returns:
        The largest difference, as a part of the largest absolute value of the original.

    Raises:
        PipelineError: if it is above `TOLERANCE`, or the shapes differ.
    """
    largest = 0.0
    for image in (example(module, 1, 2, 0, seed=1), example(module, 3, 0, 1, seed=2)):
        with torch.inference_mode():
            wanted, found = module(image), exported(image)
        if wanted.shape != found.shape:
            raise PipelineError(name, f"the network's output {tuple(wanted.shape)}", tuple(found.shape), fix=_REPORT)
        scale = float(wanted.abs().max()) or 1.0
        difference = float((wanted - found).abs().max()) / scale
        if not difference <= TOLERANCE:  # also NaN
            wanted_text = f"the network's output to within {TOLERANCE:g} of its largest value"
            raise PipelineError(name, wanted_text, f"a difference of {difference:.3g}", fix=_REPORT)
        largest = max(largest, difference)
    return largest


_REPORT = "nothing was written; report this as a bug, or choose another --format"


def facts(module: Exported) -> dict[str, str]:
    """Return the facts to keep beside the network, each as text; all but the version and the checksum are JSON.

    Returns:
        classes: names in the order of the output's channels; output: logits or probabilities; activation;
        normalise, normaliser: how grey values become the input (see `card`); geometry: stride, before, after,
        lost, crop_px; size: smallest and step of legal heights and widths and how much smaller the output is, px;
        architecture; weights_sha256; unet_pipeline.
    """
    card, geometry = module.card, module.card.geometry
    said = {
        "classes": list(card.classes),
        "output": module.output_name,
        "activation": card.activation,
        "architecture": asdict(card.architecture),
        "normalise": asdict(card.normalise),
        "normaliser": None if card.normaliser is None else card.normaliser.to_json(),
        "geometry": asdict(geometry),
        "size": {"smallest_px": module.smallest_px, "step_px": geometry.stride, "lost_px": module.lost_px},
    }
    return {name: json.dumps(value) for name, value in said.items()} | {
        "weights_sha256": card.weights_sha256,
        "unet_pipeline": __version__,
    }


@contextmanager
def needed(kind: str) -> Iterator[None]:
    """Turn a package that is not installed into an error that names the extra to install.

    Args:
        kind: the format, for the message.

    Raises:
        PipelineError: if an import in the block fails.
    """
    try:
        yield
    except ImportError as error:
        raise PipelineError(f"--format {kind}", "the packages of the extra `export`", error, fix=EXTRA) from error


def import_all(kind: str, *names: str) -> None:
    """Import packages before any work is done.

    Raises:
        PipelineError: if one is not installed; names the extra.
    """
    with needed(kind):
        for name in names:
            importlib.import_module(name)


def export_program(module: Exported) -> Any:
    """Return the network as a `torch.export.ExportedProgram`, free in the number of images, height and width.

    Height and width are given as smallest + step * k, which is what all the divisions of a U-Net need to be exact.
    """
    smallest_px, stride = module.smallest_px, module.card.geometry.stride
    rest = smallest_px % stride
    sizes = {}
    for axis, name in ((2, "rows"), (3, "columns")):
        blocks = torch.export.Dim(name, min=smallest_px // stride, max=2**20)
        sizes[axis] = stride * blocks + rest if rest else stride * blocks
    shapes = ({0: torch.export.Dim("images"), **sizes},)
    with torch.no_grad():
        return torch.export.export(module, (traced_example(module),), dynamic_shapes=shapes, strict=False)
