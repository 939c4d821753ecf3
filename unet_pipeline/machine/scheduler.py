"""Schedulers that Snakemake's cluster-generic plugin drives by commands: a check that these are there."""

from __future__ import annotations

import re
import shutil

from unet_pipeline.errors import PipelineError

SHELL = re.compile(r"(?:ba)?sh -c (.*)", re.DOTALL)
PREPARES = ("cd", "export", "mkdir", "module", "set")
"""First words of what prepares a command in a line of the shell, and is none of a scheduler."""


def program_of(command: str) -> str:
    """Return the program that a command of a profile calls, such as bsub in `bash -c 'mkdir -p logs; bsub …'`."""
    within = SHELL.match(command)
    parts = re.split(r";|&&", within[1].strip("'\"")) if within else [command]
    first = (next((word for word in part.split() if not re.match(r"\w+=", word)), "") for part in parts)
    return next((word for word in first if word and word not in PREPARES), "")


def check_scheduler(submit: str | None, path: str | None = None) -> None:
    """Look for the command that submits jobs, before the first one.

    Args:
        submit: `--cluster-generic-submit-cmd`; None leaves the message to the plugin.
        path: folders where commands are looked for; None takes PATH.

    Raises:
        PipelineError: no such command on PATH.
    """
    program = program_of(submit or "")
    if program and shutil.which(program, path=path) is None:
        fix = "run Snakemake on a login node of the cluster (perhaps after `module load`), or name its command in the "
        fix += "profile; to compute on this machine leave the profile out"
        raise PipelineError(program, "the scheduler's commands on this machine", "none on PATH", fix=fix)
