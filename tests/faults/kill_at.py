"""Run unet_pipeline, and be killed at the n-th time it is about to change a file: `python kill_at.py N COUNT VERB ...`.

With N = 0 nothing is killed, and the file COUNT is written with how many times there were. Only what lies below
`results` counts, so that loading packages does not.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR


def main() -> None:
    """Install the hook, then be `python -m unet_pipeline`."""
    limit, count_file, seen = int(sys.argv[1]), Path(sys.argv[2]), 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        changes = event in CHANGES
        if event == "open" and isinstance(arguments[2], int):
            changes = bool(arguments[2] & WRITING)
        if changes and "results" in str(arguments[0]):
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = ["unet_pipeline", *sys.argv[3:]]
    sys.addaudithook(hook)
    try:
        runpy.run_module("unet_pipeline", run_name="__main__", alter_sys=True)
    finally:
        if not limit:
            count_file.write_text(str(seen))


main()
