import json

import numpy as np
import pytest
from chain import make_model, make_plan, make_stack, settings

from unet_pipeline.audit.prove import (
    TOLERANCE,
    describe,
    difference,
    paper_pass,
    paper_step,
    prove,
    tiled_pass,
    whole_pass,
)
from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import Geometry, unpadded
from unet_pipeline.objects.box import Box
from unet_pipeline.predict import crop as crop_module
from unet_pipeline.predict.crop import Crop
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return make_stack(folder), make_model(folder / "model")


def test_every_tiling_is_seamless_and_the_papers_step_is_not(made, tmp_path):
    stack, model = made
    found = prove(model, stack, settings(), tmp_path / "prove.json", plane=1)
    assert found.seamless
    assert (found.compute.precision, found.tolerance_std) == ("float32", 1e-4)
    assert len(found.rows) >= 3
    assert all((row.splits, row.split_differences, row.stored_flipped) == (1, 0, 0) for row in found.rows)
    assert all(row.largest_difference_std < 1e-4 and row.flipped_labels == 0 for row in found.rows)
    assert json.loads((tmp_path / "prove.json").read_text())["crop"] == [100, 130]
    assert "every split stores the same bytes" in describe(found)


def test_each_number_format_has_a_tolerance_of_its_own():
    """The format that is used is in the record, also where `auto` chose it."""
    for device in ("cpu", "cuda"):
        assert TOLERANCE[device, "float32"] < TOLERANCE["cuda", "float16"] < TOLERANCE[device, "bfloat16"]


def test_a_step_off_the_stride_is_caught(made):
    """The proof must be able to fail: a plan whose geometry lies about the stride gives another result."""
    stack, model = made
    forward = Forward.load(model, stack, Predict(), settings().compute)
    crop = Crop(stack.image, Box.of(0, slice(0, 100), slice(0, 130)))
    whole = whole_pass(crop, forward)
    true = forward.card.geometry
    lying = Geometry(2, true.before, true.after + 2, true.lost)
    shifted = tiled_pass(crop, Plan((1, 100, 130), lying, (38, 38), (38, 38), 1), forward)
    assert difference(shifted, whole).largest_difference_std > 0.01


def test_a_split_that_stores_other_bytes_is_caught(made, monkeypatch):
    """One stored probability of each shard that is not in the first column is one step off."""
    stack, model = made
    real = crop_module.predict_shard

    def off_by_one(window, planned, shard, forward, dtype):
        values = real(window, planned, shard, forward, dtype)
        values.probabilities[0, -1, -1, -1] ^= shard.columns.start > 0
        return values

    monkeypatch.setattr(crop_module, "predict_shard", off_by_one)
    found = prove(model, stack, settings(), None)
    assert not found.seamless
    assert all(row.split_differences == 4 for row in found.rows), "two rows of shards, three columns"
    assert "NOT seamless" in describe(found)


def test_the_papers_step_changes_phase():
    assert paper_step(unpadded(4)) == 388


def test_the_papers_step_costs_labels_at_depth_3(tmp_path):
    stack = make_stack(tmp_path)
    model = make_model(tmp_path / "model", depth=3, base_channels=2)
    forward = Forward.load(model, stack, Predict(), settings().compute)
    crop = Crop(stack.image, Box.of(0, slice(0, 100), slice(0, 130)))
    assert paper_step(forward.card.geometry, 40) % forward.card.geometry.stride
    found = difference(paper_pass(crop, forward, 40), whole_pass(crop, forward))
    assert found.largest_difference_std > 0.01


def test_differences_are_counted():
    whole = np.zeros((2, 10, 10), np.float32)
    whole[0] = 1
    changed = whole.copy()
    changed[1, 0, :3] = 5
    found = difference(changed, whole)
    assert found.flipped_labels == 3
    assert found.flipped_per_mpx == 30000
    assert found.largest_difference_std == pytest.approx(10)


def test_a_plane_that_does_not_exist(made, tmp_path):
    with pytest.raises(PipelineError, match="0 to 1"):
        prove(made[1], made[0], settings(), None, plane=7)
    assert make_plan(made[0])
