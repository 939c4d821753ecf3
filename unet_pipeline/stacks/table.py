"""The table of stacks: one row each, checked before anything runs."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unet_pipeline.config.keys import build, json_schema, key
from unet_pipeline.errors import PipelineError, printable, read_text
from unet_pipeline.images.name_list import listed, read_names
from unet_pipeline.images.plane_numbers import natural_key, parse_planes
from unet_pipeline.records.layout import CARD_FILE, TAKEN, WEIGHTS_FILE

Row = Mapping[str | None, Any]
Rows = Iterable[Row]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
WHOLE = re.compile(r"[0-9]{1,9}")
MOST_PLANES, ALL = 10**6, -1
LARGEST = 2**26
"""Largest size of a table, bytes."""

SEPARATORS = {";": "semicolons", ",": "commas", "|": "bars", " ": "spaces"}


@dataclass(frozen=True)
class StackRow:
    """One row of the table; an empty cell takes the default."""

    stack: str = key("", "name: letters, digits, '.', '_', '-'; unique; names the folder results/{stack}")
    image: str = key("", "image file, folder, glob or Zarr store; relative to the working directory")
    labels: str = key("", "label file, folder, glob or Zarr store; empty: nothing is annotated")
    role: Literal["train", "val", "test", "predict"] = key(
        "predict", "train, val, test (predicted and scored) or predict"
    )
    axes: str = key("", "axes of the image, e.g. zyx or tcyx, where the file does not say or says it wrong")
    label_axes: str = key("", "axes of the label image, likewise")
    pixel_um: str = key("", "pixel size in the plane, micrometres; empty: from the file")
    step: str = key("", "distance between planes: micrometres for z, seconds for t; empty: from the file")
    planes: str = key("", "planes of the image to use, from 0, e.g. 0-17,20; empty: all")
    label_planes: str = key("", "the matching planes of the label image; empty: as `planes`")
    names: str = key(
        "",
        "list of the files of the image's and the labels' folders to use, one name a line without suffix; empty: all",
    )
    series: str = key("", "which series of an image file that holds several, from 0; empty: there is one")
    regions: str = key("", "prediction jobs of this stack; empty: tile.regions of the configuration")


ZARR_MARKS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def load_stacks(path: str | Path) -> dict[str, StackRow]:
    """Read and check the table.

    Args:
        path: tab-separated file; the first line names the columns; lines that begin with # are left out.

    Returns:
        The rows by stack name, in the order of the table.

    Raises:
        PipelineError: unknown column, missing cell, duplicate or illegal name, bad number; names the line.
    """
    lines = _read_lines(Path(path))
    reader = csv.DictReader((text for _, text in lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    rows: dict[str, StackRow] = {}
    for number, cells in _number_rows(path, lines, reader):
        where = f"{path} line {number}"
        row = _row(cells, where)
        if row.stack in rows:
            raise PipelineError(where, "a stack name used once", f"{row.stack!r} a second time", fix="rename one row")
        rows[row.stack] = row
    if not rows:
        raise PipelineError(
            path, "at least one row under the header", "none", fix="add a row: stack, image, labels, role"
        )
    return rows


def _number_rows(path: str | Path, lines: list[tuple[int, str]], reader: Rows) -> Iterator[tuple[int, Row]]:
    try:
        yield from zip((number for number, _ in lines[1:]), reader, strict=False)
    except csv.Error as error:
        raise PipelineError(path, "a tab-separated table", error, fix="correct the table") from error


def _read_lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = read_text(path, LARGEST)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise PipelineError(
            path, "a readable table (UTF-8, tab-separated)", error, fix="set `stacks:` in config.yaml"
        ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    for number, line in lines:
        _check_tabs(line, f"{path} line {number}")
    return lines


def _check_tabs(line: str, where: str) -> None:
    """Refuse a line whose cells something else than tabs separates; a header of one column has nothing to separate."""
    if "\t" in line:
        return
    found = next((name for mark, name in SEPARATORS.items() if mark in line.strip()), None)
    if found:
        fix = "put tabs between the cells (a spreadsheet: save as Text, tab delimited)"
        raise PipelineError(where, "cells between tabs", f"{found} instead: {line.strip()[:100]!r}", fix=fix)


def line_numbers(path: str | Path) -> dict[str, int]:
    """Return the number of the line of each stack of a table, from 1; raises as `load_stacks`."""
    lines = _read_lines(Path(path))
    column = [cell.strip() for cell in lines[0][1].split("\t")].index("stack") if lines else 0
    return {line.split("\t")[column].strip(): number for number, line in lines[1:]}


def _row(cells: Row, where: str) -> StackRow:
    if None in cells:
        raise PipelineError(
            where, "as many cells as the header has columns", f"more: {cells[None]}", fix="check the tabs"
        )
    filled = {str(name).strip(): value.strip() for name, value in cells.items() if value and value.strip()}
    row = build(StackRow, filled, where)
    _check_name(row.stack, where)
    if not row.image:
        raise PipelineError(f"{where}, column image", "a file, folder, glob or Zarr store", "an empty cell")
    for column, cell in (("image", row.image), ("labels", row.labels), ("names", row.names)):
        if "{" in cell or "}" in cell:  # Snakemake takes them for wildcards
            fix = "rename the file"
            raise PipelineError(f"{where}, column {column}", "a path without { and }", repr(cell), fix=fix)
        if printable(cell) != cell:
            raise PipelineError(f"{where}, column {column}", "a path without control characters", repr(cell))
    if row.role != "predict" and not row.labels:
        fix = "name the labels, or give the stack the role predict"
        raise PipelineError(f"{where}, column labels", f"labels for a stack with role {row.role}", "none", fix=fix)
    _check_number(row.pixel_um, f"{where}, column pixel_um")
    _check_number(row.step, f"{where}, column step")
    if row.series and not WHOLE.fullmatch(row.series):
        raise PipelineError(f"{where}, column series", "a whole number from 0", row.series)
    if row.regions and not (WHOLE.fullmatch(row.regions) and 1 <= int(row.regions) <= 100_000):
        raise PipelineError(f"{where}, column regions", "a whole number from 1 to 100000", row.regions)
    return row


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or ".." in name:
        nearest = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-") or "stack"
        expected = "a name of letters, digits, '.', '_' and '-'"
        raise PipelineError(f"{where}, column stack", expected, repr(name), nearest, "rename the stack")
    if name in TAKEN:
        raise PipelineError(
            f"{where}, column stack", "a name the workflow does not use itself", repr(name), f"{name}_1"
        )


def _check_number(text: str, where: str) -> None:
    try:
        good = not text or 0 < float(text) < 1e9
    except ValueError:
        good = False
    if not good:
        raise PipelineError(where, "a positive number", repr(text))


def check_roles(stacks: Mapping[str, StackRow], where: str | Path, model_folder: str | None) -> None:
    """Refuse a table that leaves no model to predict with, and a model folder that holds no model.

    Args:
        stacks: the rows by name.
        where: the table, for messages.
        model_folder: the configuration's `model.folder`; None where a model is trained.
    """
    if model_folder is None:
        if all(row.role != "train" for row in stacks.values()):
            fix = "give a labelled stack the role train, or name a finished model in model.folder"
            raise PipelineError(f"{where}, column role", "a stack with role train", "none", fix=fix)
        return
    for name in (CARD_FILE, WEIGHTS_FILE):
        if not Path(model_folder, name).is_file():
            fix = "name the folder that a training wrote, such as results/model; it must be whole"
            raise PipelineError("model.folder", f"a folder with {name}", model_folder, fix=fix)
    if all(row.role == "train" for row in stacks.values()):
        fix = "add the stacks to predict; with model.folder those with role train are not used"
        raise PipelineError(f"{where}, column role", "a stack to predict", "role train only", fix=fix)


def check_overlap(stacks: Mapping[str, StackRow], where: str | Path) -> None:
    """Refuse images that train and also validate or test: their score says nothing about other images.

    Args:
        stacks: the rows by name.
        where: the table, for messages.

    Raises:
        PipelineError: naming both stacks and a file; rows that select different planes or series of it may share it.
    """
    used = {name: _used(row) for name, row in stacks.items() if row.role in ("train", "val", "test")}
    judged = [row for row in stacks.values() if row.role in ("val", "test")]
    for learned in (row for row in stacks.values() if row.role == "train"):
        for row in judged:
            if file := _shared(used[learned.stack], used[row.stack]):
                fix = "give them different images, or different planes of one in column planes"
                expected = f"images that {learned.stack}, which trains, does not have"
                raise PipelineError(f"{where}: stack {row.stack}, role {row.role}", expected, file, fix=fix)


def _shared(a: set[tuple[str, str, int]], b: set[tuple[str, str, int]]) -> str:
    """Return a file of which both use a plane, or nothing; all planes meet each."""
    whole = {one[:2] for one in a & b}
    for one, other in ((a, b), (b, a)):
        every = {use[:2] for use in one if use[2] == ALL}
        whole |= every & {use[:2] for use in other}
    return min(whole, default=("", ""))[0]


def _used(row: StackRow) -> set[tuple[str, str, int]]:
    """Return what a row uses of each of its files: (resolved path, series, plane); `ALL` planes is one entry."""
    files = source_files(row.image, row.names)[bool(row.names) :]
    numbers = parse_planes(row.stack, row.planes, MOST_PLANES) if row.planes else (ALL,)
    if len(files) > 1 and row.planes:
        files = [file for number, file in enumerate(sorted(files, key=natural_key)) if number in numbers]
        numbers = (ALL,)
    return {(path, row.series, number) for path in _real_paths(files) for number in numbers}


def _real_paths(files: Iterable[str]) -> Iterator[str]:
    """Yield the paths with links followed; every folder is resolved once."""
    folders: dict[Path, Path] = {}
    for path in map(Path, files):
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        found = folders[path.parent] / path.name
        yield str(found.resolve() if path.is_symlink() else found)


def check_names(stacks: Mapping[str, StackRow]) -> None:
    """Refuse lists of names that cannot be read; a list that does not exist yet may be made by a rule.

    Raises:
        PipelineError: naming the list and its line.
    """
    for name in {row.names: None for row in stacks.values() if Path(row.names).is_file()}:
        read_names(name)


def source_files(source: str, names: str = "") -> list[str]:
    """Return the files whose change makes a stack be read again; what does not exist is returned as it is.

    Args:
        source: a file, a folder of one file per plane, a glob, or a Zarr store. Of a store only its metadata
            counts: chunks that are edited later go unseen. So are files in a folder where a name has a brace, which
            Snakemake would take for a wildcard, or a control character, which it would print: the folder counts then.
        names: list of the files of the folder or glob that are used, the column of the table.
    """
    if not names:
        return _all_files(source)
    found = listed(read_names(names), _all_files(source)) if Path(names).is_file() else []
    return [names, *(found or [source])]


def _all_files(source: str) -> list[str]:
    path = Path(source)
    if path.is_dir():
        if marks := [str(path / name) for name in ZARR_MARKS if (path / name).is_file()]:
            return marks
        return _told(str(file) for file in path.iterdir() if file.is_file() and not file.name.startswith(".")) or [
            source
        ]
    if path.exists():
        return [source]
    return _told(glob.glob(source)) or [source]  # noqa: PTH207 -- Path.glob refuses absolute patterns


def _told(files: Iterable[str]) -> list[str]:
    """Return files in order, as Snakemake may be told of them: where it may not, the folders they lie in."""
    found = sorted(files)
    odd = any("{" in file or printable(file) != file for file in found)
    return sorted({str(Path(file).parent) for file in found}) if odd else found


def row_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of one row, generated from `StackRow`."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A row of the table of stacks"}
    return head | json_schema(StackRow) | {"required": ["stack", "image"]}
