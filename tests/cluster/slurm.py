"""The cluster of `up` and `down`, and Snakemake run on it as a user would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from preloaded import LOOK_S, STAGES, python, server
from workspace import ROOT, Workspace

HERE = Path(__file__).parent
PROFILE = ROOT / "profiles" / "slurm"
SOON = ("--slurm-init-seconds-before-status-checks", "1")
"""The profile waits longer before it looks; tests need not, nor (`LOOK_S`) from one look to the next."""

SACCT = ("jobid", "state", "partition", "nodelist", "reqcpus", "reqmem", "alloctres", "timelimit", "account", "comment")

SINCE = "--starttime=now-1days"
"""Left alone, sacct shows nothing of before midnight."""


@dataclass(frozen=True)
class SlurmJob:
    """A line of sacct: everything is text as Slurm writes it; `comment` holds the rules."""

    id: str
    state: str
    partition: str
    node: str
    cpus: str
    memory: str
    resources: str
    limit: str
    account: str
    comment: str


class Cluster:
    """Three nodes on this host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def up(self) -> None:
        """Start it, or what of it has died."""
        ran = subprocess.run([HERE / "up", self.folder], capture_output=True, text=True, timeout=600, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def down(self) -> None:
        subprocess.run([HERE / "down", self.folder], timeout=300, check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What `. FOLDER/env.sh` gives, without what could help rules to find the package."""
        found = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}
        path = [str(self.folder / "bin"), str(Path(sys.executable).parent), found["PATH"]]
        return found | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": ":".join(path),
            "OMP_NUM_THREADS": "1",
            LOOK_S: "1",
        }

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    def stop(self, daemon: str) -> None:
        """Kill a daemon as a crash would."""
        os.kill(int((self.folder / "run" / f"{daemon}.pid").read_text()), signal.SIGKILL)

    def remember(self) -> None:
        """Wait until accounting and the disk have the running jobs, which a controller killed before forgets.

        Both are up to 5 s late.
        """
        for job in self.running():
            until(lambda job=job: self.ask("sacct", "-nPXj", job, SINCE, "--format=jobname").strip(), "an account")
            self.ask("scontrol", "update", f"jobid={job}", f"admincomment=job {job} is remembered")
            wanted = f"job {job} is remembered".encode()
            until(lambda wanted=wanted: wanted in (self.folder / "state/job_state").read_bytes(), wanted.decode())

    def resume(self, node: str) -> None:
        """Bring a node back that was drained or taken down; one that has come back by itself is no error."""
        line = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(line, env=self.environment, capture_output=True, timeout=60, check=False)
        ready = ("idle", "mixed", "allocated")
        until(lambda: self.ask("sinfo", "-hN", "-n", node, "-o", "%T").split()[0].rstrip("*") in ready, f"{node} again")

    def running(self) -> dict[str, str]:
        """Ids and nodes of the jobs that run now."""
        lines = self.ask("squeue", "--noheader", "--states=RUNNING", "--format=%i %N").split("\n")
        return dict(line.split() for line in lines if line.strip())

    def queue_is_empty(self) -> bool:
        return not self.ask("squeue", "--noheader").strip()


@dataclass
class Run:
    """A Snakemake that has been started."""

    process: subprocess.Popen[bytes]
    log: Path
    cluster: Cluster

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait(self, seconds: float = 1200) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"not finished after {seconds:.0f} s\n{self.text}") from None

    def jobs(self, *rules: str) -> list[SlurmJob]:
        """Its Slurm jobs, of these rules or of all."""
        name = re.search(r"SLURM run ID: (\S+)", self.text)
        if name is None:
            return []
        lines = self.cluster.ask(
            "sacct", "-nPX", SINCE, f"--name={name[1]}", f"--format={','.join(SACCT)}"
        ).splitlines()
        found = [SlurmJob(*line.split("|")) for line in lines]
        return [job for job in found if not rules or set(rules) & set(re.split("[_ ]", job.comment))]


STARTED: list[Run] = []
"""Snakemakes of the present test."""


def start(cluster: Cluster, space: Workspace, *arguments: str, profile: Path = PROFILE, preloaded: bool = True) -> Run:
    """Start Snakemake in a project, with the profile of Slurm; its stages are copies of a process if `preloaded`."""
    (space.folder / "config.yaml").write_text(yaml.safe_dump(space.config), encoding="utf-8")
    log = space.folder.parent / f"snakemake-{time.monotonic_ns()}.log"
    command = [str(python()), "-m", "snakemake", "--snakefile", str(space.checkout / "Snakefile")]
    command += ["--directory", str(space.folder), "--workflow-profile", str(profile), *SOON, *arguments]
    environment = cluster.environment | ({STAGES: str(server("stages"))} if preloaded else {})
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=space.folder.parent, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    STARTED.append(Run(process, log, cluster))
    return STARTED[-1]


def finish(cluster: Cluster, space: Workspace, *arguments: str) -> Run:
    """Run Snakemake to a good end."""
    run = start(cluster, space, *arguments)
    assert run.wait() == 0, run.text
    return run


def until(true: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def profile_with(folder: Path, old: str, new: str) -> Path:
    """Write the profile with one place edited, as a user would edit it."""
    text = (PROFILE / "config.yaml").read_text(encoding="utf-8")
    assert old in text
    folder.mkdir()
    (folder / "config.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return folder


def processes(space: Workspace, verb: str) -> list[int]:
    """Ids of the live processes of a preloaded stage in a project; all nodes are this host."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if (entry / "comm").read_text() == f"{verb}\n" and (entry / "cwd").readlink() == space.folder:
                found.append(int(entry.name))
    return sorted(found)


def is_stopped(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"
