"""Flooding against scikit-image where nothing is equally high, and against its definition where much is."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import watershed
from whole_volume import flooded

from unet_pipeline.objects.flood import OUTSIDE


def by_definition(heights, seeds):
    """A heap of (height, turn, pixel), where the turn of a seed pixel is its place in raster order."""
    labels, turn = seeds.copy(), 0
    waiting = []
    for pixel in zip(*np.nonzero(seeds), strict=True):
        if heights[pixel] != OUTSIDE:
            waiting.append((int(heights[pixel]), turn, pixel))
            turn += 1
    heapq.heapify(waiting)
    while waiting:
        _, _, pixel = heapq.heappop(waiting)
        for step in ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
            beside = tuple(np.add(pixel, step))
            inside = all(0 <= a < b for a, b in zip(beside, labels.shape, strict=True))
            if inside and labels[beside] == 0 and heights[beside] != OUTSIDE:
                labels[beside] = labels[pixel]
                heapq.heappush(waiting, (int(heights[beside]), turn, beside))
                turn += 1
    return labels


@st.composite
def volumes(draw, levels):
    """Heights (planes, y, x), some `OUTSIDE`, and seeds of several pixels."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 15)), draw(st.integers(1, 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    heights = rng.permutation(np.prod(shape)).reshape(shape) if levels is None else rng.integers(0, levels, shape)
    heights[rng.random(shape) < draw(st.sampled_from([0, 0.1, 0.4]))] = OUTSIDE
    seeds = np.where(rng.random(shape) < draw(st.sampled_from([0.01, 0.1, 0.5])), rng.integers(1, 9, shape), 0)
    return heights, np.where(heights == OUTSIDE, 0, seeds)


@settings(max_examples=150, deadline=None)
@given(volumes(None))
def test_equals_scikit_image_where_no_two_pixels_are_equally_high(made):
    heights, seeds = made
    expected = watershed(heights, seeds, connectivity=1, mask=heights != OUTSIDE)
    np.testing.assert_array_equal(flooded(heights, seeds), expected)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 2, 5, 256]).flatmap(volumes))
def test_equals_the_definition_where_many_are(made):
    heights, seeds = made
    np.testing.assert_array_equal(flooded(heights, seeds), by_definition(heights, seeds))


def test_a_plateau_is_divided_half_way():
    heights, seeds = np.full((1, 5, 12), 3), np.zeros((1, 5, 12), int)
    seeds[0, :, 0], seeds[0, :, 11] = 1, 2
    np.testing.assert_array_equal(flooded(heights, seeds)[0], np.repeat([[1] * 6 + [2] * 6], 5, axis=0))


def test_what_no_seed_reaches_stays_0():
    heights = np.array([[[5, OUTSIDE, 5, 5]]])
    assert flooded(heights, np.array([[[1, 0, 0, 0]]])).tolist() == [[[1, 0, 0, 0]]]
    assert flooded(heights, np.zeros((1, 1, 4))).max() == 0
