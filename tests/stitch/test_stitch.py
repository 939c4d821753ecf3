import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from chain import assert_reduced, make_model, make_plan, make_stack, run, settings, volume
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from scipy import ndimage
from skimage.segmentation import expand_labels

from unet_pipeline.audit.coverage import check_region
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.model.card import read_card
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.stitch.stitch import stitch, write_instances, write_tiff


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A folder with a stack, its plan, and a model."""
    folder = tmp_path_factory.mktemp("planned")
    make_plan(make_stack(folder))
    make_model(folder / "model")
    return folder


@pytest.fixture
def made(planned, tmp_path):
    """A copy of it: the plan and the model."""
    shutil.copytree(planned, tmp_path / "made")
    return StackPlan.open(tmp_path / "made" / "results" / "cells" / "tiles.json"), tmp_path / "made" / "model"


def again(stack_plan):
    folder = stack_plan.record.parent
    records = sorted((folder / "regions").glob("*.json"))
    return stitch(stack_plan, records, settings(), folder / "stitch.json")


def write_classes(stack_plan, values):
    array = stack_plan.labels("classes", writable=True)
    for plane, rows, columns in (shard.at for shard in array.shards()):
        array.write(plane, rows, columns, values[plane, rows, columns])


def whole(array):
    return np.stack([array.read_label(plane, slice(None), slice(None)) for plane in range(array.shape[0])])


@pytest.mark.slow
@pytest.mark.parametrize("pixel_um", [None, 0.5])
def test_the_record_says_how_much_each_class_takes(tmp_path, pixel_um):
    stack_plan = make_plan(make_stack(tmp_path, pixel_um=pixel_um))
    run(stack_plan, make_model(tmp_path / "model"))
    values = whole(stack_plan.labels("classes"))
    found = read_json(stack_plan.record.with_name("stitch.json"))["classes"]
    assert [one["name"] for one in found] == ["background", "cell"]
    for index, one in enumerate(found):
        pixels = int((values == index).sum())
        assert 0 < pixels == one["pixels"]
        assert one["share"] == pixels / values.size
        assert one["area_um2"] == (None if pixel_um is None else pytest.approx(pixels * 0.25))


def expected_instances(classes, options):
    """The definition, plane by plane over the whole plane: label, fill, sift, grow."""
    result = np.zeros(classes.shape, np.int64)
    count = 0
    for plane, values in enumerate(classes):
        labels, number = ndimage.label(values)
        filled = labels.copy()
        for one in range(1, number + 1):
            filled[ndimage.binary_fill_holes(labels == one) & (labels == 0)] = one
        for one in range(1, number + 1):
            if (filled == one).sum() >= options.min_area_px:
                count += 1
                result[plane][filled == one] = count
    return result


def same_partition(found, expected):
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("grow_px", [0, 2])
def test_instances_equal_the_definition_across_shards(made, grow_px):
    stack_plan, _ = made
    rng = np.random.default_rng(0)
    classes = (ndimage.gaussian_filter(rng.normal(size=(2, 100, 130)), (0, 3, 3)) > 0.02).astype(np.uint8)
    write_classes(stack_plan, classes)
    options = ObjectSettings(grow_px=grow_px, min_area_px=20)
    objects = write_instances(stack_plan, options, False, block_px=24)
    found, expected = whole(stack_plan.labels("instances")), expected_instances(classes, options)
    assert objects.filled_px > 0
    assert objects.count == expected.max() > 3
    if grow_px:
        grown = np.stack([expand_labels(plane, grow_px) for plane in expected])
        np.testing.assert_array_equal(found > 0, grown > 0)
        inside = expected > 0
        assert same_partition(found[inside], expected[inside])
    else:
        assert same_partition(found, expected)
    assert not list(stack_plan.store.parent.glob(".*components*"))


@pytest.mark.parametrize("grow_px", [0, 3])
def test_instances_do_not_depend_on_blocks(made, grow_px):
    stack_plan, _ = made
    rng = np.random.default_rng(1)
    write_classes(
        stack_plan, (ndimage.gaussian_filter(rng.normal(size=(2, 100, 130)), (0, 2, 2)) > 0.05).astype(np.uint8)
    )
    found = []
    for block_px in (16, 37, 500):
        write_instances(stack_plan, ObjectSettings(grow_px=grow_px), False, block_px)
        found.append(whole(stack_plan.labels("instances")))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_objects_join_from_plane_to_plane_on_request(made):
    stack_plan, _ = made
    classes = np.zeros((2, 100, 130), np.uint8)
    classes[:, 50:80, 50:80] = 1
    write_classes(stack_plan, classes)
    for connect, count in (("planes", 2), ("volume", 1)):
        write_instances(stack_plan, ObjectSettings(grow_px=0), connect == "volume")
        assert whole(stack_plan.labels("instances")).max() == count


@pytest.mark.slow
def test_the_result_is_valid_and_read_by_others(made):
    stack_plan, model = made
    run(stack_plan, model, settings(stitch={"tiff": True, "min_area_px": 0}))
    Image.from_zarr(zarr.open_group(stack_plan.store, mode="r"))
    for name in ("classes", "instances"):
        ImageLabel.from_zarr(zarr.open_group(stack_plan.store / "labels" / name, mode="r"))
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(stack_plan.store / "labels" / name / "0")}}
        mine = whole(stack_plan.labels(name))
        np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), mine)
        np.testing.assert_array_equal(tifffile.imread(stack_plan.record.parent / f"{name}.tif"), mine)
        assert mine.any()


def test_coarser_levels_are_means_of_probabilities_and_pixels_of_labels(ran):
    stack_plan, _ = ran
    fine, coarse = (volume(open_array(stack_plan.store, level)) for level in "01")
    assert_reduced(fine, coarse, "mean")
    for name in ("classes", "instances"):
        fine, coarse = (volume(open_array(stack_plan.store, f"labels/{name}/{level}")) for level in "01")
        assert_reduced(fine, coarse, "nearest")


@pytest.mark.parametrize("name", ["classes", "instances"])
def test_pixel_sizes_of_a_label_tiff_are_those_of_its_axes(made, tmp_path, name):
    stack_plan, _ = made
    grid = replace(stack_plan.stack.grid, pixel_um=(0.5, 0.25))
    write_tiff(stack_plan.labels(name), tmp_path / "label.tif", grid)
    with tifffile.TiffFile(tmp_path / "label.tif") as file:
        tags = file.pages[0].tags
        per_cm = [tags[f"{axis}Resolution"].value for axis in "YX"]
    assert [above / below for above, below in per_cm] == [20_000, 40_000]
    with open_planes(tmp_path / "label.tif") as image:
        assert image.pixel_um == (0.5, 0.25)


def test_the_record_counts(ran):
    stack_plan, _ = ran
    record = json.loads(stack_plan.record.with_name("stitch.json").read_text())
    assert record["coverage"]["shards"] == stack_plan.plan.shard_count == 12
    assert record["coverage"]["covered_once"] is True


def test_a_store_changed_behind_the_workflows_back_names_the_region(ran):
    stack_plan, _ = ran
    file = stack_plan.probabilities().shard_file(1, 64, 64)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=r"--forcerun .*regions.1\.json") as caught:
        again(stack_plan)
    assert str(file) in str(caught.value)


def test_a_lost_shard_names_the_region(ran):
    stack_plan, _ = ran
    stack_plan.probabilities().shard_file(0, 0, 0).unlink()
    with pytest.raises(PipelineError, match=r"no file[\s\S]*regions.0\.json"):
        again(stack_plan)


def test_a_damaged_shard_is_mended_as_the_message_says(ran):
    """Also at the image edge, where zarr would read the damaged shard before it writes."""
    stack_plan, model = ran
    folder = stack_plan.record.parent
    before = (folder / "regions" / "1.json").read_text()
    file = stack_plan.probabilities().shard_file(1, 64, 128)
    file.write_bytes(file.read_bytes()[:-9] + b"\0" * 9)
    with pytest.raises(PipelineError, match=r"--forcerun .*regions.1\.json"):
        again(stack_plan)
    (folder / "regions" / "1.json").unlink()
    predict(stack_plan, 1, model, settings(), folder / "regions" / "1.json")
    assert again(stack_plan).coverage.covered_once
    assert json.loads((folder / "regions" / "1.json").read_text())["shards"] == json.loads(before)["shards"]


def test_a_missing_region_is_told(ran):
    stack_plan, _ = ran
    folder = stack_plan.record.parent
    with pytest.raises(PipelineError, match="in no record"):
        stitch(stack_plan, [folder / "regions" / "0.json"], settings(), folder / "stitch.json")


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        ("plan", "record of plan"),
        ("twice", "region"),
        ("model", "2 models"),
        ("bit", "altered"),
        ("few", "of region 1"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(ran, forge, named):
    stack_plan, _ = ran
    folder = stack_plan.record.parent
    record = folder / "regions" / "1.json"
    facts = read_json(record)
    if forge == "plan":
        facts["plan"] = "0" * 16
    elif forge == "twice":
        facts = read_json(folder / "regions" / "0.json")
    elif forge == "few":
        del facts["shards"][-1]
    else:
        facts["model"] = "another"
    if forge == "bit":
        record.write_text(record.read_text().replace('"model": "', '"model": "0'))
    else:
        write_json(record, facts)
    with pytest.raises(PipelineError, match=named):
        again(stack_plan)
    if forge == "few":
        with pytest.raises(PipelineError, match=named):
            check_region(stack_plan, record)


def test_regions_of_another_model_or_precision_are_refused(ran, tmp_path):
    """An orphan of an earlier run may end after the regions of a later one: all records then agree, and are wrong."""
    stack_plan, model = ran
    folder = stack_plan.record.parent
    records, output = sorted((folder / "regions").glob("*.json")), folder / "stitch.json"
    other = read_card(make_model(tmp_path / "other", seed=4))
    bfloat16 = settings(predict={"precision": "bfloat16"})
    for card, config in ((other, settings()), (read_card(model), bfloat16)):
        with pytest.raises(PipelineError, match=r"--forcerun .*regions.0\.json"):
            stitch(stack_plan, records, config, output, card)
    assert stitch(stack_plan, records, settings(), output, read_card(model)).coverage.covered_once


def test_regions_of_two_number_formats_are_no_volume(ran):
    """With predict.precision: auto, jobs with a GPU and jobs without one would make such a stack."""
    stack_plan, _ = ran
    record = stack_plan.region_record(1)
    written = record.read_text()
    facts = read_json(record)
    facts["compute"]["precision"] = "bfloat16"
    write_json(record, facts)
    with pytest.raises(PipelineError, match=r"one number format, got float32 \(.*bfloat16 \(.*1\.json\)"):
        again(stack_plan)
    record.write_text(written)
    assert again(stack_plan).coverage.covered_once


def test_records_of_two_plans_do_not_mix(ran):
    stack_plan, model = ran
    changed = make_plan(stack_plan.stack, settings(tile={"tile_px": 16}))
    predict(changed, 1, model, settings(), changed.record.parent / "regions" / "1.json")
    with pytest.raises(PipelineError, match="record of plan"):
        again(changed)
