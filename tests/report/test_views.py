import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from unet_pipeline.config.sections import IGNORE, Store
from unet_pipeline.images import ngff
from unet_pipeline.report import views

shapes = array_shapes(min_dims=2, max_dims=2, max_side=12)


def brute_densest(seen, window):
    height, width = (min(window, size) for size in seen.shape)
    places = [(y, x) for y in range(seen.shape[0] - height + 1) for x in range(seen.shape[1] - width + 1)]
    sums = {place: int(seen[place[0] : place[0] + height, place[1] : place[1] + width].sum()) for place in places}
    best = max(sums.values())
    return best, next(place for place in places if sums[place] == best)


@given(arrays(bool, shapes), st.integers(1, 14))
def test_the_window_with_most_is_found(seen, window):
    best, (y, x) = brute_densest(seen, window)
    found = views._densest(seen, window)
    if best:
        assert found == (best, y, x)
    else:
        height, width = (min(window, size) for size in seen.shape)
        assert found == (0, (seen.shape[0] - height) // 2, (seen.shape[1] - width) // 2)


@given(arrays(np.uint8, shapes, elements=st.integers(0, 3)))
def test_borders(ids):
    expected = np.zeros(ids.shape, bool)
    for y in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            below, right = (y + 1, x), (y, x + 1)
            expected[y, x] = any(
                place[0] < ids.shape[0] and place[1] < ids.shape[1] and ids[place] != ids[y, x]
                for place in (below, right)
            )
    np.testing.assert_array_equal(views.borders(ids), expected)


def test_interest_is_borders_and_differences_where_annotated():
    found = np.array([[0, 0, 1, 1, 1, 1]])
    reference = np.array([[0, 0, 0, 0, 2, 2]])
    np.testing.assert_array_equal(views.interest(found, None, None), [[0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(views.interest(found, reference, None), [[0, 1, 1, 1, 0, 0]])
    classes = np.array([[0, IGNORE, 0, 0, 1, 1]])
    np.testing.assert_array_equal(views.interest(found, reference, classes), [[0, 0, 1, 1, 0, 0]])


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 900), st.integers(1, 900), st.integers(1, 500))
def test_views_lie_in_the_stack(planes, wanted, height, width, window):
    factor = 4
    coarse = -(-height // factor), -(-width // factor)
    looked = []

    def interesting(plane):
        looked.append(plane)
        return np.random.default_rng(plane).random(coarse) < 0.2

    found = views.choose_views((planes, height, width), wanted, window, factor, interesting)
    assert len(found) == min(planes, wanted)
    assert [view.plane for view in found] == sorted({view.plane for view in found})
    assert len(looked) == len(set(looked)) <= views.CANDIDATES * wanted
    for view in found:
        assert 0 <= view.plane < planes
        assert view.shape == (min(window, height), min(window, width))
        assert 0 <= view.rows.start <= view.rows.stop <= height
        assert 0 <= view.columns.start <= view.columns.stop <= width


def test_the_plane_and_the_place_with_most_are_taken():
    def interesting(plane):
        seen = np.zeros((50, 60), bool)
        seen[5, 5] = True
        if plane == 6:
            seen[30:35, 40:45] = True
        return seen

    (view,) = views.choose_views((8, 200, 240), 1, 40, 4, interesting)
    assert view.plane == 6
    assert view.rows.start <= 120 < 140 <= view.rows.stop
    assert view.columns.start <= 160 < 180 <= view.columns.stop


def test_alike_planes_show_the_middle_one():
    (view,) = views.choose_views((7, 10, 10), 1, 5, 1, lambda plane: np.zeros((10, 10), bool))
    assert (view.plane, view.rows, view.columns) == (3, slice(2, 7), slice(2, 7))


@pytest.mark.parametrize(
    ("size", "chunk", "side", "factor"), [(900, 512, 900, 1), (3000, 512, 750, 4), (3000, 2048, 1500, 2)]
)
def test_a_coarse_level_is_read(tmp_path, size, chunk, side, factor):
    grid = ngff.Grid(1, 64, size)
    path = tmp_path / "a.ome.zarr"
    ngff.create_image(path, "a", grid, 1, np.uint8, Store(chunk_px=chunk, shard_px=2 * chunk), {"instances": np.uint32})
    for name in ("", "labels/instances"):
        level = views.coarse_level(path, name)
        assert (level.array.shape[3], level.factor) == (side, factor)
    assert level.read(0).shape == (1, -(-64 // factor), side)
    assert zarr.open_group(path, mode="r")
