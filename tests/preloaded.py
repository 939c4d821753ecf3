"""A `python` for the jobs of tests: a copy of a process that has imported everything, instead of a new interpreter.

Most of the time of a tiny workflow goes into interpreters that import libraries. Here one server imports them once, and
forks for each `python -m unet_pipeline VERB` of a job. A job finds a stand-in named `python` first on its PATH
(stand_in_python.py): it hands its arguments, environment and open files to the server, passes signals on, and ends as
the copy ends. If the stand-in is killed, the copy is. Any other command line, or another checkout, gets the real
interpreter.

Until it forks, the server does nothing but import and let numba load its machine code; it has one thread then. What a
copy writes has the same bytes as what the real interpreter writes: tests/workflow holds it.
"""

from __future__ import annotations

import atexit
import importlib
import marshal
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from places import ROOT

STAGES = (
    *("stacks.demo", "stacks.ingest", "stacks.weigh", "train.train", "train.ensemble", "predict.tile"),
    *("predict.predict", "stitch.stitch", "evaluate.evaluate", "report.report", "audit.prove"),
)
"""What is imported, and with it all that the stages import."""
LATE = ("torch._dynamo", "torch.utils._device", "scipy.linalg", "unet_pipeline.config.files")
"""What they import while they work."""

STAND_IN = """#!/bin/sh
if [ "$1 $2 $PYTHONPATH" = {served} ]; then exec {python} -IS {client} {address} "$@"; fi
exec {python} "$@"
"""


@cache
def interpreter() -> Path:
    """Start a server, which ends with this process, and return the path of its `python`."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))  # short: the address of a socket has at most 107 bytes
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONSAFEPATH": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, str(folder)], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    words = {
        "served": f"-m unet_pipeline {ROOT}",
        "python": sys.executable,
        "client": str(Path(__file__).with_name("stand_in_python.py")),
        "address": str(folder / "socket"),
    }
    stand_in = folder / "python"
    stand_in.write_text(STAND_IN.format(**{name: shlex.quote(word) for name, word in words.items()}), encoding="utf-8")
    stand_in.chmod(0o755)
    atexit.register(_end, server)
    return stand_in


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin
    server.stdin.close()
    server.wait()


def serve(folder: Path) -> dict[str, Any] | None:
    """Fork for each stand-in that calls, until the process that started this one is gone.

    Returns:
        In a copy, what the stand-in asked for; None at the end of the server.
    """
    for name in (*LATE, *(f"unet_pipeline.{stage}" for stage in STAGES)):
        importlib.import_module(name)
    compile_loops()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen(64)
        while sys.stdin not in (ready := select.select([listening, sys.stdin], [], [])[0]):
            assert ready and len(list(Path("/proc/self/task").iterdir())) == 1, "a copy would lack the other threads"
            line, _ = listening.accept()
            if not os.fork():
                return keep(line)
            line.close()
    shutil.rmtree(folder)
    return None


def compile_loops() -> None:
    """Let numba load what it has compiled: a second for each job that would have to."""
    import numpy as np

    from unet_pipeline.objects.components import ComponentOptions, label_components
    from unet_pipeline.stacks.weight_map import boundary_term, open_gaps

    labels = np.diag(np.arange(8, dtype=np.uint32))
    boundary_term(open_gaps(labels, 1), 10, 5)
    classes, ignored = labels.astype(np.uint8)[None], lambda *block: None
    label_components(
        lambda plane, rows, columns: classes[plane, rows, columns], ignored, (1, 8, 8), (8, 8), ComponentOptions()
    )


def keep(line: socket.socket) -> dict[str, Any]:
    """Start the copy that a stand-in asks for, see to its end, and tell the stand-in; returns in the copy only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(line, 8, 3)
    body = line.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    copy = os.fork()
    if not copy:
        line.close()
        return marshal.loads(body) | {"files": files}  # type: ignore[no-any-return]
    line.sendall(copy.to_bytes(8, "big"))
    end = os.pidfd_open(copy)
    if end not in select.select([end, line], [], [])[0]:  # the stand-in was killed
        os.kill(copy, signal.SIGKILL)
    _, status = os.waitpid(copy, 0)
    with suppress(OSError):
        line.sendall(status.to_bytes(8, "big"))
    os._exit(0)


def become(asked: dict[str, Any]) -> None:
    """Let this process be the one the stand-in stands for, and run its command line."""
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    for target, file in enumerate(asked["files"]):
        os.dup2(file, target)
        os.close(file)
    os.umask(asked["umask"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path.remove(str(ROOT / "tests"))
    _, module, *rest = asked["arguments"]
    sys.argv[:] = ["-m", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if (asked := serve(Path(sys.argv[1]))) is not None:
        become(asked)
