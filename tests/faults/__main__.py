"""Kill, corrupt and fill, many times: `python tests/faults --trials 200 --seed 0`, or `make faults N=200`.

Every trial maltreats a copy of a small finished project, runs again what Snakemake would run again, and compares every
file with the undisturbed run. Ends with a table by kind and one line; exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from kinds import OF_A_JOB, OF_THE_REST
from same_tree import tree
from stages import Job, reference, start
from strangers import STRANGERS
from trial import Lost, Trial, Untried
from workspace import hear_interrupts

KINDS: tuple[Callable[[Trial], None], ...] = (*OF_A_JOB, *OF_THE_REST, *STRANGERS, *OF_A_JOB, *OF_A_JOB)
"""All kinds, in the order of trials; what happens to a single job comes more often: it is cheap and has many places."""


def measured(
    folder: Path, jobs: dict[str, Job], scratch: Path, workers: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Return how long each job takes from nothing, beside others as in a trial, and how often it changes a file."""

    def measure(name: str) -> tuple[float, int]:
        copy, log = scratch / f"measured {name}", scratch / f"measured {name}.log"
        shutil.copytree(folder, copy)
        jobs[name].forget(copy, whole=True)
        began = time.monotonic()
        code = start(copy, jobs[name].command, log, kill_at=0).wait()
        seconds = time.monotonic() - began
        if code:
            raise RuntimeError(f"{name}: {log.read_text()}")
        shutil.rmtree(copy)
        return seconds, int(log.with_suffix(".count").read_text())

    with ThreadPoolExecutor(workers) as pool:
        found = dict(zip(jobs, pool.map(measure, jobs), strict=True))
    return {name: seconds for name, (seconds, _) in found.items()}, {name: count for name, (_, count) in found.items()}


def main() -> int:
    """Run the trials; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds, by name, with commas between")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to repeat one")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    hear_interrupts()
    scratch = Path(tempfile.mkdtemp(prefix="faults "))
    space, jobs = reference(scratch / "my project")
    expected = tree(space.folder / "results")
    seconds, changes = measured(space.folder, jobs, scratch, options.workers)
    wanted = options.only.split(",") if options.only else [kind.__name__ for kind in KINDS]
    kinds = [kind for kind in KINDS if kind.__name__ in wanted]
    results: dict[str, Counter[str]] = {kind.__name__: Counter() for kind in dict.fromkeys(kinds)}

    def attempt(number: int) -> None:
        kind: Callable[[Trial], None] = kinds[number % len(kinds)]
        folder, log = scratch / f"trial {number}", scratch / f"trial {number}.log"
        shutil.copytree(space.folder, folder)
        log.touch()
        chance = random.Random(f"{options.seed} {kind.__name__} {number}")
        trial = Trial(folder, log, chance, jobs, dict(expected), seconds, changes)
        try:
            kind(trial)
            trial.check()
        except Untried as error:
            results[kind.__name__]["untried"] += 1
            print(f"UNTRIED trial {number} ({kind.__name__}): {error}", flush=True)
            shutil.rmtree(folder)
            return
        except (Lost, AssertionError, OSError) as error:
            results[kind.__name__]["lost"] += 1
            print(f"LOST trial {number} ({kind.__name__}): {error}\n  kept: {folder}, {log}", flush=True)
            return
        results[kind.__name__]["survived"] += 1
        shutil.rmtree(folder)

    numbers = range(options.first, options.first + options.trials)
    with ThreadPoolExecutor(options.workers) as pool:
        for done, _ in enumerate(pool.map(attempt, numbers), 1):
            if done % 10 == 0:
                print(f"{done} of {options.trials} tried", flush=True)
    return told(results, scratch)


def told(results: dict[str, Counter[str]], scratch: Path) -> int:
    """Print the table and the last line."""
    print(f"\n{'kind':<28}{'tried':>7}{'survived':>10}{'lost':>6}")
    for name, counts in results.items():
        tried = counts["survived"] + counts["lost"]
        print(f"{name:<28}{tried:>7}{counts['survived']:>10}{counts['lost']:>6}")
    survived, lost = (sum(counts[word] for counts in results.values()) for word in ("survived", "lost"))
    if not lost:
        shutil.rmtree(scratch)
    print(f"\nfaults: {survived + lost} tried, {survived} survived, {lost} lost")
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main())
