"""The part of the page about the model: network, training, curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unet_pipeline.model.card import Architecture
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.report.curves import (
    METHODS,
    SCORE,
    TRAINING,
    VALIDATION,
    calibration_curve,
    colour,
    dice_curve,
    loss_curve,
    rate_curve,
)
from unet_pipeline.report.panels import Panel
from unet_pipeline.report.render import count, number, plural
from unet_pipeline.report.results import ModelResult

NETWORKS = {
    "unet": "U-Net of Ronneberger et al. 2015",
    "vgg16": "U-Net on the encoder VGG16",
    "resnet50": "U-Net on the encoder ResNet50",
}


@dataclass(frozen=True)
class TrainingSection:
    """What `training.html` shows.

    Attributes:
        network, training: names and values.
        members: of an ensemble, its table: name and cells of each row; empty of a single network.
        curves: of a training with a history.
        calibration: how objects are made, names and values; empty without a calibration.
        tried: what else was tried, as curves; none without a calibration.
        record: what the model's card says of its training, without what made it, which stands elsewhere on the page.
    """

    network: list[tuple[str, object]]
    training: list[tuple[str, object]]
    members: list[tuple[object, list[str]]]
    curves: list[Panel]
    calibration: list[tuple[str, object]]
    tried: list[Panel]
    record: dict[str, Any]


def training_section(model: ModelResult) -> TrainingSection:
    """Return the facts of the model and its training, and the curves where there is a history."""
    record = {key: value for key, value in model.card.training.items() if key != "provenance"}
    found = model.calibration
    made = _calibration(found) if found else []
    tried = [_tried(found)] if found and found.trials else []
    return TrainingSection(_network(model), _training(model), _members(model), _curves(model), made, tried, record)


def _calibration(record: CalibrateRecord) -> list[tuple[str, object]]:
    if not record.trials:
        why = "no plane validated" if not record.planes else "no object in the planes held out"
        return [("Objects are made by", f"{record.chosen}: the stated defaults, as {why}")]
    planes = sum(len(used.planes) for used in record.planes)
    stacks = ", ".join(used.stack for used in record.planes)
    return [
        ("Objects are made by", str(record.chosen)),
        ("Score", f"{record.score} {number(record.chosen_score)}; as stated, without calibration, "
                  f"{number(record.stated_score)}; both on the planes that it was chosen by, so flattered"),
        ("On", f"{plural(planes, 'plane')} that the network did not learn from ({stacks}), "
               f"{plural(record.objects, 'object')}; {plural(len(record.trials), 'way')} tried"),
    ]  # fmt: skip


def _tried(record: CalibrateRecord) -> Panel:
    """Return the best score of each method over the threshold."""
    keys = [(stroke, name) for name, stroke in METHODS.items()]
    more = "The circle marks the choice; the dashed line is the score without calibration."
    return Panel("", calibration_curve(record), f"{record.score} over the threshold", keys=keys, more=more)


def kept_step(model: ModelResult) -> int | None:
    """Return the step whose weights were kept, where the training record names it."""
    step = model.card.training.get("selected_step")
    return step if isinstance(step, int) else None


def _network(model: ModelResult) -> list[tuple[str, object]]:
    card, network = model.card, model.card.architecture
    geometry = card.geometry
    scope = "each stack by its own" if card.normalise.scope == "stack" else "all stacks by those of the training stacks"
    grey = f", {card.normalise.low:g} % to {card.normalise.high:g} %" if card.normalise.method == "percentile" else ""
    rows = [
        ("Architecture", f"{NETWORKS[network.network]}, {', '.join(_departures(network))}"),
        ("Size", _size(network)),
        *_mapping(card.training.get("auto")).items(),
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


def _size(network: Architecture) -> str:
    """Return depth and channels in words."""
    most = f", at most {network.widest}" if network.widest else ""
    return f"depth {network.depth}, {network.base_channels} channels at the first level{most}"


def _members(model: ModelResult) -> list[tuple[object, list[str]]]:
    record, rows = model.card.training, []
    for one in _mappings(record.get("members")):
        name = f"fold {one['fold']}" if "fold" in one else one.get("model")
        held_out = sum(len(_items(place.get("planes"))) for place in _mappings(one.get("held_out")))
        rows.append((name, [count(held_out), count(_known(one.get("selected_step"))), *_scores(model, one)]))
    over_all = (("mean", "mean"), ("spread (standard deviation)", "spread")) if rows else ()
    return rows + [(name, ["", "", *_scores(model, _mapping(record.get(key)))]) for name, key in over_all]


def _scores(model: ModelResult, record: dict[str, Any]) -> list[str]:
    """Return validation loss and Dice of each class as text."""
    dice = [_known(value) for value in _items(record.get("validation_dice"))]
    dice += [None] * (len(model.card.classes) - len(dice))
    return [number(_known(record.get("validation_loss")), 4), *(number(value) for value in dice)]


def _departures(network: Architecture) -> list[str]:
    """Return in words how a network differs from the paper's."""
    words = {
        "residual": "residual levels",
        "batch_norm": "batch normalisation",
        "up_relu": "ReLU after up-convolutions",
        "wide_up": "wide last up-convolution",
        "resize_output": "output stretched to the input's size",
    }
    named = [text for name, text in words.items() if getattr(network, name)]
    down = ["convolutions of stride 2"] if network.down == "stride" else []
    up = ["bilinear up-sampling"] if network.up == "bilinear" else []
    stem = ["levels at half the resolution"] if network.stem == "half" else []
    return ["padded" if network.padded else "unpadded", *stem, *down, *up, *named]


def _training(model: ModelResult) -> list[tuple[str, object]]:
    """Return the most asked facts of the training record; each row only where the record has it."""
    record = dict(model.card.training)
    settings = _mapping(_mapping(record.get("settings")).get("train"))
    rows: list[tuple[str, object]] = []
    if steps := _steps(record, settings):
        rows.append(("Steps", steps))
    for key, name in (("stacks", "Trained on"), ("validation_stacks", "Validated on")):
        if names := record.get(key):
            rows.append((name, ", ".join(map(str, names)) if isinstance(names, list) else names))
    if start := _mapping(record.get("started_from")):
        weights, taken = str(start.get("weights_sha256"))[:12], len(_items(start.get("taken")))
        new = f", new: {', '.join(map(str, _items(start.get('new'))))}" if start.get("new") else ""
        rows.append(("Started from", f"{start.get('model')} (weights {weights}), {taken} layers taken{new}"))
    if places := _mappings(record.get("held_out")):
        words = [f"{one.get('stack')}: {_listed(_items(one.get('planes')))}" for one in places]
        rows.append(("Planes held out", "; ".join(words)))
    if kept_step(model) is not None:
        rows.append(("Weights kept", f"{_kept_by(record, settings)} (step {count(kept_step(model))})"))
    for key, name in (("train_loss", "Training loss"), ("validation_loss", "Validation loss")):
        if isinstance(record.get(key), float):
            rows.append((name, number(record[key], 4)))
    if isinstance(record.get("validation_score"), float):
        rows.append(("Validation score", number(record["validation_score"])))
    if isinstance(dice := record.get("validation_dice"), list) and len(dice) == len(model.card.classes):
        words = [f"{name} {number(value)}" for name, value in zip(model.card.classes, dice, strict=True)]
        rows.append(("Validation Dice", ", ".join(words)))
    if settings:
        rows.append(("Precision", settings.get("precision")))
    if "device" in record:
        rows.append(("Device", f"{record['device']}, {record.get('threads', '?')} thread(s)"))
    return rows


def _steps(record: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return in words how many steps of how many tiles there were, and why no more; empty where nothing says so."""
    early = [one for one in _mappings(record.get("members")) if "ended" in one]
    if "steps" not in record and not early:
        return ""
    most = count(_known(settings.get("steps")))
    steps = count(record["steps"]) if "steps" in record else f"at most {most}"
    has_tiles = {"batch", "tile_px"} <= set(settings)
    batch = f", each of {settings['batch']} tile(s) of {settings['tile_px']} px" if has_tiles else ""
    if early:
        return f"{steps}{batch}; {plural(len(early), 'network')} ended before {most}, as no validation was better"
    return f"{steps}{batch}" + (f"; ended before {most}: {record['ended']}" if "ended" in record else "")


def _kept_by(record: dict[str, Any], settings: dict[str, Any]) -> str:
    """Say why these weights are kept."""
    if record.get("selected") != "best":
        return str(record.get("selected", "those"))
    return {"score": "best score", "loss": "lowest loss"}.get(str(settings.get("select")), "best validation")


def _listed(planes: list[Any]) -> str:
    return ", ".join(map(str, planes[:12])) + (f" and {len(planes) - 12} more" if len(planes) > 12 else "")


def _curves(model: ModelResult) -> list[Panel]:
    history = model.history
    if history is None:
        return []
    kept = history.kept(kept_step(model))
    keys = [(TRAINING, "training"), (VALIDATION, "validation")] if history.column("validation_loss") else []
    circle = f"The circle marks the weights that were kept, of step {kept[0]:,.0f}." if kept else ""
    shown = [Panel("", loss_curve(history, kept), "Loss over the steps of training", keys=keys, more=circle)]
    if history.dice:
        names = [(colour(index), name) for index, name in enumerate(history.dice)]
        if history.column("validation_score"):
            names.append((SCORE, "score of the objects, or of all classes"))
        alt = "Dice and score on validation tiles over the steps of training"
        shown.append(Panel("", dice_curve(history), alt, keys=names))
    if history.column("learning_rate"):
        shown.append(Panel("", rate_curve(history), "Learning rate over the steps of training"))
    return shown


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> list[dict[str, Any]]:
    return [one for one in _items(value) if isinstance(one, dict)]


def _known(value: object) -> float | None:
    return value if isinstance(value, float | int) else None
