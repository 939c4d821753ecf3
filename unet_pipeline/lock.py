"""The working directory: that it can be written, and that one Snakemake works in it, by a lock no kill leaves behind.

Snakemake's own lock is a set of files: after `kill -9` or a crash of the machine it stays, and people must know about
`--unlock`. The operating system takes this one back whenever and however its process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path

from unet_pipeline.errors import PipelineError


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


def lock(path: Path) -> None:
    """Take a lock that lasts until this process ends.

    Args:
        path: the file of the lock; it stays, and says who holds or held it.

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
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
            return
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        fix = "wait for it to end, or stop it; another --directory can be worked in at the same time"
        raise PipelineError(path.resolve().parents[1], "no other Snakemake at work here", holder, fix=fix) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
