"""Profiles for LSF and for others, through Snakemake's cluster-generic plugin, with stand-ins for the schedulers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from real_project import TABLE, project
from workspace import ROOT, Workspace

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.scheduler import check_scheduler, program_of

PROFILES = {name: yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
            for name in ("lsf", "cluster", "slurm")}  # fmt: skip
WITH_NETWORK = {"train", "calibrate", "predict", "prove"}

BSUB = """#!/bin/bash
# Takes a job as LSF does: its script on stdin, its number in a sentence. The first of `predict` is killed at once.
number=$(ls {jobs} | wc -l); job={jobs}/$number; mkdir $job
echo "$*" > $job/asked; cat > $job/script
(
    if grep -q "target-jobs 'predict:" $job/script && mkdir {jobs}/../killed 2>/dev/null; then
        echo EXIT > $job/state; exit
    fi
    bash $job/script > $job/log 2>&1 < /dev/null && echo DONE > $job/state || echo EXIT > $job/state
) > /dev/null 2>&1 &
echo "Job <$number> is submitted to queue <normal>."
"""
BJOBS = """#!/bin/bash
[[ -d {jobs}/${{@: -1}} ]] || {{ echo "Job <${{@: -1}}> is not found" >&2; exit 255; }}
cat {jobs}/${{@: -1}}/state 2>/dev/null || echo RUN
"""


QSUB = """#!/bin/bash
# Takes a job as PBS does: its script as a file, its number printed.
number=$(ls {jobs} | wc -l); job={jobs}/$number.host; mkdir $job
echo "$*" > $job/asked
(bash "${{@: -1}}" > $job/log 2>&1 < /dev/null; echo "job_state = F, Exit_status = $?" > $job/state) > /dev/null 2>&1 &
echo $number.host
"""
QSTAT = """#!/bin/bash
[[ "$1 $2" == "-x -f" ]] && cat {jobs}/$3/state 2>/dev/null || echo "job_state = R"
"""


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder of the schedulers' commands; their jobs lie in the folder `jobs` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "jobs").mkdir()
    for name, text in (("bsub", BSUB), ("bjobs", BJOBS), ("qsub", QSUB), ("qstat", QSTAT)):
        (folder / name).write_text(text.format(jobs=tmp_path / "jobs"))
        (folder / name).chmod(0o755)
    return folder


def run(space: Workspace, profile: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the project's folder with a profile."""
    (space.folder / "config.yaml").write_text(yaml.safe_dump(space.config), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--workflow-profile", str(ROOT / "profiles" / profile), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=space.folder, env=environment, capture_output=True, text=True, timeout=550)


@pytest.mark.slow
def test_a_run_through_lsf_comes_to_objects_and_a_killed_job_is_tried_again(commands: Path, tmp_path: Path) -> None:
    space = project(tmp_path / "a project")
    space.table(TABLE[0], TABLE[1], TABLE[3].replace("| 2", "| 1"))  # without one that validates: fewer jobs
    paced = ("--jobs", "2", "--seconds-between-status-checks", "1", "--latency-wait", "5")
    ran = run(space, "lsf", "results/unseen/stitch.json", *paced, path=commands)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads((space.folder / "results" / "unseen" / "stitch.json").read_text())["step"] == "stitch"
    asked = [(job / "asked").read_text() for job in (tmp_path / "jobs").iterdir()]
    assert len(asked) == 9, "ingest 2, weigh, train, calibrate, tile, predict 2, stitch"
    assert all("-J unet -q " in one and "-R span[hosts=1]" in one for one in asked)
    assert sum("-gpu num=1" in one for one in asked) == 1 + 1 + 2, "train, calibrate, predict twice"
    assert sum("-M 24000MB" in one for one in asked) == 1, "the killed job was given more"


@pytest.mark.slow
def test_jobs_run_through_pbs_by_the_commands_of_the_profile(commands: Path, tmp_path: Path) -> None:
    space = project(tmp_path / "a project")
    target, paced = "results/unseen/tiles.json", ("--seconds-between-status-checks", "1", "--latency-wait", "5")
    ran = run(space, "cluster", target, *paced, path=commands)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (space.folder / target).exists()
    asked = [(job / "asked").read_text() for job in (tmp_path / "jobs").iterdir()]
    first = "-V -N unet -q cpu -l select=1:ncpus=1:mem=4000mb:ngpus=0 -l walltime=7200 -j oe "
    assert [one.startswith(first) for one in asked] == [True, True]
    (space.folder / "my images" / "unseen.tif").write_bytes(b"no image")
    ran = run(space, "cluster", target, "--retries", "0", *paced, path=commands)
    assert ran.returncode == 1
    assert "unseen.tif" in (tmp_path / "jobs" / "2.host" / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "command"), [("lsf", "bsub"), ("cluster", "qsub")])
def test_without_the_scheduler_there_is_one_message(profile: str, command: str, tmp_path: Path) -> None:
    space = project(tmp_path / "p")
    ran = run(space, profile, path=tmp_path)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1
    assert said.count(f"{command}: expected the scheduler's commands on this machine, got none on PATH") == 1, said
    assert "Traceback" not in said
    assert not (space.folder / "results").exists()


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("qsub -V -q cpu", "qsub"),
        ("LANG=C qsub", "qsub"),
        ('bash -c \'set -o pipefail; mkdir -p logs; bsub -n 2 < "$0" | sed -n "s/a/b/p"\'', "bsub"),
        ("sh -c 'cd /x && condor_submit \"$0\"'", "condor_submit"),
        ("./submit {threads}", "./submit"),
        ("", ""),
    ],
)
def test_the_program_of_a_command(command: str, program: str, tmp_path: Path) -> None:
    assert program_of(command) == program
    if program and "/" not in program:
        with pytest.raises(PipelineError, match=f"{program}: expected the scheduler's commands"):
            check_scheduler(command, str(tmp_path))
        (tmp_path / program).touch(0o755)
    if "/" not in program:
        check_scheduler(command, str(tmp_path))


@pytest.mark.parametrize("name", ["lsf", "cluster"])
def test_profiles_ask_as_that_for_slurm_does(name: str) -> None:
    ours, slurm = PROFILES[name], PROFILES["slurm"]
    assert {rule for rule, wanted in ours["set-resources"].items() if wanted.get("gpu")} == WITH_NETWORK
    for rule, wanted in ours["set-resources"].items():
        assert {key: wanted[key] for key in ("mem_mb", "runtime")} == {
            key: slurm["set-resources"][rule][key] for key in ("mem_mb", "runtime")
        }
    same = ("retries", "keep-going", "rerun-incomplete", "keep-incomplete", "nolock", "max-checksum-file-size")
    assert {key: ours[key] for key in same} == {key: slurm[key] for key in same}
    assert program_of(ours["cluster-generic-submit-cmd"]) == {"lsf": "bsub", "cluster": "qsub"}[name]
