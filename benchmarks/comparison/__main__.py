"""The jobs of the comparison: `python -m comparison VERB`, called by the rules of the Snakefile beside this file."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comparison.datasets import DATA_SETS
from comparison.results import code_digest, result_of
from comparison.runs import Options
from comparison.splits import FOLDS, SPLITS, make_splits, write_splits
from comparison.table import write_table
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.record import write_json


def learn(given: argparse.Namespace) -> None:
    """Train a network of this package into the folder of its model, as long as its budget lasts."""
    from comparison.learn import learn

    results = given.output.parent / "results"
    weighed = (results / role / "weigh.json" for role in ("train", "val"))
    write_json(given.output, learn(given.about, *weighed, results / "model"))


def result(given: argparse.Namespace) -> None:
    """Gather what a run of this package found; without --keep remove the rest of it."""
    results = given.output.parent / "results"
    _write(given, result_of(results, given.output.with_name("learned.json")))
    if not given.keep:
        shutil.rmtree(results)


def peer(given: argparse.Namespace) -> None:
    """Train, predict and score a peer."""
    from comparison.peer import run_peer

    _write(given, run_peer(given.about, given.output.with_name("stacks.tsv")))


def table(given: argparse.Namespace) -> None:
    """Write the table of what is done."""
    write_table(Options.read(given.about), given.output)


def splits(given: argparse.Namespace) -> None:
    """Make the splits anew, of data sets that lie below --about."""
    for data in DATA_SETS.values():
        found = make_splits(data.name, data.shape(Path(given.about))[0], data.order, FOLDS)
        print(write_splits(data.name, found, given.output))


def _write(given: argparse.Namespace, found: dict[str, Any]) -> None:
    write_json(given.output, {"about": given.about, "code": code_digest(), **found})


def main(arguments: Sequence[str]) -> int:
    """Run one verb; a user's mistake ends in one message and exit code 1."""
    top = argparse.ArgumentParser(prog="comparison", description=__doc__)
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb in (learn, result, peer, table, splits):
        one = verbs.add_parser(verb.__name__, help=verb.__doc__)
        one.set_defaults(verb=verb)
        one.add_argument("--about", type=str if verb is splits else json.loads, required=True, help="as JSON")
        one.add_argument("--output", type=Path, default=SPLITS if verb is splits else None, required=verb is not splits)
        one.add_argument("--keep", action="store_true", help="keep stores and models of a finished run")
    given = top.parse_args(arguments)
    try:
        given.verb(given)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
