"""A `python` that is a copy of a process which has imported everything, instead of a new interpreter.

Most of the time of a tiny workflow goes into interpreters that import libraries. Here one server has imported what
Snakemake needs, another what the stages need, and each forks for every `python -m` that asks for it. Who runs the
stand-in for `python` (stand_in_python.py) notices nothing: it hands its arguments, environment and open files to the
server, passes signals on, and ends as the copy ends; if it is killed, the copy is; if it lies in a control group, as
the jobs of Slurm do, so does the copy. Any other command line, or another checkout, gets the real interpreter.

Until it forks, a server does nothing but import and let numba load its machine code; it has one thread then. What a
copy writes has the same bytes as what the real interpreter writes: tests/workflow holds it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import marshal
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
STAGES = "PRELOADED_STAGES"
"""Environment variable: the address of the server of the stages, if jobs are to have copies of it."""
LOOK_S = "PRELOADED_LOOK_S"
"""Environment variable: seconds between two looks of Snakemake at remote jobs, if they are to stay the same.

The plugin for Slurm waits 10 s longer after each look at which no job had ended: half the time of a small workflow.
"""

IMPORTED = {
    "snakemake": (
        *("snakemake.cli", "snakemake.report.html_reporter", "snakemake.profiles", "snakemake.benchmark"),
        *("snakemake.storage", "pandas", "requests", "yte", "docutils.core", "docutils.parsers.rst", "smart_open"),
        *("pygments.formatters.html", "jinja2"),
    ),
    "stages": (
        *("torch._dynamo", "torch.utils._device", "scipy.linalg", "scipy.sparse", "unet_pipeline.config.files"),
        *(f"unet_pipeline.stacks.{name}" for name in ("demo", "ingest", "weigh")),
        *(f"unet_pipeline.train.{name}" for name in ("train", "ensemble")),
        *(f"unet_pipeline.predict.{name}" for name in ("tile", "predict")),
        *("unet_pipeline.stitch.stitch", "unet_pipeline.stitch.measure"),
        *("unet_pipeline.evaluate.evaluate", "unet_pipeline.evaluate.calibrate"),
        *("unet_pipeline.report.report", "unet_pipeline.audit.prove"),
    ),
}
"""What each server imports, and with it what these import; also what they would import later, while they work."""

STAND_IN = """#!/bin/sh
case "$1 $2 $PYTHONPATH" in
"-m snakemake "*) exec {python} -IS {client} {snakemake} "$@" ;;
{stages}) if [ -n "$PRELOADED_STAGES" ]; then exec {python} -IS {client} "$PRELOADED_STAGES" "$@"; fi ;;
esac
exec {python} "$@"
"""


@cache
def server(kind: str) -> Path:
    """Start a server, which ends with this process, and return its address."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))  # short: the address of a socket has at most 107 bytes
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    if kind == "stages":
        environment["PYTHONPATH"] = str(ROOT)
    process = subprocess.Popen(
        [sys.executable, __file__, kind, str(folder)], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    atexit.register(_end, process)
    return folder / "socket"


@cache
def python() -> Path:
    """Return a `python` that is a copy wherever it can be; of the stages only where the variable `STAGES` is set."""
    address = server("snakemake")
    words = {
        "stages": f"-m unet_pipeline {ROOT}",
        "python": sys.executable,
        "client": str(Path(__file__).with_name("stand_in_python.py")),
        "snakemake": str(address),
    }
    stand_in = address.with_name("python")
    stand_in.write_text(STAND_IN.format(**{name: shlex.quote(word) for name, word in words.items()}), encoding="utf-8")
    stand_in.chmod(0o755)
    return stand_in


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait()


def serve(kind: str, folder: Path) -> dict[str, Any] | None:
    """Fork for each stand-in that calls, until the process that started this one is gone.

    Returns:
        In a copy, what the stand-in asked for; None at the end of the server.
    """
    if kind == "snakemake":
        sys.modules["pyarrow"] = None  # type: ignore[assignment]  # pandas would import it, and it starts a thread
    for name in IMPORTED[kind]:
        importlib.import_module(name)
    if kind == "stages":
        os.fsync = lambda file: None  # as in conftest.py
        compile_loops()
    gc.freeze()  # collecting garbage in a copy would touch, and so duplicate, all the memory it shares
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

    from unet_pipeline.objects.component_options import ComponentOptions
    from unet_pipeline.objects.components import label_components
    from unet_pipeline.stacks.weight_map import boundary_term, open_gaps

    labels = np.diag(np.arange(8, dtype=np.uint32))
    boundary_term(open_gaps(labels, 1), 10, 5)
    classes = labels.astype(np.uint8)
    label_components(lambda *block: classes, lambda *block: None, (1, 8, 8), (8, 8), ComponentOptions())


def keep(line: socket.socket) -> dict[str, Any]:
    """Start the copy that a stand-in asks for, see to its end, and tell the stand-in; returns in the copy only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    caller, _, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    size, files, _, _ = socket.recv_fds(line, 8, 3)
    body = line.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    copy = os.fork()
    if not copy:
        line.close()
        join_groups(caller)
        return marshal.loads(body) | {"files": files}  # type: ignore[no-any-return]
    line.sendall(copy.to_bytes(8, "big"))
    end = os.pidfd_open(copy)
    if end not in select.select([end, line], [], [])[0]:  # the stand-in was killed
        os.kill(copy, signal.SIGKILL)
    _, status = os.waitpid(copy, 0)
    with suppress(OSError):
        line.sendall(status.to_bytes(8, "big"))
    os._exit(0)


def join_groups(caller: int) -> None:
    """Move this process to the control groups of another: what limits, counts and ends a job of Slurm."""
    mine, theirs = (Path(f"/proc/{who}/cgroup").read_text().splitlines() for who in ("self", caller))
    for line in set(theirs) - set(mine):
        _, controller, path = line.split(":", 2)
        with suppress(OSError):  # a hierarchy that nobody mounted
            Path(f"/sys/fs/cgroup/{controller.removeprefix('name=')}/{path}/cgroup.procs").write_text(str(os.getpid()))


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
    _, module, *rest = asked["arguments"]
    if module == "snakemake":
        sys.executable = asked["python"]
        if LOOK_S in os.environ:
            look_every(float(os.environ[LOOK_S]))
    else:
        Path("/proc/self/comm").write_text(rest[0])  # by this a test finds the stage; its command line is the server's
    sys.argv[:] = ["-m", *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        leave(end.code)
    leave(None)


def look_every(seconds: float) -> None:
    """Let executors of Snakemake look at their remote jobs at this interval, whatever they would rather do."""
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    interval = property(lambda self: seconds, lambda self, longer: None)
    RemoteExecutor.next_seconds_between_status_checks = interval  # type: ignore[method-assign,assignment]


def leave(code: object) -> NoReturn:
    """End as the interpreter does, but leave the modules as they are: taking them apart would touch all memory too."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if (asked := serve(kind, folder)) is not None:
        become(asked | {"python": str(folder / "python")})
