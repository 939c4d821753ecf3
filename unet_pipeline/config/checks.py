"""Plain values become a configuration: each key is held against its section, then the keys against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unet_pipeline.config.keys import build
from unet_pipeline.config.network_section import ENCODER_DEPTH, Model
from unet_pipeline.config.sections import Config, Labels
from unet_pipeline.errors import PipelineError


def from_dict(value: Mapping[str, Any], whole: bool = True) -> Config:
    """Check plain values against the sections and build the configuration.

    Args:
        value: sections by name.
        whole: whether absent sections mean their defaults. If not, `value` is the sections of one rule, and keys are
            held against each other only where both sections are there.

    Raises:
        PipelineError: unknown section or key (nearest name given), wrong type, value out of range, or keys that
            contradict each other.
    """
    _check_moved(value)
    config = build(Config, value, "config")
    _check_together(config, {f.name for f in fields(Config)} if whole else set(value))
    return config


def _check_moved(value: Mapping[str, Any]) -> None:
    """Name the new place of a key, or the new word of a value, that had another."""
    section = value.get("train")
    if isinstance(section, Mapping) and section.get("select") == "best":
        fix = "best was the lowest validation loss, which is called loss now; score counts objects"
        raise PipelineError("train.select", "score, loss or last", "best, its former word", "loss", fix)
    if isinstance(section, Mapping) and "checkpoint_every" in section:
        fix = "remove the key: checkpoints go by time now, and no change of it trains again"
        raise PipelineError("train.checkpoint_every", "compute.checkpoint_minutes", "its former place", fix=fix)
    section = value.get("predict")
    if isinstance(section, Mapping) and "threshold" in section:
        fix = "move the key to section stitch (null is now likeliest): it no longer runs the network again"
        raise PipelineError("predict.threshold", "stitch.threshold", "its former place", fix=fix)


def _check_together(config: Config, given: set[str]) -> None:
    store, labels = config.store, config.labels
    _check_multiple("store.chunk_px", store.chunk_px, 16, "16")
    _check_multiple("store.shard_px", store.shard_px, store.chunk_px, "store.chunk_px")
    _check_labels(labels)
    if config.weigh.across_planes and {"weigh", "labels"} <= given and labels.kind != "instances":
        expected = f"false with labels.kind: {labels.kind}, whose objects are numbered plane by plane"
        fix = "number the objects of the volume in the label file and set labels.kind: instances, or set it to false"
        raise PipelineError("weigh.across_planes", expected, True, False, fix)
    if config.model.folder is not None and config.model.start_from is not None:
        fix = "set model.folder to null to train further, or model.start_from to use the finished model as it is"
        raise PipelineError("model.start_from", "null with model.folder, which trains nothing", "both", fix=fix)
    if config.model.folder is None:
        _check_model(config.model)
        _check_train(config, given)
    if config.normalise.method == "fixed" and config.normalise.black >= config.normalise.white:
        raise PipelineError("normalise.black", f"less than white ({config.normalise.white})", config.normalise.black)
    if config.normalise.low >= config.normalise.high:
        raise PipelineError(
            "normalise.low", f"less than normalise.high ({config.normalise.high})", config.normalise.low
        )
    if config.model.folder is None and "model" in given:
        stride = config.model.stride
        edges = {
            "train.tile_px": config.train.tile_px,
            "tile.tile_px": config.tile.tile_px,
            "store.shard_px": store.shard_px,
        }
        for name, edge_px in edges.items():
            if name.split(".")[0] in given and edge_px != "auto":
                _check_multiple(name, edge_px, stride, "the pooling stride of model")


def _check_model(model: Model) -> None:
    """Refuse options of the network that contradict each other."""
    own = model.network in ENCODER_DEPTH
    if model.resize_output and (model.padded or own):
        raise PipelineError(
            "model.resize_output", "false: the output of a padded network has the size of its input", True, False
        )
    if model.resize_output and model.depth == "auto":
        raise PipelineError("model.depth", "a number with resize_output, whose tile is a whole plane", "auto", 3)
    if model.stem == "half" and (model.resize_output or own):
        expected = "full: an encoder has its own" if own else "full with resize_output, which stretches by itself"
        raise PipelineError("model.stem", expected, "half", "full")
    for name, value in (("widest", model.widest), ("residual", model.residual)):
        if value and own:
            raise PipelineError(f"model.{name}", "not set: the encoder's layers are torchvision's", value)
    if model.widest and model.widest < model.base_channels:
        raise PipelineError("model.widest", "base_channels or more, or null", model.widest, model.base_channels)
    if model.wide_up and (model.up == "bilinear" or own):
        raise PipelineError("model.wide_up", "up: transposed with network: unet", "no up-convolution", False)
    _check_dimensions(model)
    if model.encoder_weights and model.start_from:
        expected, fix = "null with model.start_from, which brings its encoder", "set one of the two keys to null"
        raise PipelineError("model.encoder_weights", expected, model.encoder_weights, fix=fix)
    if model.encoder_weights and not own:
        fix = f"set model.network to one of {', '.join(ENCODER_DEPTH)}, or remove the key"
        raise PipelineError("model.encoder_weights", "a network with an encoder of torchvision", model.network, fix=fix)


def _check_dimensions(model: Model) -> None:
    """Refuse options of the network that its number of dimensions does not have."""
    if model.dimensions == 2:
        if model.z_levels != "auto":
            raise PipelineError("model.z_levels", "auto with dimensions: 2, which have no z", model.z_levels, "auto")
        return
    if model.network in ENCODER_DEPTH:
        raise PipelineError("model.network", "unet with dimensions: 3", model.network, "unet")
    if model.up == "bilinear":
        raise PipelineError("model.up", "transposed with dimensions: 3", model.up, "transposed")
    if model.resize_output:
        raise PipelineError("model.resize_output", "false with dimensions: 3", True, False)
    levels = model.most_poolings + 1
    if model.z_levels != "auto" and model.z_levels > levels:
        raise PipelineError("model.z_levels", f"{levels} or less, as levels there are", model.z_levels, levels)


def _check_train(config: Config, given: set[str]) -> None:
    """Refuse losses and phases that do not fit the labels or the network, where both sections are known."""
    train, w0 = config.train, config.weigh.w0
    if train.freeze_steps and "model" in given and config.model.network not in ENCODER_DEPTH:
        raise PipelineError(
            "train.freeze_steps", "0 with network: unet, which has no encoder learned elsewhere", train.freeze_steps, 0
        )
    if "model" in given and config.model.resize_output and train.tile_px == "auto":
        raise PipelineError("train.tile_px", "a number with resize_output, whose tile is a whole plane", "auto", 128)
    if train.patience is not None and train.select == "last":
        fix = "set train.select to score or loss, or train.patience to null"
        raise PipelineError("train.patience", "null with select: last, which asks no score", train.patience, fix=fix)
    if train.folds > 1 and train.hold_out not in ("auto", 0):
        raise PipelineError("train.hold_out", "0 or auto with train.folds above 1", train.hold_out, 0)
    if train.loss == "dice" and {"weigh", "labels"} <= given and config.labels.kind != "classes" and w0 > 0:
        expected = f"a loss with pixel weights for kind: {config.labels.kind}, whose seams only weights can part"
        raise PipelineError(
            "train.loss", expected, "dice", "cross_entropy+dice",
            "take cross_entropy+dice, or set weigh.w0: 0 to do without the boundary weights",
        )  # fmt: skip


def _check_labels(labels: Labels) -> None:
    if not 2 <= len(labels.classes) <= 32 or len(set(labels.classes)) != len(labels.classes):
        raise PipelineError("labels.classes", "2 to 32 different names", list(labels.classes))
    if labels.kind != "classes" and len(labels.classes) != 2:
        raise PipelineError(
            "labels.classes", f"two names (background and the objects) with kind: {labels.kind}", list(labels.classes),
            fix="use kind: classes with values for more classes",
        )  # fmt: skip
    if labels.kind == "classes" and set(labels.values.values()) != set(labels.classes):
        raise PipelineError(
            "labels.values", f"a label value for each of {list(labels.classes)}", labels.values,
            fix="with kind: classes say which value is which class, e.g. {0: background, 255: cell}",
        )  # fmt: skip
    if labels.ignore is not None and labels.ignore in labels.values:
        raise PipelineError("labels.ignore", "a value that is no class", labels.ignore)


def _check_multiple(where: str, value: int, of: int, of_name: str) -> None:
    if value % of:
        nearest = max(of, round(value / of) * of)
        raise PipelineError(where, f"a multiple of {of_name} ({of})", value, nearest)
