"""One process that tries inputs on one target, in a folder of its own, with bounded memory and time."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from fuzz import tree
from fuzz.mutate import mutate_tree
from fuzz.targets import LONGEST_MESSAGE, TARGETS, Target
from unet_pipeline.errors import PipelineError

ROOM_BYTES = 2 * 2**30
"""Address space beyond what the process holds before the first input."""

BLOW_UP_BYTES = 768 * 2**20
"""Growth of the resident memory by one input that counts as a blow-up: twelve blocks of the largest free claim."""

HANG_S = 30.0
CORPUS = 400


class Hang(BaseException):
    """An input took longer than HANG_S."""


@dataclass
class Tally:
    """What happened so far; written as JSON after every input that matters."""

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    crashes: int = 0
    hangs: int = 0
    blow_ups: int = 0
    peak_bytes: int = 0
    paths: int = 0
    findings: dict[str, str] = field(default_factory=dict)


class Worker:
    """Tries inputs and keeps those that took a new way through the library."""

    def __init__(self, name: str, folder: Path, saved: Path) -> None:
        self.name, self.folder, self.saved = name, folder, saved
        self.target: Target = TARGETS[name]
        self.tally, self.known = Tally(), set[str]()
        self.seeds = self.target.seeds()
        self.corpus = list(self.seeds)
        self._quiet()
        for seed in self.seeds:
            self.attempt(seed)
        if self.tally.refused or self.tally.findings:
            raise SystemExit(f"{name}: a valid seed is not accepted: {self.tally}")
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM_BYTES, resource.RLIM_INFINITY))
        self.tally = Tally()

    def _quiet(self) -> None:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        signal.signal(signal.SIGALRM, _on_alarm)

    def attempt(self, given: tree.Tree) -> str:
        """Try one input; return what came of it."""
        self._clean()
        tree.write(given, self.folder)
        before, held = _around(self.folder), _resident()
        _reset_peak()
        outcome, way = self._run()
        if escaped := sorted(_around(self.folder) ^ before):
            outcome, way = "crash", f"Escape: wrote {escaped}"
        peak = _peak() - held
        if outcome in ("accepted", "refused") and peak > BLOW_UP_BYTES:
            outcome, way = "blow_up", f"{peak / 2**20:.0f} MiB"
        self._count(outcome, way, peak, given)
        return outcome

    def _run(self) -> tuple[str, str]:
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            self.target.run(self.folder)
            return "accepted", "accepted"
        except PipelineError as error:
            if len(str(error)) > LONGEST_MESSAGE:
                return "crash", f"a message of {len(str(error))} characters"
            str(error).encode("utf-8", "backslashreplace")
            return "refused", _way(error)
        except MemoryError as error:
            return "blow_up", _way(error)
        except Hang as error:
            return "hang", _way(error)
        except (Exception, SystemExit) as error:
            return "crash", _way(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _count(self, outcome: str, way: str, peak: int, given: tree.Tree) -> None:
        tally = self.tally
        tally.inputs += 1
        tally.peak_bytes = max(tally.peak_bytes, peak)
        name = {"crash": "crashes", "hang": "hangs", "blow_up": "blow_ups"}.get(outcome, outcome)
        setattr(tally, name, getattr(tally, name) + 1)
        if way not in self.known:
            self.known.add(way)
            tally.paths += 1
            if outcome in ("accepted", "refused"):
                self.corpus += [given] if len(self.corpus) < CORPUS else []
            else:
                tally.findings[self.save(given)] = f"{outcome}: {way}"

    def save(self, given: tree.Tree) -> str:
        """Keep an input so that it can be replayed."""
        data = tree.pack(given)
        path = self.saved / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        self.saved.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def _clean(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)


def _on_alarm(number: int, frame: FrameType | None) -> None:
    raise Hang


def _way(error: BaseException) -> str:
    """Name the way an input took: the lines of the library and the packages it went through, causes included."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(lines) < 60:
        steps = [step for step in traceback.extract_tb(seen.__traceback__) if "tests/fuzz/" not in step.filename]
        lines += [type(seen).__name__, *(f"{Path(step.filename).name}:{step.lineno}" for step in steps[-12:])]
        seen = seen.__cause__
    if isinstance(error, PipelineError):
        # A verb says where it stopped in words alone: its numbers and names count for nothing.
        words = re.findall(r"[a-z]{3,}", error.got.partition("error:")[2])[:40] if error.where == "verb" else []
        return " ".join([*lines, *words])
    return f"{error!r:.300} at {' '.join(lines)}"


def _around(folder: Path) -> set[str]:
    """Names beside the input folder, and in it: only `results` may appear."""
    inside = {f"{folder.name}/{path.name}" for path in folder.iterdir()} - {f"{folder.name}/results"}
    return inside | {path.name for path in folder.parent.iterdir()} - {"tally.json", "current.bin"}


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def fuzz(name: str, home: Path, saved: Path, seed: int, count: int, seconds: float, guided: bool) -> None:
    """Try inputs until there were `count` of them, or `seconds` have passed."""
    import json

    worker = Worker(name, home / "box" / "input", saved)
    end, rng = time.monotonic() + seconds, random.Random(seed)
    spent = 0

    def one(given: tree.Tree) -> None:
        nonlocal spent
        (home / "current.bin").write_bytes(tree.pack(given))
        worker.attempt(given)
        spent += 1
        done = spent >= count or time.monotonic() > end
        if done or spent % 10 == 0 or worker.tally.findings:
            partial = home / "tally.partial"
            partial.write_text(json.dumps(asdict(worker.tally) | {"done": done}))
            partial.replace(home / "tally.json")
        if done:
            sys.stdout.flush()
            os._exit(0)

    if guided:
        from fuzz.guided import run_guided

        run_guided(worker, one, rng, home)
    while True:
        one(mutate_tree(rng.choice(worker.corpus), rng, worker.corpus))
