"""What a job of the workflow starts with: its shell, its Python, and the GPUs it holds."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Set
from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.conda import has_driver

CUDA_OF_TORCH = "import torch; print(torch.cuda.is_available(), torch.__version__)"


def check_supported(methods: Set[str], storage: str | None) -> None:
    """Refuse ways to run jobs under which they would fail, or lose what they make.

    Args:
        methods: the software deployment methods of the run, `--sdm`.
        storage: the default storage provider of the run.

    Raises:
        PipelineError: for methods without conda or apptainer, as no rule has a module; and for any provider, which
            would carry the declared outputs alone: the volumes lie beside them.
    """
    if methods and not methods & {"conda", "apptainer"}:
        fix = "leave --sdm out and run inside .venv, or add conda to it"
        got = " ".join(sorted(methods))
        raise PipelineError("--software-deployment-method", "none, conda or apptainer", got, "conda", fix)
    if storage is not None:
        fix = "leave it out, and work in a folder that all jobs share"
        raise PipelineError(
            "--default-storage-provider", "none, since volumes lie beside the outputs of jobs", storage, fix=fix
        )


def check_gpu(python: Path | None) -> None:
    """Look for the GPU of jobs that run on this machine.

    Args:
        python: the Python that jobs call; None where an environment brings one, whose torch is not looked at.

    Raises:
        PipelineError: if there is none, or the torch of that Python cannot use it.
    """
    expected, found = "a CUDA GPU that torch can use", ""
    if not has_driver():
        found = "none: no driver of NVIDIA on this machine"
    elif python is not None:
        ran = subprocess.run([python, "-c", CUDA_OF_TORCH], capture_output=True, text=True, check=False)
        usable, _, version = ran.stdout.strip().partition(" ")
        found = f"none (torch {version})" if usable == "False" else ""
    if found:
        fix = "set compute.device: auto, or run on a machine with a GPU and a CUDA build of torch"
        raise PipelineError("compute.device", expected, found, "cpu", fix)


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


def gpus_here() -> int:
    """Return how many GPUs jobs on this machine may use: those of CUDA_VISIBLE_DEVICES or, without it, all."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def gpus(device: str) -> int:
    """Return how many GPUs a network's process holds: for `auto` one where this machine has any.

    Args:
        device: `compute.device` of the configuration.
    """
    found = shutil.which("nvidia-smi") is not None
    return int({"cpu": False, "cuda": True}.get(device, found))
