"""The table of the comparison: mean and spread over the folds that are done, a part for each data set and budget."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import machine

from comparison.datasets import DataSet
from comparison.results import RUN, SCORES
from comparison.runs import Options, Run, runs_of
from unet_pipeline.records.files import write_text
from unet_pipeline.records.record import read_json

Results = Mapping[tuple[str, str, str], Mapping[int, Mapping[str, Any]]]
"""(data set, budget, row) → fold → result of the run."""

NOTES = """
The splits are ours (benchmarks/splits), of the challenges' training images; the paper's numbers are of hidden test sets
and compare in kind only. Neighbouring planes of a sequence never train and test in one fold. V_rand and V_info of
isbi2012_em are thinned, those of the other sets are not: do not compare them across sets. AP50 = TP / (TP + FP + FN) at
IoU 0.5. Gap, sigma and the smallest object belong to the data set and are the same in all rows but the ablations;
the weights with the least loss on the validation planes count. default is config.yaml. So that all rows see the same
pixels, none resizes pictures or its output (tgs does) or holds planes out beside the validation planes, and the
encoders vgg16 and resnet50 start from random weights (ImageNet's are the user's to bring). Those two are rows of
full.yaml only: width does not narrow them, a step of theirs takes ten seconds on a CPU thread.
Seconds are wall time of the step without its start, with other jobs beside.
monai: MONAI's UNet at its defaults (padded, instance norm, PReLU) with the first preset's depth and width, batches of
4, random crops, flips and quarter turns, DiceCE, Adam 0.001; sliding window at its defaults (overlap 0.25, constant).
It learns our classes, touching objects parted by the same gap; its objects are made and scored as ours.
nnU-Net (2.8.1) is left out: it plans its own network (for ctc_dic_hela 8 levels of 32 to 512 channels, 512 px patches),
which does not fit a budget of seconds on two cores.
"""

HEAD = (
    "| | parameters | steps | seen, Mpx | V_rand | V_info | SEG | AP50 | training, s | prediction, s/Mpx | folds |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """Return mean ± standard deviation (n - 1) over the folds that have a value; "–" without any."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return f"{mean} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else mean


def line(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a row of the table from the finished runs of a variant on a data set."""
    pixels = spread((run["seen_px"] / 1e6 for run in runs), 1)
    scores = [spread(run["scores"][score] for run in runs) for score in SCORES]
    trained = spread((run["seconds"]["train"] for run in runs), 0)
    predicted = spread((run["seconds"]["predict"] / run["test_px"] * 1e6 for run in runs), 2)
    steps = ", ".join(str(count) for count in sorted({run["steps"] for run in runs}))
    counts = ", ".join(f"{count:,}" for count in sorted({run["parameters"] for run in runs}))
    return "| " + " | ".join([name, counts, steps, pixels, *scores, trained, predicted, str(len(runs))]) + " |"


def paper_line(data: DataSet) -> list[str]:
    """Return the paper's own numbers as a row, where it has any."""
    if not data.paper:
        return []
    scores = [f"{data.paper[score]:.4f}" if score in data.paper else "" for score in SCORES]
    name = "*for orientation: the paper (Ronneberger 2015), hidden test set*"
    return ["| " + " | ".join([name, "31,030,658", "", "", *scores, "", "", ""]) + " |"]


def part(data: DataSet, budget: str, rows: Sequence[str], results: Results) -> list[str]:
    """Return the lines of a data set under a budget; rows without any finished run are named below the table."""
    done = {row: [run for _, run in sorted(results.get((data.name, budget, row), {}).items())] for row in rows}
    lines = ["", f"## {data.name}, {budget}", "", *HEAD, *(line(row, runs) for row, runs in done.items() if runs)]
    missing = [row for row in rows if not done[row]]
    notes = [data.note] if data.note else []
    notes += [f"Not run, or failed (its logs say why): {'; '.join(missing)}."] if missing else []
    return [*lines, *paper_line(data), "", *notes]


def results_of(runs: Sequence[Run]) -> Results:
    """Read the results that are there, below the working directory."""
    found: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        path = Path(run.folder, RUN)
        if path.is_file():
            key = (run.data.name, run.budget.name, run.variant.name)
            found.setdefault(key, {})[run.split.fold] = read_json(path)
    return found


def write_table(options: Options, path: Path) -> None:
    """Write the dated table of what is done so far; it appears whole.

    Args:
        options: what is compared.
        path: of the table.
    """
    runs = runs_of(options)
    results = results_of(runs)
    parts: dict[tuple[str, str], tuple[DataSet, dict[str, None]]] = {}
    for run in runs:
        parts.setdefault((run.data.name, run.budget.name), (run.data, {}))[1][run.variant.name] = None
    states = {record["code"] for folds in results.values() for record in folds.values()}
    lines = ["# compare", "", f"{datetime.date.today()}, {machine()}: `make compare`."]
    lines += [budget.words() for budget in options.budgets]
    lines += ["", "Mean ± standard deviation over the folds that are done (column folds); a single fold has no spread."]
    for (_, budget), (data, rows) in sorted(parts.items(), key=lambda item: options.data.index(item[0][0])):
        lines += part(data, budget, list(rows), results)
    lines += ["", NOTES.strip()]
    lines += [f"{name} is not installed here: left out." for name in options.peers if name not in options.installed]
    lines += [f"The runs come from {len(states)} states of the code."] if len(states) > 1 else []
    write_text(path, "\n".join(lines).rstrip() + "\n")
