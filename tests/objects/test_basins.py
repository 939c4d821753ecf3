"""Pieces divided at their necks, against the definition by floods at every depth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy import ndimage

from unet_pipeline.objects.basins import DEEPEST, REACH_PX, STEPS_A_PX, basin_heights, basins
from unet_pipeline.objects.flood import OUTSIDE


def divided(pieces: np.ndarray, neck: float) -> np.ndarray:
    """The basins of all pixels of pieces, as if they were one, (y, x)."""
    heights = np.where(pieces > 0, basin_heights(pieces), OUTSIDE).astype(np.uint16)[None].copy()
    labels = np.zeros(heights.shape, np.uint32)
    count = basins(heights, labels, np.full(labels.size, -7, np.int64), neck)
    assert count == labels.max()
    assert ((labels[0] > 0) == (pieces > 0)).all()
    return labels[0]


def discs(*centres: tuple[int, int, float], shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    y, x = np.indices(shape)
    return np.any([(y - a) ** 2 + (x - b) ** 2 < radius**2 for a, b, radius in centres], axis=0).astype(np.uint32)


def kept(depth: np.ndarray, neck: float) -> int:
    """How many basins are left, by definition: where two meet and it is no neck, the deeper takes the other."""
    labels, count = np.zeros(depth.shape, int), 0
    parent: dict[int, int] = {}
    deepest: dict[int, int] = {}

    def root(one: int) -> int:
        while parent[one] != one:
            one = parent[one]
        return one

    order = sorted(zip(*np.nonzero(depth), strict=True), key=lambda place: (-depth[place], place))
    for y, x in order:
        beside = {
            root(labels[a, b])
            for a, b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= a < depth.shape[0] and 0 <= b < depth.shape[1] and labels[a, b]
        }
        if not beside:
            count += 1
            parent[count], deepest[count] = count, int(depth[y, x])
            labels[y, x] = count
            continue
        found = sorted(beside, key=lambda one: (-deepest[one], one))
        for shallow in found[::-1]:
            here = int(depth[y, x])
            others = [one for one in map(root, found) if (-deepest[one], one) < (-deepest[shallow], shallow)]
            if others and (here >= neck * deepest[shallow] or deepest[shallow] - here < STEPS_A_PX):
                parent[shallow] = min(others, key=lambda one: (-deepest[one], one))
        labels[y, x] = min({root(one) for one in found}, key=lambda one: (-deepest[one], one))
    return len({root(one) for one in parent})


@trials(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1.0, 5.0), st.sampled_from([0.5, 0.7, 0.9]))
def test_as_many_basins_as_by_definition(seed: int, wide: float, neck: float) -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), wide)
    pieces = (field > 0).astype(np.uint32)
    depth = np.where(pieces > 0, DEEPEST - basin_heights(pieces).astype(int), 0)
    assert divided(pieces, neck).max() == kept(depth, neck)


@trials(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_heights_are_distances_to_what_lies_beside(seed: int, ids: int) -> None:
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.normal(size=(60, 70)), 3)
    pieces = np.where(field > 0, 1 + np.arange(70) * ids // 70, 0).astype(np.uint32)
    inside = pieces > 0
    for axis in (0, 1):  # pixels beside another piece count as beside
        for step in (-1, 1):
            moved = np.roll(pieces, step, axis)
            edge = [slice(None)] * 2
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            moved[tuple(edge)] = 0
            inside &= ~((moved != pieces) & (moved > 0))
    expected = np.minimum(ndimage.distance_transform_edt(inside), REACH_PX) if not inside.all() else REACH_PX
    found = (DEEPEST - basin_heights(pieces).astype(float)) / STEPS_A_PX
    assert np.abs(found - expected)[pieces > 0].max(initial=0) <= 0.5 / STEPS_A_PX + 1e-9


def test_two_discs_part_at_a_narrow_neck_and_not_at_a_wide_one() -> None:
    narrow, wide = discs((32, 30, 16), (32, 58, 16)), discs((32, 36, 16), (32, 50, 16))
    assert divided(narrow, 0.7).max() == 2
    assert divided(narrow, 0.4).max() == 1
    assert divided(wide, 0.7).max() == 1
    left, right = divided(narrow, 0.7)[32, [30, 58]]
    assert left != right


def test_one_share_serves_small_and_large_objects() -> None:
    for scale in (1, 2, 4):
        size = (32 * scale, 64 * scale)
        pair = discs((16 * scale, 20 * scale, 9 * scale), (16 * scale, 36 * scale, 9 * scale), shape=size)
        assert divided(pair, 0.7).max() == 2, scale


@pytest.mark.parametrize("length", [20, 60])
def test_a_long_thin_object_stays_one(length: int) -> None:
    y, x = np.indices((80, 80))
    rod = (np.abs((y - 40) - 0.37 * (x - 40)) < 4) & (np.abs(x - 40) < length / 2)
    assert divided(rod.astype(np.uint32), 0.9).max() == 1


def test_a_piece_cut_by_the_edge_is_not_shallow_there() -> None:
    half = discs((0, 48, 16))
    assert divided(half, 0.9).max() == 1
    depth = DEEPEST - basin_heights(half).astype(int)
    assert depth[0, 48] == depth[half > 0].max()


def test_a_whole_plane_is_one_basin() -> None:
    assert divided(np.ones((30, 40), np.uint32), 0.7).max() == 1


def test_basins_join_over_planes() -> None:
    """Two discs over each other, the upper shifted: one piece in the volume, parted where it narrows between planes."""
    heights = np.full((2, 64, 96), OUTSIDE, np.uint16)
    for plane, pieces in enumerate((discs((32, 30, 16)), discs((32, 40, 16)))):
        heights[plane] = np.where(pieces > 0, basin_heights(pieces), OUTSIDE)
    labels = np.zeros(heights.shape, np.uint32)
    assert basins(heights, labels, np.zeros(labels.size, np.int64), 0.5) == 1
    apart = heights.copy()
    apart[1] = np.where(discs((32, 58, 16)) > 0, basin_heights(discs((32, 58, 16))), OUTSIDE)
    labels = np.zeros(heights.shape, np.uint32)
    assert basins(apart, labels, np.zeros(labels.size, np.int64), 0.9) == 2
