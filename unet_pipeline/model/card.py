"""The card of a model, readable without torch: network, classes, normalisation, geometry, training record.

A model is a folder of two files, `weights.safetensors` (tensors, no pickle) and `model.json` (this card, which holds
the SHA-256 of the first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy.typing as npt

from unet_pipeline.config.keys import build, key, plain
from unet_pipeline.config.network_section import ENCODER_DEPTH, Down, Model, Network, Stem, Up, Widen
from unet_pipeline.config.sections import Normalise, Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.model import receptive_field
from unet_pipeline.model.geometry import ALONE, Geometry, padded, resized, unpadded
from unet_pipeline.model.normalise import Normaliser, from_statistics
from unet_pipeline.records.files import Check, digest, unclaimed
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import Provenance
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.records.stack_records import Statistics

T = TypeVar("T")
Activation = Literal["softmax", "sigmoid"]

FORMAT = "unet_pipeline model 2"
FIX = "restore the model folder, or train again: run the workflow with `--forcerun results/model/model.json`"


@dataclass(frozen=True)
class Architecture:
    """The facts to build a network from; the paper's are ("unet", 4, 64, 1, 2, 0.5); fields as of `sections.Model`."""

    network: Network = key("unet", "unet, or the encoder")
    depth: int = key(4, "number of poolings", 1, 6)
    base_channels: int = key(64, "channels of the first level; doubled at each pooling", 1, 256)
    in_channels: int = key(1, "channels of the image", 1, 1024)
    classes: int = key(2, "output classes, background included", 2, 32)
    dropout: float = key(0.5, "dropout probability at the end of the contracting path", 0, 0.95)
    padded: bool = key(False, "zeros around each convolution")
    batch_norm: bool = key(False, "batch normalisation")
    down: Down = key("pool", "how the resolution is halved")
    up: Up = key("transposed", "how it is doubled")
    up_relu: bool = key(False, "ReLU after each up-convolution")
    wide_up: bool = key(False, "the last up-convolution keeps its channels")
    resize_output: bool = key(False, "output stretched to the size of the input")
    stem: Stem = key("full", "resolution of the first level")
    widest: int | None = key(None, "most channels of a level", 1, 16384)
    residual: bool = key(False, "what enters a level is added to what its convolutions give")
    members: int = key(1, "networks of this kind whose probabilities are averaged, an ensemble", 1, 64)
    dimensions: int = key(2, "2: of planes, 3: of volumes", 2, 3)
    z_levels: int = key(0, "of a volume: levels from the bottom up that see z", 0, 7)
    widen: Widen = key("after", "channels are doubled after a pooling, or before it by the level above")

    @property
    def planar_levels(self) -> int:
        """Levels of a volume, from the top down, that work plane by plane."""
        return self.depth + 1 - self.z_levels

    @property
    def pixels_per_position(self) -> int:
        """Pixels of the image for each position of the first level: a stem at half the resolution takes several."""
        halved = 3 if self.dimensions == 3 and self.planar_levels == 0 else 2
        return int(2**halved) if self.stem == "half" else 1


ENCODER_LEVELS: Mapping[str, Callable[[], list[receptive_field.Level]]] = {
    "vgg16": receptive_field.vgg16,
    "resnet50": receptive_field.resnet50,
}
"""Levels of the networks on torchvision's encoders; their modules stand in `networks.encoders`."""


def architecture(model: Model, channels: int, classes: int) -> Architecture:
    """Return the network of section `model` for images with `channels` channels and `classes` classes.

    Raises:
        PipelineError: if the depth is still open, or the levels of a volume that see z; see `depth`, `voxels`.
    """
    depth, base, own = model.depth, model.base_channels, model.network in ENCODER_DEPTH
    if own:
        depth, base = ENCODER_DEPTH[model.network], 64
    if depth == "auto":
        raise _still_open("depth")
    if model.dimensions == 3 and model.z_levels == "auto":
        raise _still_open("z_levels")
    return Architecture(
        model.network, depth, base, channels, classes, model.dropout, model.padded or own, model.batch_norm,
        model.down, model.up, model.up_relu, model.wide_up, model.resize_output,
        model.stem, model.widest, model.residual,
        dimensions=model.dimensions, z_levels=model.levels_along_z, widen=model.widen,
    )  # fmt: skip


def _still_open(name: str) -> PipelineError:
    fix = f"name the trained model (--model), or set model.{name} to the number in its model.json"
    return PipelineError(f"model.{name}", "a number where nothing is trained", "auto", fix=fix)


def geometry(architecture: Architecture) -> Geometry:
    """Return the size arithmetic of a network along y and x, which are alike."""
    if architecture.stem == "half":
        return geometry(replace(architecture, stem="full")).doubled()
    depth, bilinear = architecture.depth, architecture.up == "bilinear"
    own = ENCODER_LEVELS.get(architecture.network)
    if own or architecture.padded:
        levels = own() if own else receptive_field.unet(depth, architecture.down == "stride")
        return padded(receptive_field.radius_px(levels, bilinear), 2**depth)
    if architecture.resize_output:
        return resized(depth)
    return unpadded(depth, lost_up_px=int(bilinear))


def geometry_z(architecture: Architecture) -> Geometry:
    """Return the size arithmetic of a network along z: planes for themselves where it does not see z."""
    if architecture.dimensions == 2:
        return ALONE
    if architecture.stem == "half" and architecture.planar_levels == 0:
        return geometry_z(replace(architecture, stem="full")).doubled()
    # levels that leave z alone change nothing along it: what is left is a network of the levels that see it
    depth = architecture.z_levels - 1
    if architecture.padded:
        levels = receptive_field.unet(depth, architecture.down == "stride")
        return padded(receptive_field.radius_px(levels, bilinear=False), 2**depth)
    return unpadded(depth)


def sizes(architecture: Architecture) -> tuple[Geometry, ...]:
    """Return the size arithmetic along each axis that a network takes: (y, x), or (z, y, x)."""
    plane = geometry(architecture)
    return (plane, plane) if architecture.dimensions == 2 else (geometry_z(architecture), plane, plane)


def training_tile(architecture: Architecture, options: Train) -> tuple[int, ...]:
    """Return the size of the output tiles that a network learns from: (y, x), or (z, y, x), px.

    Planes of auto: as far along z as along y, by the levels that leave z alone since voxels are longer there.

    Raises:
        PipelineError: a size that is no multiple of the stride; names the nearest that is.
    """
    plane, side = geometry(architecture), options.tile_edge_px
    plane.check_keep(side, "train.tile_px")
    if architecture.dimensions == 2:
        return side, side
    along_z = geometry_z(architecture)
    planes = max(along_z.stride, (side >> architecture.planar_levels) // along_z.stride * along_z.stride)
    if options.tile_planes != "auto":
        planes = options.tile_planes
    along_z.check_keep(planes, "train.tile_planes")
    return planes, side, side


@dataclass(frozen=True)
class ModelCard:
    """The content of `model.json`.

    Attributes:
        architecture: the network.
        classes: class names; the first is the background; as many as the network has outputs.
        normalise: how grey values are normalised.
        normaliser: the constants of the training set with `normalise.scope` "model"; None with "stack", where every
            stack brings its own statistics.
        activation: it makes probabilities of the outputs: softmax over the classes, or a sigmoid of each.
        training: record of the training: settings, steps, scores, provenance; plain values.
        weights_sha256: SHA-256 of `weights.safetensors`; empty before the model is saved.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    normalise: Normalise = Normalise()
    normaliser: Normaliser | None = None
    activation: Activation = "softmax"
    training: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    @property
    def step(self) -> str:
        """The step that wrote it: "train", or "ensemble" for the mean of several networks."""
        return "ensemble" if self.architecture.members > 1 else "train"

    def made(self, where: object) -> Provenance | None:
        """Return what made it; None for a model that was made without this pipeline.

        Raises:
            PipelineError: if its training record says something else; names `where`, its file.
        """
        made = self.training.get("provenance")
        return None if made is None else build(Provenance, made, f"{where}: training.provenance")

    @property
    def identity(self) -> str:
        """A digest of all that predictions depend on: this card, with the checksum of the weights.

        Of the training record only the members of an ensemble, which say what each has seen.
        """
        facts = {name: value for name, value in self.to_json().items() if name != "training"}
        return digest([facts, plain(self.training.get("members"))])

    @property
    def geometry(self) -> Geometry:
        """Size arithmetic of the network."""
        return geometry(self.architecture)

    @property
    def geometry_z(self) -> Geometry:
        """Size arithmetic of the network along z."""
        return geometry_z(self.architecture)

    def normaliser_of(self, statistics: Statistics, dtype: npt.DTypeLike) -> Normaliser:
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
            "step": self.step,
            "format": FORMAT,
            "architecture": _described(self.architecture),
            "classes": list(self.classes),
            "normalise": asdict(self.normalise),
            "normaliser": None if self.normaliser is None else self.normaliser.to_json(),
            "activation": self.activation,
            "geometry": asdict(self.geometry),
            **({"geometry_z": asdict(self.geometry_z)} if self.architecture.dimensions == 3 else {}),
            "weights_sha256": self.weights_sha256,
            "training": plain(dict(self.training)),
        }


def read_card(folder: Path) -> ModelCard:
    """Read `folder/model.json`; needs no torch and does not look at the weights.

    Raises:
        PipelineError: if the file is missing, is not JSON, or does not describe a model.
    """
    path = folder / CARD_FILE
    return parse_card(read_json(path, fix=FIX), path)


def is_card(value: Mapping[str, Any]) -> bool:
    """Return whether what was read from a file means to be a card: cards name their format, records do not."""
    return "format" in value


def parse_card(value: Mapping[str, Any], path: Path) -> ModelCard:
    """Return the card that was read from a file; raises as `read_card`."""
    if value.get("format") != FORMAT:
        raise PipelineError(f"{path}: format", repr(FORMAT), repr(value.get("format")), fix=FIX)
    names = {"format", "geometry", *(f.name for f in fields(ModelCard))}
    if missing := sorted(names - set(value)):
        raise PipelineError(path, f"the keys {', '.join(sorted(names))}", f"none named {', '.join(missing)}", fix=FIX)
    normaliser = value["normaliser"]
    card = ModelCard(
        _architecture(value["architecture"], f"{path}: architecture"),
        _names(value["classes"], path),
        _section(Normalise, value["normalise"], f"{path}: normalise"),
        None if normaliser is None else Normaliser.from_json(normaliser, f"{path}: normaliser"),
        value["activation"],
        value["training"],
        value["weights_sha256"],
    )
    _check(card, value, path)
    return card


def write_card(folder: Path, card: ModelCard, check: Check = unclaimed) -> None:
    """Write `folder/model.json`; it appears whole or not at all."""
    _check(card, card.to_json(), folder / CARD_FILE)
    write_json(folder / CARD_FILE, card.to_json(), check)


VOLUME_KEYS: Mapping[str, Any] = {"dimensions": 2, "z_levels": 0, "widen": "after"}
"""Fields of `Architecture` that cards leave out where they have these values: older cards stay what they are."""


def _described(architecture: Architecture) -> dict[str, Any]:
    facts = asdict(architecture)
    return {name: value for name, value in facts.items() if name not in VOLUME_KEYS or value != VOLUME_KEYS[name]}


def _architecture(value: Any, where: str) -> Architecture:
    """Build the architecture; cards written before there were ensembles say nothing of members."""
    return _section(Architecture, {"members": 1, **VOLUME_KEYS} | value if isinstance(value, dict) else value, where)


def _section(kind: type[T], value: Any, where: str) -> T:
    """Build a section; unlike in a configuration, no key may be absent."""
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
    if card.activation not in get_args(Activation):
        raise PipelineError(f"{path}: activation", " or ".join(get_args(Activation)), repr(card.activation), fix=FIX)
    if value.get("step", card.step) != card.step:  # cards of before 0.2 do not name their step
        raise PipelineError(f"{path}: step", card.step, value["step"], fix=FIX)
    if value["geometry"] != asdict(card.geometry):
        raise PipelineError(f"{path}: geometry", f"{asdict(card.geometry)}", value["geometry"], fix=FIX)
    along_z = asdict(card.geometry_z) if card.architecture.dimensions == 3 else None
    if value.get("geometry_z") != along_z:
        raise PipelineError(f"{path}: geometry_z", f"{along_z}", value.get("geometry_z"), fix=FIX)
    if not isinstance(card.training, Mapping) or not isinstance(card.weights_sha256, str):
        raise PipelineError(path, "training as an object and weights_sha256 as text", "something else", fix=FIX)
