"""Two nearest distinct labels of a volume, against the definition: all distances from every voxel to every label."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.distances import near_another, two_distances
from unet_pipeline.objects.volume_distances import (
    NOWHERE,
    VolumeDistances,
    near_another_in_volume,
)

STEPS = (1, 0.4, 2.5, 3, 8, 0.1, 1 / 3)


def two_distances_in_volume(labels, radius_px, step_px):
    """Both squared distances of every voxel, (z, y, x) float64 each."""
    found, (planes, height, width) = VolumeDistances(labels, radius_px, step_px), labels.shape
    rows = [found.squared(y, slice(0, planes), slice(0, width)) for y in range(height)]
    return np.stack(rows, axis=2)


def by_definition(labels, radius_px, step_px):
    """d1² and d2² over all pairs of a voxel and a labelled voxel."""
    places = np.indices(labels.shape).reshape(3, -1, 1)
    least = []
    for label in np.unique(labels[labels > 0]):
        z, y, x = places - np.argwhere(labels == label).T[:, None]
        least.append(((y * y + x * x) + step_px**2 * (z * z)).min(axis=1))
    nothing = np.full((2, labels.size), np.inf)
    d1, d2 = np.sort([*least, *nothing], axis=0)[:2].reshape(2, *labels.shape)
    return tuple(np.where(np.sqrt(part) <= radius_px, part, NOWHERE) for part in (d1, d2))


@st.composite
def volumes(draw, labels=6):
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    volume = rng.integers(0, labels + 1, shape) * (rng.random(shape) < draw(st.sampled_from([0.005, 0.02, 0.2, 1.0])))
    if draw(st.booleans()):  # blobs instead of points
        volume = ndimage.grey_dilation(volume, size=[draw(st.integers(1, 4)) for _ in range(3)])
    return volume


@settings(max_examples=150, deadline=None)
@given(volumes(), st.sampled_from([np.uint8, np.uint16, np.uint32, np.int64]), st.floats(0, 20), st.sampled_from(STEPS))
def test_equals_the_definition(volume, kind, radius_px, step_px):
    found = two_distances_in_volume(volume.astype(kind), radius_px, step_px)
    for part, expected in zip(found, by_definition(volume, radius_px, step_px), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_the_second_may_be_the_first_of_its_own_plane():
    """One label over a pixel in many planes, as first and as second, and the other behind it."""
    volume = np.zeros((7, 1, 9), np.uint16)
    volume[0, 0, 4], volume[1, 0, 5], volume[2, 0, 4], volume[2, 0, 5], volume[6, 0, 4] = 1, 1, 2, 1, 3
    for step_px in STEPS:
        found = two_distances_in_volume(volume, 30, step_px)
        np.testing.assert_array_equal(found, by_definition(volume, 30, step_px))
    assert two_distances_in_volume(volume, 30, 1)[1][3, 0, 4] == 2, "label 1 is second, beside label 2"


@pytest.mark.parametrize("radius_px", [math.sqrt(5), math.sqrt(10), math.nextafter(math.sqrt(13), 0), 2.5, 0])
@pytest.mark.parametrize("step_px", STEPS)
def test_the_radius_is_inclusive(radius_px, step_px):
    volume = np.zeros((9, 9, 9), np.uint8)
    volume[4, 4, 4], volume[4, 4, 5] = 1, 2
    found = two_distances_in_volume(volume, radius_px, step_px)
    np.testing.assert_array_equal(found, by_definition(volume, radius_px, step_px))


def test_largest_ids_and_planes_without_labels():
    volume = np.zeros((5, 1, 3), np.uint32)
    volume[0, 0, 1], volume[4, 0, 1] = 2**32 - 1, 2**31
    nearest, second = two_distances_in_volume(volume, 20, 2)
    assert nearest[:, 0, 1].tolist() == [0, 4, 16, 4, 0]
    assert second[:, 0, 1].tolist() == [64, 36, 16, 36, 64]
    assert (np.array(two_distances_in_volume(np.zeros_like(volume), 20, 2)) == NOWHERE).all()


def test_one_plane_and_planes_far_apart_are_the_planes_transform():
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 9, (4, 40, 50)) * (rng.random((4, 40, 50)) < 0.02)
    for found, step_px in ((volume[:1], 1), (volume, 30)):
        for plane, *squares in zip(found, *two_distances_in_volume(found, 29, step_px), strict=True):
            for part, expected in zip(squares, two_distances(plane, 29), strict=True):
                np.testing.assert_array_equal(np.where(part == NOWHERE, 2**31 - 1, part), expected)


@settings(max_examples=40, deadline=None)
@given(volumes(labels=30), st.integers(0, 9), st.sampled_from(STEPS), st.data())
def test_a_block_with_its_halo_equals_the_whole(volume, radius_px, step_px, data):
    halos = math.ceil(radius_px / step_px), radius_px, radius_px
    inner, outer = [], []
    for length, halo in zip(volume.shape, halos, strict=True):
        start = data.draw(st.integers(0, length - 1))
        stop = data.draw(st.integers(start + 1, length))
        inner.append(slice(start, stop))
        outer.append(slice(max(0, start - halo), stop + halo))
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    whole = np.array(two_distances_in_volume(volume, radius_px, step_px))[:, *inner]
    block = VolumeDistances(volume[tuple(outer)], radius_px, step_px)
    for place, row in enumerate(range(y.start, y.stop)):
        np.testing.assert_array_equal(block.squared(row, z, x), whole[:, :, place])


@settings(max_examples=60, deadline=None)
@given(volumes(), st.sampled_from([0, 0.9, 1, 1.5, 2, 3, 3.5, 6]), st.sampled_from(STEPS))
def test_voxels_near_another_label_are_those_the_distances_say(volume, radius_px, step_px):
    d2 = by_definition(volume, radius_px, step_px)[1]
    np.testing.assert_array_equal(near_another_in_volume(volume, radius_px, step_px), (volume > 0) & (d2 < NOWHERE))


def test_cubes_of_one_plane_are_near_as_the_plane_says():
    plane = np.random.default_rng(4).integers(0, 4, (1, 40, 53)).astype(np.uint16)
    np.testing.assert_array_equal(near_another_in_volume(plane, 2, 1)[0], near_another(plane[0], 2))


@pytest.mark.parametrize("step_px", [0, -1, math.nan, math.inf])
def test_illegal_step(step_px):
    for function in (two_distances_in_volume, near_another_in_volume):
        with pytest.raises(PipelineError, match="distance of planes above 0"):
            function(np.zeros((4, 4, 4), np.uint8), 5, step_px)


@pytest.mark.parametrize("labels", [np.zeros((4, 4), np.uint8), np.ones((2, 4, 4), np.float32), np.full((2, 4, 4), -1)])
def test_what_is_no_volume_of_labels(labels):
    with pytest.raises(PipelineError, match="labels: expected"):
        two_distances_in_volume(labels, 5, 1)


@pytest.mark.parametrize("radius_px", [-1, math.nan, math.inf, 32_001])
def test_illegal_radius(radius_px):
    for function in (two_distances_in_volume, near_another_in_volume):
        with pytest.raises(PipelineError, match="0 to 32000 px"):
            function(np.zeros((4, 4, 4), np.uint8), radius_px, 1)
