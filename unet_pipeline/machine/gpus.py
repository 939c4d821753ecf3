"""Which GPU of a machine a process takes, where jobs run side by side: one that no other of them holds."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from unet_pipeline.errors import PipelineError


@cache  # once for a process: a second look would find its own GPU taken
def held_gpu(names: tuple[str, ...], processes: int = 1) -> int:
    """Return the number of a GPU, and hold it until this process ends.

    A GPU is held by a lock on a file in the folder for temporary files, which the system lets go with the process,
    however that ends. Where all are held (Snakemake was told of more than there are), GPUs are shared.

    Args:
        names: of the GPUs that this process sees, the same in every process, such as their serial numbers.
        processes: of the same job: two of them cannot share a GPU, as their gradients are summed from GPU to GPU.

    Raises:
        PipelineError: if all are held and the job has several processes.
    """
    found = free_gpu(names, Path(tempfile.gettempdir()))
    if found is None and processes > 1:
        got = f"none of {len(names)} free: other jobs hold them"
        fix = "wait for the other jobs, or lower compute.processes"
        raise PipelineError("compute.processes", f"{processes} GPUs, one for each process", got, fix=fix)
    return os.getpid() % len(names) if found is None else found


def free_gpu(names: Sequence[str], folder: Path) -> int | None:
    """Return the number of the first GPU that nobody holds, and hold it; None where all are held."""
    for number, name in enumerate(names):
        file = folder / f"unet_pipeline-{os.getuid()}-{re.sub('[^A-Za-z0-9-]', '_', name)}.lock"
        try:
            # stays open: the lock ends with the process
            opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(opened)
        else:
            return number
    return None
