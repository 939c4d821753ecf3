"""The table of objects, summed block by block, against scikit-image on whole planes."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from chain import make_plan, make_stack, settings, volume
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels
from whole_volume import by_definition

from unet_pipeline.audit.verify import verify
from unet_pipeline.config.result_sections import Measure
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.images.ngff import Grid
from unet_pipeline.objects.box import plane_boxes
from unet_pipeline.records.files import unclaimed
from unet_pipeline.records.record import write_record
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import Coverage, StitchRecord
from unet_pipeline.stitch.measure import Source, measure
from unet_pipeline.stitch.object_columns import Columns
from unet_pipeline.stitch.stitch import stitch

ALL = Measure().measures
CHANNEL = ("mean", "min", "max", "std")


class Sharded(ArrayPlanes):
    """An array in memory whose shards are smaller than its planes."""

    edge = 1

    def shards(self):
        planes, _, height, width = self.shape
        for plane in plane_boxes((planes, height, width)):
            yield from plane.divided(self.edge, self.edge)


@st.composite
def stacks(draw, planes=(1, 3)):
    """Classes (planes, y, x) of cells with holes, tails and single pixels, and a seed."""
    shape = draw(st.integers(*planes)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0.5, *(draw(st.floats(0, 3)),) * 2))
    classes = (smooth > np.quantile(smooth, draw(st.floats(0.1, 0.8)))).astype(np.uint8)
    classes[(rng.random(shape) < 0.3) & (classes > 0)] += draw(st.integers(0, 1))
    return classes, rng


def source(classes, instances, rng, dtype, stored, deep=False, pixel_um=(0.5, 0.5), growth_px=0, shard_px=64):
    """(what is measured, its grey values (planes, channels, y, x), its probabilities likewise)."""
    grey = rng.integers(0, 60000 if dtype == np.uint16 else 256, (len(classes), 2, *classes.shape[1:])).astype(dtype)
    if dtype == np.float32:
        grey = grey + np.float32(1e5)
    names = ("cell", "debris") if classes.max() > 1 else ("cell",)
    shares = rng.random((len(classes), 1 + len(names), *classes.shape[1:]))
    probabilities = (shares * 255).astype(np.uint8) if stored == np.uint8 else shares.astype(np.float16)
    grid = Grid(*classes.shape, pixel_um=pixel_um, step=2.0)
    shifts = tuple(float(round(grey[:, channel].mean())) for channel in range(2))
    columns = Columns(ALL, grid, deep, names, shifts, 255.0 if stored == np.uint8 else 1.0)
    arrays = [Sharded(values[:, None]) for values in (instances.astype(np.uint32), classes)]
    arrays += [ArrayPlanes(values) for values in (probabilities, grey)]
    for one in arrays:
        one.edge = shard_px
    return Source("cells", *arrays, np.dtype(dtype), columns, growth_px), grey, probabilities


def parquet(path):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def table(found, count, folder, block_px):
    path = folder / "sums"
    path.unlink(missing_ok=True)
    sums = found.summed(path, count, unclaimed, block_px)
    return found.columns.rows(np.arange(1, count + 1), sums.part(0, count))


def by_scikit_image(instances, grey, spacing, deep=False):
    """Measures of all objects, by the names that they have in our table, in the order of their ids."""
    names = ("label", "area", "centroid", "bbox")
    names += () if deep else ("perimeter", "eccentricity", "solidity")
    intensities = tuple(f"intensity_{name}" for name in CHANNEL)
    parts, volumes = [], [(instances, grey, 0)] if deep else zip(instances, grey, range(len(instances)), strict=True)
    for labels, values, plane in volumes:
        channels = np.moveaxis(values, 1 if deep else 0, -1)
        here = regionprops_table(labels.astype(int), channels, properties=names + intensities, spacing=1)
        scaled = (
            regionprops_table(labels.astype(int), properties=("eccentricity",), spacing=spacing) if not deep else {}
        )
        parts.append(here | scaled | {"plane": np.full(len(here["label"]), plane)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@examples(max_examples=25)
@given(
    stacks(),
    st.integers(5, 41),
    st.integers(3, 41),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([np.uint8, np.float16]),
    st.sampled_from([(0.5, 0.5), (0.3, 0.7)]),
    st.integers(0, 3),
)
def test_equals_scikit_image_for_any_blocks_and_shards(
    tmp_path_factory, drawn, shard_px, block_px, dtype, stored, pixel_um, growth_px
):
    classes, rng = drawn
    instances = by_definition(classes)
    instances = np.stack([expand_labels(plane, growth_px) for plane in instances])
    count = int(instances.max())
    found, grey, probabilities = source(
        classes, instances, rng, dtype, stored, pixel_um=pixel_um, growth_px=growth_px, shard_px=shard_px
    )
    rows = table(found, count, tmp_path_factory.getbasetemp(), block_px)
    assert rows["id"].tolist() == list(range(1, count + 1))
    if not count:
        return
    expected = by_scikit_image(instances, grey, pixel_um)
    for name in ("plane", "area_px", "box_top", "box_left", "box_bottom", "box_right"):
        theirs = dict(zip(("box_top", "box_left", "box_bottom", "box_right"), range(4), strict=True))
        other = f"bbox-{theirs[name]}" if name in theirs else name.removesuffix("_px")
        np.testing.assert_array_equal(rows[name], expected[other], name)
    np.testing.assert_allclose(rows["centroid_y_px"], expected["centroid-0"])
    np.testing.assert_allclose(rows["centroid_x_um"], expected["centroid-1"] * pixel_um[1])
    np.testing.assert_allclose(rows["perimeter_px"], expected["perimeter"])
    np.testing.assert_allclose(rows["solidity"], expected["solidity"])
    np.testing.assert_allclose(rows["eccentricity"], expected["eccentricity"], atol=1e-6)
    for name in CHANNEL:
        for channel in range(2):
            ours, theirs = rows[f"intensity_{name}_{channel}"], expected[f"intensity_{name}-{channel}"]
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-3 if dtype == np.float32 else 1e-9)
    np.testing.assert_allclose(rows["area_um2"], rows["area_px"] * pixel_um[0] * pixel_um[1])
    assert np.isnan(rows["perimeter_um"]).all() == (pixel_um[0] != pixel_um[1])
    _check_classes_and_border(rows, classes, instances, probabilities)


def _check_classes_and_border(rows, classes, instances, probabilities):
    names, most = ("background", "cell", "debris"), 255 if probabilities.dtype == np.uint8 else 1
    for one, name in enumerate(rows["class"], 1):
        plane, y, x = np.nonzero(instances == one)
        votes = np.bincount(classes[plane, y, x], minlength=3)[1:]
        assert votes[names.index(name) - 1] == votes.max()
        mean = probabilities[plane, names.index(name), y, x].astype(float).mean() / most
        assert rows["probability"][one - 1] == pytest.approx(mean)
        at_border = min(y.min(), x.min()) == 0 or y.max() == classes.shape[1] - 1 or x.max() == classes.shape[2] - 1
        assert rows["touches_border"][one - 1] == at_border


@examples(max_examples=10)
@given(stacks((2, 5)), st.integers(4, 41))
def test_objects_of_a_volume_have_volumes(tmp_path_factory, drawn, block_px):
    classes, rng = drawn
    instances = by_definition(classes, across_planes=True)
    count = int(instances.max())
    found, grey, _ = source(classes, instances, rng, np.uint8, np.uint8, deep=True, shard_px=16)
    rows = table(found, count, tmp_path_factory.getbasetemp(), block_px)
    assert not {"perimeter_px", "eccentricity", "solidity", "area_px"} & set(rows)
    if not count:
        return
    expected = by_scikit_image(instances, grey, 1, deep=True)
    np.testing.assert_array_equal(rows["volume_px"], expected["area"])
    np.testing.assert_allclose(rows["volume_um3"], expected["area"] * 0.5)
    for index, name in enumerate(("box_front", "box_top", "box_left", "box_back", "box_bottom", "box_right")):
        np.testing.assert_array_equal(rows[name], expected[f"bbox-{index}"])
    for index, name in enumerate(("z", "y", "x")):
        np.testing.assert_allclose(rows[f"centroid_{name}_px"], expected[f"centroid-{index}"])
    np.testing.assert_allclose(rows["centroid_z_um"], expected["centroid-0"] * 2)
    np.testing.assert_allclose(rows["intensity_std_1"], expected["intensity_std-1"], atol=1e-9)
    ends = (rows["box_front"] == 0) | (rows["box_back"] == len(classes))
    assert rows["touches_border"][ends].all()


def test_far_from_the_origin_no_digit_is_lost(tmp_path):
    """A disk at 60 000 px, whose second moments there are 100 million times its own."""
    disk = np.hypot(*np.mgrid[-9:10, -9:10]) <= 9.2
    classes = np.zeros((1, 20, 60_000), np.uint8)
    classes[0, 1:20, -19:] = disk
    found, _, _ = source(classes, classes.astype(int), np.random.default_rng(0), np.uint16, np.uint8, shard_px=4096)
    rows = table(found, 1, tmp_path, 1024)
    near = regionprops_table(disk.astype(int), properties=("eccentricity", "solidity", "perimeter"))
    assert rows["eccentricity"][0] == pytest.approx(near["eccentricity"][0], abs=1e-9)
    assert rows["solidity"][0] == near["solidity"][0]
    assert rows["perimeter_px"][0] == pytest.approx(near["perimeter"][0])


def measured(stack_plan, **section):
    stitched = stack_plan.record.with_name("stitch.json")
    return measure(stitched, settings(measure=section), stitched.with_name("measure.json"))


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


@examples(max_examples=20)
@given(stacks(planes=(1, 3)), st.booleans(), st.integers(3, 41), st.integers(5, 41))
def test_outlines_do_not_depend_on_blocks(tmp_path_factory, drawn, deep, block_px, shard_px):
    """Objects of a volume have parts far from each other in a plane, which blocks must not join or part."""
    classes, _ = drawn
    planes = [ndimage.label(plane)[0] for plane in classes]
    before = np.cumsum([0, *(plane.max() for plane in planes)])[:-1]
    apart = np.stack([np.where(plane > 0, plane + first, 0) for plane, first in zip(planes, before, strict=True)])
    ids = ndimage.label(classes)[0] if deep else apart
    folder = tmp_path_factory.mktemp("outlines")

    def found(block_px, shard_px):
        features = []
        about, _, _ = source(classes, ids, np.random.default_rng(0), np.uint8, np.uint8, deep, shard_px=shard_px)
        about.summed(folder / "sums", int(ids.max()), unclaimed, block_px, features.append)
        (folder / "sums").unlink()
        corners = [sorted(map(tuple, _corners(one["geometry"]))) for one in features]
        names = [(one["properties"]["name"], one["geometry"]["plane"]["z"]) for one in features]
        return sorted(zip(names, corners, strict=True))

    assert found(block_px, shard_px) == found(64, 64)


def _corners(shape):
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    return (corner for polygon in polygons for ring in polygon for corner in ring[:-1])


def test_in_one_plane_not_all_objects_of_a_volume_reach_its_border(tmp_path):
    ids = np.zeros((1, 9, 9), np.uint32)
    ids[0, 4, 4], ids[0, 0, 0] = 1, 2
    about, _, _ = source((ids > 0).astype(np.uint8), ids, np.random.default_rng(0), np.uint8, np.uint8, deep=True)
    assert table(about, 2, tmp_path, None)["touches_border"].tolist() == [False, True]


def inside(ring, size):
    """Pixels inside a ring of corners (column, row): those with an odd number of vertical sides to their left."""
    crossed = np.zeros((size[0], size[1] + 1), bool)
    for (x, y), (next_x, next_y) in pairwise(ring):
        if x == next_x:
            crossed[min(y, next_y) : max(y, next_y), x] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
