"""The stage measure: the files it writes and the page reads, and what it refuses."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from chain import make_plan, make_stack, settings, volume
from measured import measured, parquet, table

from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.record import write_record
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import Coverage, StitchRecord
from unet_pipeline.stitch.measure import Source
from unet_pipeline.stitch.stitch import stitch


def test_the_files_hold_the_same_rows_and_every_object(ran, capsys):
    stack_plan, _ = ran
    record = measured(stack_plan, formats=["parquet", "csv"])
    folder = stack_plan.record.parent
    rows = parquet(folder / "objects.parquet").to_pylist()
    with (folder / "objects.csv").open(newline="") as file:
        text = list(csv.DictReader(file))
    assert record.tables == ("objects.parquet", "objects.csv")
    assert tuple(rows[0]) == tuple(text[0]) == record.columns
    labels = volume(stack_plan.labels("instances"))[:, 0]
    areas = np.bincount(labels.ravel())[1:]
    assert [row["area_px"] for row in rows] == [int(row["area_px"]) for row in text] == areas.tolist()
    assert record.objects == len(rows) > 3
    assert [row["solidity"] for row in rows] == [float(row["solidity"]) for row in text], "CSV keeps all digits"
    assert [row["touches_border"] for row in rows] == [row["touches_border"] == "true" for row in text]
    assert record.touching == sum(row["touches_border"] for row in rows)
    assert {row["area_um2"] for row in rows} == {None} and {row["area_um2"] for row in text} == {""}, "no pixel size"
    assert sum(one.objects for one in record.sizes) == len(rows)
    for one, after in pairwise(record.sizes):
        assert one.objects == ((areas >= one.from_px) & (areas < after.from_px)).sum()
    assert not list(folder.glob(".*partial"))
    verify(folder, print)
    (folder / "objects.csv").write_text((folder / "objects.csv").read_text().replace("true", "false"))
    with pytest.raises(PipelineError, match="1 damaged"):
        verify(folder, print)
    assert "objects.csv" in capsys.readouterr().out


def test_only_what_is_asked_for_is_written_and_read(ran):
    stack_plan, _ = ran
    measured(stack_plan, formats=["csv"])
    record = measured(stack_plan, formats=["parquet"], measures=["area"])
    assert record.columns == ("id", "plane", "class", "area_px", "area_um2")
    folder = stack_plan.record.parent
    assert not (folder / "objects.csv").exists(), "nothing would vouch for it"
    found = Source.of(stack_plan, open_record(folder / "stitch.json", StitchRecord), ("area",))
    unread = replace(found, classes=None, probabilities=None, image=None)
    rows = table(unread, record.objects, folder, 32)
    assert rows["area_px"].tolist() == parquet(folder / "objects.parquet")["area_px"].to_pylist()


def test_a_stack_without_objects_has_a_table_without_rows(tmp_path, capsys):
    stack_plan = make_plan(make_stack(tmp_path, labelled=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "unet_pipeline.stitch.stitch.check_coverage",
            lambda *given: (Coverage(shards=0, regions=0, covered_once=True, model=None), {}),
        )
        stitch(stack_plan, [], settings(), stack_plan.record.with_name("stitch.json"))
    record = measured(stack_plan, formats=["parquet", "csv"])
    assert "no object was found" in capsys.readouterr().err
    assert (record.objects, record.sizes, record.touching) == (0, (), 0)
    found = parquet(stack_plan.record.with_name("objects.parquet"))
    assert found.num_rows == 0 and tuple(found.column_names) == record.columns and "area_px" in record.columns
    assert stack_plan.record.with_name("objects.csv").read_text() == ",".join(record.columns) + "\n"


def test_measures_of_planes_are_left_out_of_a_volume_aloud(ran, capsys):
    stack_plan, _ = ran
    regions = sorted((stack_plan.record.parent / "regions").glob("*.json"))
    config = settings(stitch={"connect": "volume"})
    stitch(stack_plan, regions, config, stack_plan.record.with_name("stitch.json"))
    record = measured(stack_plan, formats=["csv"])
    assert "perimeter, eccentricity, solidity are measures of planes" in capsys.readouterr().err
    assert "volume_px" in record.columns and "perimeter_px" not in record.columns


def test_an_unknown_measure_and_a_missing_library_end_in_one_message(ran, monkeypatch):
    with pytest.raises(PipelineError, match=r"(?s)measure.measures.*nearest legal value: perimeter"):
        settings(measure={"measures": ["area", "perimiter"]})
    stack_plan, _ = ran
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PipelineError, match=r"(?s)pip install pyarrow.*formats: \[csv\]"):
        measured(stack_plan)
    folder = stack_plan.record.parent
    assert not [path for path in folder.iterdir() if "measure" in path.name or "objects" in path.name]
    assert json.loads(folder.joinpath("stitch.json").read_text())["objects"] > 0


def test_an_object_too_many_is_refused(ran):
    stack_plan, _ = ran
    stitched = stack_plan.record.with_name("stitch.json")
    record = open_record(stitched, StitchRecord)
    write_record(stitched, replace(record, objects=record.objects - 1))
    with pytest.raises(PipelineError, match="ids of objects from 1 to"):
        measured(stack_plan, formats=["csv"])
    assert not list(stitched.parent.glob(".*partial"))


@pytest.mark.parametrize("deep", [False, True])
def test_outlines_are_those_of_the_labels_with_the_measures_of_the_table(ran, deep):
    stack_plan, _ = ran
    if deep:
        regions = sorted((stack_plan.record.parent / "regions").glob("*.json"))
        config = settings(stitch={"connect": "volume"})
        stitch(stack_plan, regions, config, stack_plan.record.with_name("stitch.json"))
    record = measured(stack_plan, formats=["geojson", "csv"])
    folder = stack_plan.record.parent
    assert record.tables == ("objects.csv", "objects.geojson")
    with (folder / "objects.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    found = json.loads((folder / "objects.geojson").read_text())["features"]
    labels = volume(stack_plan.labels("instances"))[:, 0]
    assert {one["properties"]["name"] for one in found} == set(rows)
    drawn = np.zeros_like(labels)
    for one in found:
        about, shape = one["properties"], one["geometry"]
        polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        for ring in (ring for polygon in polygons for ring in polygon):
            assert ring[0] == ring[-1]
            drawn[shape["plane"]["z"]] ^= inside(ring, labels.shape[1:]) * np.uint32(int(about["name"]))
        assert about["classification"]["name"] == rows[about["name"]]["class"] == "cell"
        expected = {
            key: cell for key, cell in rows[about["name"]].items() if cell and key not in ("id", "plane", "class")
        }
        numbers = {key: float({"true": "1", "false": "0"}.get(cell, cell)) for key, cell in expected.items()}
        assert about["measurements"] == ({} if deep else numbers)
    np.testing.assert_array_equal(drawn, labels)


def inside(ring, size):
    """Pixels inside a ring of corners (column, row): those with an odd number of vertical sides to their left."""
    crossed = np.zeros((size[0], size[1] + 1), bool)
    for (x, y), (next_x, next_y) in pairwise(ring):
        if x == next_x:
            crossed[min(y, next_y) : max(y, next_y), x] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
