"""What the page says of the model: the network, how it was trained, and the curves."""

from __future__ import annotations

from typing import Any

from unet_pipeline.model.card import Architecture
from unet_pipeline.report.curves import TRAINING, VALIDATION, colour, dice_curve, image_size, loss_curve, rate_curve
from unet_pipeline.report.html import (
    Markup,
    count,
    details,
    facts,
    figure,
    flattened,
    grid,
    joined,
    legend,
    number,
    paragraph,
    picture,
    table,
)
from unet_pipeline.report.results import ModelResult

NETWORKS = {
    "unet": "U-Net of Ronneberger et al. 2015",
    "vgg16": "U-Net on the encoder VGG16",
    "resnet50": "U-Net on the encoder ResNet50",
}


def training_section(model: ModelResult) -> Markup:
    """Return the facts of the model and its training, and the curves where there is a history."""
    tables = [facts("Network", _network(model))]
    if rows := _training(model):
        tables.append(facts("Training", rows))
    parts: list[object] = [grid(tables, "pair"), *_members(model)]
    if len(parts) > 1:
        parts.append(paragraph("The curves of each member lie in its own folder, as history.tsv."))
    elif model.history is None:
        parts.append(paragraph("The model folder holds no history.tsv: it was trained elsewhere, without curves here."))
    else:
        parts.append(grid(_curves(model), "curves"))
    # What made the model stands with the provenance of the page.
    record = {key: value for key, value in model.card.training.items() if key != "provenance"}
    if record:
        parts.append(details("Record of the training", facts("Record", flattened(record))))
    return joined(parts)


def kept_step(model: ModelResult) -> int | None:
    """Return the step whose weights were kept, where the training record names it."""
    step = model.card.training.get("selected_step")
    return step if isinstance(step, int) else None


def _network(model: ModelResult) -> list[tuple[object, object]]:
    card, network = model.card, model.card.architecture
    geometry = card.geometry
    scope = "each stack by its own" if card.normalise.scope == "stack" else "all stacks by those of the training stacks"
    grey = f", {card.normalise.low:g} % to {card.normalise.high:g} %" if card.normalise.method == "percentile" else ""
    rows = [
        ("Architecture", f"{NETWORKS[network.network]}, {', '.join(_departures(network))}"),
        ("Size", f"depth {network.depth}, {network.base_channels} channels at the first level"),
        ("Networks", f"{network.members}, whose probabilities are averaged") if network.members > 1 else None,
        ("Parameters", count(model.parameters)),
        ("Channels in", network.in_channels),
        ("Classes", ", ".join(card.classes)),
        ("Grey values", f"{card.normalise.method}{grey}; {scope}"),
        (
            "Sees",
            f"{geometry.before} px before and {geometry.after} px after a tile; pooling stride {geometry.stride} px",
        ),
    ]
    return [row for row in rows if row is not None]


def _members(model: ModelResult) -> list[Markup]:
    """Return the table of an ensemble's members with mean and spread, as a list; empty of a single network."""
    record = model.card.training
    members = _mappings(record.get("members"))
    if not members:
        return []
    head = ["Member", "Planes held out", "Step kept", "Validation loss", *(f"Dice {x}" for x in model.card.classes)]
    rows: list[list[object]] = []
    for one in members:
        name = f"fold {one['fold']}" if "fold" in one else one.get("model")
        held_out = sum(len(_items(place.get("planes"))) for place in _mappings(one.get("held_out")))
        rows.append([name, count(held_out), count(_known(one.get("selected_step"))), *_scores(model, one)])
    rows.append(["mean", "", "", *_scores(model, _mapping(record.get("mean")))])
    rows.append(["spread (standard deviation)", "", "", *_scores(model, _mapping(record.get("spread")))])
    return [table("Members of the ensemble, each scored on validation tiles it did not learn from", head, rows)]


def _scores(model: ModelResult, record: dict[str, Any]) -> list[str]:
    """Return validation loss and Dice of each class as text."""
    dice = [_known(value) for value in _items(record.get("validation_dice"))]
    dice += [None] * (len(model.card.classes) - len(dice))
    return [number(_known(record.get("validation_loss")), 4), *(number(value) for value in dice)]


def _departures(network: Architecture) -> list[str]:
    """Return in words how a network differs from the paper's."""
    words = {
        "batch_norm": "batch normalisation",
        "up_relu": "ReLU after up-convolutions",
        "wide_up": "wide last up-convolution",
        "resize_output": "output stretched to the input's size",
    }
    named = [text for name, text in words.items() if getattr(network, name)]
    down = ["convolutions of stride 2"] if network.down == "stride" else []
    up = ["bilinear up-sampling"] if network.up == "bilinear" else []
    return ["padded" if network.padded else "unpadded", *down, *up, *named]


def _training(model: ModelResult) -> list[tuple[object, object]]:
    """Return what the training record says of the most asked; each row only where it is there."""
    record = dict(model.card.training)
    settings = _mapping(_mapping(record.get("settings")).get("train"))
    rows: list[tuple[object, object]] = []
    if "steps" in record:
        known = {"batch", "tile_px"} <= set(settings)
        batch = f", each of {settings['batch']} tile(s) of {settings['tile_px']} px" if known else ""
        rows.append(("Steps", f"{count(record['steps'])}{batch}"))
    for key, name in (("stacks", "Trained on"), ("validation_stacks", "Validated on")):
        if names := record.get(key):
            rows.append((name, ", ".join(map(str, names)) if isinstance(names, list) else names))
    if places := _mappings(record.get("held_out")):
        words = [f"{one.get('stack')}: {_listed(_items(one.get('planes')))}" for one in places]
        rows.append(("Planes held out", "; ".join(words)))
    if kept_step(model) is not None:
        rows.append(("Weights kept", f"{record.get('selected', 'those')} (step {count(kept_step(model))})"))
    for key, name in (("train_loss", "Training loss"), ("validation_loss", "Validation loss")):
        if isinstance(record.get(key), float):
            rows.append((name, number(record[key], 4)))
    if isinstance(dice := record.get("validation_dice"), list) and len(dice) == len(model.card.classes):
        words = [f"{name} {number(value)}" for name, value in zip(model.card.classes, dice, strict=True)]
        rows.append(("Validation Dice", ", ".join(words)))
    if settings:
        rows.append(("Precision", settings.get("precision")))
    if "device" in record:
        rows.append(("Device", f"{record['device']}, {record.get('threads', '?')} thread(s)"))
    return rows


def _listed(planes: list[Any]) -> str:
    return ", ".join(map(str, planes[:12])) + (f" and {len(planes) - 12} more" if len(planes) > 12 else "")


def _curves(model: ModelResult) -> list[Markup]:
    history = model.history
    if history is None:
        return []
    kept = history.kept(kept_step(model))
    keys = [(TRAINING, "training"), (VALIDATION, "validation")] if history.column("validation_loss") else []
    circle = f"The circle marks the weights that were kept, of step {kept[0]:,.0f}." if kept else ""
    shown = [_curve(loss_curve(history, kept), "Loss over the steps of training", legend(keys), circle)]
    if history.dice:
        names = [(colour(index), name) for index, name in enumerate(history.dice)]
        shown.append(_curve(dice_curve(history), "Dice on validation tiles over the steps of training", legend(names)))
    if history.column("learning_rate"):
        shown.append(_curve(rate_curve(history), "Learning rate over the steps of training"))
    return shown


def _curve(png: bytes, alt: str, *caption: object) -> Markup:
    return figure(picture(png, image_size(), alt), None, *caption)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> list[dict[str, Any]]:
    return [one for one in _items(value) if isinstance(one, dict)]


def _known(value: object) -> float | None:
    return value if isinstance(value, float | int) else None
