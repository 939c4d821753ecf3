"""Calibration where objects are joined through the planes: of volumes, of times, and where that cannot be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chain import draw, make_model, make_plan, make_stack, run, settings, validated

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.evaluate import examples as module
from unet_pipeline.evaluate import trials
from unet_pipeline.evaluate.calibrate import calibrate
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.evaluate.examples import Example, look
from unet_pipeline.evaluate.trials import Trials, radius_of, search
from unet_pipeline.model.card import read_card
from unet_pipeline.stitch.stitch import stitch

STATED = ObjectSettings()


def balls(step_px: float) -> Example:
    """Three balls, two of which touch: (24, 40, 70) voxels, planes `step_px` px apart."""
    z, y, x = np.mgrid[:24, :40, :70].astype(float)
    ids = np.zeros(z.shape, np.uint32)
    for number, (row, column) in enumerate(((20, 14), (20, 31), (20, 57)), start=1):
        inside = np.hypot(np.hypot((z - 12) * step_px, y - row), x - column) < 9.5
        ids[inside & (ids == 0)] = number
    stored = np.where(ids > 0, 255, 0).astype(np.uint8)
    return Example(np.stack([255 - stored, stored]), (ids > 0).astype(np.uint8), ids, step_px)


@pytest.mark.parametrize("step_px", [1.0, 3.0])
def test_objects_of_a_volume_are_parted_through_its_planes(step_px: float) -> None:
    one = balls(step_px)
    ways = [replace(STATED, method=method, grow_px=0) for method in ("components", "distance")]
    joined, parted = (Trials([one], "seg")._scored(way) for way in ways)
    assert joined < 0.7 < 0.9 < parted
    assert abs(radius_of(float((one.instances == 3).sum()), step_px) - 9.5) < 0.5


def test_objects_through_times_are_averaged_over_what_they_are_in_a_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are infinitely far apart: the radius of a ball of them is no number."""
    for name, fewer in (("THRESHOLDS", (None,)), ("NECKS", (0.7,)), ("ALL_NECKS", (0.9,)), ("GROWN_PX", (0,))):
        monkeypatch.setattr(trials, name, fewer)
    one = replace(balls(1.0), step_px=math.inf)
    best, _, tried = search([one], "seg", STATED, float((one.instances == 3).sum()))
    assert {trial.settings.smooth_px for trial in tried} == {0, 0.8, 1.6}, "shares of the median disc of a ball"
    assert best.settings.method == "distance" and best.score > 0.9


def test_a_network_of_volumes_without_neighbours_predicts_no_large_slab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each single plane it makes all planes around, too."""
    monkeypatch.setattr(module, "VOLUME_PX", 16)
    grey, ids = draw(3, (30, 34))
    stack = make_stack(tmp_path, image=grey, labels=ids, axes="zyx")
    model = validated(make_model(tmp_path / "model", depth=1, network={"dimensions": 3, "z_levels": 2, "dropout": 0.0}))
    assert look(model, read_card(model), [stack], settings()).used[0].crop == (16, 16)


def test_pieces_through_planes_are_said_to_tell_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey, ids = draw(4, (30, 34))
    config = settings(labels={"kind": "pieces"}, stitch={"connect": "volume"})
    stack = make_stack(tmp_path, image=grey, labels=ids, axes="zyx", config=config)
    model = validated(make_model(tmp_path / "model", depth=1))
    look(model, read_card(model), [stack], config)
    said = capsys.readouterr()
    assert "WARNING stack cells: with labels.kind: pieces" in said.out + said.err


@pytest.mark.slow
def test_a_volume_is_calibrated_as_it_is_stitched_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of class labels, whose pieces are joined through the planes here and there."""
    for name, fewer in (("THRESHOLDS", (None, 0.4)), ("NECKS", (0.7,)), ("ALL_NECKS", (0.9,)), ("GROWN_PX", (0, 1))):
        monkeypatch.setattr(trials, name, fewer)
    labels = (balls(1.0).instances > 0).astype(np.uint8)
    config = settings(
        model={"depth": 1, "dimensions": 3, "z_levels": 2}, stitch={"connect": "volume"},
        calibrate={"mpx": 1.0, "score": "seg"}, labels={"kind": "classes", "values": {0: "background", 1: "cell"}},
    )  # fmt: skip
    stack = make_stack(tmp_path, image=40 + 160 * labels, labels=labels, axes="zyx", config=config)
    network = {"dimensions": 3, "z_levels": 2, "dropout": 0.0}
    model = validated(make_model(tmp_path / "model", depth=1, network=network))
    plan = make_plan(stack, config, 1)
    run(plan, model, config)
    found = calibrate(model, [stack.record], config, model / "calibrate.json")
    card, output = read_card(model), plan.record.with_name("stitch.json")
    made = stitch(plan, [plan.region_record(0)], config, output, card, model / "calibrate.json")
    assert made.made == found.chosen, "its least area too, which counts voxels"
    assert found.in_volume and found.objects == 2, "of the whole volume"
    assert evaluate(output, config, output.with_name("metrics.json")).instances.seg == found.chosen_score


def test_stacks_without_neighbours_are_left_out_where_others_have_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was looked at says whether areas count voxels: planes chosen evenly may not look like a run."""
    grey, ids = draw(5, (30, 34))
    volume = make_stack(tmp_path / "volume", image=grey, labels=ids, axes="zyx")
    few = make_stack(tmp_path / "few", image=grey[:2], labels=ids[:2], axes="zyx", stack="few")
    card = replace(read_card(make_model(tmp_path / "model", depth=1)), training={"validation_stacks": ["cells", "few"]})
    places = module._runs([volume, few], card, 1e6)
    assert places == [(0, plane) for plane in range(5)]
    assert "stack few: fewer than 4 neighbouring planes validated" in capsys.readouterr().err
    assert module._runs([few], card, 1e6) == []
    assert "objects are calibrated by planes" in capsys.readouterr().err
