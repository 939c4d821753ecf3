"""A project whose stages are faked: what Snakemake decides to run on it is real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workspace import Workspace

TABLE = (
    "stack | image          | labels        | role    | regions | pixel_um",
    "a     | my images/a.tif | my images/al.tif | train   |    |",
    "b     | my images/b.tif | my images/bl.tif | val     |    |",
    "c.1   | my images/c.tif | my images/cl.tif | test    | 3  | 0.5",
    "d     | my images/d.tif |                  | predict |    |",
)
FIRST = {
    *("ingest a", "ingest b", "ingest c.1", "ingest d", "weigh a", "weigh b", "train", "calibrate"),
    *("tile b", "tile c.1", "tile d", "predict b 0", "predict c.1 0", "predict c.1 1", "predict c.1 2", "predict d 0"),
    *("stitch b", "stitch c.1", "stitch d", "measure b", "measure c.1", "measure d"),
    *("evaluate b", "evaluate c.1", "report"),
}
WITH_NETWORK = "calibrate", "predict"
AFTER_PLAN = {job for job in FIRST if job.split()[0] in (*WITH_NETWORK, "stitch", "measure", "evaluate", "report")}
OBJECTS = {job for job in AFTER_PLAN if job.split()[0] not in WITH_NETWORK}
"""What a key of section stitch changes: no job with a network."""


def project(folder: Path, checkout: Path) -> Workspace:
    space = Workspace(folder, checkout)
    (folder / "my images").mkdir(exist_ok=True)
    for name in ("a", "al", "b", "bl", "c", "cl", "d", "e", "el"):
        (folder / "my images" / f"{name}.tif").write_text(name)
    space.table(*TABLE)
    return space


def later(*cases: tuple) -> list:
    """Cases of a test that repeat, for another section, what the first ones show."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def commands(space: Workspace) -> dict[str, list[list[str]]]:
    """The command lines the faked stages were given, by verb, from their logs."""
    logs = (space.folder / "results" / "logs").rglob("*.log")
    lines = [json.loads(log.read_text()) for log in logs]
    return {verb: [line[1:] for line in lines if line[0] == verb] for verb in {line[0] for line in lines}}


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]
