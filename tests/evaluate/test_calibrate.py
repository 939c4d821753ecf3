"""Calibration: what is chosen makes better objects, the same in memory as on disk, of planes that were not learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chain import draw, make_model, make_plan, make_stack, run, settings, validated
from scipy import ndimage

from unet_pipeline.config.object_settings import ObjectSettings, settled
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate import examples as module
from unet_pipeline.evaluate.calibrate import calibrate
from unet_pipeline.evaluate.examples import Example, chosen_planes, look, run_of_planes, unseen_planes
from unet_pipeline.evaluate.trials import Trials, search
from unet_pipeline.model.calibration import read_calibration
from unet_pipeline.model.card import read_card, write_card
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.stitch.stitch import stitch

STATED = ObjectSettings()


def truth(joined: float, grown: int = 0, planes: int = 2) -> list[Example]:
    """Cells and what a network might make of them: blurred, joined where they touch, too thin or too fat."""
    found = []
    for ids in draw(planes, (160, 180))[1]:
        mask = ndimage.binary_dilation(ids > 0, iterations=grown) if grown else ids > 0
        seams = (ndimage.maximum_filter(ids, 3) != ndimage.minimum_filter(ids, 3)) & (ids > 0)
        dark = joined * ndimage.gaussian_filter(seams.astype(float), 1)
        inside = np.clip(ndimage.gaussian_filter(mask.astype(float), 1.5) - dark, 0, 1)
        stored = np.rint(np.stack([1 - inside, inside]) * 255).astype(np.uint8)
        found.append(Example(stored, (ids > 0).astype(np.uint8), ids.astype(np.uint32)))
    return found


@pytest.mark.slow
def test_objects_that_touch_are_parted_where_the_stated_way_joins_them() -> None:
    examples = truth(joined=0.3)
    best, plain, tried = search(examples, "seg+ap50", STATED, 400.0)
    assert tried[0].settings == STATED and tried[0].score == plain.score
    assert best.score > max(trial.score for trial in tried) - 0.03, "smaller gains are left to what is simpler"
    assert best.score > plain.score + 0.1
    assert {trial.settings.method for trial in tried} == {"components", "watershed", "distance"}
    # what was chosen gives that score again
    assert Trials(examples, "seg+ap50")._scored(best.settings) == best.score


@pytest.mark.slow
def test_growing_follows_what_the_network_leaves() -> None:
    thin = []
    for one in truth(0.0, planes=1):
        inner = np.where(ndimage.distance_transform_edt(one.instances > 0) > 3, 230, 20).astype(np.uint8)
        thin.append(replace(one, probabilities=np.stack([255 - inner, inner])))
    best, _, _ = search(thin, "seg", STATED, 400.0)
    assert best.settings.grow_px >= 2


def test_equal_settings_keep_the_simple_one() -> None:
    ids = np.zeros((60, 60), np.uint32)
    ids[5:25, 5:25], ids[30:50, 30:50] = 1, 2
    exact = Example(
        np.where(ids > 0, [[[0]], [[255]]], [[[255]], [[0]]]).astype(np.uint8), (ids > 0).astype(np.uint8), ids
    )
    best, plain, _ = search([exact], "seg+ap50", replace(STATED, grow_px=0), 400.0)
    assert plain.score == 1.0
    assert best.settings == replace(STATED, grow_px=0)


def test_pixels_nobody_annotated_do_not_count() -> None:
    (one,) = truth(0.0, planes=1)
    half = one.classes.copy()
    half[:, 90:] = 255
    lying = one.instances.copy()
    lying[:, 90:] = np.arange(lying[:, 90:].size).reshape(160, -1) % 7
    scores = [
        Trials([replace(one, classes=half, instances=ids)], "seg+ap50")._scored(STATED)
        for ids in (one.instances, lying)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("score", ["mean_iou", "dice"])
def test_a_score_of_pixels_chooses_a_threshold_alone(score: str) -> None:
    examples = truth(0.0, grown=2)
    best, plain, tried = search(examples, score, STATED, 1.0)
    assert best.score > plain.score
    assert {replace(trial.settings, threshold=None) for trial in tried} == {STATED}


@pytest.mark.parametrize("method", ["components", "watershed", "distance"])
@pytest.mark.parametrize("threshold", [pytest.param(None, marks=pytest.mark.slow), 0.4])
def test_objects_in_memory_are_those_of_the_volume(
    ran: tuple[StackPlan, Path], method: str, threshold: float | None
) -> None:
    given = {
        "method": method,
        "threshold": threshold or "likeliest",
        "min_area_px": 12,
        "grow_px": 2,
        "neck": 0.8,
        "smooth_px": 1.5,
        "seed": 0.6,
    }
    config, (plan, _) = settings(stitch=given), ran
    regions = [plan.region_record(0), plan.region_record(1)]
    stitch(plan, regions, config, plan.record.with_name("stitch.json"))
    chosen, every = settled(config.stitch), (slice(0, 100), slice(0, 130))
    assert (chosen.method, chosen.threshold) == (method, threshold)
    probabilities, written = plan.probabilities(), plan.labels("instances")
    for plane in range(2):
        example = Example(
            probabilities.read(plane, *every), np.zeros((100, 130), np.uint8), np.zeros((100, 130), np.uint32)
        )
        (found,) = Trials([example], "seg")._objects(chosen)
        stored = written.read_label(plane, *every).astype(int)
        first = stored[stored > 0].min() - 1
        np.testing.assert_array_equal(found, np.where(stored > 0, stored - first, 0))


def test_what_is_looked_at_is_what_predict_stores(ran: tuple[StackPlan, Path]) -> None:
    plan, model = ran
    found = look(validated(model), read_card(model), [plan.stack], settings())
    assert [used.planes for used in found.used] == [(0, 1)]
    for plane, example in enumerate(found.each):
        stored = plan.probabilities().read(plane, slice(0, 100), slice(0, 130))
        assert np.abs(example.probabilities.astype(int) - stored).max() <= 1  # another shape of window
        np.testing.assert_array_equal(example.instances, draw()[1][plane])


def test_planes_of_a_volume_are_predicted_together_as_each_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of volumes reads many planes for one: those of a slab cost as much as one of them."""
    passes, real = [], Forward.__call__
    monkeypatch.setattr(Forward, "__call__", lambda self, windows: passes.append(1) or real(self, windows))
    grey, ids = draw(11, (30, 34))
    stack = make_stack(tmp_path, image=grey, labels=ids, axes="zyx")
    volumes = {"dimensions": 3, "z_levels": 2, "dropout": 0.0}
    model = validated(make_model(tmp_path / "model", depth=1, network=volumes))
    config = settings(calibrate={"mpx": 0.01}, stitch={"connect": "volume"})
    found = look(model, read_card(model), [stack], config)
    assert len(passes) == 1 and found.used[0].planes == tuple(range(1, 10)), "neighbours, in the middle"
    plan = make_plan(stack, settings(model={"depth": 1, "dimensions": 3, "z_levels": 2}), 1)
    run(plan, model, settings())
    (volume,) = found.each
    for place, plane in enumerate(found.used[0].planes):
        stored = plan.probabilities().read(plane, slice(0, 30), slice(0, 34))
        assert np.abs(volume.probabilities[:, place].astype(int) - stored).max() <= 1  # another shape of window
        np.testing.assert_array_equal(volume.instances[place], ids[plane])


def test_neighbours_are_looked_at_from_the_middle_of_the_longest_run() -> None:
    assert run_of_planes((0, 1, 4, 5, 6, 7, 9), 9) == (4, 5, 6, 7)
    assert run_of_planes((0, 1, 4, 5, 6, 7, 9), 2) == (5, 6)
    assert run_of_planes((3,), 5) == (3,)


def test_large_planes_are_looked_at_in_their_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CROP_PX", 64)
    model, stack = validated(make_model(tmp_path / "model")), make_stack(tmp_path)
    whole = look(model, read_card(model), [stack], settings(calibrate={"mpx": 0.01}))
    assert [used.planes for used in whole.used] == [(0, 1)] and whole.used[0].crop == (64, 64)
    np.testing.assert_array_equal(whole.each[0].instances, draw()[1][0][18:82, 33:97])


def test_planes_are_chosen_evenly_up_to_the_limit() -> None:
    places = [(0, plane) for plane in range(6)] + [(1, plane) for plane in range(4)]
    assert chosen_planes(places, [100] * 10, 1e9) == places
    assert chosen_planes(places, [100] * 10, 500) == places[::2]
    assert chosen_planes(places, [100] * 10, 1) == places[:1]


def test_planes_that_were_learned_are_never_looked_at(tmp_path: Path) -> None:
    stack, model = make_stack(tmp_path), make_model(tmp_path / "model")
    own = {"stack": "cells", "id": stack.ingested.id, "planes": [1]}
    for training, expected in (
        ({}, ()),
        ({"validation_stacks": ["cells"]}, (0, 1)),
        ({"validation_stacks": ["other"]}, ()),
        ({"held_out": [own]}, (1,)),
        ({"held_out": [own | {"id": "of another image"}]}, ()),
        ({"members": [{"held_out": [own]}, {"held_out": [own | {"planes": [0]}]}]}, (0, 1)),
    ):
        assert unseen_planes(replace(read_card(model), training=training), stack) == expected


@pytest.mark.slow
def test_the_record_says_what_was_tried_and_what_it_gained(tmp_path: Path) -> None:
    config, model = settings(), validated(make_model(tmp_path / "model"))
    image, ids = draw(2, (64, 80))
    stack = make_stack(tmp_path, image=image, labels=ids)
    record = calibrate(model, [stack.record], config, model / "calibrate.json")
    read = open_record(model / "calibrate.json", CalibrateRecord)
    assert json.dumps(read.chosen.__dict__) == json.dumps(record.chosen.__dict__)
    assert read.model == read_card(model).identity
    assert read.objects == sum(len(np.unique(plane)) - 1 for plane in ids)
    assert read.chosen_score >= read.stated_score == read.trials[0].score
    assert read.score == "seg+ap50"
    assert calibrate(model, [stack.record], config, model / "calibrate.json").trials == record.trials, "the same again"


@pytest.mark.slow
def test_without_a_plane_or_an_object_the_stated_defaults_stay_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, model = settings(), make_model(tmp_path / "model")
    record = calibrate(model, [make_stack(tmp_path).record], config, model / "calibrate.json")
    assert (record.chosen, record.chosen_score, record.planes, record.trials) == (STATED, None, (), ())
    assert open_record(model / "calibrate.json", CalibrateRecord) == record
    assert (
        "warning: objects are not calibrated, no plane of these stacks validated this model" in capsys.readouterr().err
    )
    stack = make_stack(tmp_path / "half", labels=in_one_plane())
    own = {"stack": "cells", "id": stack.ingested.id, "planes": [0]}
    write_card(model, replace(read_card(model), training={"held_out": [own]}))
    record = calibrate(model, [stack.record], config, model / "calibrate.json")
    assert (record.chosen, record.chosen_score, record.trials) == (STATED, None, ())
    assert [used.planes for used in record.planes] == [(0,)]
    assert "no object in planes cells [0], which the seed held out" in capsys.readouterr().err
    write_card(model, replace(read_card(model), training={"gap_px": 4}))
    chosen = calibrate(model, [stack.record], config, model / "calibrate.json").chosen
    assert chosen == replace(STATED, grow_px=4), "the gap of the training is given back"
    assert settled(settings(stitch={"method": "distance"}).stitch, None, chosen).grow_px == 4
    own["planes"] = [0, 1]
    write_card(model, replace(read_card(model), training={"held_out": [own]}))
    assert calibrate(model, [stack.record], config, model / "calibrate.json").objects == 1


def test_stacks_named_for_validation_must_have_objects(tmp_path: Path) -> None:
    config, model = settings(calibrate={"mpx": 0.02}), validated(make_model(tmp_path / "model"))
    stack = make_stack(tmp_path, labels=in_one_plane())
    with pytest.raises(PipelineError, match=r"planes cells \[0\]: expected objects to calibrate by, got none"):
        calibrate(model, [stack.record], config, model / "calibrate.json")
    assert not (model / "calibrate.json").exists()


def in_one_plane() -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Labels with an object in the second of two planes."""
    labels = np.zeros((2, 100, 130), np.uint16)
    labels[1, 40:60, 40:60] = 1
    return labels


def test_keys_by_hand_go_before_what_was_calibrated() -> None:
    chosen = ObjectSettings("distance", 0.7, 0.9, None, 0.5, 1.5, 200, False, 4)
    assert settled(settings().stitch, chosen) == chosen
    by_hand = {"threshold": 0.2, "seed": 0.6, "seed_min_area_px": 3, "neck": 0.9, "smooth_px": 3.0}
    by_hand |= {"min_area_px": 7, "fill_holes": True, "grow_px": 0}
    for name, value in by_hand.items():
        assert settled(settings(stitch={name: value}).stitch, chosen) == replace(chosen, **{name: value})
    assert settled(settings(stitch={"threshold": "likeliest"}).stitch, chosen) == replace(chosen, threshold=None)
    assert settled(settings(stitch={"method": "watershed"}).stitch, chosen) == replace(STATED, method="watershed")
    assert settled(settings(stitch={"connect": "volume"}).stitch, chosen) == replace(chosen, min_area_px=30)
    assert settled(settings(stitch={"connect": "volume"}).stitch, chosen, by_volume=True) == chosen
    assert settled(settings().stitch, chosen, by_volume=True) == replace(chosen, min_area_px=30)
    assert settled(settings().stitch) == STATED


@pytest.mark.slow
def test_stitch_takes_the_calibration_of_its_model_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, model = settings(), validated(make_model(tmp_path / "model"))
    plan = make_plan(make_stack(tmp_path, pixel_um=0.5))
    run(plan, model, config)
    regions = [plan.region_record(0), plan.region_record(1)]
    image, ids = draw(1, (64, 80))
    other = make_stack(tmp_path / "coarse", image=image, labels=ids, pixel_um=1.0)
    coarse = calibrate(model, [other.record], config, model / "calibrate.json")
    file, output, card = model / "calibrate.json", plan.record.with_name("stitch.json"), read_card(model)
    record = stitch(plan, regions, config, output, card, file)
    assert record.made == coarse.chosen and record.calibrated
    assert "its pixels are 0.5 times as wide as those the calibration looked at" in capsys.readouterr().err
    with pytest.raises(PipelineError, match="expected the calibration of this model, got that of another"):
        read_calibration(file, replace(card, training={}, weights_sha256="0" * 64))
