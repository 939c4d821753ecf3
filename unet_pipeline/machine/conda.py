"""A check that `--use-conda` can make the environments of `envs/` on the machine Snakemake runs on."""

from __future__ import annotations

import platform
import shutil
from collections.abc import MutableMapping
from pathlib import Path

from unet_pipeline.errors import PipelineError

OVERRIDE = "CONDA_OVERRIDE_CUDA"
"""The variable conda takes for the CUDA version of the driver instead of looking for one."""

CUDA = "13.0"
"""CUDA version assumed for the nodes where this machine has no driver; that of the PyTorch in envs/requirements.txt."""


def prepare(environment: MutableMapping[str, str]) -> None:
    """Let conda find itself, and the CUDA build of PyTorch also on a login node without a GPU.

    Conda-forge's CUDA builds depend on the driver (`__cuda`). Where conda sees none it could not make the environment
    of `envs/torch.yaml` for nodes that have one, so this sets a version; a driver or a user's own value goes first.

    Args:
        environment: the variables conda will be started with; changed in place.

    Raises:
        PipelineError: no conda on PATH.
    """
    if shutil.which("conda", path=environment.get("PATH")) is None and "BASH_FUNC_conda%%" not in environment:
        fix = "install Miniforge and open a new shell; or leave --use-conda out and run inside .venv"
        raise PipelineError("--use-conda", "conda 24.7.1 or newer on PATH", "none", fix=fix)
    if platform.system() == "Linux" and not has_driver():
        environment.setdefault(OVERRIDE, CUDA)


def has_driver() -> bool:
    """Return whether this machine has NVIDIA's driver, so that conda sees its CUDA version."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
