"""What a job of the workflow starts with: its shell, its Python, and the GPUs it holds."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path


def job_prefix(package: Path, python: Path | None, keep: bool = False) -> str:
    """Return what the shell of every job runs first: stop at the first error; find this package and its libraries.

    Neither the working directory nor PYTHONPATH may put another module before them. SIGTERM (a wall-time limit) comes
    to all processes of a job: shell and tee outlive the stage, which may have a checkpoint to write and a word to say.

    Args:
        package: the folder that holds the package `unet_pipeline`.
        python: the Python that jobs call; None where the job's environment brings its own, and all it needs.
        keep: whether the PYTHONPATH of before stays behind, for jobs of another workflow.
    """
    lines = ["set -euo pipefail", "trap : TERM", 'tee() { (trap "" TERM; exec tee "$@"); }']
    lines += [
        "export PYTHONSAFEPATH=1",
        f"export PYTHONPATH={shlex.quote(str(package))}{'${PYTHONPATH:+:$PYTHONPATH}' if keep else ''}",
    ]
    if python is None:
        lines.append("export PYTHONNOUSERSITE=1")
    else:
        lines.append(f'export PATH={shlex.quote(str(python.parent))}:"$PATH"')
    return "; ".join([*lines, ""])


def gpus(device: str) -> int:
    """Return how many GPUs a network's process holds: for `auto` one where this machine has any.

    Args:
        device: `compute.device` of the configuration.
    """
    found = shutil.which("nvidia-smi") is not None
    return int({"cpu": False, "cuda": True}.get(device, found))
