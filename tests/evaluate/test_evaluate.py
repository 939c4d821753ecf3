import json
from dataclasses import asdict

import numpy as np
import pytest
from chain import draw, make_model, make_plan, make_stack, run, settings
from scipy import ndimage
from skimage.metrics import contingency_table, variation_of_information

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.face.score import score
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.record import read_json, write_json


@pytest.fixture
def perfect(ran):
    """A stack whose segmentation is its reference, shard by shard."""
    stack_plan, _ = ran
    stitched = stack_plan.record.with_name("stitch.json")
    copy_reference(stitched, stack_plan)
    return stitched, stack_plan


def copy_reference(stitched, stack_plan):
    for name in ("classes", "instances"):
        source, target = stack_plan.stack.reference(name), stack_plan.labels(name, writable=True)
        for plane, rows, columns in (shard.at for shard in target.shards()):
            values = source.read_label(plane, rows, columns)
            target.write(plane, rows, columns, np.where(values == 255, 0, values) if name == "classes" else values)
    vouch(stitched, stack_plan)


def vouch(stitched, stack_plan):
    """Let the record vouch for what now lies in the store."""
    write_json(stitched, read_json(stitched) | {"files": asdict(write_list(stitched, [stack_plan.store]))})


def scores(stitched, **sections):
    return asdict(evaluate(stitched, settings(**sections), stitched.with_name("metrics.json")))


def test_a_perfect_result_scores_one(perfect):
    stitched, _ = perfect
    found = scores(stitched)
    assert found["instances"]["seg"] == 1
    assert found["instances"]["objects"] == sum(int(plane.max()) for plane in draw()[1])
    assert found["instances"]["ap"]["0.95"]["average_precision"] == 1
    assert [one["dice"] for one in found["classes"]] == [1, 1]
    assert json.loads(stitched.with_name("metrics.json").read_text())["instances"]["seg"] == 1


def test_a_lost_object_costs_its_share(perfect):
    stitched, stack_plan = perfect
    instances = stack_plan.labels("instances", writable=True)
    for plane, rows, columns in (shard.at for shard in instances.shards()):
        values = instances.read_label(plane, rows, columns)
        instances.write(plane, rows, columns, np.where(values == 1, 0, values) if plane == 0 else values)
    vouch(stitched, stack_plan)
    found = scores(stitched)
    assert found["instances"]["seg"] == pytest.approx(1 - 1 / found["instances"]["objects"])
    assert found["instances"]["matched"] == found["instances"]["objects"] - 1
    (lost,), places = found["faults"]["worst"], np.argwhere(draw()[1][0] == 1)
    assert (lost["kind"], lost["object"], lost["pixels"]) == ("missed", 1, len(places))
    assert (lost["start"], lost["stop"]) == ((0, *places.min(0)), (1, *places.max(0) + 1))


def test_isbi_scores_on_request(perfect):
    stitched, stack_plan = perfect
    inside = np.stack([stack_plan.stack.reference("classes").read_label(p, slice(None), slice(None)) for p in range(2)])
    probabilities = stack_plan.probabilities(writable=True)
    for plane, rows, columns in (shard.at for shard in probabilities.shards()):
        share = inside[plane, rows, columns] * 255
        probabilities.write(plane, rows, columns, np.stack([255 - share, share]).astype(np.uint8))
    vouch(stitched, stack_plan)
    assert scores(stitched)["isbi"] is None
    found = scores(stitched, evaluate={"isbi": True})["isbi"]
    assert found["pixel_error"]["value"] == 0
    assert found["warping_error"]["value"] == 0
    assert found["planes"] == 2
    assert 0 < found["v_rand"]["value"] < 1, "touching cells have no membrane here, so they merge"


@pytest.mark.slow
def test_pixels_nobody_annotated_do_not_count(tmp_path):
    labels = draw()[1].astype(np.uint16)
    labels[:, :50] = 999
    config = settings(labels={"ignore": 999})
    stack = make_stack(tmp_path, config, labels=labels)
    stitched = run(make_plan(stack, config), make_model(tmp_path / "model"), config)
    copy_reference(stitched, stack_plan := StackPlan.open(stitched.with_name("tiles.json")))
    for name in ("classes", "instances"):
        array = stack_plan.labels(name, writable=True)
        for plane, rows, columns in (shard.at for shard in array.shards()):
            values = array.read_label(plane, rows, columns)
            unknown = np.arange(rows.start, rows.stop)[:, None] < 50
            array.write(plane, rows, columns, np.where(unknown, 1, values))  # one cell all over
    vouch(stitched, stack_plan)
    found = asdict(evaluate(stitched, config, stitched.with_name("metrics.json")))
    assert (found["pixels"]["scored"], found["pixels"]["of"]) == (2 * 50 * 130, 2 * 100 * 130)
    objects = found["instances"]
    assert objects["objects"] == objects["found"] == objects["matched"]
    assert [objects["seg"], objects["ap"]["0.95"]["average_precision"], objects["v_rand"]["value"]] == [1, 1, 1]


def test_an_unlabelled_stack_cannot_be_scored(tmp_path):
    stack = make_stack(tmp_path, labelled=False)
    stitched = run(make_plan(stack), make_model(tmp_path / "model"))
    with pytest.raises(PipelineError, match="without labels"):
        evaluate(stitched, settings(), stitched.with_name("metrics.json"))
    assert not stitched.with_name("metrics.json").exists()


@pytest.mark.slow
def test_scores_of_three_classes_are_those_of_another_library(tmp_path):
    """The confusion of the whole volume against skimage's, and the means from masks of each class."""
    _, ids = draw()
    sides = 1 + (np.arange(ids.shape[2]) > 60)
    values = ((ids > 0) * sides).astype(np.uint8)
    values[:, :9] = 7
    names = ("background", "nerve", "glia")
    config = settings(labels={"kind": "classes", "classes": list(names), "values": dict(enumerate(names)), "ignore": 7})
    stack = make_stack(tmp_path, config, labels=values)
    stack_plan = make_plan(stack, config)
    stitched = run(stack_plan, make_model(tmp_path / "model", classes=names), config)
    found = asdict(evaluate(stitched, config, stitched.with_name("metrics.json")))
    result = np.stack([stack_plan.labels("classes").read_label(p, slice(0, 100), slice(0, 130)) for p in range(2)])
    annotated = values != 7
    table = contingency_table(values[annotated], result[annotated]).toarray().astype(int)
    assert np.array_equal(found["confusion"], table)
    assert (table.sum(axis=0) > 0).all(), "the network of the test gives every class somewhere"
    iou = [
        ((values == i) & (result == i) & annotated).sum() / (((values == i) | (result == i)) & annotated).sum()
        for i in range(3)
    ]
    assert found["pixels"]["mean_iou"] == pytest.approx(np.mean(iou))
    assert found["pixels"]["mean_iou_foreground"] == pytest.approx(np.mean(iou[1:]))
    assert found["pixels"]["accuracy"] == pytest.approx((values == result)[annotated].mean())
    written = np.loadtxt(stitched.with_name("confusion.csv"), dtype=str, delimiter=",")
    assert written[0].tolist() == ["reference", *names]
    assert np.array_equal(written[1:, 1:].astype(int), table)


def through_planes() -> tuple[np.ndarray, np.ndarray]:
    """Reference and result of two rods through three planes; the result loses one of them in the last plane."""
    reference = np.zeros((3, 8, 12), np.uint8)
    reference[:, 1:5, 1:5], reference[:, 2:6, 7:11] = 1, 1
    result = np.where(reference > 0, np.where(np.arange(12) < 6, 4, 9), 0)
    result[2, :, 6:] = 0
    return reference, result


@pytest.mark.parametrize(("connect", "objects", "seg"), [("planes", 6, 5 / 6), ("volume", 2, (1 + 2 / 3) / 2)])
@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_an_object_through_many_planes_counts_once(kind, connect, objects, seg):
    reference, result = through_planes()
    sections = {"stitch": {"connect": connect}}
    if kind == "classes":
        sections["labels"] = {"kind": "classes", "values": {0: "background", 1: "cell"}}
    else:
        reference = np.where(reference > 0, 1 + (np.arange(12) > 5), 0)
    found = score(result, reference, config=sections)["instances"]
    assert (found["objects"], found["seg"]) == (objects, pytest.approx(seg))
    assert found["ap"]["0.75"]["true_positives"] == objects - 1
    if connect == "volume":
        ids = np.where(reference > 0, 1 + (np.arange(12) > 5), 0)
        split, merge = variation_of_information(ids, result, ignore_labels=(0,))
        assert found["variation_of_information"] == pytest.approx(
            {"value": split + merge, "split": split, "merge": merge}, abs=1e-9
        )


@pytest.mark.parametrize("connect", ["planes", "volume"])
def test_scores_of_a_stack_are_those_of_its_arrays(tmp_path, connect):
    """Streamed from shards, joined beside the store: the same as of whole arrays, and nothing is left."""
    labels = {"kind": "classes", "values": {0: "background", 1: "cell"}}
    config = settings(labels=labels, stitch={"connect": connect})
    stack_plan = make_plan(make_stack(tmp_path, config, labels=(draw()[1] > 0).astype(np.uint8)), config)
    stitched = run(stack_plan, make_model(tmp_path / "model"), config)
    before = sorted(path.name for path in stitched.parent.iterdir())
    found = asdict(evaluate(stitched, config, stitched.with_name("metrics.json")))
    left = sorted(path.name for path in stitched.parent.iterdir())
    assert left == sorted([*before, "confusion.csv", "metrics.json"])
    whole = [stack_plan.labels("instances"), stack_plan.stack.reference("classes")]
    result, reference = (
        np.stack([one.read_label(p, slice(0, 100), slice(0, 130)) for p in range(one.shape[0])]) for one in whole
    )
    expected = score(result, reference, config={"labels": labels, "stitch": {"connect": connect}})["instances"]
    assert found["instances"] == expected
    layers = ndimage.generate_binary_structure(3, 1)
    layers[[0, 2]] &= connect == "volume"
    assert found["instances"]["objects"] == ndimage.label(reference == 1, layers)[1] > 0
