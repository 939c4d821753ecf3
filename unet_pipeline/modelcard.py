"""What a model is, readable without torch: network, classes, normalisation, geometry, training record.

A model is a folder of two files, `weights.safetensors` (tensors, no pickle) and `model.json` (this card, which holds
the SHA-256 of the first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy.typing as npt

from unet_pipeline.config import Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.geometry import Geometry, unpadded
from unet_pipeline.normalise import Normaliser, from_statistics
from unet_pipeline.record import Check, read_json, unclaimed, write_json
from unet_pipeline.schema import build, key, plain

T = TypeVar("T")

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
FORMAT = "unet_pipeline model 1"
FIX = "restore the model folder, or train again: run the workflow with `--forcerun results/model/model.json`"


@dataclass(frozen=True)
class Architecture:
    """A network, exactly enough to build it; the paper's is ("unet", 4, 64, 1, 2, 0.5)."""

    family: Literal["unet"] = key("unet", "unet: the paper's unpadded network")
    depth: int = key(4, "number of poolings", 1, 6)
    base_channels: int = key(64, "channels of the first level; doubled at each pooling", 1, 256)
    in_channels: int = key(1, "channels of the image", 1, 1024)
    classes: int = key(2, "output classes, background included", 2, 32)
    dropout: float = key(0.5, "dropout probability at the end of the contracting path", 0, 0.95)
    members: int = key(1, "networks of this kind whose probabilities are averaged, an ensemble", 1, 64)


GEOMETRIES: Mapping[str, Callable[[Architecture], Geometry]] = {
    "unet": lambda architecture: unpadded(architecture.depth),
}
"""Size arithmetic of each family; a new family adds a line here and one to `models.FAMILIES`."""


def geometry(architecture: Architecture) -> Geometry:
    """Return the size arithmetic of a network."""
    return GEOMETRIES[architecture.family](architecture)


@dataclass(frozen=True)
class ModelCard:
    """The content of `model.json`.

    Attributes:
        architecture: the network.
        classes: class names; the first is the background; as many as the network has outputs.
        normalise: how grey values are normalised.
        normaliser: the constants of the training set with `normalise.scope` "model"; None with "stack", where every
            stack brings its own statistics.
        training: record of the training: settings, steps, scores, provenance; plain values.
        weights_sha256: SHA-256 of `weights.safetensors`; empty before the model is saved.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    normalise: Normalise = Normalise()
    normaliser: Normaliser | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def geometry(self) -> Geometry:
        """Size arithmetic of the network."""
        return geometry(self.architecture)

    def normaliser_of(self, statistics: Mapping[str, Any], dtype: npt.DTypeLike) -> Normaliser:
        """Return the normaliser for a stack: the model's own, or from the stack's statistics (see `normalise`)."""
        return self.normaliser or from_statistics(self.normalise, statistics, dtype)

    def check_image(self, channels: int, where: object) -> None:
        """Refuse an image whose number of channels is not the network's.

        Raises:
            PipelineError: naming `where`, the stack or file.
        """
        if channels != self.architecture.in_channels:
            raise PipelineError(
                where, f"{self.architecture.in_channels} channels, as the model has", f"{channels} channels",
                fix="choose another model, or images with the channels it was trained on",
            )  # fmt: skip

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse a configuration whose classes are not the model's.

        Raises:
            PipelineError: naming both.
        """
        if tuple(names) != self.classes:
            fix = "set labels.classes as the model has them, or train a model for these classes"
            raise PipelineError(
                "labels.classes", f"the model's classes {list(self.classes)}", list(names), list(self.classes), fix
            )

    def to_json(self) -> dict[str, Any]:
        """Return the plain values of `model.json`."""
        return {
            "format": FORMAT,
            "architecture": asdict(self.architecture),
            "classes": list(self.classes),
            "normalise": asdict(self.normalise),
            "normaliser": None if self.normaliser is None else self.normaliser.to_json(),
            "geometry": asdict(self.geometry),
            "weights_sha256": self.weights_sha256,
            "training": plain(dict(self.training)),
        }


def read_card(folder: Path) -> ModelCard:
    """Read `folder/model.json`; needs no torch and does not look at the weights.

    Raises:
        PipelineError: if the file is missing, is not JSON, or does not describe a model.
    """
    path = folder / CARD_FILE
    value = read_json(path, fix=FIX)
    if value.get("format") != FORMAT:
        raise PipelineError(f"{path}: format", repr(FORMAT), repr(value.get("format")), fix=FIX)
    names = {"format", "architecture", "classes", "normalise", "normaliser", "geometry", "weights_sha256", "training"}
    if missing := sorted(names - set(value)):
        raise PipelineError(path, f"the keys {', '.join(sorted(names))}", f"none named {', '.join(missing)}", fix=FIX)
    normaliser = value["normaliser"]
    card = ModelCard(
        _architecture(value["architecture"], f"{path}: architecture"),
        _names(value["classes"], path),
        _section(Normalise, value["normalise"], f"{path}: normalise"),
        None if normaliser is None else Normaliser.from_json(normaliser, f"{path}: normaliser"),
        value["training"],
        value["weights_sha256"],
    )
    _check(card, value, path)
    return card


def write_card(folder: Path, card: ModelCard, check: Check = unclaimed) -> None:
    """Write `folder/model.json`; it appears whole or not at all."""
    _check(card, card.to_json(), folder / CARD_FILE)
    write_json(folder / CARD_FILE, card.to_json(), check)


def _architecture(value: Any, where: str) -> Architecture:
    """Build the architecture; cards written before there were ensembles say nothing of members."""
    return _section(Architecture, {"members": 1} | value if isinstance(value, dict) else value, where)


def _section(kind: type[T], value: Any, where: str) -> T:
    """Build a section; unlike in a configuration no key may be left to its default."""
    section = build(kind, value, where)
    if missing := [f.name for f in fields(kind) if f.name not in value]:  # type: ignore[arg-type]
        raise PipelineError(where, f"the key {missing[0]}", f"only {', '.join(value) or 'nothing'}", fix=FIX)
    return section


def _names(value: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise PipelineError(f"{path}: classes", "a list of names", repr(value), fix=FIX)
    return tuple(value)


def _check(card: ModelCard, value: Mapping[str, Any], path: Path) -> None:
    """Refuse a card whose parts contradict each other."""
    outputs, channels = card.architecture.classes, card.architecture.in_channels
    if len(card.classes) != outputs or len(set(card.classes)) != outputs:
        raise PipelineError(f"{path}: classes", f"{outputs} different names", list(card.classes), fix=FIX)
    if (card.normaliser is None) != (card.normalise.scope == "stack"):
        raise PipelineError(f"{path}: normaliser", "constants with scope model, null with stack", card.normalise.scope)
    if card.normaliser is not None and len(card.normaliser.offset) != channels:
        raise PipelineError(f"{path}: normaliser", f"{channels} channels", len(card.normaliser.offset), fix=FIX)
    if value["geometry"] != asdict(card.geometry):
        raise PipelineError(f"{path}: geometry", f"{asdict(card.geometry)}", value["geometry"], fix=FIX)
    if not isinstance(card.training, Mapping) or not isinstance(card.weights_sha256, str):
        raise PipelineError(path, "training as an object and weights_sha256 as text", "something else", fix=FIX)
