"""Tables: what is written is read back, and tables of several stacks become one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.records import tables
from unet_pipeline.records.tables import csv_table, join_tables, parquet_table

KINDS: dict[str, tables.Kind] = {"id": "whole", "area": "number", "class": "text", "touches": "yes or no"}
NASTY = 'cell, "of" ä\n=1+1'


def rows(first: int, count: int) -> dict[str, Any]:
    return {
        "id": np.arange(first, first + count, dtype=np.int64),
        "area": np.array([np.nan, 1 / 3, 2.0, 1e300])[:count],
        "class": np.array([NASTY, "b", "c", "d"])[:count],
        "touches": np.arange(count) % 2 == 0,
    }


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_tables_of_stacks_become_one(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 2)
    write = {"csv": csv_table, "parquet": parquet_table}[name]
    parts = {stack: tmp_path / f"{stack}.{name}" for stack in ("one", "two", "none")}
    with write(parts["one"], KINDS) as append:
        append(rows(1, 4))
        append(rows(5, 1))
    with write(
        parts["two"], {name: kind for name, kind in KINDS.items() if name != "area"} | {"more": "number"}
    ) as append:
        append({key: values for key, values in rows(1, 2).items() if key != "area"} | {"more": np.array([0.5, 1])})
    with write(parts["none"], KINDS):
        pass
    join_tables(name, parts, tmp_path / f"all.{name}")
    found = read(tmp_path / f"all.{name}")
    assert list(found[0]) == ["stack", "id", "area", "class", "touches", "more"]
    assert [row["stack"] for row in found] == ["one"] * 5 + ["two"] * 2
    none = {"csv": "", "parquet": None}[name]
    third, nothing, large = ("0.3333333333333333", "", "1e+300") if name == "csv" else (1 / 3, None, 1e300)
    assert [row["area"] for row in found] == [nothing, third, "2" if name == "csv" else 2.0, large, nothing, none, none]
    assert [row["more"] for row in found][:5] == [none] * 5
    assert {row["class"] for row in found} == {NASTY, "b", "c", "d"}
    assert read(parts["none"]) == [] and not list(tmp_path.glob(".*"))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PipelineError, match=r"(?s)all.parquet.*run measure again"):
        join_tables("parquet", {"a": tmp_path / "a.parquet"}, tmp_path / "all.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("content", ["", "id,area\n1,2,3\n", "id\n" + "x" * 200_000 + "\n"])
def test_a_damaged_csv_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError, match=r"(?s)all.csv.*run measure again"):
        join_tables("csv", {"a": tmp_path / "a.csv"}, tmp_path / "all.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_tables_whose_columns_are_of_two_kinds_are_named(tmp_path: Path) -> None:
    parts = {kind: tmp_path / f"{kind}.parquet" for kind in ("whole", "text")}
    for kind, path in parts.items():
        with parquet_table(path, {"id": kind}):
            pass
    with pytest.raises(PipelineError, match=r"(?s)incompatible types.*run measure again"):
        join_tables("parquet", parts, tmp_path / "all.parquet")
