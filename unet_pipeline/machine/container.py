"""A check that `--sdm apptainer` can run jobs in the image of the Containerfile, and what apptainer must be told."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from unet_pipeline.errors import PipelineError

PROGRAMS = ("apptainer", "singularity")


def check_container(image: str, path: str | None = None) -> None:
    """Look for apptainer and the image before the first job.

    Args:
        image: `compute.container`: a file, or an address with `://`, which apptainer fetches.
        path: folders where commands are looked for; None takes PATH.

    Raises:
        PipelineError: neither apptainer nor singularity is on PATH; no such file; or a path with spaces, which
            Snakemake refuses.
    """
    if not any(shutil.which(program, path=path) for program in PROGRAMS):
        fix = "install apptainer, or leave --sdm out and run inside .venv"
        raise PipelineError("--sdm apptainer", "apptainer or singularity on PATH", "none", fix=fix)
    if " " in image:
        raise PipelineError("compute.container", "a path without spaces", image, fix="put the image elsewhere")
    if "://" not in image and not Path(image).is_file():
        fix = "make it from the Containerfile (docs/install.md), or name yours in compute.container"
        raise PipelineError("compute.container", "an image of apptainer (.sif)", f"no file {image}", fix=fix)


def container_arguments(package: Path, given: str, gpu: bool) -> str:
    """Return the arguments of apptainer: those given, the folder of the package, which jobs import, and GPUs.

    Args:
        package: the folder that holds the package `unet_pipeline`.
        given: `--apptainer-args` of the run; on a cluster, what another Snakemake returned here.
        gpu: whether this machine has NVIDIA's driver.
    """
    ours = [f"--bind {shlex.quote(str(package))}", *(["--nv"] if gpu else [])]
    return " ".join([*([given] if given else []), *(one for one in ours if f" {one} " not in f" {given} ")])
