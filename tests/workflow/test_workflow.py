"""What Snakemake decides to run, and when: with faked stages for speed. The real chain is in test_chain.py."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from zipfile import ZipFile

import pytest
from faked_project import FIRST, TABLE, commands, later, option, project
from workspace import ROOT, Workspace, fake_checkout, snakemake

from unet_pipeline.records.run_lock import lock
from unet_pipeline.stacks.table import StackRow

NUMBERS = ("threads", "resources.torch_threads", "resources.torch_processes", "params.regions", "wildcards.region")
"""What shell commands need not quote."""


def test_two_snakemakes_do_not_work_in_one_folder(faked: Workspace) -> None:
    """Whoever holds the lock, here this process, is named; results stay as they are."""
    path = faked.folder / ".snakemake" / "unet_pipeline.lock"
    path.unlink(missing_ok=True)
    (faked.folder / "results" / "report.html").unlink()
    lock(path)
    ran = faked.run()
    assert ran.code == 1
    assert f"process {os.getpid()}" in ran.text
    assert "Traceback" not in ran.text
    assert not (faked.folder / "results" / "report.html").exists()


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


def test_each_rule_is_told_its_own_sections_only(faked_run: Workspace) -> None:
    told = {verb: set(json.loads(option(lines[0], "--config"))) for verb, lines in commands(faked_run).items()}
    assert told == {
        "ingest": {"labels", "ingest", "store"},
        "weigh": {"labels", "store", "weigh"},
        "train": {"labels", "normalise", "model", "augment", "train"},
        "tile": {"labels", "store", "model", "tile", "predict"},
        "calibrate": {"labels", "predict", "calibrate", "stitch"},
        "predict": {"predict"},
        "stitch": {"labels", "predict", "stitch"},
        "measure": {"measure"},
        "evaluate": {"labels", "evaluate"},
        "report": {
            *("labels", "ingest", "store", "normalise", "weigh", "model", "augment", "train"),
            *("tile", "predict", "calibrate", "stitch", "measure", "evaluate", "report"),
        },
    }
    (calibrate,) = commands(faked_run)["calibrate"]
    assert json.loads(option(calibrate, "--config"))["stitch"] == {"connect": "planes"}, "one key of that section alone"


def test_commands_carry_the_row_and_the_machine(faked_run: Workspace) -> None:
    lines = commands(faked_run)
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


def test_every_job_leaves_a_log_and_a_benchmark(faked_run: Workspace) -> None:
    results = faked_run.folder / "results"
    for kind, suffix in (("logs", "log"), ("benchmarks", "tsv")):
        found = {str(path.relative_to(results / kind)) for path in (results / kind).rglob("*") if path.is_file()}
        expected = {"/".join(job.split()) + f".{suffix}" for job in FIRST}
        assert found == expected
    assert json.loads((results / "logs" / "weigh" / "a.log").read_text())[0] == "weigh"


def test_nothing_is_written_outside_results(faked_run: Workspace) -> None:
    made = {path.name for path in faked_run.folder.iterdir()}
    assert made == {"results", ".snakemake", "my images", "config.yaml", "stacks.tsv"}


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sdm", "env-modules"), "--software-deployment-method: expected none, conda or apptainer, got env-modules"),
        (("--default-storage-provider", "fs"), "--default-storage-provider: expected none, since volumes lie beside"),
    ],
)
def test_ways_to_run_that_would_lose_software_or_volumes_are_refused(
    fresh: Workspace, arguments: tuple[str, str], message: str
) -> None:
    ran = fresh.run("--dry-run", *arguments)
    assert ran.code == 1
    assert ran.text.count(message) == 1, ran.text
    assert "Traceback" not in ran.text


def test_the_working_directory_wins_over_the_checkout(fresh: Workspace, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "empty", fresh.checkout)
    ran = snakemake("--snakefile", str(fresh.checkout / "Snakefile"), "--cores", "2", "-n", cwd=space.folder)
    assert "demo/unseen.tif" in ran.text, "without a table of its own the demo of the checkout"
    assert "ingest a" in fresh.would_run()


@pytest.mark.slow
def test_the_report_of_snakemake_shows_page_and_scores(faked: Workspace) -> None:
    ran = faked.run("--report", "its report.zip")
    assert ran.code == 0, ran.text
    with ZipFile(faked.folder / "its report.zip") as archive:
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
