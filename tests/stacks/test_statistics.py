import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_pipeline.stacks.statistics import Moments, Quantiles, as_record


def measure(image, parts):
    moments, quantiles = Moments(len(image)), Quantiles(image.dtype, len(image))
    for part in np.array_split(image, parts, axis=1):
        moments.add(part)
        quantiles.add(part)
    if quantiles.refine():
        for part in np.array_split(image, parts, axis=1):
            quantiles.add(part)
    return moments, quantiles


def order_statistics(image):
    """Return what the quantiles are by definition: one of the sorted values each."""
    ordered = np.sort(image.reshape(len(image), -1), axis=1)
    count = ordered.shape[1]
    ranks = [max(1, -(-step * count // 1000)) for step in range(1001)]
    return ordered[:, np.array(ranks) - 1].astype(np.float64)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), parts=st.integers(1, 7))
def test_integers_are_exact(dtype, seed, parts):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    image = rng.integers(info.min, info.max, (2, 23, 31), dtype=dtype, endpoint=True)
    moments, quantiles = measure(image, parts)
    flat = image.reshape(2, -1).astype(np.float64)
    np.testing.assert_allclose(moments.mean, flat.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(moments.std, flat.std(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(quantiles.quantiles(), order_statistics(image))


def adversarial():
    """Yield images (1, 120, 130), as float64, that equal bins between minimum and maximum lose."""
    rng = np.random.default_rng(0)
    uniform = rng.random((1, 120, 130))
    for outlier in (1e6, -1e30, 1e-40):
        hot = uniform.copy()
        hot[0, 3, 3] = outlier
        yield hot
    yield np.where(uniform < 0.4, -uniform * 1e-20, uniform * 1e20)
    yield np.exp(rng.normal(0, 12, uniform.shape))
    yield 1e6 + rng.normal(0, 1e-1, uniform.shape)
    yield np.where(uniform < 0.999, 7.0, uniform)
    yield np.zeros_like(uniform)
    yield np.where(uniform < 0.5, -0.0, 0.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("image", list(adversarial()), ids=range(9))
def test_floats_are_what_sorting_gives(dtype, image):
    with np.errstate(over="ignore"):
        image = np.nan_to_num(image.astype(dtype), posinf=6e4, neginf=-6e4)
    found, wanted = measure(image, 4)[1].quantiles(), order_statistics(image)
    if dtype != np.float64:
        np.testing.assert_array_equal(found, wanted)
    assert (np.abs(found - wanted) <= np.abs(wanted) * 2.0**-21).all()
    linear = np.percentile(image.astype(np.float64), np.linspace(0, 100, 1001))
    inside = slice(2, -2)
    jumps = np.abs(np.diff(wanted[0]))
    gap = np.maximum(np.append(jumps, 0), np.append(0, jumps))
    assert (np.abs(found[0] - linear) <= gap + np.abs(wanted[0]) * 1e-6)[inside].all()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_wide_integers_are_exact_as_far_as_images_go(dtype):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 2**21, (1, 90, 90)).astype(dtype)
    image[0, 5, 5] = 2**62
    np.testing.assert_array_equal(measure(image, 3)[1].quantiles(), order_statistics(image))


def test_many_channels_stay_within_memory_and_the_stated_error():
    rng = np.random.default_rng(2)
    image = np.exp(rng.normal(0, 9, (60, 40, 50))).astype(np.float32)
    image[:, 0, 0] = 1e30
    tracemalloc.start()
    found = measure(image, 1)[1].quantiles()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 210 * 2**20
    wanted = order_statistics(image)
    assert (np.abs(found - wanted) <= wanted * 2.0**-14).all()


def test_a_constant_image_has_finite_statistics():
    record = as_record(*measure(np.full((1, 5, 5), 7.0, np.float32), 2))
    assert record.std == (0.0,)
    assert set(record.quantiles[0]) == {7.0}


def test_tiny_grey_values_are_not_rounded_away():
    image = (np.arange(2000, dtype=np.float32) * np.float32(1e-12)).reshape(1, 40, 50)
    assert len(set(as_record(*measure(image, 2)).quantiles[0])) == 1001
