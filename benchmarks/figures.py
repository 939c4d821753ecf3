"""What the benchmarks share: taking times in turn, and the table of figures each leaves in `benchmarks/tables`."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

TABLES = Path(__file__).parent / "tables"
SMALL = "BENCH_SMALL" in os.environ
"""Whether to run at small size, to see that all of it runs: then no table is written, and no goal counts."""

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that decide how fast a network is on a CPU, as Linux names them."""


@dataclass(frozen=True)
class Figure:
    """One measured number and what it should be.

    Attributes:
        name: what was measured.
        ours: our value.
        other: that of the alternative, in the same unit; None where the goal is about our value alone.
        unit: of both.
        goal: the bound of ours / other (or of ours where there is no other); None for a number without a goal.
        at_most: whether the bound is an upper one.
        larger: whether larger values are better; the ratio is turned so that above 1 means that we are ahead.
        cpu_s: CPU seconds of both, of all threads; None where they were not taken.
    """

    name: str
    ours: float
    other: float | None
    unit: str
    goal: float | None = None
    at_most: bool = False
    larger: bool = True
    cpu_s: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        """How far we are ahead of the other."""
        if self.other is None:
            return None
        return self.ours / self.other if self.larger else self.other / self.ours

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        value = self.ours if self.ratio is None else self.ratio
        return self.goal is None or (value <= self.goal if self.at_most else value >= self.goal)

    def cells(self) -> list[str]:
        """Return name, ours, other, ratio, CPU seconds, goal, met as text."""
        goal = "" if self.goal is None else f"{'<=' if self.at_most else '>='} {self.goal:g}"
        other = "" if self.other is None else f"{self.other:.4g} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}"
        met = "" if self.goal is None else ("met" if self.met else "not met")
        cpu = "" if self.cpu_s is None else f"{self.cpu_s[0]:.3g}, {self.cpu_s[1]:.3g}"
        return [self.name, f"{self.ours:.4g} {self.unit}", other, ratio, cpu, goal, met]


T = TypeVar("T")


def sized(usual: T, small: T) -> T:
    """Return the usual size of a benchmark, or the small one."""
    return small if SMALL else usual


@dataclass(frozen=True)
class Taken:
    """What a call took: wall time, and CPU time of all threads of this process, seconds."""

    wall_s: float
    cpu_s: float


def in_turn(*functions: Callable[[], object], rounds: int = 5) -> list[Taken]:
    """Return the medians of what each function takes; they are called in turn, because the machine has moods.

    Each is called once more before, to warm up.
    """
    for function in functions:
        function()
    rounds = sized(rounds, 1)
    times: list[list[tuple[float, float]]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            began, used = time.perf_counter(), time.process_time()
            function()
            taken.append((time.perf_counter() - began, time.process_time() - used))
    return [Taken(*map(statistics.median, zip(*taken, strict=True))) for taken in times]


def publish(benchmark: str, figures: Sequence[Figure], notes: str = "") -> None:
    """Print the figures and write the dated table of a benchmark."""
    if SMALL:
        print_figures([replace(figure, goal=None) for figure in figures])
        return
    TABLES.mkdir(exist_ok=True)
    command = " ".join([f"benchmarks/{benchmark}.py", *sys.argv[1:]])
    lines = [f"# {benchmark}", "", f"{datetime.date.today()}, {machine()}: `python {command}`", ""]
    lines += ["| figure | ours | other | ratio | CPU s, ours and other | goal | |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(figure.cells()) + " |" for figure in figures]
    lines += ["", notes.strip()] if notes else []
    (TABLES / f"{benchmark}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print_figures(figures)


def print_figures(figures: Sequence[Figure]) -> None:
    """Print one line per figure."""
    for figure in figures:
        print("  ".join(cell for cell in figure.cells() if cell), flush=True)


def machine() -> str:
    """Describe the machine."""
    sets = " ".join(name for name in INSTRUCTIONS if name in _processor_line("flags").split())
    return f"{processor()} ({sets or 'no AVX2'}), {os.cpu_count()} core(s), Python {platform.python_version()}"


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    return _processor_line("model name") or platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16; others imitate it, slower than float32."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_processor_line("flags").split()))


def _processor_line(name: str) -> str:
    """Return what Linux says of the first processor under this name; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def asked(doc: str | None, threads: int) -> argparse.Namespace:
    """Return `threads` (this many unless asked otherwise) and `rounds` of the command line."""
    options = argparse.ArgumentParser(description=doc)
    options.add_argument("--threads", type=int, default=threads)
    options.add_argument("--rounds", type=int, default=3)
    return options.parse_args()


LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss * 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Linux counts the memory of a process that starts another as the other's, up to its exec: so a small one starts it."""


def peak_memory(command: Sequence[str]) -> tuple[int, float]:
    """Run a command; return the peak of its resident memory in bytes and its seconds."""
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ran.stderr}")
    return int(ran.stderr.split()[-1]), time.perf_counter() - began


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep every thread of this process, and those it starts, on the first cores."""
    before = os.sched_getaffinity(0)
    _move(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _move(before)


def _move(chosen: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), chosen)


def step(text: str) -> None:
    """Say what is being measured."""
    print(f"... {text}", file=sys.stderr, flush=True)
