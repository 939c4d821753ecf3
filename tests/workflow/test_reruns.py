"""What a second run does after a change of keys, table, files or version, with faked stages."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from chain import make_model
from faked_project import AFTER_PLAN, FIRST, OBJECTS, TABLE, commands, later, option, project
from same_tree import tree
from workspace import Workspace

from unet_pipeline.model.card import read_card, write_card
from unet_pipeline.model.models import load_model
from unet_pipeline.records.layout import FORMER


def test_a_second_run_does_nothing(faked: Workspace) -> None:
    ran = faked.run()
    assert ran.code == 0
    assert ran.jobs == set()
    assert "Nothing to be done" in ran.text


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("report", "panel_px", 300, {"report"}),
        ("evaluate", "isbi", True, {"evaluate b", "evaluate c.1", "report"}),
        ("measure", "measures", ["area"], {"measure b", "measure c.1", "measure d", "report"}),
        ("stitch", "min_area_px", 9, OBJECTS),
        *later(("stitch", "threshold", 0.6, OBJECTS), ("stitch", "method", "distance", OBJECTS)),
        ("calibrate", "score", "seg", OBJECTS | {"calibrate"}),
        ("predict", "precision", "bfloat16", AFTER_PLAN | {"tile b", "tile c.1", "tile d"}),
        ("tile", "tile_px", 256, AFTER_PLAN - {"calibrate"} | {"tile b", "tile c.1", "tile d"}),
        ("train", "steps", 901, AFTER_PLAN | {"train"}),
        ("weigh", "w0", 5.0, AFTER_PLAN | {"train", "weigh a", "weigh b"}),
        ("store", "compression", 5, FIRST),
        *later(
            ("augment", "noise", 0.0, AFTER_PLAN | {"train"}),
            ("normalise", "low", 0.5, AFTER_PLAN | {"train"}),
            ("labels", "ignore", 9, FIRST),
        ),
    ],
)
def test_a_changed_key_runs_what_depends_on_it(
    faked: Workspace, section: str, key: str, value: object, expected: set[str]
) -> None:
    assert faked.would_run(**{section: {key: value}}) == expected


def test_keys_that_change_no_result_run_nothing(faked: Workspace) -> None:
    compute = {"threads": 7, "device": "cpu", "checkpoint_minutes": 0.5, "io_threads": 3, "container": "other.sif"}
    assert faked.would_run(compute=compute, watch={"samples": True}) == set()


CROSSED = (FIRST - {"train"}) | {
    *("train 0", "train 1", "train 2", "ensemble"),
    *("tile a", "predict a 0", "stitch a", "measure a", "evaluate a"),
}
"""With train.folds 3: a model for each fold, their ensemble, and the training stack predicted out of fold."""


@pytest.mark.slow
def test_a_model_is_set_aside_before_snakemake_removes_it(faked: Workspace) -> None:
    model = make_model(faked.folder / "results" / "model")
    before = tree(model)
    assert faked.run("--dry-run", train={"steps": 901}).code == 0
    assert not (model / FORMER).exists()
    ran = faked.run("results/model/model.json", train={"steps": 901})
    assert ran.code == 0, ran.text
    assert ran.jobs == {"train"}
    assert (
        ran.text.count(f"results/model is to be made anew. The model of before stays whole in results/model/{FORMER}")
        == 1
    )
    assert "--directory" in ran.text
    assert (model / "model.json").read_bytes() != before["model.json"]
    assert tree(model / FORMER) == before
    load_model(model / FORMER, torch.device("cpu"))
    assert "made anew" not in faked.run("--forcerun", "report", train={"steps": 901}).text


@pytest.mark.slow
def test_folds_train_side_by_side_and_become_one_model(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    space.config = {"train": {"folds": 3}}
    ran = space.run()
    assert ran.code == 0, ran.text
    assert ran.jobs == CROSSED
    assert space.would_run() == set()
    lines = commands(space)
    told = {option(words, "--fold"): option(words, "--output") for words in lines["train"]}
    assert told == {fold: f"results/folds/{fold}" for fold in "012"}
    (words,) = lines["ensemble"]
    first = words.index("--models") + 1
    assert words[first : first + 3] == [f"results/folds/{fold}" for fold in range(3)]
    assert option(words, "--output") == "results/model"
    out_of_fold = [option(words, "--ingest") for words in lines["tile"] if "--out-of-fold" in words]
    assert out_of_fold == ["results/a/ingest.json"]
    folder = space.folder / "results" / "logs"
    logs = {str(path.relative_to(folder)) for path in folder.rglob("*.log")}
    assert {"train/0.log", "train/1.log", "train/2.log", "ensemble.log"} <= logs
    again = space.would_run("--forcerun", "results/folds/1/model.json")
    assert {job for job in again if job.startswith(("train", "ensemble"))} == {"train 1", "ensemble"}


@pytest.mark.slow
def test_folds_can_be_turned_on_and_off(faked: Workspace) -> None:
    changed = AFTER_PLAN | {
        "train 0",
        "train 1",
        "ensemble",
        "tile a",
        "predict a 0",
        "stitch a",
        "measure a",
        "evaluate a",
    }
    assert faked.would_run(train={"folds": 2}) == changed
    assert faked.run(train={"folds": 2}).code == 0
    assert faked.would_run(train={"folds": 1}) == AFTER_PLAN | {"train"}


def test_a_finished_model_has_no_folds(faked: Workspace) -> None:
    shutil.copytree(faked.folder / "results" / "model", faked.folder / "the model")
    jobs = faked.would_run(model={"folder": "the model"}, train={"folds": 3})
    assert not {job for job in jobs if job.startswith(("train", "ensemble"))}
    assert not {job for job in jobs if job.endswith(" a")}


@pytest.mark.slow
def test_another_model_to_start_from_trains_again(faked: Workspace) -> None:
    """Its files are inputs of the training, and of nothing before it."""
    start = make_model(faked.folder / "models" / "first")
    faked.config = {"model": {"start_from": "models/first", "depth": 2, "base_channels": 4, "batch_norm": False}}
    assert faked.run().jobs == AFTER_PLAN | {"train"} | {f"tile {name}" for name in ("b", "c.1", "d")}
    weights, card = start / "weights.safetensors", start / "model.json"
    for file, change in (
        (weights, lambda: weights.write_bytes(weights.read_bytes() + b" ")),
        (card, lambda: write_card(start, replace(read_card(start), training={"stacks": ["another"]}))),
    ):
        before, times = file.read_bytes(), file.stat()
        change()
        assert faked.would_run() == AFTER_PLAN | {"train"}
        file.write_bytes(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert faked.would_run() == set()
    shutil.rmtree(start)
    assert faked.would_run() == set(), "a model that is trained needs its start no more"


@pytest.mark.slow
def test_a_model_to_start_from_is_looked_at_before_the_first_job(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    make_model(space.folder / "first")
    with ZipFile(space.folder / "packed.zip", "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
    for model, words in (
        ({"start_from": "none"}, "model.start_from: expected a folder with model.json, got none"),
        ({"start_from": "results/model"}, "copy that folder elsewhere first, and name the copy: cp -r results/model"),
        (
            {"start_from": "first", "base_channels": 4, "batch_norm": False},
            "contracting.3.0.weight nothing instead of (32, 16, 3, 3)",
        ),
        ({"start_from": "first.zip"}, "expected the zip of a package, got no file first.zip"),
        ({"start_from": "packed.zip"}, "packed.zip: expected a package of unet_pipeline 0.2 or later, with model.json"),
        ({"start_from": "first", "folder": "first"}, "null with model.folder, which trains nothing"),
        ({"start_from": "first", "encoder_weights": "w.pth", "network": "vgg16"}, "which brings its encoder"),
    ):
        ran = space.run(model=model)
        assert ran.code == 1
        assert words in ran.text
        assert "Traceback" not in ran.text
    assert not (space.folder / "results").exists()


def test_a_new_row_costs_its_own_jobs(faked: Workspace) -> None:
    faked.table(*TABLE, "e | my images/e.tif | my images/el.tif | test | |")
    new = {f"{verb} e" for verb in ("ingest", "tile", "stitch", "measure", "evaluate")} | {"predict e 0", "report"}
    assert faked.would_run() == new
    assert faked.run().code == 0
    assert faked.would_run() == set()


def test_a_new_training_row_retrains_and_reads_nothing_again(faked: Workspace) -> None:
    faked.table(*TABLE, "e | my images/e.tif | my images/el.tif | train | |")
    assert faked.would_run() == AFTER_PLAN | {"ingest e", "weigh e", "train"}


def test_a_removed_row_leaves_the_others_alone(faked: Workspace) -> None:
    faked.table(*(row for row in TABLE if not row.startswith("d ")))
    assert faked.would_run() == {"report"}


def test_an_edited_cell_or_file_costs_that_stack(faked: Workspace) -> None:
    own = {job for job in FIRST if " c.1" in job} | {"report"}
    faked.table(*(row.replace("0.5", "0.25") for row in TABLE))
    assert faked.would_run() == own
    faked.table(*TABLE)
    (faked.folder / "my images" / "c.tif").write_text("another picture")
    assert faked.would_run() == own


def test_another_number_of_regions_plans_that_stack_anew(faked: Workspace) -> None:
    faked.table(*(row.replace("| 3 ", "| 2 ") for row in TABLE))
    own = {"tile c.1", "predict c.1 0", "predict c.1 1", "stitch c.1", "measure c.1", "evaluate c.1", "report"}
    assert faked.would_run() == own


def test_after_a_refused_stitch_one_region_is_made_again(faked: Workspace) -> None:
    """A failed stitch leaves no record; its message says to delete that of the region."""
    for name in ("stitch.json", "regions/1.json"):
        (faked.folder / "results" / "c.1" / name).unlink()
    assert faked.would_run() == {"predict c.1 1", "stitch c.1", "measure c.1", "evaluate c.1", "report"}


@pytest.mark.slow
def test_a_record_that_was_lost_between_two_others_is_made_again(faked: Workspace) -> None:
    """As by a kill after Snakemake had removed it, and before its job was faked."""
    for record, job in (
        ("a/ingest", "ingest a"), ("b/weigh", "weigh b"), ("model/model", "train"), ("d/tiles", "tile d"),
        ("model/calibrate", "calibrate"),
        ("c.1/regions/1", "predict c.1 1"), ("c.1/stitch", "stitch c.1"), ("c.1/measure", "measure c.1"),
        ("c.1/metrics", "evaluate c.1"), ("report", "report"),
    ):  # fmt: skip
        path = faked.folder / "results" / f"{record}.json"
        away = path.rename(faked.folder / "away")
        assert job in faked.would_run(), record
        away.rename(path)
    assert faked.would_run() == set()


def test_another_version_of_the_package_makes_everything_anew(faked: Workspace, tmp_path: Path) -> None:
    checkout = tmp_path / "newer"
    shutil.copytree(faked.checkout, checkout)
    (checkout / "unet_pipeline" / "__init__.py").write_text('__version__ = "99.0"\n')
    assert Workspace(faked.folder, checkout).would_run() == FIRST


@pytest.mark.slow
def test_label_tiffs_are_outputs_where_wanted(faked: Workspace) -> None:
    assert faked.run(stitch={"tiff": True}).code == 0
    for name in ("b", "c.1", "d"):
        assert (faked.folder / "results" / name / "instances.tif").exists()
    faked.config = {"stitch": {"tiff": True}}
    assert faked.would_run() == set()
    (faked.folder / "results" / "b" / "classes.tif").unlink()
    assert "stitch b" in faked.would_run()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished model", "results/model"])
def test_a_finished_model_replaces_training(faked: Workspace, tmp_path: Path, name: str) -> None:
    model = faked.folder / name
    if not model.exists():
        shutil.copytree(faked.folder / "results" / "model", model)
    space = Workspace(tmp_path / "elsewhere", faked.checkout)
    for folder in ("my images", name):
        shutil.copytree(faked.folder / folder, space.folder / folder)
    space.table(*TABLE)
    space.config = {"model": {"folder": name}}
    not_needed = {"ingest a", "weigh a", "weigh b", "train", "calibrate"}
    assert space.would_run() == FIRST - not_needed
    ran = space.run()
    assert ran.code == 0, ran.text
    lines = commands(space)
    for verb in ("tile", "predict", "report"):
        assert {option(words, "--model") for words in lines[verb]} == {name}
    (model_json := space.folder / name / "model.json").write_text("another model")
    assert model_json.exists()
    assert space.would_run() == AFTER_PLAN - {"calibrate"} | {"tile b", "tile c.1", "tile d"}
