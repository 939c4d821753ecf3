"""A finished model that a training starts from: held against the network to be trained before anything is taken.

All layers are taken but the head, the last 1x1 convolution, which is new where it has to tell other classes apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unet_pipeline.config.sections import Config, Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture, ModelCard, architecture, read_card
from unet_pipeline.model.package import model_folder
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import portable_path

WHERE = "model.start_from"
HEAD = "head"
"""Name of the layer that gives the scores of the classes, in every network."""

FREE = ("classes", "dropout", "members")
"""Fields of an architecture in which a start may differ: the head follows the first, dropout has no weights."""

USED = {"percentile": ("low", "high"), "fixed": ("black", "white")}
"""Keys of section `normalise` that a method uses."""


@dataclass(frozen=True)
class Start:
    """A model to start from, whose network fits.

    Attributes:
        folder: the model folder, or a package of it.
        card: its card.
        network: what is to be trained.
        new_head: whether the head is new, for other classes or another activation than the model's.
        judged: whether the planes that validate may judge it: it has not learned from them, as far as names tell.
    """

    folder: Path
    card: ModelCard
    network: Architecture
    new_head: bool
    judged: bool = True

    def layers(self) -> tuple[list[str], list[str]]:
        """Return the names of the layers with weights that are taken, and of those that are new."""
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in _shapes(self.network)))
        new = [HEAD] if self.new_head else []
        return [name for name in names if name not in new], new

    def record(self) -> dict[str, Any]:
        """Return what the card of the new model says of its start; plain values."""
        taken, new = self.layers()
        return {
            "model": portable_path(self.folder),
            "weights_sha256": self.card.weights_sha256,
            "classes": list(self.card.classes),
            "taken": taken,
            "new": new,
        }

    def seen(self, stacks: Iterable[str]) -> list[str]:
        """Return which of some stacks have the name of one that the model was trained on."""
        trained = self.card.training.get("stacks")
        return sorted(set(stacks) & set(map(str, trained if isinstance(trained, list) else [])))

    def doubts(self, normalise: Normalise, validation: Iterable[str]) -> list[str]:
        """Return what may be meant but seldom is, in sentences.

        Args:
            normalise: how grey values are normalised in this training.
            validation: names of the stacks with planes that validate it.
        """
        told, before, now = [], _scaling(self.card.normalise), _scaling(normalise)
        if before != now:
            told.append(f"{WHERE} learned from grey values scaled by {before}, this training scales them by {now}")
        for name in self.seen(validation):
            told.append(
                f"{WHERE} was trained on a stack of the name {name}: if it has seen the planes that validate here, "
                "their score says little of others"
            )
        return told


def start_card(start: str) -> ModelCard:
    """Return the card of a model to start from, a folder or a package; raises as `read_card` and `model_folder`."""
    with model_folder(Path(start), [CARD_FILE]) as folder:
        return read_card(folder)


def open_start(config: Config, new: ModelCard) -> Start | None:
    """Read the card of the model to start from and hold it against that of the model to be trained.

    Returns:
        None where training starts from random weights.

    Raises:
        PipelineError: no whole card, an ensemble, or another network: names what differs and the layers that do not
            fit.
    """
    if config.model.start_from is None:
        return None
    folder = Path(config.model.start_from)
    card = start_card(config.model.start_from)
    _check_alike(folder, card.architecture, new.architecture)
    return Start(folder, card, new.architecture, (card.classes, card.activation) != (new.classes, new.activation))


def check_start(config: Config) -> None:
    """Hold the model to start from against the configuration, before any image is read; raises as `open_start`."""
    if config.model.start_from is not None:
        found = start_card(config.model.start_from).architecture
        model = config.model
        model = replace(model, depth=found.depth) if model.depth == "auto" else model
        if model.dimensions == found.dimensions == 3 and model.z_levels == "auto":
            model = replace(model, z_levels=found.z_levels)  # held against the voxels' later, once they are known
        wanted = architecture(model, found.in_channels, len(config.labels.classes))
        _check_alike(Path(config.model.start_from), found, wanted)


def _check_alike(folder: Path, found: Architecture, wanted: Architecture) -> None:
    if found.members > 1:
        fix = "name the folder of one member, such as a copy of results/folds/0"
        raise PipelineError(f"{WHERE}: {folder}", "one network", f"an ensemble of {found.members}", fix=fix)
    theirs, ours = ({k: v for k, v in asdict(one).items() if k not in FREE} for one in (found, wanted))
    differing = [name for name in ours if theirs[name] != ours[name]]
    if not differing:
        return
    got = "; ".join([f"one with {_said(theirs, differing)}", *_unfit(found, wanted)])
    keys = ", ".join(f"model.{name}: {_yaml(theirs[name])}" for name in differing if name != "in_channels")
    fix = f"set {keys}, as that model has, or name another model" if keys else "name another model"
    if "in_channels" in differing:
        fix += f", one that was trained on images with {ours['in_channels']} channel(s)"
    raise PipelineError(f"{WHERE}: {folder}", f"a model with {_said(ours, differing)}", got, fix=fix)


def _said(facts: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {_yaml(facts[name])}" for name in names)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unfit(found: Architecture, wanted: Architecture) -> list[str]:
    """Return in words which layers do not fit; nothing if none, or where there is no torch to build networks with."""
    try:
        theirs, ours = _shapes(found), _shapes(wanted)
    except ImportError:
        return []
    unlike = [
        f"{name} {theirs.get(name, 'nothing')} instead of {ours.get(name, 'nothing')}"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name) and name.rpartition(".")[0] != HEAD
    ]
    more = f" and {len(unlike) - 6} more" if len(unlike) > 6 else ""
    return [f"layers that do not fit: {', '.join(unlike[:6])}{more}"] if unlike else []


def _shapes(network: Architecture) -> dict[str, tuple[int, ...]]:
    from unet_pipeline.model.models import tensor_shapes  # here: torch, which the start of a workflow does without

    return tensor_shapes(network)


def _scaling(normalise: Normalise) -> str:
    values = [f"{name} {getattr(normalise, name):g}" for name in USED.get(normalise.method, ())]
    return " ".join([normalise.method, *values])
