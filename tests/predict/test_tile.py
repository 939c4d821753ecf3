import json

import numpy as np
import pytest
import zarr
from chain import make_plan, make_stack, settings

from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"))


def test_the_record_gives_the_plan_back(stack):
    planned = make_plan(stack)
    again = StackPlan.open(stack.record.with_name("tiles.json"))
    assert again.plan == planned.plan
    assert again.plan.geometry == unpadded(2)
    assert again.plan.shard_grid == (2, 2, 3)
    assert again.probabilities().shape == (2, 2, 100, 130)
    assert again.labels("instances").dtype == np.uint32


def test_repeating_keeps_the_store_and_another_plan_replaces_it(stack):
    planned = make_plan(stack)
    values = np.ones((2, 64, 64), np.uint8)
    planned.probabilities(writable=True).write(0, slice(0, 64), slice(0, 64), values)
    make_plan(stack)
    assert planned.probabilities().read(0, slice(0, 64), slice(0, 64)).all()
    replaced = make_plan(stack, settings(tile={"tile_px": 16}))
    assert not replaced.probabilities().read(0, slice(0, 64), slice(0, 64)).any()


def test_a_dry_run_writes_nothing(stack, tmp_path):
    text = tile(stack, settings(), 2, tmp_path / "none" / "tiles.json", dry_run=True)
    assert "40, each keeps 32 x 32 px of 72 x 72 px read" in text
    assert "shards     12 of 64 x 64 px or less, in 2 region(s)" in text
    assert not (tmp_path / "none").exists()


def card(depth=4, channels=1, classes=("background", "cell")):
    return ModelCard(Architecture("unet", depth, 4, channels, len(classes)), classes)


def test_a_tile_the_network_cannot_take_names_the_nearest(stack, tmp_path):
    config = settings(tile={"tile_px": 28}, model={"folder": "elsewhere"})
    with pytest.raises(PipelineError, match="nearest legal value: 32"):
        tile(stack, config, 1, tmp_path / "t.json", card())


@pytest.mark.parametrize(
    ("model", "message"),
    [(card(channels=3), "3 channels"), (card(classes=("background", "cell", "dirt")), "dirt")],
)
def test_a_model_for_other_images_is_refused_before_any_job(stack, tmp_path, model, message):
    with pytest.raises(PipelineError, match=message):
        tile(stack, settings(), 1, tmp_path / "t.json", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["delete", "truncate", "foreign"])
def test_a_spoilt_record_is_named(stack, change):
    record = make_plan(stack).record
    if change == "delete":
        record.unlink()
    elif change == "truncate":
        record.write_text(record.read_text()[:100])
    else:
        record.write_text(json.dumps({"stack": "cells"}))
    with pytest.raises(PipelineError, match=r"tiles\.json"):
        StackPlan.open(record)


def test_the_store_names_its_plan(stack):
    planned = make_plan(stack)
    assert zarr.open_group(planned.store, mode="r").attrs["unet_pipeline"] == {"record": planned.digest}
    ngff.mark(planned.store, "another plan")
    with pytest.raises(PipelineError, match=r"--forcerun .*tiles\.json"):
        planned.probabilities()


def test_damaged_metadata_are_mended_and_shards_kept(stack):
    planned = make_plan(stack)
    values = np.ones((2, 64, 64), np.uint8)
    planned.probabilities(writable=True).write(0, slice(0, 64), slice(0, 64), values)
    files = {path: path.read_bytes() for path in planned.store.rglob("zarr.json")}
    assert len(files) > 6
    for path, content in files.items():
        path.write_bytes(content.replace(b"{", b"[", 1))
    next(iter(files)).unlink()
    make_plan(stack)
    assert {path: path.read_bytes() for path in files} == files
    assert planned.probabilities().read(0, slice(0, 64), slice(0, 64)).all()


def test_what_mends_the_metadata_of_an_array_is_the_plan_not_a_region(stack):
    planned = make_plan(stack)
    for name, opened in (("0", planned.probabilities), ("labels/classes/0", lambda: planned.labels("classes"))):
        place = planned.store / name / "zarr.json"
        place.write_bytes(place.read_bytes()[:-9])
        with pytest.raises(PipelineError) as refusal:
            opened()
        assert "tiles.json" in refusal.value.fix
        assert "regions" not in refusal.value.fix
