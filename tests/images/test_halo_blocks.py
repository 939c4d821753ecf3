import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from unet_pipeline.images import halo_blocks as halo_module
from unet_pipeline.images.halo_blocks import halo_blocks, row_bands
from unet_pipeline.objects.box import Box


@given(height=st.integers(1, 60), width=st.integers(1, 60), block=st.integers(1, 30), halo=st.integers(0, 9))
def test_block_wise_equals_whole(height, width, block, halo):
    image = np.random.default_rng(height * 61 + width).random((height, width))
    size = 2 * halo + 1
    whole = ndimage.maximum_filter(image, size, mode="constant", cval=-1)
    rows, columns = slice(height // 3, height), slice(0, width)
    result = np.full((rows.stop - rows.start, width), np.nan)
    for part in halo_blocks(Box.of(0, rows, columns), block, halo, image.shape):
        outer = image[part.outer.window]
        result[part.place] = ndimage.maximum_filter(outer, size, mode="constant", cval=-1)[part.local]
        np.testing.assert_array_equal(image[part.inner.window], outer[part.local])
    np.testing.assert_array_equal(result, whole[rows, columns])


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 100))
def test_bands_of_rows_are_the_array_in_order_and_small(channels, height, width, band_px):
    values = np.arange(channels * height * width).reshape(channels, height, width)
    before, halo_module.BAND_PX = halo_module.BAND_PX, band_px
    try:
        bands = list(row_bands(values))
    finally:
        halo_module.BAND_PX = before
    assert np.array_equal(np.concatenate(bands, axis=1), values)
    assert all(band.shape[1] * width <= max(band_px, width) for band in bands)
    assert all(np.shares_memory(band, values) for band in bands)
