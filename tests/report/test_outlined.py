"""Outlines over images: of the right objects, in the right place and colour."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_results import opened_run
from read_page import decoded

from unet_pipeline.records.score_records import Fault
from unet_pipeline.report.outlined import DRAWN, FOUND, MARK, MISSED, Marked, crop, crop_view, outlined, overview
from unet_pipeline.report.render import data_uri

RED, BLUE = (200, 0, 0), (0, 0, 200)


@given(arrays.arrays(np.uint8, (7, 8), elements=st.integers(0, 2)), st.integers(1, 3))
def test_outlines_are_the_pixels_near_another_object(ids, width):
    drawn = outlined(np.zeros((7, 8, 3), np.uint8), [(ids, RED, width)])
    expected = np.zeros(ids.shape, bool)
    for y, x in np.argwhere(ids > 0):
        column, row = ids[max(0, y - width) : y + width + 1, x], ids[y, max(0, x - width) : x + width + 1]
        expected[y, x] = (column != ids[y, x]).any() or (row != ids[y, x]).any()
    np.testing.assert_array_equal((drawn == RED).all(axis=-1), expected)


def test_later_outlines_lie_on_top():
    ids = np.zeros((9, 9), np.uint8)
    ids[2:7, 2:7] = 1
    drawn = outlined(np.zeros((9, 9, 3), np.uint8), [(ids, RED, 2), (ids, BLUE, 1)])
    assert tuple(drawn[2, 4]) == BLUE and tuple(drawn[3, 4]) == RED and tuple(drawn[4, 4]) == (0, 0, 0)


def marked(start, stop, size=(3, 300, 400)):
    metrics = SimpleNamespace(provenance=SimpleNamespace(config={"labels": {"kind": "classes"}}))
    grid = SimpleNamespace(shape=size)
    result = SimpleNamespace(
        stack=SimpleNamespace(grid=grid), metrics=metrics, stitch=SimpleNamespace(connect="volume")
    )
    return Marked(1, result, Fault("missed", 1, 0, 9, start, stop))


def test_a_crop_has_its_fault_in_the_middle_as_far_as_the_plane_goes():
    view = crop_view(marked((0, 100, 200), (3, 110, 240)))
    assert (view.plane, view.rows, view.columns) == (1, slice(55, 155), slice(170, 270))
    view = crop_view(marked((2, 0, 390), (3, 4, 400)))
    assert (view.plane, view.rows, view.columns) == (2, slice(0, 64), slice(336, 400))
    tiny = crop_view(marked((0, 3, 3), (1, 4, 4), (1, 20, 30)))
    assert tiny.rows == slice(0, 20) and tiny.columns == slice(0, 30)


def test_a_large_fault_is_seen_whole_from_afar():
    size = (1, 9000, 30_000)
    view = crop_view(marked((0, 1111, 2222), (1, 5111, 7222), size))
    assert view.shape == (9000, 12_500)
    step = 2**5  # of 512 px at most
    assert view.columns.start % step == 0 and view.columns.start <= 2222 and view.columns.stop >= 7222


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return opened_run(tmp_path_factory.mktemp("outlined"))


def colours(panel):
    rgb = decoded(data_uri(panel.png))
    return {tuple(map(int, one)) for one in np.unique(rgb.reshape(-1, 3), axis=0)}


def test_the_overview_shows_what_was_found_and_what_was_lost(run):
    result = run["unseen"]
    fault = next(one for one in result.metrics.faults.worst if one.kind == "missed")
    panel = overview(result, fault.start[0], 1024, [Marked(3, result, fault)])
    assert {FOUND, MISSED, MARK} <= colours(panel)
    rgb = decoded(data_uri(panel.png))
    assert rgb.shape[0] // 150 == rgb.shape[1] // 213 == 4
    (_, top, left), (_, bottom, right) = fault.start, fault.stop
    inside = rgb[4 * top : 4 * bottom, 4 * left : 4 * right].reshape(-1, 3)
    assert (inside == MISSED).all(axis=1).any(), "the missed object is outlined where it lies"
    assert MISSED not in colours(overview(run["new"], 0, 1024)), "nothing is drawn there"
    assert overview(run["train_a"], 0, 1024) is None
    small = decoded(data_uri(overview(result, 0, 100).png))
    assert max(small.shape[:2]) <= 110, "half of the size, and room for a scale bar"


@pytest.mark.parametrize("kind", ["missed", "joined"])
def test_a_crop_shows_both_and_what_is_wrong(run, kind):
    result = run["unseen"]
    fault = next(one for one in result.metrics.faults.worst if one.kind == kind)
    one = Marked(1, result, fault)
    view = crop_view(one)
    panel = crop(one, view, "words")
    assert {DRAWN, FOUND} <= colours(panel)
    assert panel.title == f"1 {kind}" and panel.words == "words"
    rgb = decoded(data_uri(panel.png)).astype(int)
    factor = rgb.shape[0] // view.shape[0]
    side = result.plan.labels("instances") if kind != "missed" else result.stack.reference("instances")
    wrong = side.read_label(view.plane, view.rows, view.columns) == fault.object
    tinted = rgb[factor // 2 :: factor, factor // 2 :: factor][: view.shape[0], : view.shape[1]]
    reddish = tinted[..., 0] > tinted[..., 1] + 20
    free = np.ones(view.shape, bool)
    free[-view.shape[0] // 4 :, -view.shape[1] // 2 :] = False  # where the scale bar lies
    assert reddish[wrong & free].mean() > 0.6, "but where outlines lie"
    assert not reddish[~wrong & free].any()


def test_the_plane_of_a_crop_shows_the_object(run):
    """The middle of its box need not."""
    result, found = run["unseen"], next(one for one in run["unseen"].metrics.faults.worst if one.kind == "missed")
    deep = replace(found, start=(0, *found.start[1:]), stop=(2, *found.stop[1:]))
    ids = [result.stack.reference("instances").read_label(plane, slice(0, 150), slice(0, 213)) for plane in (0, 1)]
    number = next(int(one) for one in np.unique(ids[0]) if one and one not in ids[1])
    places = np.argwhere(ids[0] == number)
    (top, left), (bottom, right) = places.min(0).tolist(), (places.max(0) + 1).tolist()
    alone = replace(deep, object=number, start=(0, top, left), stop=(2, bottom, right))
    assert crop_view(Marked(1, result, alone)).plane == 0 != (0 + 2) // 2
