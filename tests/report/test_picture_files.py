"""The pictures a page puts beside itself: which, of what, and that none of another page is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_history, make_ingested, make_model, make_predicted, settings, with_report
from PIL import Image

from unet_pipeline.errors import PipelineError
from unet_pipeline.images import pictures
from unet_pipeline.images.overlays import beside, cut_out, overlay
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.record import read_json
from unet_pipeline.report import picture_files
from unet_pipeline.report.panels import shown_normaliser
from unet_pipeline.report.picture_files import widened
from unet_pipeline.report.report import report
from unet_pipeline.report.views import View
from unet_pipeline.stacks.stack import Stack

NAMES = ("background", "nerve", "glia")
KINDS = ("overlay", "mask", "cutout", "panels")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three classes, two planes, some pixels not annotated; and a stack that is not predicted."""
    folder = tmp_path_factory.mktemp("pictures")
    labels = {"kind": "classes", "classes": list(NAMES), "values": dict(enumerate(NAMES)), "ignore": 9}
    config = settings(labels=labels)
    model = make_model(folder / "results" / "model", config, history=make_history(50, NAMES))
    predicted = make_predicted(make_ingested(folder, "c", (2, 70, 80), config, unknown=9), config)
    return model, [predicted, make_ingested(folder, "t", (1, 70, 80), config)], config


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_every_kind_shows_the_whole_plane(run, tmp_path):
    model, stacks, config = run
    report(model, stacks, with_report(config, planes=2, pictures=KINDS), tmp_path / "report.html")
    assert files(tmp_path / "pictures") == {f"c/plane-{plane}-{kind}.png" for plane in (0, 1) for kind in KINDS}
    stack, plan = Stack.open(stacks[0].with_name("ingest.json")), StackPlan.open(stacks[0].with_name("tiles.json"))
    every = slice(0, 70), slice(0, 80)
    for plane in (0, 1):
        image = pictures.as_grey(shown_normaliser(stack)(stack.image.read(plane, *every)))
        classes, ids = (plan.labels(name).read_label(plane, *every) for name in ("classes", "instances"))
        truth = stack.reference("classes").read_label(plane, *every)
        found = {kind: pixels(tmp_path / "pictures" / "c" / f"plane-{plane}-{kind}.png") for kind in KINDS}
        assert np.array_equal(found["mask"], classes)
        assert np.array_equal(found["overlay"], overlay(image, classes, ids))
        assert np.array_equal(found["cutout"], cut_out(image, classes))
        panels = [image, *(pictures.as_classes(one, 255) for one in (truth, classes))]
        assert np.array_equal(found["panels"], beside(panels))


@pytest.mark.slow
def test_curves_have_their_key(run, tmp_path):
    model, stacks, config = run
    report(model, stacks, with_report(config, pictures=("curves",)), tmp_path / "report.html")
    assert files(tmp_path / "pictures") == {"loss.png", "dice.png", "learning_rate.png"}
    plain = picture_files.loss_curve(picture_files.ModelResult.open(model).history, None)
    (tmp_path / "plain.png").write_bytes(plain)
    assert (pixels(tmp_path / "pictures" / "loss.png") != pixels(tmp_path / "plain.png")).any()


@pytest.mark.slow
def test_a_new_page_takes_the_pictures_of_the_old_one_away_and_nothing_else(run, tmp_path):
    model, stacks, config = run
    report(model, stacks, with_report(config, pictures=("mask", "curves")), tmp_path / "report.html")
    (tmp_path / "pictures" / "c" / "mine.png").write_bytes(b"")
    report(model, stacks, with_report(config, pictures=("cutout",)), tmp_path / "report.html")
    shown = files(tmp_path / "pictures") - {"c/mine.png"}
    assert len(shown) == 1
    assert shown.pop().endswith("cutout.png")
    (tmp_path / "pictures" / "c" / "mine.png").unlink()
    report(model, stacks, config, tmp_path / "report.html")
    assert not (tmp_path / "pictures").exists()


@pytest.mark.slow
def test_large_planes_are_cut_to_a_window(run, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "widened", lambda view, size: widened(view, size, 50))
    model, stacks, config = run
    report(model, stacks[:1], with_report(config, pictures=("mask",), panel_px=64), tmp_path / "report.html")
    (path,) = (tmp_path / "pictures" / "c").iterdir()
    assert pixels(path).shape == (50, 50)


@given(st.data())
def test_windows_lie_in_the_plane_and_hold_what_is_shown(data):
    size = data.draw(st.tuples(st.integers(1, 99), st.integers(1, 99)))
    parts = [sorted(data.draw(st.tuples(st.integers(0, edge), st.integers(0, edge)))) for edge in size]
    view, side = View(3, *(slice(*part) for part in parts)), data.draw(st.integers(1, 120))
    found = widened(view, size, side)
    assert found.shape == tuple(min(side, edge) for edge in size)
    for old, new, edge in zip((view.rows, view.columns), (found.rows, found.columns), size, strict=True):
        assert 0 <= new.start <= new.stop <= edge
        if old.stop - old.start <= side:
            assert new.start <= old.start <= old.stop <= new.stop


@pytest.mark.slow
def test_the_areas_of_the_record_are_those_of_the_mask(run, tmp_path):
    """The mask a user counts agrees with what stitch counted."""
    model, stacks, config = run
    report(model, stacks, with_report(config, planes=2, pictures=("mask",)), tmp_path / "report.html")
    masks = [pixels(tmp_path / "pictures" / "c" / f"plane-{plane}-mask.png") for plane in (0, 1)]
    counts = np.bincount(np.stack(masks).ravel(), minlength=3)
    assert [one["pixels"] for one in read_json(stacks[0])["classes"]] == counts.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "pictures/c"])
def test_nothing_is_removed_or_written_where_a_link_leads(run, tmp_path, name):
    model, stacks, config = run
    elsewhere = tmp_path / "elsewhere"
    for file in ("loss.png", "c/plane-0-mask.png", "plane-0-mask.png"):
        (elsewhere / file).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / file).write_text("mine")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(elsewhere)
    before = files(elsewhere)
    with pytest.raises(PipelineError, match=f"{name}: expected a folder of these results, got a symbolic link"):
        report(model, stacks, with_report(config, planes=1, pictures=("mask",)), tmp_path / "report.html")
    assert files(elsewhere) == before
    assert not (tmp_path / "report.html").exists()
