from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import euler_number, label

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.warping import Warping, simple_point, warp, warping

EIGHT = np.ones((3, 3), bool)


def is_simple(patch: np.ndarray) -> bool:
    """Bertrand and Malandain's definition on a 3 x 3 patch: T4 of the interior and T8 of the membrane are 1."""
    ring = patch.copy()
    ring[1, 1] = False
    interior, beside = ndimage.label(ring)[0], np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    around = ~patch
    around[1, 1] = False
    pieces = set(interior[beside & ring].tolist())
    return len(pieces) == 1 and ndimage.label(around, EIGHT)[1] == 1


def greedy(reference, probability, threshold) -> np.ndarray:
    """Algorithm 1 of Jain et al. read literally: look at all pixels before each flip."""
    source, target = np.pad(reference, 1), np.pad(probability > threshold, 1)
    distance = np.pad(np.abs(probability - threshold), 1)
    while True:
        choices = [
            (-distance[y, x], y, x)
            for y, x in np.argwhere(source != target)
            if is_simple(source[y - 1 : y + 2, x - 1 : x + 2])
        ]
        if not choices:
            return source[1:-1, 1:-1]
        _, y, x = min(choices)
        source[y, x] = target[y, x]


def topology(interior) -> tuple[int, int, int]:
    """Number of cells, of separate membranes (what lies beyond the image included), and the Euler number."""
    padded = np.pad(interior, 1)
    return label(padded, connectivity=1).max(), label(~padded, connectivity=2).max(), euler_number(padded, 1)


@st.composite
def planes(draw, side=9):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=side))
    smooth = draw(st.sampled_from([0.0, 0.7, 1.2]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), smooth) for _ in range(2)]
    levels = [(field - field.min()) / max(np.ptp(field), 1e-9) for field in fields]
    # Few levels make many equally far pixels, so that the order among them is tested too.
    return levels[0] > draw(st.sampled_from([0.3, 0.5, 0.7])), np.round(levels[1] * 10) / 10


@pytest.mark.parametrize("middle", [False, True])
def test_simple_points_are_those_of_the_definition_in_all_neighbourhoods(middle):
    for code in range(256):
        patch = np.insert(np.array([code >> bit & 1 for bit in range(8)], bool), 4, middle).reshape(3, 3)
        assert simple_point(patch.ravel(), 4, 3) == is_simple(patch), patch


@given(planes(), st.sampled_from([0.0, 0.3, 0.5]))
@settings(max_examples=60, deadline=None)
def test_warp_is_the_greedy_algorithm(plane, threshold):
    assert np.array_equal(warp(*plane, threshold), greedy(*plane, threshold))


@given(planes(side=24), st.sampled_from([0.2, 0.5, 0.8]))
@settings(deadline=None)
def test_warp_keeps_the_topology_and_moves_only_towards_the_result(plane, threshold):
    reference, probability = plane
    warped, result = warp(reference, probability, threshold), probability > threshold
    assert topology(warped) == topology(reference)
    assert not ((warped != result) & (reference == result)).any()
    assert np.array_equal(warp(warped, probability, threshold), warped)


@given(planes(side=12), st.sampled_from([0.2, 0.5, 0.8]))
@settings(deadline=None)
def test_splits_and_mergers_are_found_by_flipping_each_pixel_and_counting_cells(plane, threshold):
    reference, probability = plane
    warped = warp(reference, probability, threshold)
    before, splits, mergers = ndimage.label(warped)[1], 0, 0
    for y, x in np.argwhere(warped != (probability > threshold)):
        flipped = warped.copy()
        flipped[y, x] ^= True
        after = ndimage.label(flipped)[1]
        splits += warped[y, x] and after > before
        mergers += not warped[y, x] and after < before
    mismatches = int((warped != (probability > threshold)).sum())
    assert warping(reference, probability, threshold) == Warping(mismatches, splits, mergers)


def two_cells(rows=8) -> np.ndarray:
    reference = np.ones((rows, 9), bool)
    reference[:, 4] = False
    return reference


@pytest.mark.parametrize(("width", "shift"), [(1, 1), (1, -1), (3, 2), (3, 3)])
def test_a_membrane_that_moved_no_further_than_its_width_is_no_error(width, shift):
    column = np.arange(20)
    reference = np.tile(abs(column - 9) > width // 2, (8, 1))
    assert warping(reference, np.roll(reference, shift, axis=1), 0.5) == Warping(0, 0, 0)


def test_a_membrane_that_moved_further_cannot_be_reached_because_only_differing_pixels_flip():
    reference = two_cells()
    found = warping(reference, np.roll(reference, 2, axis=1), 0.5)
    assert (found.splits, found.mergers) == (1, 8)


def test_a_gap_in_a_membrane_is_a_merger_of_as_many_pixels_as_the_gap():
    reference, result = two_cells(), two_cells()
    result[2:5, 4] = True
    assert warping(reference, result.astype(np.float32), 0.5) == Warping(3, splits=0, mergers=3)
    assert warping(reference, np.ones((8, 9)), 0.5) == Warping(8, splits=0, mergers=8)


def test_a_cut_through_a_cell_is_a_split_of_one_pixel_however_wide_the_cell():
    for rows in (1, 3, 8):
        assert warping(np.ones((rows, 9), bool), two_cells(rows), 0.5) == Warping(1, splits=1, mergers=0)


def test_holes_and_lost_or_added_cells_are_mismatches_but_neither_splits_nor_mergers():
    cell, hole = np.ones((7, 7), bool), np.ones((7, 7), bool)
    hole[3, 3] = False
    assert warping(cell, hole, 0.5) == Warping(1, 0, 0)
    assert warping(hole, cell, 0.5) == Warping(1, 0, 0)
    assert warping(~hole, ~cell, 0.5) == Warping(1, 0, 0)
    assert warping(~cell, ~hole, 0.5) == Warping(1, 0, 0)
    empty, blob = np.zeros((7, 7), bool), np.zeros((7, 7), bool)
    blob[2:4, 2:4] = True
    assert warping(empty, blob, 0.5) == Warping(4, 0, 0)
    assert warping(blob, empty, 0.5) == Warping(1, 0, 0)  # shrinks to one pixel, which may not vanish


def test_cells_that_touch_at_a_corner_are_two():
    corner = np.eye(2, dtype=bool)
    assert warping(corner, np.ones((2, 2)), 0.5).mergers > 0


def test_shapes_must_agree():
    with pytest.raises(PipelineError, match="shape"):
        warp(np.ones((2, 3), bool), np.ones((3, 2)), 0.5)
