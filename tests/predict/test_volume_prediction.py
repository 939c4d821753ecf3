"""Prediction of volumes: tiles, shards and regions of several planes, as exact as those of one."""

from importlib import import_module

import numpy as np
import pytest
from chain import make_model, make_plan, make_stack, run, settings, volume

from unet_pipeline.audit.prove import difference, prove, tiled_pass, whole_pass
from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.crop import Crop, plan_crop, predict_crop
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import AlongZ, Plan
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import describe, tile
from unet_pipeline.predict.tile_size import MODEST_BYTES, activation_bytes, automatic_volume

VOLUME = {"depth": 1, "dimensions": 3, "z_levels": 2, "dropout": 0.0}
NETWORKS = {
    "unpadded": VOLUME,
    "z in the lowest level": VOLUME | {"z_levels": 1},
    "padded": VOLUME | {"padded": True, "batch_norm": True},
    "half": VOLUME | {"stem": "half", "padded": True, "residual": True},
}


def grey(planes, shape=(40, 50), seed=0):
    return np.random.default_rng(seed).integers(0, 200, (planes, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    stack = make_stack(folder, labelled=False, image=grey(21), axes="zyx")
    return stack, {name: make_model(folder / name, depth=1, network=keys) for name, keys in NETWORKS.items()}


def config_of(**tile):
    return settings(model={"depth": 1, "dimensions": 3, "z_levels": 2}, tile={"tile_px": 16, **tile})


def predicted(stack, model, config, regions):
    output = stack.record.with_name("tiles.json")
    planned = make_plan(stack, config, regions)
    for region in range(regions):
        predict(planned, region, model, config, output.parent / "regions" / f"{region}.json")
    return planned


def test_regions_and_shards_store_the_same_bytes_as_one_whole_pass(made):
    stack, models = made
    stored = []
    for regions, shard_px in ((1, 64), (3, 32)):
        config = settings(
            model={"depth": 1, "dimensions": 3, "z_levels": 2}, tile={"tile_px": 16, "tile_planes": 8},
            store={"chunk_px": 32, "shard_px": shard_px},
        )  # fmt: skip
        planned = predicted(stack, models["unpadded"], config, regions)
        assert planned.plan.shards == (22, *[min(shard_px, 64)] * 2)
        assert planned.probabilities().shard_planes == 22
        stored.append(volume(planned.probabilities()))
    np.testing.assert_array_equal(*stored)
    forward = Forward.load(models["unpadded"], stack, Predict(), config.compute)
    logits = whole_pass(stack.image, forward)
    expected = 255 * np.exp(logits) / np.exp(logits).sum(axis=0)
    assert np.abs(stored[0].swapaxes(0, 1) - expected).max() < 0.501
    assert 0.02 < (stored[0][:, 1] > 127).mean() < 0.98, "a network that says one class proves nothing"


def test_a_stack_of_several_shards_along_z(made, monkeypatch):
    """Shards of 8 planes are files of their own; what one region wrote, another leaves alone."""
    stack, models = made
    config = config_of(tile_planes=4)
    whole = volume(predicted(stack, models["unpadded"], config, 1).probabilities())
    monkeypatch.setattr(import_module("unet_pipeline.predict.tile"), "SHARD_PLANES", 8)
    planned = predicted(stack, models["unpadded"], config, 2)
    assert planned.plan.shard_grid == (3, 1, 1)
    assert len(list((planned.store / "0" / "c").rglob("[0-9]"))) > 3
    np.testing.assert_array_equal(volume(planned.probabilities()), whole)


@pytest.mark.parametrize("name", [
    "unpadded", "z in the lowest level", *(pytest.param(name, marks=pytest.mark.slow) for name in ("padded", "half")),
])  # fmt: skip
def test_every_tiling_equals_one_whole_pass(made, name):
    stack, models = made
    found = prove(models[name], stack, settings(), None, plane=0, crop_px=14)
    assert found.seamless
    assert found.crop == (14, 14, 14)
    assert all(row.largest_difference_std < 1e-4 and row.flipped_labels == 0 for row in found.rows)
    assert all(row.splits == 1 for row in found.rows)


def test_a_step_off_the_stride_along_z_is_caught(made):
    stack, models = made
    forward = Forward.load(models["unpadded"], stack, Predict(), settings().compute)
    crop = Crop(stack.image, Box(slice(0, 21), slice(0, 32), slice(0, 32)))
    true = forward.card.geometry
    lying = AlongZ(Geometry(1, true.before, true.after + 1, true.lost), 5, 25)
    shifted = tiled_pass(crop, Plan((21, 32, 32), true, (32, 32), (32, 32), 1, lying), forward)
    assert difference(shifted, whole_pass(crop, forward)).largest_difference_std > 0.01


def test_some_planes_of_a_crop_are_those_of_all(made):
    stack, models = made
    forward = Forward.load(models["padded"], stack, Predict(), settings().compute)
    crop = Crop(stack.image, Box(slice(0, 21), slice(3, 35), slice(0, 50)))
    planned = plan_crop(crop, forward.card.architecture)
    whole = predict_crop(crop, planned, forward, np.dtype(np.uint8))
    some = predict_crop(crop, planned, forward, np.dtype(np.uint8), slice(7, 9))
    np.testing.assert_array_equal(some, whole[:, 7:9])


def test_a_stack_thinner_than_the_margin_is_mirrored_and_that_is_said(tmp_path):
    stack = make_stack(tmp_path, labelled=False, image=grey(2), axes="zyx")
    config, output = config_of(), tmp_path / "results" / "cells" / "tiles.json"
    assert "of 2 there are; the rest is mirrored" in tile(stack, config, 1, output)
    model = make_model(tmp_path / "model", depth=1, network=VOLUME)
    forward = Forward.load(model, stack, Predict(), config.compute)
    planned = predicted(stack, model, config, 1)
    logits = whole_pass(stack.image, forward)
    expected = 255 * np.exp(logits) / np.exp(logits).sum(axis=0)
    assert np.abs(volume(planned.probabilities()).swapaxes(0, 1) - expected).max() < 0.501
    assert "along z stride 2" in describe(stack, planned.plan, config)


@pytest.mark.parametrize(("axes", "planes", "message"), [
    ("tyx", 3, "a time series"), ("zyx", 1, "one plane"),
])  # fmt: skip
def test_what_is_no_volume_is_refused(tmp_path, axes, planes, message):
    image = grey(planes) if planes > 1 else grey(1)[0]
    stack = make_stack(tmp_path, labelled=False, image=image, axes=axes[-image.ndim :])
    with pytest.raises(PipelineError, match=message):
        tile(stack, config_of(), 1, tmp_path / "tiles.json")


def test_a_model_of_planes_does_not_fill_a_plan_of_volumes(made, tmp_path):
    stack, models = made
    flat, deep = make_model(tmp_path / "flat", depth=1), models["unpadded"]
    for plan_keys, model in (({"depth": 1, "dimensions": 3, "z_levels": 2}, flat), ({"depth": 1}, deep)):
        config = settings(model=plan_keys)
        planned = make_plan(stack, config, 1)
        with pytest.raises(PipelineError, match="geometry along z"):
            predict(planned, 0, model, config, tmp_path / "0.json")


def test_automatic_tiles_keep_much_of_what_they_read_and_fit_the_memory(made):
    network = Forward.load(made[1]["unpadded"], made[0], Predict(), settings().compute).card.architecture
    planes, px = automatic_volume(network, "auto", "auto", 4096)
    assert activation_bytes(network, (planes + 16, px + 16, px + 16)) <= MODEST_BYTES
    assert planes * px**2 > 0.5 * (planes + 16) * (px + 16) ** 2
    assert automatic_volume(network, 32, "auto", 5)[0] == 6, "no more planes than cover the stack"
    assert automatic_volume(network, 32, 4, 4096) == (4, 32)


def test_shards_of_several_planes_are_written_whole(made):
    planned = make_plan(made[0], config_of(), 1)
    array = planned.probabilities(writable=True)
    with pytest.raises(PipelineError, match="a whole shard"):
        array.write(0, slice(0, 40), slice(0, 50), np.zeros((2, 40, 50), np.uint8))
    box = Box(slice(0, 21), slice(0, 40), slice(0, 50))
    assert [one.shape for one in array.shards()] == [(21, 40, 50)]
    values = np.random.default_rng(1).integers(0, 9, (2, 21, 40, 50), dtype=np.uint8)
    array.write_box(box, values)
    np.testing.assert_array_equal(volume(array), values.swapaxes(0, 1))
    assert array.shard_file(20, 0, 0) == array.shard_file(0, 0, 0)


def test_out_of_fold_each_plane_of_a_shard_comes_from_the_member_that_has_not_seen_it(made, tmp_path, monkeypatch):
    stack, models = made
    forward = Forward.load(models["unpadded"], stack, Predict(), settings().compute)
    other = make_model(tmp_path / "other", depth=1, seed=5, network=VOLUME)
    second = Forward.load(other, stack, Predict(), settings().compute)
    monkeypatch.setattr(Forward, "without", lambda self, stack, plane: second if 5 <= plane < 9 else forward)
    output = stack.record.with_name("tiles.json")
    tile(stack, config_of(), 1, output, out_of_fold=True)
    planned = StackPlan.open(output)
    predict(planned, 0, models["unpadded"], config_of(), tmp_path / "0.json", forward)
    found = volume(planned.probabilities())
    for plane in (4, 5, 8, 9):
        crop = Crop(stack.image, Box(slice(0, 21), slice(0, 40), slice(0, 50)))
        member = second if 5 <= plane < 9 else forward
        expected = predict_crop(crop, planned.plan, member, np.dtype(np.uint8), slice(plane, plane + 1))[:, 0]
        np.testing.assert_array_equal(found[plane], expected)


@pytest.mark.parametrize("connect", ["planes", "volume"])
def test_objects_of_planes_alone_are_said_aloud(made, capsys, connect):
    stack, models = made
    config = settings(model={"depth": 1, "dimensions": 3, "z_levels": 2}, stitch={"connect": connect})
    run(make_plan(stack, config, 1), models["unpadded"], config)
    assert ("set stitch.connect: volume" in capsys.readouterr().err) == (connect == "planes")
