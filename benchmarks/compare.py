"""Presets, an ablation and a peer, side by side on real data under one budget: `python benchmarks/compare.py`.

Each run goes through the verbs of the command line, from images to scores, in a folder of its own below --work, which
is kept: an interrupted comparison goes on where it stopped. Equal seconds of training are the budget, because that is
what time on a machine buys: presets differ a hundredfold in what a step costs. With --steps they see equal numbers of
pixels instead, and a second comparison gives the same numbers again. The table is written anew after each run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comparison.datasets import DATA_SETS, data_sets
from comparison.pipeline import Job, finished, run
from comparison.splits import FOLDS, SPLITS, make_splits, read_splits, write_splits
from comparison.table import publish
from comparison.variants import PEERS, Budget, Variant, variants
from figures import TABLES, step

from unet_pipeline.errors import PipelineError

ROOT = Path(__file__).parents[1]
DATA = os.environ.get("UNET_PIPELINE_DATA") or str(ROOT.parent / "shared" / "data")
ROWS = ("default", "paper", "release2015", "kamiyin", "strided", "jermainn", "tgs")
LARGE = ("vgg16", "resnet50")
"""With --full only: a step of theirs takes ten seconds on a CPU thread, so a small budget buys three."""
SMALL = ("isbi2012_em", "ctc_dic_hela", "ctc_phc_u373", "ctc_fluo_hela", "dsb2018_256")
NOTES = """
The splits are ours (benchmarks/splits), of the challenges' training images; the paper's numbers are of hidden test sets
and compare in kind only. Neighbouring planes of a sequence never train and test in one fold. V_rand and V_info of
isbi2012_em are thinned, those of the other sets are not: do not compare them across sets. AP50 = TP / (TP + FP + FN) at
IoU 0.5. Gap, sigma and the smallest object belong to the data set and are the same in all rows but the ablations;
the weights with the least loss on the validation planes count. default is config.yaml. So that all rows see the same
pixels, none resizes pictures or its output (tgs does) or holds planes out beside the validation planes, and the
encoders vgg16 and resnet50 start from random weights (ImageNet's are the user's to bring). Those two are rows of --full
only: --width does not narrow them, a step of theirs takes ten seconds on a CPU thread.
Seconds are wall time with the other workers beside.
monai: MONAI's UNet at its defaults (padded, instance norm, PReLU) with the first preset's depth and width, batches of
4, random crops, flips and quarter turns, DiceCE, Adam 0.001; sliding window at its defaults (overlap 0.25, constant).
It learns our classes, touching objects parted by the same gap; its objects are made and scored as ours.
nnU-Net (2.8.1) is left out: it plans its own network (for ctc_dic_hela 8 levels of 32 to 512 channels, 512 px patches),
which does not fit a budget of seconds on two cores.
"""


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--presets", nargs="+", default=None, help="in workflow/presets, or default")
    top.add_argument("--ablate", default=None, help="preset of the ablation (default: the first); empty: none")
    top.add_argument("--ablate-on", nargs="*", default=None, help="data sets of the ablation (default: all)")
    top.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="other systems")
    top.add_argument("--data", nargs="+", default=None, help=f"data sets, of {', '.join(DATA_SETS)}")
    top.add_argument("--root", type=Path, default=Path(DATA), help="folder of the data sets (UNET_PIPELINE_DATA)")
    top.add_argument("--splits", type=Path, default=SPLITS, help="folder of the splits")
    top.add_argument("--folds", nargs="+", type=int, default=None, help="which folds, from 0 (default: all)")
    much = top.add_mutually_exclusive_group()
    much.add_argument("--minutes", type=float, default=None, help="of each training, wall time")
    much.add_argument("--steps", type=int, default=None, help="tiles' worth of pixels each training sees")
    top.add_argument("--full", action="store_true", help="the presets' own widths and tiles, all planes: for a GPU")
    top.add_argument("--width", type=int, default=None, help="most channels of the first level")
    top.add_argument("--planes", type=int, default=None, help="most test planes of a fold")
    top.add_argument("--device", default=None, choices=("auto", "cpu", "cuda"))
    top.add_argument("--threads", type=int, default=None, help="CPU threads of a run")
    top.add_argument("--workers", type=int, default=None, help="runs at a time")
    top.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "jobs" / "compare", help="kept for going on")
    top.add_argument("--keep", action="store_true", help="keep stores and models of finished runs")
    top.add_argument("--table", type=Path, default=None, help="where the table goes")
    top.add_argument("--make-splits", type=int, nargs="?", const=FOLDS, help="write the splits anew, in so many folds")
    return top


def budget(given: argparse.Namespace) -> Budget:
    """Return the budget of the options; --full has the presets' own sizes and 10 minutes a training."""
    one = Budget(600.0, 0, None, None, None, "auto", min(8, os.cpu_count() or 1)) if given.full else Budget()
    seconds = None if given.steps else 60 * given.minutes if given.minutes else one.seconds
    return Budget(
        seconds,
        given.steps or 0,
        given.width or one.width,
        one.tile_px,
        given.planes or one.planes,
        given.device or one.device,
        given.threads or one.threads,
    )


def jobs(given: argparse.Namespace, rows: Sequence[Variant]) -> list[Job]:
    """Return the runs, the first fold of everything first, so that an interrupted comparison compares.

    An ablation that changes nothing on a data set is left out.
    """
    names = given.data or (list(DATA_SETS) if given.full else list(SMALL))
    sets, cost, found = data_sets(names), budget(given), []
    for data in sets:
        for split in read_splits(data.name, data.shape(given.root)[0], given.splits):
            if given.folds is None or split.fold in given.folds:
                found += [Job(data, split, row, cost, given.root, given.work, given.keep) for row in rows]
    found.sort(key=lambda job: job.split.fold)
    if not found:
        raise PipelineError("--folds", f"folds that {given.splits} has", given.folds)
    return [job for job in found if not job.variant.changes or ablates(given, job)]


def ablates(given: argparse.Namespace, job: Job) -> bool:
    """Return whether an ablation is wanted on its data set and leaves something out there."""
    wanted = given.ablate_on is None or job.data.name in given.ablate_on
    return wanted and job.config() != unchanged(job).config()


def unchanged(job: Job) -> Job:
    """Return the job of the preset whose part an ablation leaves out."""
    whole = Variant(job.variant.preset, job.variant.preset)
    return Job(job.data, job.split, whole, job.budget, job.root, job.work, job.keep)


def end_with_parent() -> None:
    """Let this worker end when the comparison that started it is killed, instead of going on for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def done_in_turn(todo: Sequence[Job], workers: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Run jobs, so many at a time, and give each with its record as it ends."""
    if workers == 1:
        yield from ((job, run(job)) for job in todo)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        running = {pool.submit(run, job): job for job in todo}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def compare(given: argparse.Namespace) -> Path:
    """Run what is not done yet and keep the table true; return its path."""
    peers = [name for name in given.peers if find_spec(name)]
    left_out = [f"{name} is not installed here: left out." for name in given.peers if name not in peers]
    presets = given.presets or [*ROWS, *(LARGE if given.full else ())]
    rows = variants(presets, presets[0] if given.ablate is None else given.ablate, peers)
    all_jobs = jobs(given, rows)
    table = given.table or TABLES / ("compare_full.md" if given.full else "compare.md")
    parts = {job.data.name: (job.data, [row.name for row in rows]) for job in all_jobs}
    wanted = {(job.data.name, job.variant.name) for job in all_jobs}
    shown = [(data, [row for row in names if (data.name, row) in wanted]) for data, names in parts.values()]
    results: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    head = f"`python {shlex.join(['benchmarks/compare.py', *given.shown])}`. {all_jobs[0].budget.words()}"

    def note(job: Job, record: dict[str, Any]) -> None:
        results.setdefault((job.data.name, job.variant.name), {})[job.split.fold] = record
        publish(table, head, shown, results, "\n".join([NOTES.strip(), *left_out]))

    todo = []
    for job in all_jobs:
        record = finished(job)
        if record is None:
            todo.append(job)
        else:
            note(job, record)
    step(f"{len(todo)} of {len(all_jobs)} runs to do")
    workers = given.workers or (1 if given.full else max(1, (os.cpu_count() or 1) // all_jobs[0].budget.threads))
    for job, record in done_in_turn(todo, workers):
        note(job, record)
        step(f"{job.name}: {record['error'] or record['scores']}")
    return table


def main(arguments: Sequence[str]) -> int:
    """Make the splits or the table; a user's mistake ends in one message and exit code 1."""
    given = parser().parse_args(arguments)
    given.shown = arguments
    try:
        if given.make_splits:
            for data in DATA_SETS.values():
                planes = data.shape(given.root)[0]
                splits = make_splits(data.name, planes, data.order, given.make_splits)
                print(write_splits(data.name, splits, given.splits))
            return 0
        print(compare(given).read_text(encoding="utf-8"))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
