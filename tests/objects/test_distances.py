"""Two nearest distinct labels, against the definition: one distance transform per label, two running minima."""

from __future__ import annotations

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import expand_labels

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.distances import BEYOND_RADIUS, grow, near_another, two_nearest


def by_definition(labels, radius_px):
    """(nearest id, d1², d2²) from whole-plane distance transforms, ties to the smallest label."""
    far = np.int64(BEYOND_RADIUS)
    nearest, d1, d2 = np.zeros(labels.shape, np.int64), np.full(labels.shape, far), np.full(labels.shape, far)
    for label in np.unique(labels[labels > 0]):  # ascending, so that < keeps the smallest of equals
        away = ndimage.distance_transform_edt(labels != label, return_distances=False, return_indices=True)
        offset = away - np.indices(labels.shape)
        square = (offset.astype(np.int64) ** 2).sum(axis=0)
        closer = square < d1
        d2 = np.minimum(d2, np.where(closer, d1, square))
        nearest[closer], d1 = label, np.minimum(d1, square)
    near1, near2 = np.sqrt(d1) <= radius_px, np.sqrt(d2) <= radius_px
    return np.where(near1, nearest, 0), np.where(near1, d1, far), np.where(near2, d2, far)


def check(labels, radius_px):
    found = two_nearest(labels, radius_px)
    assert [part.dtype for part in found] == [np.uint32, np.int32, np.int32]
    for part, expected in zip(found, by_definition(labels, radius_px), strict=True):
        np.testing.assert_array_equal(part, expected)


@st.composite
def planes(draw, largest=40, labels=6):
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    plane = rng.integers(0, labels + 1, shape) * (rng.random(shape) < draw(st.sampled_from([0.01, 0.05, 0.3, 1.0])))
    if draw(st.booleans()):  # blobs instead of points
        plane = ndimage.grey_dilation(plane, size=(draw(st.integers(1, 7)), draw(st.integers(1, 7))))
    return plane


@settings(max_examples=150, deadline=None)
@given(planes(), st.sampled_from([np.uint8, np.uint16, np.uint32, np.int8, np.int64]), st.floats(0, 45))
def test_equals_the_definition(plane, kind, radius_px):
    check(plane.astype(kind), radius_px)


@pytest.mark.parametrize("radius_px", [0, 0.5, 1, 1.5, 29, 100, 1e300, math.inf])
def test_any_radius(radius_px):
    plane = np.zeros((50, 70), np.uint16)
    plane[3:9, 5:20], plane[30:44, 30:33], plane[12:14, 60:] = 4, 2, 9
    check(plane, radius_px)


@pytest.mark.parametrize("radius_px", [math.sqrt(5), math.sqrt(10), math.sqrt(13), math.nextafter(math.sqrt(13), 0)])
def test_the_radius_is_inclusive(radius_px):
    plane = np.zeros((9, 9), np.uint8)
    plane[4, 4] = 1
    check(plane, radius_px)


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (2, 60)])
def test_thin_planes(shape):
    plane = np.zeros(shape, np.uint8)
    check(plane, 29)
    plane.flat[0] = 3
    check(plane, 29)
    plane.flat[-1], plane.flat[plane.size // 2] = 2, 9
    check(plane, 29)


def test_no_label_and_one_label():
    plane = np.zeros((40, 40), np.uint32)
    nothing = two_nearest(plane, 29)
    assert not nothing.nearest_id.any()
    assert (nothing.d1_squared == BEYOND_RADIUS).all()
    plane[10:13, 10:13] = plane[30, 30] = 7  # one label in two pieces is still one label
    alone = two_nearest(plane, 29)
    assert (alone.d2_squared == BEYOND_RADIUS).all()
    check(plane, 29)


def test_no_pixels():
    assert two_nearest(np.zeros((0, 5), np.uint8), 3).d1_squared.shape == (0, 5)


def test_smallest_label_wins_ties_from_every_side():
    for turn in range(4):
        plane = np.zeros((9, 9), np.uint16)
        plane[4, 0], plane[0, 4], plane[4, 8], plane[8, 4] = np.roll([3, 5, 8, 11], turn)
        found = two_nearest(plane, 29)
        assert (found.nearest_id[4, 4], found.d1_squared[4, 4], found.d2_squared[4, 4]) == (3, 16, 16)
        check(plane, 29)


@pytest.mark.parametrize("shape", [(70_001, 3), (3, 70_001)])
def test_long_planes_do_not_overflow(shape):
    plane = np.zeros(shape, np.uint32)
    plane[0, 0] = 5
    found = two_nearest(plane, 29)
    square = (np.indices(shape) ** 2).sum(axis=0)
    np.testing.assert_array_equal(found.d1_squared, np.where(square <= 29**2, square, BEYOND_RADIUS))
    np.testing.assert_array_equal(found.nearest_id > 0, square <= 29**2)


def test_largest_reach_and_distance():
    plane = np.zeros((2, 33_000), np.uint8)
    plane[0, 0], plane[1, 0] = 1, 2
    found = two_nearest(plane, 32_000)
    assert found.d1_squared[0, 32_000] == 32_000**2
    assert found.d2_squared[0, 32_000] == BEYOND_RADIUS  # √(32000² + 1) is beyond the radius
    assert found.d2_squared[0, 31_999] == 31_999**2 + 1
    with pytest.raises(PipelineError, match="at most 32000"):
        two_nearest(plane, math.inf)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.int64, np.uint64])
def test_largest_ids_of_every_type(kind):
    top = min(np.iinfo(kind).max, 2**32 - 1)
    plane = np.zeros((5, 9), kind)
    plane[2, 1], plane[2, 7] = top, top - 1
    found = two_nearest(plane, 20)
    assert found.nearest_id[2].tolist() == [top] * 4 + [top - 1] * 5  # the middle is equally near to both
    assert grow(plane, 20).dtype == kind
    assert grow(plane, 20)[2].tolist() == [top] * 4 + [top - 1] * 5
    check(plane, 20)


def test_byte_order_and_strides_do_not_matter():
    plane = np.random.default_rng(0).integers(0, 9, (60, 80)) * (np.indices((60, 80)).sum(0) % 7 == 0)
    expected = two_nearest(plane[::2, ::-1].astype(np.uint16), 9)
    for labels in (plane[::2, ::-1], plane.astype(">u2")[::2, ::-1], np.asfortranarray(plane[::2, ::-1])):
        for part, same in zip(two_nearest(labels, 9), expected, strict=True):
            np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize(
    "labels",
    [
        np.ones((4, 4), bool),
        np.ones((4, 4), np.float32),
        np.ones((2, 4, 4), np.uint8),
        np.full((4, 4), -1),
        np.full((4, 4), 2**32),
    ],
)
def test_what_is_no_label_image(labels):
    with pytest.raises(PipelineError, match="labels: expected"):
        two_nearest(labels, 5)


@pytest.mark.parametrize("radius_px", [-1, math.nan])
def test_illegal_radius(radius_px):
    with pytest.raises(PipelineError, match="at least 0 px"):
        two_nearest(np.zeros((4, 4), np.uint8), radius_px)


@settings(max_examples=40, deadline=None)
@given(planes(largest=90, labels=30), st.integers(0, 20), st.data())
def test_a_block_with_its_halo_equals_the_whole(plane, radius_px, data):
    height, width = plane.shape
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    rows = slice(max(0, top - radius_px), bottom + radius_px)
    columns = slice(max(0, left - radius_px), right + radius_px)
    inner = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
    whole, part = two_nearest(plane, radius_px), two_nearest(plane[rows, columns], radius_px)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[top:bottom, left:right], other[inner])


def test_threads_over_blocks_give_the_same():
    rng = np.random.default_rng(1)
    plane = rng.integers(0, 2000, (512, 512)).astype(np.uint32) * (rng.random((512, 512)) < 0.02)
    alone = two_nearest(plane, 12)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: two_nearest(plane, 12), range(8)):
            np.testing.assert_array_equal(found.d2_squared, alone.d2_squared)


@settings(max_examples=60, deadline=None)
@given(planes(), st.floats(0, 30))
def test_grow(plane, radius_px):
    labels = plane.astype(np.uint16)
    grown = grow(labels, radius_px)
    assert grown.dtype == np.uint16
    np.testing.assert_array_equal(grown, by_definition(labels, radius_px)[0])
    np.testing.assert_array_equal(grown[labels > 0], labels[labels > 0])
    if radius_px == int(radius_px):
        np.testing.assert_array_equal(grown > 0, expand_labels(labels, radius_px) > 0)


def test_working_memory():
    points = np.zeros((1024, 1024), np.uint32)
    points[::50, ::50] = 1
    two_nearest(points[:8, :8], 29)
    tracemalloc.start()
    result = two_nearest(points, 29)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(part.nbytes for part in result) + 4.5 * points.size


@pytest.mark.parametrize("radius", [0, 0.9, 1, 1.4, 1.5, 2, 2.3, 3, 3.5, 6])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (40, 53)])
def test_pixels_near_another_label_are_those_the_distances_say(radius, shape):
    labels = np.random.default_rng(4).integers(0, 4, shape).astype(np.uint16)
    labels[np.random.default_rng(5).random(shape) < 0.7] = 0
    near = two_nearest(labels, radius)
    expected = (near.d1_squared == 0) & (near.d2_squared < BEYOND_RADIUS)
    np.testing.assert_array_equal(near_another(labels, radius), expected)
