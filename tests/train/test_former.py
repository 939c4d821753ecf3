"""A model that is trained anew: the former one stays whole, and is kept, once, when another took its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import make_model, settings
from same_tree import tree
from test_train import weighed

from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError
from unet_pipeline.model import former
from unet_pipeline.model.former import set_aside
from unet_pipeline.model.models import load_model
from unet_pipeline.records.layout import CARD_FILE, FORMER, HISTORY_FILE, WEIGHTS_FILE
from unet_pipeline.train import loop
from unet_pipeline.train.ensemble import ensemble
from unet_pipeline.train.train import train_model

KEPT = (CARD_FILE, HISTORY_FILE, WEIGHTS_FILE)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weigh.json` of a stack."""
    return weighed(tmp_path_factory.mktemp("stack"))


def begin(folder: Path) -> Path | None:
    """Do what a Snakemake does before a training: set the model aside, then remove the outputs of the job."""
    aside = set_aside(folder)
    for name in KEPT:
        (folder / name).unlink(missing_ok=True)
    return aside


def again(record: Path, folder: Path, seed: int) -> None:
    train_model([record], [], settings(train={"seed": seed}), folder)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.mark.slow
def test_the_former_model_stays_and_is_kept_once(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, previous = tmp_path / "model", tmp_path / "model.previous"
    assert begin(model) is None
    again(record, model, 1)
    assert not previous.exists()
    first = content(model)
    assert begin(model) == model / FORMER

    def killed(*arguments: object) -> None:
        raise PipelineError("train", "to end", "a wall-time limit")

    with monkeypatch.context() as patch, pytest.raises(PipelineError, match="wall-time"):
        patch.setattr(loop, "_add_row", killed)
        again(record, model, 2)
    said = capsys.readouterr().err
    assert f"the former model stays in {model / FORMER} until this one is complete, then in {previous}" in said
    assert f"the former model is whole, in {model / FORMER}" in said
    assert content(model / FORMER) == first
    load_model(model / FORMER, torch.device("cpu"))
    assert not previous.exists()
    assert begin(model) == model / FORMER, "a run that goes on finds the former model where it was"
    again(record, model, 2)
    assert content(previous) == first
    assert not (model / FORMER).exists()
    second = content(model)
    begin(model)
    again(record, model, 2)
    assert content(model) == second
    assert content(previous) == first, "the same model made again takes nobody's place"
    begin(model)
    again(record, model, 3)
    assert content(previous) == second
    assert " 0 damaged" in said_by_verify(tmp_path)


def said_by_verify(folder: Path) -> str:
    lines: list[str] = []
    try:
        verify(folder, lines.append)
    except PipelineError as error:
        lines.append(str(error))
    return "\n".join(lines)


@pytest.mark.parametrize("cut", range(9))
def test_a_replacement_that_is_cut_off_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Killed before any change of a file, and done again: the former model is kept in place of the one before it."""
    model, previous = make_model(tmp_path / "model", seed=1), make_model(tmp_path / "model.previous", seed=2)
    first = tree(model)
    begin(model)
    left = cut

    def before(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return change(*given, **more)

        return changed

    with monkeypatch.context() as patch:
        for owner, name in ((os, "link"), (Path, "mkdir"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            patch.setattr(owner, name, before(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            make_model(model, seed=3)
    assert first in (tree(model / FORMER), tree(previous))
    make_model(model, seed=3)
    assert tree(previous) == first


def test_a_damaged_model_takes_nobodys_place(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", seed=1)
    data = (model / WEIGHTS_FILE).read_bytes()
    (model / WEIGHTS_FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert begin(model) is None
    make_model(model, seed=2)
    assert not (tmp_path / "model.previous").exists()


def test_an_ensemble_that_is_replaced_is_kept(tmp_path: Path) -> None:
    for seed in range(3):
        make_model(tmp_path / "folds" / str(seed), seed=seed)
    folds, model = [tmp_path / "folds" / str(seed) for seed in range(3)], tmp_path / "model"
    ensemble(folds[:2], model)
    first = (model / WEIGHTS_FILE).read_bytes()
    begin(model)
    ensemble(folds, model)
    assert (tmp_path / "model.previous" / WEIGHTS_FILE).read_bytes() == first


def test_copies_serve_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(former.os, "link", no_links)
    model = make_model(tmp_path / "model")
    before = tree(model)
    assert begin(model) == model / FORMER
    assert tree(model / FORMER) == before


def test_verify_reads_kept_models_and_says_what_to_do(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", seed=1)
    make_model(tmp_path / "model.previous", seed=2)
    set_aside(model)
    for folder in (tmp_path / "model.previous", model / FORMER):
        weights = folder / WEIGHTS_FILE
        data = weights.read_bytes()
        weights.unlink()  # which may be a hard link to that of the model itself
        weights.write_bytes(data[:-1])
        said = said_by_verify(tmp_path)
        assert f"{weights}: expected the file" in said
        assert f"what to do: remove {folder}, a model that was replaced" in said
        assert " 1 damaged" in said
        shutil.rmtree(folder)
    assert " 0 damaged" in said_by_verify(tmp_path)


@pytest.mark.parametrize("name", [".training", "samples", "tensorboard"])
def test_a_training_removes_and_writes_nothing_where_a_link_leads(record: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "former").mkdir(parents=True)
    for file in ("000001.png", "former/kept.txt", "state.safetensors", "events.out.tfevents.1"):
        (elsewhere / file).write_text("mine")
    before = tree(elsewhere)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).symlink_to(elsewhere)
    config = settings(watch={"samples": True}, train={"seed": 1})
    with pytest.raises(PipelineError, match=f"{name}: expected a folder of these results, got a symbolic link"):
        train_model([record], [], config, tmp_path / "model")
    assert tree(elsewhere) == before
