"""The jobs of a small project, one by one: their commands and outputs as Snakemake would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preloaded import STAGES, python, server
from real_project import project
from workspace import ROOT, Workspace

from unet_pipeline.records.run_lock import RUN

JOBS = ("ingest unseen", "weigh learn", "train", "tile unseen", "predict unseen 0", "stitch unseen",
        "measure unseen", "evaluate unseen", "report")  # fmt: skip
"""One job of each stage."""

BESIDE: Mapping[str, tuple[str, ...]] = {
    "ingest": ("image.ome.zarr", "ingest.sha256"),
    "weigh": ("weights.zarr", "weigh.sha256"),
    "train": (".training",),
    "predict": (".0.json.shards",),
    "stitch": ("stitch.sha256",),
    "measure": ("measure.sha256",),
}
"""What a job writes beside its declared outputs: removed half the time, so that it starts from nothing."""

OTHER: Mapping[str, dict[str, dict[str, object]]] = {
    "ingest": {"store": {"compression": 7}},
    "weigh": {"weigh": {"w0": 3.0}},
    "train": {"train": {"seed": 99}},
    "tile": {"tile": {"tile_px": 32}},
    "predict": {"predict": {"precision": "bfloat16"}},
    "stitch": {"stitch": {"min_area_px": 1, "grow_px": 3}},
    "measure": {"measure": {"measures": ["area"]}},
    "evaluate": {"evaluate": {"isbi": True}},
    "report": {"report": {"panel_px": 100}},
}
"""Settings of an orphan from before the configuration was changed."""


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: rule and wildcards, e.g. "predict unseen 0".
        command: arguments after `python -m unet_pipeline`.
        outputs: its declared outputs, which Snakemake removes before it starts.
    """

    name: str
    command: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def stage(self) -> str:
        """The verb."""
        return self.name.split()[0]

    def with_other_settings(self) -> tuple[str, ...]:
        """Return the command as it was before the configuration changed."""
        command = list(self.command)
        place = command.index("--config") + 1
        config = json.loads(command[place])
        for section, values in OTHER[self.stage].items():
            config[section] = config.get(section, {}) | values
        command[place] = json.dumps(config)
        return tuple(command)

    def forget(self, folder: Path, whole: bool) -> None:
        """Remove the outputs as Snakemake does before a job starts; with `whole` also what lies beside them."""
        for name in self.outputs:
            (folder / name).unlink(missing_ok=True)
        beside = (folder / self.outputs[0]).parent
        for name in BESIDE.get(self.stage, ()) if whole else ():
            path = beside / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Return the environment of a job: this package, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", STAGES: str(server("stages"))}


def start(
    folder: Path,
    command: tuple[str, ...],
    log: Path,
    kill_at: int | None = None,
    run: str = "",
    preloaded: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a job in a process group of its own.

    Args:
        folder: the project.
        command: arguments after `python -m unet_pipeline`.
        log: where its output goes.
        kill_at: be killed at this change of a file; 0 only counts them, into `log` with the suffix .count.
        preloaded: be a copy of a process that has imported the stages: soon at work, but not to be suspended.
        run: the run it belongs to, as `unet_pipeline.records.run_lock.lock` gives it; empty for a job started by hand.
    """
    python_, head = str(python()) if preloaded else sys.executable, ["-m", "unet_pipeline"]
    if kill_at is not None:
        head = [str(Path(__file__).with_name("kill_at.py")), str(kill_at), str(log.with_suffix(".count"))]
    with log.open("ab") as file:
        line = [python_, *head, *command]
        return subprocess.Popen(
            line, cwd=folder, env=environment() | ({RUN: run} if run else {}), stdin=subprocess.DEVNULL, stdout=file,
            stderr=file, start_new_session=True,
        )  # fmt: skip


def snakemake(folder: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Snakemake on a project, in a process group of its own."""
    line = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", *arguments]
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    with log.open("ab") as file:
        return subprocess.Popen(
            line, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def reference(folder: Path) -> tuple[Workspace, dict[str, Job]]:
    """Make a project, run it undisturbed, and return it with its jobs.

    Raises:
        RuntimeError: if the undisturbed run fails.
    """
    space = project(folder)
    ran = space.run()
    if ran.code:
        raise RuntimeError(ran.text)
    text = space.run("--dry-run", "--forceall", "--printshellcmds").text
    jobs = [_job(block) for block in re.split(r"\n(?=\[)", text) if "python -m unet_pipeline" in block]
    return space, {job.name: job for job in jobs if job.name in JOBS}


def _job(block: str) -> Job:
    rule, outputs = re.search(r"rule (\w+):", block), re.search(r"output: (.*)", block)
    shell = re.search(r"python -m unet_pipeline (.*?)2>&1", block, re.DOTALL)
    wildcards = re.search(r"wildcards: (.*)", block)
    assert rule and outputs and shell, block
    values = re.findall(r"\w+=([^,\n]+)", wildcards[1]) if wildcards else []
    command = tuple(shlex.split(shell[1].replace("\\\n", " ")))
    return Job(" ".join([rule[1], *values]), command, tuple(outputs[1].split(", ")))
