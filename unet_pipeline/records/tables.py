"""Tables of many rows, written some rows at a time: as Parquet by pyarrow, which is imported only for it, or as CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.files import Check, atomic_path, unclaimed

Kind = Literal["whole", "number", "text", "yes or no"]
"""Of a column: int64; float64, in which NaN is no value; UTF-8; bool."""

Rows = Mapping[str, NDArray[Any]]
"""Some rows of a table: an array (rows,) for each of its columns."""

Write = Callable[[Rows], None]
"""Function that appends rows to a table."""

MOST_ROWS = 2**16
"""Rows that are written at a time."""


@contextmanager
def parquet_table(path: Path, columns: Mapping[str, Kind], check: Check = unclaimed) -> Iterator[Write]:
    """Write a Parquet file, which appears whole or not at all, by the function that is given.

    Args:
        path: the file.
        columns: names and kinds, in order.
        check: called before the file gets its name, `claim.Claim.check`.

    Raises:
        PipelineError: pyarrow is not installed, or the place cannot be written.
    """
    pa, pq = pyarrow(path)
    types = {"whole": pa.int64(), "number": pa.float64(), "text": pa.string(), "yes or no": pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with atomic_path(path, check) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:

        def write(rows: Rows) -> None:
            arrays = [pa.array(rows[one.name], one.type, from_pandas=True) for one in schema]  # NaN is null
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield write


def pyarrow(path: Path) -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Args:
        path: the file that they are needed for.

    Raises:
        PipelineError: if they are not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        fix = "pip install pyarrow, or set measure.formats: [csv]"
        raise PipelineError(path, "the package pyarrow, which writes Parquet", error, fix=fix) from error
    return pa, pq


@contextmanager
def csv_table(path: Path, columns: Mapping[str, Kind], check: Check = unclaimed) -> Iterator[Write]:
    """Write a CSV file, its names first; see `parquet_table`. Numbers keep all digits; what has no value is empty."""
    with atomic_path(path, check) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)

        def write(rows: Rows) -> None:
            writer.writerows(zip(*(_cells(rows[name], kind) for name, kind in columns.items()), strict=True))

        yield write


def join_tables(name: str, parts: Mapping[str, Path], path: Path, check: Check = unclaimed) -> None:
    """Write one table of several, some rows at a time, with the name of each in a first column, `stack`.

    Args:
        name: "parquet" or "csv".
        parts: the tables by the name of their stack; a column that a table lacks has no value in its rows.
        path: the file.
        check: as for `parquet_table`.

    Raises:
        PipelineError: as for `parquet_table`, or a table that cannot be read.
    """
    try:
        (_join_parquet if name == "parquet" else _join_csv)(parts, path, check)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:  # those of pyarrow are kinds of these
        raise PipelineError(path, "tables of objects that can be read", error, fix="run measure again") from error


def _join_parquet(parts: Mapping[str, Path], path: Path, check: Check) -> None:
    pa, pq = pyarrow(path)
    schemas = [pq.read_schema(part) for part in parts.values()]
    whole = pa.unify_schemas([pa.schema([("stack", pa.string())]), *schemas])
    with atomic_path(path, check) as partial, pq.ParquetWriter(partial, whole, compression="zstd") as writer:
        for stack, part in parts.items():
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(MOST_ROWS):
                    known = dict(zip(batch.schema.names, batch, strict=True)) | {"stack": pa.repeat(stack, len(batch))}
                    arrays = [known.get(one.name, pa.nulls(len(batch), one.type)) for one in whole]
                    writer.write_batch(pa.record_batch(arrays, schema=whole))


def _join_csv(parts: Mapping[str, Path], path: Path, check: Check) -> None:
    columns = {"stack": ""}
    for part in parts.values():
        with part.open(encoding="utf-8", newline="") as file:
            if (names := next(csv.reader(file), None)) is None:
                raise ValueError(f"{part} is empty")
            columns |= dict.fromkeys(names, "")
    with atomic_path(path, check) as partial, partial.open("w", encoding="utf-8", newline="") as written:
        writer = csv.DictWriter(written, list(columns), lineterminator="\n")
        writer.writeheader()
        for stack, part in parts.items():
            with part.open(encoding="utf-8", newline="") as file:
                writer.writerows(columns | row | {"stack": stack} for row in csv.DictReader(file))


def _cells(values: NDArray[Any], kind: Kind) -> list[Any]:
    if kind == "yes or no":
        return ["true" if value else "false" for value in values.tolist()]
    if kind == "number":
        return ["" if value != value else repr(value).removesuffix(".0") for value in values.tolist()]
    return list(values.tolist())
