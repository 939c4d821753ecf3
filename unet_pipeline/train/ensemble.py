"""Ensemble: several trained models become one model folder, which answers with the mean of their probabilities.

Everything that takes a model takes an ensemble: its weights file holds the tensors of all members, its card says how
many there are and how each of them was trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.averaging import Ensemble
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.former import kept_aside
from unet_pipeline.model.models import load_model, save_model
from unet_pipeline.records.claim import claim
from unet_pipeline.records.layout import CARD_FILE, HISTORY_FILE, PLANES_FILE, WEIGHTS_FILE
from unet_pipeline.records.provenance import portable_path, provenance

MOST = 64
"""Most members of an ensemble; see `card.Architecture`."""

OWN = ("step", "weights_sha256", "training")
"""Keys in which the cards of members may differ, besides the number of their own members."""

SCORES = ("validation_loss", "validation_score")
"""Numbers of a training record of which the card of an ensemble gives mean and spread, as of the Dice of each class."""

REPEATED = ("fold", "selected", "selected_step", "train_loss", *SCORES, "validation_dice", "held_out", "ended")
"""Keys that the card of an ensemble repeats of the training record of each member that has them."""

APART = (*REPEATED, "digest", "history_sha256", "planes_sha256", "provenance")
"""Keys that are not repeated for all members together, even where they agree."""


def ensemble(models: Sequence[Path], folder: Path) -> ModelCard:
    """Write a model folder whose network is the mean of several; the same models give the same bytes.

    An ensemble among the models counts as its members, so that every network has the same say.

    Args:
        models: model folders, two or more.
        folder: the model folder to write, none of these.

    Returns:
        The card as written.

    Raises:
        PipelineError: a model that is missing or damaged, or differs from the first in architecture, classes or
            normalisation; it is named.
    """
    _check_folders(models, folder)
    opened = [load_model(model, torch.device("cpu")) for model in models]
    cards = [card for _, card in opened]
    for model, card in zip(models, cards, strict=True):
        _check_alike(model, card, models[0], cards[0])
    networks = [one for network, _ in opened for one in members(network)]
    if len(networks) > MOST:
        raise PipelineError("--models", f"at most {MOST} networks", len(networks), MOST)
    architecture = replace(cards[0].architecture, members=len(networks))
    card = replace(cards[0], architecture=architecture, training=_record(models, cards), weights_sha256="")
    with claim(folder / CARD_FILE, folder / WEIGHTS_FILE) as mine, kept_aside(folder, tell):
        mine.check()
        for left in (HISTORY_FILE, PLANES_FILE):  # of a single model that lay here before
            (folder / left).unlink(missing_ok=True)
        return save_model(folder, Ensemble(networks), card, mine.check)


def members(network: nn.Module) -> list[nn.Module]:
    """Return the members of an ensemble, or the one network."""
    return list(network.members) if isinstance(network, Ensemble) else [network]


def _check_folders(models: Sequence[Path], folder: Path) -> None:
    if len(models) < 2:
        raise PipelineError("--models", "two model folders or more", len(models), 2)
    places = [model.resolve() for model in models]
    if len(set(places)) < len(places):
        twice = next(model for model, place in zip(models, places, strict=True) if places.count(place) > 1)
        raise PipelineError("--models", "each model once", f"{twice} twice", fix="name it once")
    if folder.resolve() in places:
        raise PipelineError("--output", "another folder than those of the models", folder, fix="name a new folder")


def _check_alike(model: Path, card: ModelCard, first: Path, like: ModelCard) -> None:
    """Refuse a member whose answers cannot be averaged with those of the first."""
    got, expected = (_comparable(each) for each in (card, like))
    for key, value in expected.items():
        if got.get(key) != value:
            fix = "leave it out, or train it as the others"
            raise PipelineError(f"{model / CARD_FILE}: {key}", f"{value}, as {first} has", got.get(key), fix=fix)


def _comparable(card: ModelCard) -> dict[str, Any]:
    values = {key: value for key, value in card.to_json().items() if key not in OWN}
    return values | {"architecture": {**values["architecture"], "members": 1}}


def _record(models: Sequence[Path], cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Return the training record of an ensemble: what all members agree in, what each has, and mean and spread."""
    records = [dict(card.training) for card in cards]
    first = records[0]
    shared = {
        key: value
        for key, value in first.items()
        if key not in APART and all(record.get(key) == value for record in records)
    }
    each = [
        {"model": portable_path(model), "weights_sha256": card.weights_sha256}
        | {key: record[key] for key in REPEATED if key in record}
        for model, card, record in zip(models, cards, records, strict=True)
    ]
    scores = {name: [record.get(name) for record in records] for name in SCORES}
    dice = [record.get("validation_dice") or [] for record in records]
    classes = range(max(map(len, dice)))
    by_class = [[one[index] for one in dice if index < len(one)] for index in classes]
    return {
        **shared,
        "members": each,
        "mean": {name: mean(values) for name, values in scores.items()}
        | {"validation_dice": [mean(values) for values in by_class]},
        "spread": {name: spread(values) for name, values in scores.items()}
        | {"validation_dice": [spread(values) for values in by_class]},
        "provenance": asdict(provenance({}, [model / CARD_FILE for model in models])),
    }


def mean(values: Sequence[Any]) -> float | None:
    """Return the mean of the numbers among some values; None where there is none."""
    numbers = [value for value in values if isinstance(value, float | int)]
    return math.fsum(numbers) / len(numbers) if numbers else None


def spread(values: Sequence[Any]) -> float | None:
    """Return the standard deviation (of a sample: divided by n - 1) of the numbers among some values; None of one."""
    numbers = [value for value in values if isinstance(value, float | int)]
    if len(numbers) < 2:
        return None
    middle = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in numbers) / (len(numbers) - 1))
