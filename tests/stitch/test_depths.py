"""Distances through the planes of a volume, block by block, against scipy's of the whole volume."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy import ndimage

from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.images.ngff import Grid
from unet_pipeline.objects.basins import DEEPEST, REACH_PX, STEPS_A_PX, TRUNCATE, basin_heights
from unet_pipeline.stitch import depths, layers
from unet_pipeline.stitch.layers import InMemory, Volume


def found(pieces: np.ndarray, step_px: float, smooth_px: float, block_px: int = 2048) -> np.ndarray:
    """The heights (z, y, x) of pieces, in blocks."""
    layer, scratch = ArrayPlanes(pieces[:, None]), InMemory(pieces.shape)
    target = scratch.layer("depths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "BLOCK_PX", block_px)
        depths.write_depths(Volume("made", layer, layer, scratch, True, step_px), layer, target, smooth_px)
    return target.values[:, 0]


def by_definition(pieces: np.ndarray, step_px: float, smooth_px: float) -> np.ndarray:
    """Distances in px (z, y, x) to what lies beside: no piece, or a voxel that touches another one."""
    inside = pieces > 0
    for axis in range(3):
        for step in (-1, 1):
            moved = np.roll(pieces, step, axis)
            edge = [slice(None)] * 3
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            moved[tuple(edge)] = 0
            inside &= ~((moved != pieces) & (moved > 0))
    if inside.all():
        return np.full(pieces.shape, float(REACH_PX))
    distance = np.minimum(ndimage.distance_transform_edt(inside, sampling=(step_px, 1, 1)), REACH_PX)
    deviations = (smooth_px / step_px, smooth_px, smooth_px)
    return ndimage.gaussian_filter(distance, deviations, mode="nearest", truncate=TRUNCATE) if smooth_px else distance


@trials(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.5, 1.0, 2.3, 10.0]),
    st.sampled_from([0.0, 0.6, 2.0]),
    st.integers(1, 3),
)
def test_distances_are_scipys_of_the_whole_volume_whatever_the_blocks(seed, shape, step_px, smooth_px, ids):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (2, 3, 3))
    numbers = 1 + (np.indices(shape)[seed % 3] * ids) // shape[seed % 3]  # pieces that touch across each of the axes
    pieces = np.where(field > -0.02, numbers, 0).astype(np.uint32)
    whole = found(pieces, step_px, smooth_px)
    np.testing.assert_array_equal(found(pieces, step_px, smooth_px, 16), whole)
    assert not whole[pieces == 0].any()
    distance = (DEEPEST - whole.astype(float)) / STEPS_A_PX
    assert np.abs(distance - by_definition(pieces, step_px, smooth_px))[pieces > 0].max(initial=0) <= 0.51 / STEPS_A_PX


def test_a_volume_without_an_end_is_as_deep_as_can_be():
    assert not found(np.ones((3, 5, 5), np.uint32), 2.0, 0.0).any()


def test_times_have_no_distance():
    pieces = np.ones((3, 20, 20), np.uint32)
    pieces[1, :, 10:] = 0
    expected = np.stack([basin_heights(plane) for plane in pieces])
    np.testing.assert_array_equal(found(pieces, math.inf, 0.0), expected)


def test_planes_lie_apart_by_the_size_of_voxels_and_unknown_sizes_are_told(capfd):
    assert depths.step_px("made", Grid(3, 9, 9, "z", (0.5, 0.5), 2.0)) == 4
    assert depths.step_px("made", Grid(3, 9, 9, "t", (0.5, 0.5), 60.0)) == math.inf
    assert "WARNING" not in capfd.readouterr().err
    assert depths.step_px("made", Grid(3, 9, 9, "z", (0.5, 0.5))) == 1
    assert "size of its voxels is unknown" in capfd.readouterr().err
