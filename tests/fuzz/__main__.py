"""Fuzz every target and end with a table: `make fuzz N=1000`. Again one input: `make fuzz REPLAY=fuzz-findings/...bin`.

Each target runs in a process of its own; if that dies or stands still, the input it had at hand is the finding and the
process starts again. The exit code is 0 only if there was no crash, hang or blow-up of memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TARGETS = ("tiff", "tiff_set", "picture", "list", "zarr", "config", "table", "model", "ingest", "records")
STANDSTILL_S = 90.0
"""A worker without news for so long hangs in compiled code, where its own alarm does not ring."""

COLUMNS = ("inputs", "refused", "accepted", "crashes", "hangs", "blow_ups", "paths")
BAD = ("crashes", "hangs", "blow_ups")


@dataclass
class Row:
    """The sum over the processes of one target."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    peak_bytes: int = 0
    findings: dict[str, str] = field(default_factory=dict)

    def add(self, tally: dict[str, object]) -> None:
        for name in COLUMNS:
            self.counts[name] += int(str(tally[name]))
        self.peak_bytes = max(self.peak_bytes, int(str(tally["peak_bytes"])))
        self.findings |= tally["findings"]  # type: ignore[operator]


def run_target(name: str, options: argparse.Namespace) -> Row:
    """Run processes on one target until all its inputs are tried or its time is over."""
    row, start, turn = Row(), time.monotonic(), 0
    while turn < 50:
        left = options.inputs - row.counts["inputs"], options.seconds - (time.monotonic() - start)
        if min(left) <= 0:
            break
        if not _run_worker(name, options, row, turn, left):
            break
        turn += 1
    return row


def _run_worker(name: str, options: argparse.Namespace, row: Row, turn: int, left: tuple[int, float]) -> bool:
    """Run one process; return whether another one is needed."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        home = Path(folder)
        given = {"name": name, "home": folder, "saved": str(options.findings), "seed": options.seed + turn,
                 "count": left[0], "seconds": left[1], "guided": options.guided}  # fmt: skip
        code = _wait(home, given)
        tally = _tally(home)
        if tally:
            row.add(tally)
        if tally and tally.get("done"):
            return False
        current = home / "current.bin"
        if not current.exists():
            raise SystemExit(f"{name}: the worker ended with code {code} before its first input")
        kind = "hangs" if code is None else "crashes"
        saved = options.findings / f"{name}-worker-{turn}.bin"
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(current.read_bytes())
        row.counts[kind] += 1
        row.findings[str(saved)] = "the process hung in compiled code" if code is None else f"exit code {code}"
        return True


def _wait(home: Path, given: dict[str, object]) -> int | None:
    """Run the worker; return its exit code, or None where it stood still and was killed."""
    command = [sys.executable, "-c", f"from fuzz.__main__ import work; work({json.dumps(given)!r})"]
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=_environment())
        while True:
            try:
                code = process.wait(timeout=2)
                break
            except subprocess.TimeoutExpired:
                current = home / "current.bin"
                if current.exists() and time.time() - current.stat().st_mtime > STANDSTILL_S:
                    process.kill()
                    process.wait()
                    return None
    if code:
        sys.stderr.write((home / "said").read_text(errors="replace")[-2000:])
    return code


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def _tally(home: Path) -> dict[str, object] | None:
    path = home / "tally.json"
    return json.loads(path.read_text()) if path.exists() else None


def work(text: str) -> None:
    """Be the worker; see `worker.fuzz`."""
    given = json.loads(text)
    if given["guided"]:
        from fuzz.guided import instrument

        instrument(given["name"])
    from fuzz.worker import fuzz

    fuzz(given["name"], Path(given["home"]), Path(given["saved"]), given["seed"], given["count"], given["seconds"],
         given["guided"])  # fmt: skip


def replay(path: Path) -> int:
    """Run one saved input with its traceback shown."""
    from fuzz import tree
    from fuzz.targets import TARGETS as KNOWN
    from unet_pipeline.errors import PipelineError

    name = max((one for one in TARGETS if path.name.startswith(one + "-")), key=len)
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder, "input")
        box.mkdir()
        tree.write(tree.unpack(path.read_bytes()), box)
        try:
            KNOWN[name].run(box)
        except PipelineError as error:
            print(f"refused: {error}")
            return 0
    print("accepted")
    return 0


def table(rows: dict[str, Row]) -> str:
    """Return the result as text."""
    lines = [f"{'target':10}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'MiB':>8}"]
    for name, row in rows.items():
        lines.append(
            f"{name:10}"
            + "".join(f"{row.counts[column]:>10}" for column in COLUMNS)
            + f"{row.peak_bytes / 2**20:>8.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="inputs per target")
    parser.add_argument("--seconds", type=float, default=600, help="at most so long per target")
    parser.add_argument("--targets", nargs="*", default=TARGETS, choices=TARGETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--plain", action="store_true", help="do without Atheris, as where it has no wheel")
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay)
    options.guided = not options.plain and importlib.util.find_spec("atheris") is not None
    print("engine: " + ("Atheris, coverage-guided" if options.guided else "mutation, guided by the ways errors take"))
    rows = {}
    for name in options.targets:
        rows[name] = run_target(name, options)
        print(f"{name}: {rows[name].counts}", flush=True)
    print("\n" + table(rows))
    for row in rows.values():
        for path, what in row.findings.items():
            print(f"\n{what}\n  replay: make fuzz REPLAY={path}")
    return int(any(row.counts[kind] for row in rows.values() for kind in BAD))


if __name__ == "__main__":
    raise SystemExit(main())
