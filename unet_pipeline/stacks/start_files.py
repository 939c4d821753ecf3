"""The files that a training starts from: the weights of an encoder, or a finished model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unet_pipeline.config.network_section import Model
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import CARD_FILE, WEIGHTS_FILE, previous_model


def start_files(model: Model) -> list[Path]:
    """Return the files that a training starts from, whose change makes it run again; none: random weights."""
    if model.start_from is not None:
        start = Path(model.start_from)
        return [start] if is_zip(start) else [start / name for name in (CARD_FILE, WEIGHTS_FILE)]
    return [] if model.encoder_weights is None else [Path(model.encoder_weights)]


def is_zip(model: Path) -> bool:
    """Return whether a model is named by the zip of a package, which need not be there, and not by its folder."""
    return model.suffix.lower() == ".zip" and not model.is_dir()


def check_start_files(model: Model) -> None:
    """Refuse a start that is not there.

    Raises:
        PipelineError: naming the key and the file.
    """
    lost = [path for path in start_files(model) if not path.is_file()]
    if not lost:
        return
    if model.start_from is not None:
        fix = (
            "name a folder that a training wrote, such as a copy of results/model, or a bioimage.io package that was "
            "exported here: the zip, or the folder it was unpacked into"
        )
        expected = "the zip of a package" if is_zip(lost[0]) else f"a folder with {lost[0].name}"
        got = f"no file {lost[0]}" if is_zip(lost[0]) else model.start_from
        raise PipelineError("model.start_from", expected, got, fix=fix)
    fix = "put the state-dict of torchvision's network there, or set the key to null to start from random weights"
    raise PipelineError("model.encoder_weights", "a file of weights", f"no file {lost[0]}", fix=fix)


def refuse_own_start(model: Model, made: Iterable[Path]) -> None:
    """Refuse to start from a model that the training itself replaces: each run would start from another one.

    Args:
        model: section `model`.
        made: folders of models that the training writes; that of the model of before goes with each.

    Raises:
        PipelineError: if the start lies in one of them.
    """
    if model.start_from is None:
        return
    start = Path(model.start_from).resolve()
    replaced = [place.resolve() for folder in made for place in (folder, previous_model(folder))]
    if any(start.is_relative_to(place) for place in replaced):
        fix = f"copy that folder elsewhere first, and name the copy: cp -r {model.start_from} models/first"
        expected = "a model that this training does not replace"
        raise PipelineError("model.start_from", expected, model.start_from, fix=fix)
