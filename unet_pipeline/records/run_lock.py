"""The working directory: checks that it can be written, and a lock, which no kill leaves behind, for one Snakemake.

Snakemake's own lock is a set of files: after `kill -9` or a crash of the machine it stays, and people must know about
`--unlock`. The operating system takes this one back whenever and however its process ends.

Jobs of a Snakemake that was killed live on, or still wait in the queue of a cluster. Each run therefore has a name,
which its jobs inherit in their environment; a job that finds another name in the lock file knows that it is left over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from unet_pipeline.errors import PipelineError

RUN = "UNET_PIPELINE_RUN"
"""Environment variable of jobs: the name of their run, a colon, and the lock file, which names the last run."""


def check_writable(folder: Path) -> None:
    """Write a little into `folder/.snakemake` and remove it, before Snakemake does and shows a traceback.

    Raises:
        PipelineError: if the disk is full or cannot be written.
    """
    try:
        (folder / ".snakemake").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder / ".snakemake") as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        fix = "free space, or work in another folder with --directory"
        raise PipelineError(folder, "a working directory that can be written", error, fix=fix) from error


def lock(path: Path) -> str:
    """Take a lock that lasts until this process ends, and begin a run.

    Args:
        path: the file of the lock; it stays, and names the last run: who holds or held the lock.

    Returns:
        What the jobs of the run need in the environment variable `RUN`.

    Raises:
        PipelineError: if another process holds it, here or on another machine that shares the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A bare descriptor, because nothing closes it before the process ends; and a lock of the process, not of the open
    # file, because children that outlive a killed Snakemake must not keep it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # else a file system without locks
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            fix = "wait for it to end, or stop it; another --directory can be worked in at the same time"
            raise PipelineError(path.resolve().parents[1], "no other Snakemake at work here", holder, fix=fix) from None
    name = f"process {os.getpid()} on {socket.gethostname()}, run {uuid.uuid4().hex}"
    os.pwrite(descriptor, f"{name}\n".encode(), 0)
    os.ftruncate(descriptor, len(name) + 1)
    return f"{name}:{path.resolve()}"


def check_run(output: Path) -> None:
    """Stop a job whose run is over: another Snakemake has begun one since, in the same working directory.

    Does nothing for a job that was started by hand.

    Args:
        output: what the job makes, for the message.

    Raises:
        PipelineError: naming the run that began later.
    """
    name, _, path = os.environ.get(RUN, "").partition(":")
    with suppress(OSError):  # the folder .snakemake was removed: claims still keep jobs apart
        last = Path(path).read_text(encoding="utf-8", errors="replace").strip() if path else name
        if last != name:
            fix = "nothing: this job is left over from a Snakemake that was killed, and stops"
            raise PipelineError(output, f"the run that started this job ({name})", last, fix=fix)
