"""What Snakemake decides to run, and when: with faked stages for speed. The real chain is in test_chain.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import fields, replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from chain import make_model
from faked_project import AFTER_PLAN, FIRST, OBJECTS, TABLE, project
from same_tree import tree
from workspace import ROOT, Workspace, fake_checkout, snakemake

from unet_pipeline.model.card import read_card, write_card
from unet_pipeline.model.models import load_model
from unet_pipeline.records.layout import FORMER
from unet_pipeline.records.run_lock import lock
from unet_pipeline.stacks.table import StackRow

NUMBERS = ("threads", "resources.torch_threads", "resources.torch_processes", "params.regions", "wildcards.region")
"""What shell commands need not quote."""


def later(*cases: tuple) -> list:
    """Cases of a test that repeat, for another section, what the first ones show."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project nothing was run in."""
    base = tmp_path_factory.mktemp("fresh")
    return project(base / "my project", fake_checkout(base / "check out"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project whose workflow has run."""
    base = tmp_path_factory.mktemp("finished")
    space = project(base / "my project", fake_checkout(base / "check out"))
    ran = space.run()
    assert ran.code == 0, ran.text
    assert ran.jobs == FIRST
    return space


@pytest.fixture
def done(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished project, to be changed."""
    shutil.copytree(finished.folder, tmp_path / "my copy")  # copies times too
    return Workspace(tmp_path / "my copy", finished.checkout)


def test_two_snakemakes_do_not_work_in_one_folder(done: Workspace) -> None:
    """Whoever holds the lock, here this process, is named; results stay as they are."""
    path = done.folder / ".snakemake" / "unet_pipeline.lock"
    path.unlink(missing_ok=True)
    (done.folder / "results" / "report.html").unlink()
    lock(path)
    ran = done.run()
    assert ran.code == 1
    assert f"process {os.getpid()}" in ran.text
    assert "Traceback" not in ran.text
    assert not (done.folder / "results" / "report.html").exists()


def commands(space: Workspace) -> dict[str, list[list[str]]]:
    """The command lines the faked stages were given, by verb, from their logs."""
    logs = (space.folder / "results" / "logs").rglob("*.log")
    lines = [json.loads(log.read_text()) for log in logs]
    return {verb: [line[1:] for line in lines if line[0] == verb] for verb in {line[0] for line in lines}}


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_a_dry_run_shows_every_job_from_the_start(fresh: Workspace) -> None:
    assert fresh.would_run() == FIRST


@pytest.mark.slow
def test_the_bare_command_in_a_clone_runs_the_demo(tmp_path: Path) -> None:
    clone = fake_checkout(tmp_path / "clone")
    ran = snakemake("--cores", "2", cwd=clone)
    assert ran.code == 0, ran.text
    assert (clone / "results" / "report.html").exists()
    assert (clone / "results" / "unseen" / "metrics.json").exists()
    made = {path.relative_to(clone).parts[0] for path in clone.rglob("*") if "__pycache__" not in path.parts}
    expected = {"Snakefile", "config.yaml", "stacks.tsv", "workflow", "profiles", "envs", "unet_pipeline"}
    assert made - expected == {"results", "demo", ".snakemake"}


def test_the_demo_is_made_only_for_a_table_that_names_it(fresh: Workspace) -> None:
    assert "demo" not in fresh.would_run()


def test_training_is_not_needed_for_a_plan(fresh: Workspace) -> None:
    assert fresh.would_run("results/c.1/tiles.json") == {"ingest c.1", "tile c.1"}
    # unless it settles the depth, or along z
    before = {"ingest a", "weigh a", "ingest b", "weigh b", "train"}
    for model in ({"depth": "auto"}, {"dimensions": 3}):
        assert fresh.would_run("results/c.1/tiles.json", model=model) == {*before, "ingest c.1", "tile c.1"}
    assert "train" not in fresh.would_run("results/c.1/tiles.json", model={"dimensions": 3, "z_levels": 2})


def test_the_proof_is_made_on_request(fresh: Workspace) -> None:
    jobs = fresh.would_run("results/c.1/prove.json")
    assert jobs == {"ingest a", "weigh a", "ingest b", "weigh b", "train", "ingest c.1", "prove c.1"}


def test_each_rule_is_told_its_own_sections_only(finished: Workspace) -> None:
    told = {verb: set(json.loads(option(lines[0], "--config"))) for verb, lines in commands(finished).items()}
    assert told == {
        "ingest": {"labels", "ingest", "store"},
        "weigh": {"labels", "store", "weigh"},
        "train": {"labels", "normalise", "model", "augment", "train"},
        "tile": {"labels", "store", "model", "tile", "predict"},
        "calibrate": {"labels", "predict", "calibrate"},
        "predict": {"predict"},
        "stitch": {"labels", "predict", "stitch"},
        "measure": {"measure"},
        "evaluate": {"labels", "evaluate"},
        "report": {
            *("labels", "ingest", "store", "normalise", "weigh", "model", "augment", "train"),
            *("tile", "predict", "calibrate", "stitch", "measure", "evaluate", "report"),
        },
    }


def test_commands_carry_the_row_and_the_machine(finished: Workspace) -> None:
    lines = commands(finished)
    row = next(words for words in lines["ingest"] if option(words, "--stack") == "c.1")
    assert {"--image=my images/c.tif", "--labels=my images/cl.tif", "--pixel-um=0.5"} <= set(row)
    assert not [word for word in row if word.startswith(("--axes", "--planes", "--step"))]
    (train,) = lines["train"]
    assert option(train, "--train") == "results/a/weigh.json"
    assert option(train, "--validate") == "results/b/weigh.json"
    assert (option(train, "--threads"), option(train, "--device")) == ("2", "auto")
    assert option(train, "--output") == "results/model"
    (calibrate,) = lines["calibrate"]
    assert option(calibrate, "--stacks") == "results/b/ingest.json", "the planes that validate, and no others"
    assert {option(words, "--calibration") for words in lines["stitch"]} == {"results/model/calibrate.json"}
    assert {(option(words, "--tiles"), option(words, "--region")) for words in lines["predict"]} == {
        *(("results/c.1/tiles.json", region) for region in "012"),
        *((f"results/{name}/tiles.json", "0") for name in "bd"),
    }
    (report,) = lines["report"]
    assert {
        "results/a/ingest.json",
        "results/b/stitch.json",
        "results/c.1/stitch.json",
        "results/d/stitch.json",
    } <= set(report)


def test_every_column_of_the_table_reaches_its_stage(fresh: Workspace, tmp_path: Path) -> None:
    columns = [field.name for field in fields(StackRow)]
    space = project(tmp_path / "p", fresh.checkout)
    cells = {"stack": "e", "image": "my images/e.tif", "labels": "my images/el.tif", "role": "test", "axes": "tyx"}
    cells |= {"pixel_um": "0.5", "step": "2", "planes": "0-3", "label_planes": "1-4", "label_axes": "zyx"}
    cells |= {"series": "1", "regions": "2", "names": "my images/list.txt"}
    (space.folder / "my images" / "list.txt").write_text("e\nel\n")
    assert set(cells) == set(columns)
    train = {"stack": "a", "image": "my images/a.tif", "labels": "my images/al.tif", "role": "train"}
    rows = (" | ".join(row.get(name, "") for name in columns) for row in (cells, train))
    space.table(" | ".join(columns), *rows)
    assert space.run("results/e/tiles.json").code == 0
    lines = commands(space)
    (told,) = lines["ingest"]
    for name in set(columns) - {"stack", "role", "regions"}:
        assert f"--{name.replace('_', '-')}={cells[name]}" in told
    assert option(lines["tile"][0], "--regions") == "2"


@pytest.mark.slow
def test_a_list_of_names_is_followed(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    (space.folder / "JPEGImages").mkdir()
    for name in ("1", "2", "3"):
        (space.folder / "JPEGImages" / f"{name}.jpg").write_text(name)
    names = space.folder / "val.txt"
    names.write_text("3\r\n1\r\n")
    row = "e | JPEGImages | | predict | val.txt"
    space.table("stack | image | labels | role | names", row, "a | my images/a.tif | my images/al.tif | train |")
    assert space.run("results/e/ingest.json").jobs == {"ingest e"}
    (space.folder / "JPEGImages" / "2.jpg").write_text("not on the list")
    assert not space.would_run("results/e/ingest.json")
    names.write_text("3\n")
    assert space.would_run("results/e/ingest.json") == {"ingest e"}
    names.write_text("3\n../3\n")
    ran = space.run("--dry-run")
    assert ran.code == 1
    assert "val.txt line 2: expected one name a line" in ran.text
    assert "Traceback" not in ran.text


def test_a_path_where_nothing_lies_is_one_message_with_its_line(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    space.table(*TABLE, "e | my images/E.tiff | my images/el.tif | test | |")
    ran = space.run("--dry-run")
    assert ran.code == 1
    assert ran.text.count("stacks.tsv line 6, column image: expected a file, folder") == 1
    assert "nearest legal value: my images/e.tif" in ran.text
    assert not {"Traceback", "MissingInputException"} & set(re.findall(r"\w+", ran.text))


def test_a_tab_in_the_configuration_is_one_message_with_its_line(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    (space.folder / "config.yaml").write_text("train:\n  steps: 5\n\tseed: 3\n")
    where = ["--snakefile", str(space.checkout / "Snakefile"), "--directory", str(space.folder)]
    ran = snakemake(*where, "--cores", "2", "--dry-run", cwd=tmp_path)
    assert ran.code == 1
    assert ran.text.count("config.yaml line 3, column 1: expected spaces") == 1
    assert "Traceback" not in ran.text


def test_threads_of_the_network_do_not_shrink_with_cores(fresh: Workspace) -> None:
    ran = fresh.run("--dry-run", "--cores", "1", "--printshellcmds", compute={"threads": 4})
    verbs = re.findall(r"unet_pipeline (\w+) [^|]*--threads (\d+)", ran.text)
    assert set(verbs) == {("train", "4"), ("calibrate", "4"), ("predict", "4"), ("weigh", "1")}


def test_every_job_leaves_a_log_and_a_benchmark(finished: Workspace) -> None:
    results = finished.folder / "results"
    for kind, suffix in (("logs", "log"), ("benchmarks", "tsv")):
        found = {str(path.relative_to(results / kind)) for path in (results / kind).rglob("*") if path.is_file()}
        expected = {"/".join(job.split()) + f".{suffix}" for job in FIRST}
        assert found == expected
    assert json.loads((results / "logs" / "weigh" / "a.log").read_text())[0] == "weigh"


def test_nothing_is_written_outside_results(finished: Workspace) -> None:
    made = {path.name for path in finished.folder.iterdir()}
    assert made == {"results", ".snakemake", "my images", "config.yaml", "stacks.tsv"}


def test_a_second_run_does_nothing(done: Workspace) -> None:
    ran = done.run()
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
    done: Workspace, section: str, key: str, value: object, expected: set[str]
) -> None:
    assert done.would_run(**{section: {key: value}}) == expected


def test_keys_that_change_no_result_run_nothing(done: Workspace) -> None:
    compute = {"threads": 7, "device": "cpu", "checkpoint_minutes": 0.5, "io_threads": 3}
    assert done.would_run(compute=compute, watch={"samples": True}) == set()


CROSSED = (FIRST - {"train"}) | {
    *("train 0", "train 1", "train 2", "ensemble"),
    *("tile a", "predict a 0", "stitch a", "measure a", "evaluate a"),
}
"""With train.folds 3: a model for each fold, their ensemble, and the training stack predicted out of fold."""


@pytest.mark.slow
def test_a_model_is_set_aside_before_snakemake_removes_it(done: Workspace) -> None:
    model = make_model(done.folder / "results" / "model")
    before = tree(model)
    assert done.run("--dry-run", train={"steps": 901}).code == 0
    assert not (model / FORMER).exists()
    ran = done.run("results/model/model.json", train={"steps": 901})
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
    assert "made anew" not in done.run("--forcerun", "report", train={"steps": 901}).text


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
def test_folds_can_be_turned_on_and_off(done: Workspace) -> None:
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
    assert done.would_run(train={"folds": 2}) == changed
    assert done.run(train={"folds": 2}).code == 0
    assert done.would_run(train={"folds": 1}) == AFTER_PLAN | {"train"}


def test_a_finished_model_has_no_folds(done: Workspace) -> None:
    shutil.copytree(done.folder / "results" / "model", done.folder / "the model")
    jobs = done.would_run(model={"folder": "the model"}, train={"folds": 3})
    assert not {job for job in jobs if job.startswith(("train", "ensemble"))}
    assert not {job for job in jobs if job.endswith(" a")}


@pytest.mark.slow
def test_another_model_to_start_from_trains_again(done: Workspace) -> None:
    """Its files are inputs of the training, and of nothing before it."""
    start = make_model(done.folder / "models" / "first")
    done.config = {"model": {"start_from": "models/first", "depth": 2, "base_channels": 4, "batch_norm": False}}
    assert done.run().jobs == AFTER_PLAN | {"train"} | {f"tile {name}" for name in ("b", "c.1", "d")}
    weights, card = start / "weights.safetensors", start / "model.json"
    for file, change in (
        (weights, lambda: weights.write_bytes(weights.read_bytes() + b" ")),
        (card, lambda: write_card(start, replace(read_card(start), training={"stacks": ["another"]}))),
    ):
        before, times = file.read_bytes(), file.stat()
        change()
        assert done.would_run() == AFTER_PLAN | {"train"}
        file.write_bytes(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert done.would_run() == set()
    shutil.rmtree(start)
    assert done.would_run() == set(), "a model that is trained needs its start no more"


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


def test_a_new_row_costs_its_own_jobs(done: Workspace) -> None:
    done.table(*TABLE, "e | my images/e.tif | my images/el.tif | test | |")
    new = {f"{verb} e" for verb in ("ingest", "tile", "stitch", "measure", "evaluate")} | {"predict e 0", "report"}
    assert done.would_run() == new
    assert done.run().code == 0
    assert done.would_run() == set()


def test_a_new_training_row_retrains_and_reads_nothing_again(done: Workspace) -> None:
    done.table(*TABLE, "e | my images/e.tif | my images/el.tif | train | |")
    assert done.would_run() == AFTER_PLAN | {"ingest e", "weigh e", "train"}


def test_a_removed_row_leaves_the_others_alone(done: Workspace) -> None:
    done.table(*(row for row in TABLE if not row.startswith("d ")))
    assert done.would_run() == {"report"}


def test_an_edited_cell_or_file_costs_that_stack(done: Workspace) -> None:
    own = {job for job in FIRST if " c.1" in job} | {"report"}
    done.table(*(row.replace("0.5", "0.25") for row in TABLE))
    assert done.would_run() == own
    done.table(*TABLE)
    (done.folder / "my images" / "c.tif").write_text("another picture")
    assert done.would_run() == own


def test_another_number_of_regions_plans_that_stack_anew(done: Workspace) -> None:
    done.table(*(row.replace("| 3 ", "| 2 ") for row in TABLE))
    own = {"tile c.1", "predict c.1 0", "predict c.1 1", "stitch c.1", "measure c.1", "evaluate c.1", "report"}
    assert done.would_run() == own


def test_after_a_refused_stitch_one_region_is_made_again(done: Workspace) -> None:
    """A failed stitch leaves no record; its message says to delete that of the region."""
    for name in ("stitch.json", "regions/1.json"):
        (done.folder / "results" / "c.1" / name).unlink()
    assert done.would_run() == {"predict c.1 1", "stitch c.1", "measure c.1", "evaluate c.1", "report"}


@pytest.mark.slow
def test_a_record_that_was_lost_between_two_others_is_made_again(done: Workspace) -> None:
    """As by a kill after Snakemake had removed it, and before its job was done."""
    for record, job in (
        ("a/ingest", "ingest a"), ("b/weigh", "weigh b"), ("model/model", "train"), ("d/tiles", "tile d"),
        ("model/calibrate", "calibrate"),
        ("c.1/regions/1", "predict c.1 1"), ("c.1/stitch", "stitch c.1"), ("c.1/measure", "measure c.1"),
        ("c.1/metrics", "evaluate c.1"), ("report", "report"),
    ):  # fmt: skip
        path = done.folder / "results" / f"{record}.json"
        away = path.rename(done.folder / "away")
        assert job in done.would_run(), record
        away.rename(path)
    assert done.would_run() == set()


def test_another_version_of_the_package_makes_everything_anew(done: Workspace, tmp_path: Path) -> None:
    checkout = tmp_path / "newer"
    shutil.copytree(done.checkout, checkout)
    (checkout / "unet_pipeline" / "__init__.py").write_text('__version__ = "99.0"\n')
    assert Workspace(done.folder, checkout).would_run() == FIRST


@pytest.mark.slow
def test_label_tiffs_are_outputs_where_wanted(done: Workspace) -> None:
    assert done.run(stitch={"tiff": True}).code == 0
    for name in ("b", "c.1", "d"):
        assert (done.folder / "results" / name / "instances.tif").exists()
    done.config = {"stitch": {"tiff": True}}
    assert done.would_run() == set()
    (done.folder / "results" / "b" / "classes.tif").unlink()
    assert "stitch b" in done.would_run()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished model", "results/model"])
def test_a_finished_model_replaces_training(done: Workspace, tmp_path: Path, name: str) -> None:
    model = done.folder / name
    if not model.exists():
        shutil.copytree(done.folder / "results" / "model", model)
    space = Workspace(tmp_path / "elsewhere", done.checkout)
    for folder in ("my images", name):
        shutil.copytree(done.folder / folder, space.folder / folder)
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


def test_a_missing_image_is_named(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    (space.folder / "my images" / "d.tif").unlink()
    ran = space.run()
    assert ran.code != 0
    assert "my images/d.tif" in ran.text
    assert "Traceback" not in ran.text
    assert not (space.folder / "results").exists()


@pytest.mark.parametrize(
    ("sections", "rows", "message"),
    [
        ({"train": {"stepps": 3}}, (), "train.stepps: expected one of"),
        ({"store": {"shard_px": 48, "chunk_px": 16}, "model": {"depth": 5}}, (), "store.shard_px: expected a multiple"),
        ({}, ("../e | x.tif | | predict",), "stacks.tsv line 6, column stack"),
        ({}, (None, "stack | image", "e | x.tif"), "column role: expected a stack with role train, got none"),
        *later(
            ({"trian": {"steps": 3}}, (), "nearest legal value: train"),
            ({"train": {"steps": "many"}}, (), "train.steps: expected a whole number, got 'many'"),
            ({"train": {"momentum": 1.5}}, (), "train.momentum: expected 0 to 0.9999, got 1.5"),
            ({"tile": {"tile_px": 388}, "model": {"depth": 4}}, (), "nearest legal value: 384"),
            ({"model": {"folder": "nowhere"}}, (), "model.folder: expected a folder with model.json, got nowhere"),
            ({}, ("c.1 | x.tif | | predict",), "stacks.tsv line 6: expected a stack name used once, got 'c.1'"),
            (
                {},
                ("e | x.tif | | test",),
                "stacks.tsv line 6, column labels: expected labels for a stack with role test",
            ),
            ({}, ("e | x.tif | | tset",), "nearest legal value: test"),
        ),
    ],
)
def test_a_mistake_in_config_or_table_is_one_clear_message(
    fresh: Workspace, tmp_path: Path, sections: dict, rows: tuple, message: str
) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    space.table(*(rows[1:] if rows and rows[0] is None else (*TABLE, *rows)))
    ran = space.run(**sections)
    assert ran.code == 1
    assert message in ran.text
    assert ran.text.count(message) == 1
    assert "Traceback" not in ran.text
    assert len(ran.text.splitlines()) <= 8, ran.text
    assert not (space.folder / "results").exists()


def test_a_failing_stage_stops_the_run_and_tells_its_error_once(fresh: Workspace, tmp_path: Path) -> None:
    checkout = tmp_path / "failing"
    shutil.copytree(fresh.checkout, checkout)
    main = checkout / "unet_pipeline" / "__main__.py"
    main.write_text('import sys\nif sys.argv[1] == "weigh":\n    sys.exit("error: no such luck")\n' + main.read_text())
    space = project(tmp_path / "p", checkout)
    ran = space.run()
    assert ran.code == 1
    logs = list((space.folder / "results" / "logs" / "weigh").iterdir())
    assert ran.text.count("error: no such luck") == len(logs) > 0
    assert "log: results/logs/weigh/" in ran.text
    assert {log.read_text() for log in logs} == {"error: no such luck\n"}
    assert not list((space.folder / "results").glob("*/weigh.json"))
    assert "train" not in ran.jobs


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_missed_before_the_first_job(fresh: Workspace, tmp_path: Path) -> None:
    space = project(tmp_path / "p", fresh.checkout)
    cuda = {"device": "cuda"}
    assert space.run("--dry-run", compute=cuda).code == 0, "a login node need not have one"
    ran = space.run(compute=cuda)
    assert ran.code == 1
    assert ran.text.count("compute.device: expected a CUDA GPU that torch can use, got none") == 1
    assert "Traceback" not in ran.text
    assert not (space.folder / "results").exists()
    assert space.run("results/a/weigh.json", compute=cuda).code == 0, "these steps need none"


@pytest.mark.parametrize("method", ["apptainer", "env-modules"])
def test_software_that_no_rule_has_is_refused(fresh: Workspace, method: str) -> None:
    ran = fresh.run("--dry-run", "--sdm", method)
    assert ran.code == 1
    assert ran.text.count(f"--software-deployment-method: expected none, or conda, got {method}") == 1
    assert "Traceback" not in ran.text


def test_the_working_directory_wins_over_the_checkout(fresh: Workspace, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "empty", fresh.checkout)
    ran = snakemake("--snakefile", str(fresh.checkout / "Snakefile"), "--cores", "2", "-n", cwd=space.folder)
    assert "demo/unseen.tif" in ran.text, "without a table of its own the demo of the checkout"
    assert "ingest a" in fresh.would_run()


@pytest.mark.slow
def test_the_report_of_snakemake_shows_page_and_scores(done: Workspace) -> None:
    ran = done.run("--report", "its report.zip")
    assert ran.code == 0, ran.text
    with ZipFile(done.folder / "its report.zip") as archive:
        names = [Path(name).name for name in archive.namelist()]
    assert names.count("metrics.json") == 2
    assert "report.html" in names


def test_lint_is_clean() -> None:
    ran = snakemake("--lint", cwd=ROOT)
    assert ran.code == 0, ran.text


def test_rules_call_the_package_and_nothing_else() -> None:
    """And the file, the rule, the verb, the log and the benchmark share one name."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text(encoding="utf-8")
        if path.stem == "common":
            assert not re.search(r"^rule ", text, re.MULTILINE)
            continue
        assert re.findall(r"^rule (\w+):", text, re.MULTILINE) == [path.stem]
        assert re.search(r'^rule \w+:\n    """[A-Z]', text), f"{path.name} says what the rule does"
        (shell,) = re.findall(r'shell:\s+r"""(.*?)"""', text, re.DOTALL)
        words = shlex.split(shell.replace("\\\n", " "))
        assert words[:4] == ["python", "-m", "unet_pipeline", path.stem]
        assert words[-4:] == ["2>&1", "|", "tee", "{log:q}"]
        for field in re.findall(r"\{([^}]*)\}", shell):
            assert field.endswith(":q") or field in NUMBERS
        assert f'"results/logs/{path.stem}' in text
        assert f'"results/benchmarks/{path.stem}' in text
        assert "version=VERSION" in text
        assert not re.search(r"\b(run|script|message):", text)
