"""The table of the comparison: mean and spread over the folds that are done, a part for each data set and budget."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
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
Steps are drawing and changing tiles and learning from them; reading, validating (six times) and starting come on top:
the column of seconds is the whole training without its start. Tiles, batch and rate are each row's own.

The splits are ours (benchmarks/splits), of the challenges' training images; the paper's numbers are of hidden test
sets and compare in kind only. Neighbouring planes of a sequence never train and test in one fold. V_rand and V_info
of isbi2012_em are thinned, those of the other sets are not: do not compare them across sets. AP50 = TP / (TP + FP +
FN) at IoU 0.5. All rows of a data set have its gap, its sigma and the turns that leave its images likely ones. The
validation planes choose the weights, ours by `train.select`, a peer's by its loss, and how objects are made.

default is config.yaml, fast the preset of that name; objects by `calibrate` (SEG + AP50; V_rand for isbi2012_em).
None of our rows resizes pictures or its output, holds planes out beside the validation planes, or brings weights.

monai: MONAI's UNet with two residual units a level and batch norm, 16 to 256 channels, channels_last; cross-entropy
and Dice; 4 tiles of 128 px (192 px where objects are wider than 50 px); elastic, turns, flips, grey values; Adam at
0.001 with a cosine; classes background, inside and border (2 px wide, ctc_dic_hela 6 px; isbi2012_em its own two);
sliding window of 256 px, overlap 0.5, gaussian; objects by the search of our `calibrate`, of inside or of inside with
border, whichever is better.

stardist: StarDist 2D from scratch, 32 rays, 32 channels, batch norm, its augmentation; 4 tiles of 128 px, predicted
at every second pixel (256 px and every fourth where objects are wider than 50 px); Adam at 0.001 with a cosine;
TensorFlow's compiling is not counted; thresholds by its own `optimize_thresholds`. isbi2012_em has none: neurites are
not star-convex.

nnU-Net (2.8.1) is left out: it plans its own network (for ctc_dic_hela 8 levels of 32 to 512 channels, 512 px
patches), which does not fit a budget of minutes on one core.
"""

HEAD = (
    "| | parameters | steps | learned from, Mpx | SEG | AP50 | V_rand | V_info | training, s | folds | objects |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def versions() -> str:
    """Return the versions of what is compared, as far as it is installed."""
    names = ("unet_pipeline", "torch", "monai", "stardist", "tensorflow")
    return ", ".join(f"{name} {version(name)}" for name in names if find_spec(name))


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
    trained = spread((run["seconds"] for run in runs), 0)
    steps = ", ".join(str(count) for count in sorted({run["steps"] for run in runs}))
    counts = ", ".join(f"{count:,}" for count in sorted({run["parameters"] for run in runs}))
    objects = "; ".join(dict.fromkeys(run["objects"] for run in runs))
    return "| " + " | ".join([name, counts, steps, pixels, *scores, trained, str(len(runs)), objects]) + " |"


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
    lines = ["# compare", "", f"{datetime.date.today()}, {machine()}, {versions()}: `make compare`."]
    lines += [budget.words() for budget in options.budgets]
    lines += ["", "Mean ± standard deviation over the folds that are done (column folds); a single fold has no spread."]
    for (_, budget), (data, rows) in sorted(parts.items(), key=lambda item: options.data.index(item[0][0])):
        lines += part(data, budget, list(rows), results)
    lines += ["", NOTES.strip()]
    lines += [f"{name} is not installed here: left out." for name in options.peers if name not in options.installed]
    lines += [f"The runs come from {len(states)} states of the code."] if len(states) > 1 else []
    write_text(path, "\n".join(lines).rstrip() + "\n")
