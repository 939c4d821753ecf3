"""Another workflow imports this one with `module:`: with a prefix, and as snakedeploy writes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from real_project import TINY, write
from workspace import ROOT, Ran, fake_checkout, snakemake

pytestmark = pytest.mark.slow

TABLE = "stack\timage\tlabels\trole\nlearn\timages/learn.tif\timages/learn_.tif\ttrain\n"
TABLE += "unseen\timages/unseen.tif\timages/unseen_.tif\ttest\n"
JOBS = {
    *("ingest learn", "weigh learn", "train", "ingest unseen", "tile unseen"),
    *("calibrate", "predict unseen 0", "stitch unseen", "measure unseen", "evaluate unseen", "report"),
}

IMPORTING = """
configfile: "mine.yaml"

module cells:
    snakefile: {snakefile!r}
    config: config["cells"]
    prefix: "first"

use rule * from cells as cells_*

rule count:
    input: rules.cells_all.input
    output: "count.txt"
    default_target: True
    shell: "echo {{input}} | wc -w > {{output}}"
"""


def importing(folder: Path, checkout: Path, **sections: object) -> Path:
    """A project with a Snakefile of its own; its images are there but empty."""
    (folder / "images").mkdir(parents=True)
    (folder / "Snakefile").write_text(IMPORTING.format(snakefile=str(checkout / "Snakefile")))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"cells": {"stacks": "cells.tsv", **sections}}))
    (folder / "cells.tsv").write_text(TABLE)
    for name in ("learn", "learn_", "unseen", "unseen_"):
        (folder / "images" / f"{name}.tif").write_text(name)
    return folder


def run(folder: Path, *more: str) -> Ran:
    return snakemake("--cores", "2", *more, cwd=folder)


def told(log: Path) -> list[str]:
    """What a faked stage was told."""
    words = json.loads(log.read_text())
    assert isinstance(words, list)
    return words


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return fake_checkout(tmp_path / "check out")


def test_what_the_workflow_makes_gets_the_prefix_and_what_the_user_names_does_not(
    checkout: Path, tmp_path: Path
) -> None:
    folder = importing(tmp_path / "mine", checkout)
    ran = run(folder)
    assert ran.code == 0, ran.text
    assert ran.jobs == {f"cells_{job}" for job in JOBS} | {"count"}
    assert {path.name for path in folder.iterdir()} == {
        *("first", "images", "cells.tsv", "mine.yaml", "Snakefile", "count.txt", ".snakemake"),
    }
    logs = folder / "first" / "results" / "logs"
    for log in logs.rglob("*.log"):
        for word in told(log):
            path = word.partition("=")[2] or word
            assert not path.startswith("results/"), "a job would look for it elsewhere"
            assert "/images/" not in path
    assert {"--image=images/learn.tif", "--labels=images/learn_.tif"} <= set(told(logs / "ingest" / "learn.log"))
    assert "first/results/model" in told(logs / "predict" / "unseen" / "0.log")
    assert "Nothing to be done" in run(folder).text


def test_a_rule_of_the_importer_may_make_the_images(checkout: Path, tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", checkout)
    shutil.rmtree(folder / "images")
    made = "rule draw:\n    output: 'images/{name}.tif'\n    shell: 'echo {wildcards.name} > {output}'\n"
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(f"{text}\n\n{made}")
    assert run(folder, "--dry-run", "--quiet", "rules").code == 0
    (folder / "Snakefile").write_text(text)
    ran = run(folder, "--dry-run", "--quiet", "rules")
    assert (ran.code, "MissingInputException" in ran.text) == (1, True)


def test_the_modules_run_takes_the_lock_and_the_importers_own_start_is_kept(checkout: Path, tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", checkout)
    text = (folder / "Snakefile").read_text()
    (folder / "Snakefile").write_text(f"onstart:\n    print('mine begins')\n\n{text}")
    assert run(folder, "--dry-run").code == 0
    assert not (folder / ".snakemake" / "unet_pipeline.lock").exists()
    ran = run(folder)
    assert ran.code == 0, ran.text
    assert "mine begins" in ran.text
    assert (folder / ".snakemake" / "unet_pipeline.lock").read_text().startswith("process ")


def test_a_finished_model_lies_where_the_user_says(checkout: Path, tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", checkout, model={"folder": "the model"})
    (folder / "the model").mkdir()
    for name in ("model.json", "weights.safetensors"):
        (folder / "the model" / name).write_text(name)
    ran = run(folder)
    assert ran.code == 0, ran.text
    logs = folder / "first" / "results" / "logs"
    for log in (logs / "tile" / "unseen.log", logs / "predict" / "unseen" / "0.log", logs / "report.log"):
        words = told(log)
        assert words[words.index("--model") + 1] == "the model"


def test_each_fold_of_a_module_has_its_own_folder(checkout: Path, tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", checkout, train={"folds": 2})
    ran = run(folder, "first/results/model/model.json")
    assert ran.code == 0, ran.text
    words = told(folder / "first" / "results" / "logs" / "ensemble.log")
    first = words.index("--models") + 1
    assert words[first : first + 2] == ["first/results/folds/0", "first/results/folds/1"]


def test_two_modules_work_side_by_side_and_a_key_of_one_reruns_one(checkout: Path, tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", checkout)
    text = (folder / "Snakefile").read_text().split("rule count")[0]
    second = text.split("\n\n", 1)[1].replace("cells", "nuclei").replace('"first"', '"second"')
    both = "rule both:\n    default_target: True\n    input: rules.cells_all.input, rules.nuclei_all.input\n"
    (folder / "Snakefile").write_text(f"{text}\n{second}\n{both}")
    same = {"stacks": "cells.tsv"}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"cells": same, "nuclei": same}))
    assert run(folder).code == 0
    changed = {**same, "stitch": {"min_area_px": 7}}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"cells": same, "nuclei": changed}))
    after = ("tile unseen", "stitch unseen", "measure unseen", "evaluate unseen", "report")
    assert run(folder, "--dry-run").jobs - {"both"} == {f"nuclei_{job}" for job in after[1:]}


def test_a_mistake_in_a_modules_configuration_is_one_message(checkout: Path, tmp_path: Path) -> None:
    ran = run(importing(tmp_path / "mine", checkout, train={"stepps": 3}))
    assert ran.code == 1
    assert ran.text.count("train.stepps: expected one of") == 1
    assert "Traceback" not in ran.text


def test_what_snakedeploy_writes_runs_from_a_git_host_without_the_package(checkout: Path, tmp_path: Path) -> None:
    """Of a Git host Snakemake fetches single Snakefiles; a clone in its cache stands in for the host."""
    clone = tmp_path / "cache" / "snakemake" / "snakemake" / "source-cache" / "snakemake-git-cache"
    clone = clone / "github.com" / "some" / "unet_pipeline"
    git = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@x"]
    (checkout / "unet_pipeline" / "__init__.py").write_text('__version__ = "7.7"\n')
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v7.7"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(checkout), str(clone)], check=True)
    for name in ("Snakefile", "unet_pipeline", "workflow"):
        (checkout / name).rename(tmp_path / f"{name}, gone")
    folder = importing(tmp_path / "mine", checkout)
    shutil.copytree(ROOT / "config", folder / "config")  # follows links, as snakedeploy does
    (folder / "cells.tsv").rename(folder / "stacks.tsv")
    (folder / "Snakefile").write_text(
        'configfile: "config/config.yaml"\n\nmodule unet_pipeline:\n'
        '    snakefile: github("some/unet_pipeline", path="workflow/Snakefile", tag="v7.7")\n'
        "    config: config\n\nuse rule * from unet_pipeline\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    blocked = "import sys; from pathlib import Path; from snakemake.cli import main; "
    blocked += "sys.path[:] = [one for one in sys.path if not Path(one, 'Snakefile').exists()]; main()"
    command = [sys.executable, "-c", blocked, "--cores", "2"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert Ran(0, ran.stderr).jobs == JOBS
    assert (folder / "results" / "report.html").exists()
    copies = list((folder / ".snakemake" / "unet_pipeline").glob("*/unet_pipeline/__init__.py"))
    assert [copy.read_text() for copy in copies] == ['__version__ = "7.7"\n']


def test_a_module_runs_from_images_to_the_page(tmp_path: Path) -> None:
    folder = importing(tmp_path / "mine", ROOT, **{**TINY, "train": {**TINY["train"], "select": "last"}})
    write(folder / "images", "learn", (96, 96), 1, 1)
    write(folder / "images", "unseen", (70, 101), 1, 3)
    ran = run(folder)
    assert ran.code == 0, ran.text
    results = folder / "first" / "results"
    assert json.loads((results / "unseen" / "metrics.json").read_text())["instances"]["seg"] is not None
    assert re.search(r"unseen", (results / "report.html").read_text())
    assert int((folder / "count.txt").read_text()) > 3, "the importer's rule waits for all that the module makes"
    assert not (folder / "results").exists()
    assert "Nothing to be done" in run(folder).text
