import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.objects.box import Box

SHAPE = (4, 9, 11)


@st.composite
def boxes(draw):
    pairs = (sorted(draw(st.sets(st.integers(0, size), min_size=2, max_size=2))) for size in SHAPE)
    return Box(*(slice(*pair) for pair in pairs))


def mask(box):
    pixels = np.zeros(SHAPE, np.bool_)
    pixels[box.planes, box.rows, box.columns] = True
    return pixels


@given(boxes(), boxes())
def test_boxes_compare_as_sets_of_pixels(a, b):
    assert a.holds(b) == bool((mask(a) | ~mask(b)).all())
    if (mask(a) & mask(b)).any():
        shared = a.shared_with(b)
        np.testing.assert_array_equal(mask(shared), mask(a) & mask(b))
        own, volume = shared.counted_from(a), np.random.default_rng(0).random(SHAPE)
        whole, part = (volume[box.planes, box.rows, box.columns] for box in (a, shared))
        np.testing.assert_array_equal(whole[own.planes, own.rows, own.columns], part)


@given(boxes(), st.integers(1, 12), st.integers(1, 12))
def test_a_divided_box_is_covered_once_in_raster_order(box, height, width):
    parts = list(box.divided(height, width))
    np.testing.assert_array_equal(sum(mask(part).astype(int) for part in parts), mask(box))
    assert all(part.size <= (height, part.size[1]) and part.size[1] <= width for part in parts)
    starts = [(part.rows.start, part.columns.start) for part in parts]
    assert starts == sorted(starts)
