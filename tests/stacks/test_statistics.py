import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.stacks.statistics import QUANTILES, Histogram, Moments, as_record


def measure(image, parts):
    moments = Moments(len(image))
    for part in np.array_split(image, parts, axis=1):
        moments.add(part)
    histogram = Histogram(image.dtype, moments.low, moments.high)
    for part in np.array_split(image, parts, axis=1):
        histogram.add(part)
    return moments, histogram


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@given(seed=st.integers(0, 1000), parts=st.integers(1, 7))
def test_small_integers_are_exact(dtype, seed, parts):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    image = rng.integers(info.min, info.max, (2, 23, 31), dtype=dtype, endpoint=True)
    moments, histogram = measure(image, parts)
    flat = image.reshape(2, -1)
    np.testing.assert_allclose(moments.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(moments.std, flat.std(axis=1), rtol=1e-9)
    expected = np.percentile(flat, QUANTILES, axis=1, method="inverted_cdf").T
    # The rounding of 0.1 % steps can fall on either side of a jump.
    assert (np.abs(histogram.quantiles() - expected) == 0).mean() > 0.99
    np.testing.assert_array_equal(histogram.quantiles()[:, [0, -1]], np.stack([flat.min(axis=1), flat.max(axis=1)], 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_other_types_are_exact_to_a_bin(dtype):
    rng = np.random.default_rng(0)
    image = (rng.normal(1e6, 1e3, (1, 200, 300))).astype(dtype)
    moments, histogram = measure(image, 3)
    width = (image.max() - image.min()) / 65535
    expected = np.percentile(image.astype(np.float64), QUANTILES)
    assert np.abs(histogram.quantiles()[0, 1:-1] - expected[1:-1]).max() < 2 * width + 20
    np.testing.assert_allclose(moments.std, image.astype(np.float64).std(), rtol=1e-6)


def test_a_constant_image_has_finite_statistics():
    moments, histogram = measure(np.full((1, 5, 5), 7.0, np.float32), 2)
    record = as_record(moments, histogram)
    assert record["std"] == [0.0]
    assert set(record["quantiles"][0]) == {7.0}
