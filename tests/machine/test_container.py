"""Rules under `--sdm apptainer`, with a stand-in for apptainer; the image itself is built by the hosted CI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from real_project import TINY, write
from workspace import ROOT, Workspace

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.container import check_container, container_arguments

APPTAINER = """#!/bin/bash
[[ $1 == --version ]] && exec echo "apptainer version 1.3.4"
echo "$*" | head -1 >> {calls}
while [[ $1 != *.sif ]]; do shift; done
PATH=$(cat "$1"):/usr/bin:/bin exec "${{@:2}}"
"""
"""Runs the command of `exec` with the programs of a folder, which the image names, and with none of the caller's."""


def program(folder: Path, name: str, text: str) -> Path:
    """Write a program into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_without_apptainer_or_image_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="--sdm apptainer: expected apptainer or singularity on PATH, got none"):
        check_container("docker://a/b", str(tmp_path))
    program(tmp_path, "singularity", "")
    check_container("docker://a/b", str(tmp_path))
    with pytest.raises(PipelineError, match=r"compute.container: expected an image .*, got no file .*no\.sif"):
        check_container(str(tmp_path / "no.sif"), str(tmp_path))
    with pytest.raises(PipelineError, match=r"compute.container: expected a path without spaces"):
        check_container("my images/a.sif", str(tmp_path))


def test_the_package_is_bound_once_and_a_driver_brings_its_gpus() -> None:
    once = container_arguments(Path("/my/check out"), "--bind /data", gpu=True)
    assert once == "--bind /data --bind '/my/check out' --nv"
    assert container_arguments(Path("/my/check out"), once, gpu=True) == once, "in the Snakemake of a cluster's job"
    assert container_arguments(Path("/p"), "", gpu=False) == "--bind /p"
    others = "--bind /p_data --nvccli"
    assert container_arguments(Path("/p"), others, gpu=True) == f"{others} --bind /p --nv", "that only begin alike"


@pytest.mark.slow
def test_jobs_run_in_the_image_with_this_package(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "p")
    for seed, name in enumerate(("learn", "unseen")):
        write(space.folder, name, (64, 80), 1, seed)
    rows = ("learn | learn.tif | learn_.tif | train", "unseen | unseen.tif | unseen_.tif | test")
    space.table("stack | image | labels | role", *rows)
    (space.folder / "config.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    calls, inside = tmp_path / "calls", tmp_path / "inside"
    program(inside, "python", f'#!/bin/sh\necho in the image >> {tmp_path}/ran\nexec {sys.executable} "$@"\n')
    program(tmp_path / "bin", "apptainer", APPTAINER.format(calls=calls))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["results/unseen/tiles.json", "results/learn/weigh.json", "--sdm", "apptainer"]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run() -> str:
        ran = subprocess.run(command, cwd=space.folder, env=environment, capture_output=True, text=True, timeout=300)
        return f"{ran.returncode} {ran.stdout}{ran.stderr}"

    said = run()
    assert said.startswith("1 "), said
    assert said.count("compute.container: expected an image of apptainer (.sif), got no file unet_pipeline.sif") == 1
    assert "Traceback" not in said
    assert not (space.folder / "results").exists()
    (space.folder / "unet_pipeline.sif").write_text(str(inside))
    said = run()
    assert said.startswith("0 "), said
    assert json.loads((space.folder / "results" / "unseen" / "tiles.json").read_text())["step"] == "tile"
    told = calls.read_text()
    assert told.count("unet_pipeline.sif") == (tmp_path / "ran").read_text().count("in the image") == 4
    assert told.count(f"--bind {ROOT}") == 4


def test_the_image_is_made_of_files_that_exist_with_locked_versions() -> None:
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", lines, re.MULTILINE) for word in line.split()]
    assert {"Snakefile", "unet_pipeline", "workflow", "envs/requirements.txt"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert "--require-hashes --no-deps --requirement /opt/unet_pipeline/envs/requirements.txt" in lines
    python = re.search(r"^FROM python:(\d+\.\d+)-", lines, re.MULTILINE)
    conda = yaml.safe_load((ROOT / "envs" / "torch.yaml").read_text(encoding="utf-8"))["dependencies"]
    assert python is not None
    assert f"python ={python[1]}" in conda
