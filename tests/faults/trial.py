"""A trial: one copy of a finished project to be maltreated, and what it must come through with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import workspace
from same_tree import differing, tree
from stages import Job, start
from workspace import ROOT

from unet_pipeline.records.run_lock import lock

PATIENCE_S = 600
"""A job that takes longer is taken for hung."""


class Lost(Exception):
    """Something was lost, came out otherwise, hung, or ended without a clear message."""


class Untried(Exception):
    """This machine does not allow what the kind needs."""


@dataclass
class Trial:
    """One copy of the project, to be maltreated.

    Attributes:
        folder: the copy.
        log: where everything it runs writes to.
        chance: seeded.
        jobs: by name.
        expected: digests of the files of an undisturbed run.
        seconds: how long each job took undisturbed.
        changes: how often each job changes a file.
    """

    folder: Path
    log: Path
    chance: random.Random
    jobs: dict[str, Job]
    expected: dict[str, str]
    seconds: dict[str, float]
    changes: dict[str, int]

    def any_job(self) -> Job:
        """Choose a job and remove its outputs."""
        job = self.jobs[self.chance.choice(sorted(self.jobs))]
        job.forget(self.folder, whole=self.chance.random() < 0.5)
        self.note(f"# job {job.name}")
        return job

    def note(self, text: str) -> None:
        """Write a line into the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def moment(self, job: Job) -> None:
        """Wait for a while that ends somewhere within the run of a job."""
        time.sleep(self.chance.uniform(0.02, 1.1) * self.seconds[job.name])

    def finish(self, job: Job, run: str = "") -> None:
        """Run a job to its end; it must succeed."""
        self.ended(start(self.folder, job.command, self.log, run=run, preloaded=True), 0)

    def refuse(self, command: tuple[str, ...]) -> str:
        """Run a command to its end; it must fail with one clear message. Returns what it said."""
        before = len(self.log.read_text(encoding="utf-8"))
        self.ended(start(self.folder, command, self.log, preloaded=True), 1)
        self.said_once()
        return self.log.read_text(encoding="utf-8")[before:]

    def run(self) -> str:
        """Begin a run, as a Snakemake that starts does; its jobs need what this returns."""
        return lock(self.folder / ".snakemake" / "unet_pipeline.lock")

    def workflow(self, *arguments: str) -> None:
        """Run Snakemake to its end; it must succeed."""
        where = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder), "--cores", "2"]
        ran = workspace.snakemake(*where, *arguments, cwd=self.folder.parent, preloaded=True)
        self.note(ran.text)
        if ran.code:
            raise Lost(f"exit code {ran.code}")

    def ended(self, process: subprocess.Popen[bytes], *codes: int) -> int:
        """Wait for a process; raise `Lost` if it hangs or ends with another code than these (any, if none is given)."""
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Lost("hung") from None
        if codes and code not in codes:
            raise Lost(f"exit code {code}")
        return code

    def outputs_are_whole(self, job: Job) -> None:
        """Check that outputs that exist are those of the undisturbed run: nothing is half-written."""
        found = tree(self.folder / "results")
        for name in job.outputs:
            name = name.removeprefix("results/")
            if name in found and found[name] != self.expected[name]:
                raise Lost(f"half-written: {name}")

    def check(self) -> None:
        """Compare all results with those of the undisturbed run."""
        if wrong := differing(self.expected, tree(self.folder / "results")):
            raise Lost(f"differs: {', '.join(wrong[:4])} ({len(wrong)} files)")

    def said_once(self) -> None:
        """Check that the log shows a clear error and no traceback."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in text or "error: " not in text:
            raise Lost("no clear message")
