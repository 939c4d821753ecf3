"""The table of the comparison: mean and spread over the folds that are done, one part for each data set."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import machine

from comparison.datasets import DataSet
from comparison.pipeline import SCORES
from unet_pipeline.records.files import write_text

Results = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]
"""(data set, row) → fold → record of the run."""

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


def part(data: DataSet, rows: Sequence[str], results: Results) -> list[str]:
    """Return the lines of one data set: rows without any finished run are left out and named below the table."""
    done = {row: [run for _, run in sorted(results.get((data.name, row), {}).items())] for row in rows}
    good = {row: [run for run in runs if run["state"] == "done"] for row, runs in done.items()}
    lines = ["", f"## {data.name}", "", *HEAD, *(line(row, runs) for row, runs in good.items() if runs)]
    lines += paper_line(data)
    missing = [row for row in rows if not done[row]]
    notes = [data.note] if data.note else []
    notes += [f"Not run yet: {'; '.join(missing)}."] if missing else []
    failed = {(row, run["error"].replace("\n", " ")) for row, runs in done.items() for run in runs if run["error"]}
    return [*lines, "", *notes, *(f"- {row} failed: {error}" for row, error in sorted(failed))]


def publish(
    path: Path, head: str, parts: Sequence[tuple[DataSet, Sequence[str]]], results: Results, notes: str
) -> None:
    """Write the dated table of what is done so far.

    Args:
        path: of the table; appears whole.
        head: what was run, under which budget.
        parts: the data sets with the names of their rows, in order.
        results: what is done.
        notes: what a reader must know, at the end.
    """
    states = {run["code"] for folds in results.values() for run in folds.values()}
    several = f"The runs come from {len(states)} states of the code." if len(states) > 1 else ""
    lines = ["# compare", "", f"{datetime.date.today()}, {machine()}: {head}", ""]
    lines += ["Mean ± standard deviation over the folds that are done (column folds); a single fold has no spread."]
    for data, rows in parts:
        lines += part(data, rows, results)
    lines += ["", *(text for text in (notes.strip(), several) if text)]
    write_text(path, "\n".join(lines).rstrip() + "\n")
