"""What the workflow costs beside the work: `python benchmarks/workflow.py`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from figures import SMALL, Figure, publish, sized, step

ROOT = Path(__file__).parents[1]
MODEL_FILES = ("model.json", "weights.safetensors", "history.tsv", "calibrate.json")
SNAKEMAKE = (
    "import sys, snakemake.cli, snakemake.executors.touch as touch; touch.Executor.SLEEPING_TIME = 0; "
    "snakemake.cli.main(sys.argv[1:])"
)
"""Snakemake, without the tenth of a second that `--touch` waits for each file; it is only used to prepare."""


def snakemake(folder: Path, *arguments: str) -> float:
    """Run Snakemake in a folder and return its seconds."""
    command = [sys.executable, "-c", SNAKEMAKE, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--workflow-profile", str(ROOT / "profiles" / "default"), "--cores", "2", "--quiet", "all", *arguments]
    began = time.perf_counter()
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stdout}\n{ran.stderr}")
    return time.perf_counter() - began


def project(folder: Path, stacks: int, regions: int) -> str:
    """Write the table and the images of a large project; return what to call it."""
    (folder / "images").mkdir()
    rows = ["stack\timage\tlabels\trole\tregions"]
    tifffile.imwrite(folder / "images" / "one.tif", np.zeros((64, 64), np.uint8))
    for number in range(stacks):
        for part in (f"{number}.tif", f"{number}_labels.tif"):
            os.link(folder / "images" / "one.tif", folder / "images" / part)
        role, labels = ("train", f"images/{number}_labels.tif") if number < 2 else ("predict", "")
        rows.append(f"s{number}\timages/{number}.tif\t{labels}\t{role}\t{regions}")
    (folder / "stacks.tsv").write_text("\n".join(rows) + "\n")
    shutil.copy(ROOT / "config.yaml", folder)
    return f"{stacks} stacks of {regions} regions"


def dry_run(stacks: int, regions: int) -> Figure:
    """Time a dry run of a project of which nothing is made."""
    with tempfile.TemporaryDirectory() as folder:
        what = project(Path(folder), stacks, regions)
        step(f"dry run, {what}")
        seconds = snakemake(Path(folder), "--dry-run")
    return Figure(f"workflow: dry run, {what}", seconds, None, "s", 60, at_most=True)


def nothing_to_do(stacks: int, regions: int) -> Figure:
    """Time a run of a project of which all is made."""
    with tempfile.TemporaryDirectory() as folder:
        what = project(Path(folder), stacks, regions)
        make_outputs(Path(folder), stacks, regions)
        step(f"marking all as made, {what}")
        snakemake(Path(folder), "--touch", "--cores", "1000", "--resources", "gpu=1000")
        step("run with nothing to do")
        seconds = snakemake(Path(folder))
    return Figure(f"workflow: nothing to do, {what}", seconds, None, "s", 60, at_most=True)


def make_outputs(folder: Path, stacks: int, regions: int) -> None:
    """Write every file the workflow would make, empty; Snakemake looks at no content."""
    results = folder / "results"
    files = [
        *(results / name for name in ("report.html", "report.json", "objects.parquet")),
        *(results / "model" / n for n in MODEL_FILES),
    ]
    for number in range(stacks):
        stack = results / f"s{number}"
        files.append(stack / "ingest.json")
        if number < 2:
            files.append(stack / "weigh.json")
        else:
            files += [stack / name for name in ("tiles.json", "stitch.json", "measure.json", "objects.parquet")]
            files += [stack / "regions" / f"{region}.json" for region in range(regions)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")


def demo() -> Figure:
    """Run the demo and say how much of it is neither training nor prediction."""
    step("the demo")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("config.yaml", "stacks.tsv"):
            shutil.copy(ROOT / part, folder)
        whole = snakemake(folder)
        logs = [*folder.glob("results/benchmarks/predict/*/*.tsv"), folder / "results" / "benchmarks" / "train.tsv"]
        network = sum(float(log.read_text().splitlines()[1].split("\t")[0]) for log in logs)
    return Figure(
        "workflow: share of the demo outside train and predict",
        100 * (1 - network / whole),
        None,
        "%",
        25,
        at_most=True,
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--stacks", type=int, default=sized(1000, 3), help="of the dry run")
    options.add_argument(
        "--made", type=int, default=sized(100, 3), help="stacks already made; marking 1000 takes a quarter hour"
    )
    options.add_argument("--regions", type=int, default=sized(16, 1))
    given = options.parse_args()
    graphs = [dry_run(given.stacks, given.regions), nothing_to_do(given.made, given.regions)]
    publish("workflow", [*graphs, *([] if SMALL else [demo()])])
