"""A look at the files of the table before the graph is made, which would tell what is wrong without line or remedy."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.records.layout import DEMO, INGEST_FILE, RESULTS
from unet_pipeline.records.stack_records import IngestRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.stacks.table import StackRow, line_numbers

COLUMNS = ("image", "labels", "names")
MOST_NAMES = 10_000
"""Entries of a folder among which a similar name is looked for."""


def check_present(stacks: Iterable[StackRow], table: str | Path) -> None:
    """Refuse paths of the table where nothing lies.

    Left to Snakemake is what a rule makes: the demo and anything below `results/`. A stack that was ingested from the
    same paths needs its files no more.

    Args:
        stacks: the rows that are used.
        table: where the table lies, for the message.

    Raises:
        PipelineError: naming the line, the column, the path as written, where it was looked for, and what is alike.
    """
    lost = [(row, column) for row in stacks for column in COLUMNS if _is_lost(getattr(row, column))]
    if lost := [(row, column) for row, column in lost if not _was_ingested(row)]:
        row, column = lost[0]
        others = len(lost) - 1
        more = f"; so {'is' if others == 1 else 'are'} {others} more of this table" if others else ""
        raise _absent(f"{table} line {line_numbers(table)[row.stack]}, column {column}", getattr(row, column), more)


def check_corrected(stacks: Iterable[StackRow], learned: Iterable[str], table: str | Path) -> None:
    """Refuse labels that the workflow itself writes, such as `instances.tif` corrected where it lies.

    The next stitch would write over the corrections, and what trains would wait for what is predicted with it.

    Args:
        stacks: the rows that are used.
        learned: names of those that train or validate.
        table: where the table lies, for the message.

    Raises:
        PipelineError: naming the line and the file, if labels lie in the results of their own stack or, of one that
            is learned from, of any.
    """
    results, learns = Path(RESULTS).resolve(), set(learned)
    for row in stacks:
        place = Path(row.labels).resolve()
        if not row.labels or not place.is_relative_to(results):
            continue
        if row.stack in learns or place.relative_to(results).parts[:1] == (row.stack,):
            where = f"{table} line {line_numbers(table)[row.stack]}, column labels"
            fix = f"copy it elsewhere, such as to corrected/{row.stack}{place.suffix}, correct the copy and name that"
            raise PipelineError(where, "labels that this workflow does not write itself", row.labels, fix=fix)


def _is_lost(source: str) -> bool:
    path = Path(source)
    made = os.path.normpath(source) in DEMO or path.parts[:1] == (RESULTS,)
    if not source or made or path.exists():
        return False
    return not (glob.has_magic(source) and glob.glob(source))  # noqa: PTH207 -- as `table.source_files`


def _was_ingested(row: StackRow) -> bool:
    """Return whether there is a record that was made from the paths of this row."""
    try:
        record = open_record(Path(RESULTS, row.stack, INGEST_FILE), IngestRecord)
    except PipelineError:
        return False
    source: Mapping[str, object] = record.provenance.config.get("source", {})
    return all(source.get(column) == getattr(row, column) for column in COLUMNS)


def _absent(where: str, source: str, more: str) -> PipelineError:
    path = Path(source)
    what = f"nothing lies at {path.absolute()}"
    if path.is_symlink():
        what = f"a link to {path.readlink()}, which is not there"
    fix = f"correct the path, which begins in {Path.cwd()}, or put # before the line to leave this stack out"
    first, _, second = source.partition(" ")
    if second and all(Path(part.strip()).exists() for part in (first, second)):
        fix = "put a tab between these two cells, where a space stands"
    expected = "a file, folder, glob or Zarr store that is there"
    return PipelineError(where, expected, f"{source!r}: {what}{more}", _nearest(path), fix)


def _nearest(path: Path) -> Path | None:
    """Return the path, as far as it is there once its first part that is not is replaced by the name most like it."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    name, *rest = path.relative_to(folder).parts
    alike = _alike(name, folder)
    places = [] if alike is None else [folder.joinpath(alike, *rest), folder / alike]
    return next((place for place in places if place.exists()), None)


def _alike(name: str, folder: Path) -> str | None:
    """Return the entry of a folder that is most like a name; upper and lower case do not matter."""
    entries = {entry.casefold(): entry for entry in _some_entries(folder)}
    near = nearest_name(name.casefold(), entries)
    return entries[near] if near else None


def _some_entries(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry, _ in zip(entries, range(MOST_NAMES), strict=False):
                yield entry.name
    except OSError:
        return
