"""Windows at a level: what the pyramid holds, and of images without one every n-th pixel."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_ingested, settings

from unet_pipeline.images.ngff import count_levels
from unet_pipeline.report import levels
from unet_pipeline.report.levels import fitting_level, read_image, read_level
from unet_pipeline.report.views import View
from unet_pipeline.stacks.stack import Stack


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 5000))
def test_the_finest_level_that_fits(height, width, most):
    level = fitting_level((height, width), most)
    assert -(-max(height, width) // 2**level) <= most
    assert level == 0 or -(-max(height, width) // 2 ** (level - 1)) > most


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    config = settings(store={"chunk_px": 64, "shard_px": 128})
    return Stack.open(make_ingested(tmp_path_factory.mktemp("levels"), "a", (2, 130, 210), config))


@pytest.mark.parametrize("level", range(6))
def test_a_window_of_a_label_is_every_nth_pixel(stack, level):
    """Also beyond the coarsest level there is."""
    assert count_levels(stack.store, "labels/instances") < 6
    view = View(1, slice(32, 121), slice(64, 210))
    whole = stack.reference("instances").read_label(1, view.rows, view.columns)
    found = read_level(stack.store, "labels/instances", view, level)[0]
    np.testing.assert_array_equal(found, whole[:: 2**level, :: 2**level])


def test_a_window_of_the_image_is_the_mean_of_pixels(stack):
    view = View(0, slice(0, 128), slice(64, 192))
    whole = stack.image.read(0, view.rows, view.columns)[0].astype(float)
    found = read_image(stack, view, 2)[0]
    np.testing.assert_allclose(found, whole.reshape(32, 4, 32, 4).mean(axis=(1, 3)), atol=1)  # rounded twice


@pytest.mark.parametrize("level", [0, 1, 3])
def test_an_image_used_in_place_is_read_in_strips(level, monkeypatch):
    monkeypatch.setattr(levels, "STRIP_PX", 4)
    values, read = np.arange(2 * 37 * 41).reshape(1, 2, 37, 41), []

    def image(plane, rows, columns):
        read.append(rows.stop - rows.start)
        return values[plane, :, rows, columns]

    placed = SimpleNamespace(image=SimpleNamespace(in_place=True))
    stack = SimpleNamespace(ingested=placed, image=SimpleNamespace(read=image))
    found = read_image(stack, View(0, slice(8, 37), slice(16, 41)), level)
    np.testing.assert_array_equal(found, values[0, :, 8 :: 2**level, 16 :: 2**level])
    assert max(read) == max(4, 2**level)
    huge = View(0, slice(0, levels.LARGEST_SOURCE_PX + 1), slice(0, 41))
    assert read_image(stack, huge, level) is None
