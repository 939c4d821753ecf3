import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_pipeline.config.sections import Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.normalise import LEVELS, Normaliser, from_statistics, merge
from unet_pipeline.records.stack_records import Statistics


def statistics(values):
    """Statistics of (channels, n) values in the layout of ingest."""
    values = np.asarray(values, dtype=np.float64)
    low, high, mean, std = (tuple(getattr(values, name)(axis=1).tolist()) for name in ("min", "max", "mean", "std"))
    quantiles = np.percentile(values, LEVELS, axis=1).T
    return Statistics(low, high, mean, std, values.shape[1], tuple(map(tuple, quantiles.tolist())))


def test_percentiles_become_0_and_1():
    values = np.random.default_rng(0).gamma(2, 300, (2, 4000)).astype(np.uint16)
    normaliser = from_statistics(Normalise("percentile", 2.0, 99.0), statistics(values), np.uint16)
    image = normaliser(values[:, None])
    low, high = np.percentile(values, [2.0, 99.0], axis=1)
    expected = (values - low[:, None]) / (high - low)[:, None]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[:, 0], expected, atol=1e-5)


def test_a_percentile_between_two_recorded_levels_is_interpolated():
    normaliser = from_statistics(Normalise("percentile", 12.34, 56.78), statistics([np.arange(10001)]), np.uint16)
    np.testing.assert_allclose(normaliser.offset, 1234)
    np.testing.assert_allclose(normaliser.scale, 1 / (5678 - 1234))


def test_zscore_gives_mean_0_and_std_1():
    values = np.random.default_rng(1).normal(1e6, 20, (1, 5000))
    image = from_statistics(Normalise("zscore"), statistics(values), np.float64)(values[:, None])
    assert abs(image.mean()) < 1e-4
    assert abs(image.std() - 1) < 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32])
def test_range_maps_the_limits_of_the_data_type_to_0_and_1(dtype):
    limits = np.iinfo(dtype)
    normaliser = from_statistics(Normalise("range"), statistics([[1, 2, 3]]), dtype)
    image = normaliser(np.array([[[limits.min, limits.max]]], dtype=dtype))
    np.testing.assert_allclose(image.ravel(), [0, 1], atol=1e-6)


def test_range_takes_floats_of_0_to_1_and_refuses_others():
    assert from_statistics(Normalise("range"), statistics([[0, 0.5, 1]]), np.float32) == Normaliser((0.0,), (1.0,))
    with pytest.raises(PipelineError, match="percentile"):
        from_statistics(Normalise("range"), statistics([[0, 300.0]]), np.float32)


def test_none_leaves_values_as_they_are():
    image = np.array([[[3.5, -2.0]]], dtype=np.float32)
    np.testing.assert_array_equal(from_statistics(Normalise("none"), statistics([[0, 1]]), np.float32)(image), image)


@pytest.mark.parametrize("method", ["percentile", "zscore", "range", "none"])
@pytest.mark.parametrize("value", [0, 1, 200])
def test_a_constant_image_stays_finite(method, value):
    image = np.full((1, 4, 4), value, np.uint8)
    normalised = from_statistics(Normalise(method), statistics([[value] * 9]), np.uint8)(image)
    assert np.isfinite(normalised).all()
    if method in ("percentile", "zscore"):
        assert (normalised == 0).all()


def test_a_dark_image_with_few_bright_spots_is_spread_between_minimum_and_maximum():
    values = np.zeros((1, 10000))
    values[0, :5] = 400
    image = from_statistics(Normalise("percentile", 1, 99.8), statistics(values), np.uint16)(values[:, None])
    assert image.max() == 1


def test_large_integers_lose_their_offset_before_precision():
    raw = np.array([[[4_000_000_000, 4_000_000_001]]], dtype=np.uint32)
    np.testing.assert_array_equal(Normaliser((4e9,), (1.0,))(raw).ravel(), [0, 1])


def test_a_tile_gets_the_same_bits_as_the_whole():
    raw = np.random.default_rng(2).integers(0, 65535, (2, 33, 41)).astype(np.uint16)
    normaliser = Normaliser((123.4, 77.7), (0.0123, 0.0456))
    np.testing.assert_array_equal(normaliser(raw[:, 5:17, 3:30]), normaliser(raw)[:, 5:17, 3:30])


def test_another_number_of_channels_is_refused():
    with pytest.raises(PipelineError, match="2 channels"):
        Normaliser((0.0, 0.0), (1.0, 1.0))(np.zeros((3, 2, 2), np.uint8))


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6)), min_size=1, max_size=4))
def test_json_round_trip_is_exact(channels):
    normaliser = Normaliser(*(tuple(part) for part in zip(*channels, strict=True)))
    assert Normaliser.from_json(json.loads(json.dumps(normaliser.to_json())), "here") == normaliser


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"offset": [0.0]},
        {"offset": [], "scale": []},
        {"offset": [0.0], "scale": [1.0, 1.0]},
        {"offset": [0.0], "scale": [0.0]},
        {"offset": [float("nan")], "scale": [1.0]},
        {"offset": ["a"], "scale": [1.0]},
    ],
)
def test_a_malformed_normaliser_is_refused(value):
    with pytest.raises(PipelineError, match=r"model\.json"):
        Normaliser.from_json(value, "model.json")


@settings(max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=4), st.integers(0, 10**6))
def test_merged_statistics_are_those_of_all_pixels_together(sizes, seed):
    generator = np.random.default_rng(seed)
    parts = [generator.normal(generator.uniform(0, 50), 5, (2, 40 * size)) for size in sizes]
    merged, whole = merge([statistics(part) for part in parts]), statistics(np.concatenate(parts, axis=1))
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9)
    assert merged.pixels == whole.pixels


def test_merged_quantiles_are_those_of_all_pixels_together():
    generator = np.random.default_rng(5)
    parts = [generator.normal(10, 3, (1, 90_000)), generator.gamma(2, 9, (1, 30_000)), np.full((1, 5_000), 12.0)]
    merged = np.array(merge([statistics(part) for part in parts]).quantiles[0])
    together = np.sort(np.concatenate(parts, axis=1)[0])
    # compare shares of pixels: in a jump of the distribution any percentile may fall on the same value
    below = np.searchsorted(together, merged - 1e-6) / len(together) * 100
    upto = np.searchsorted(together, merged + 1e-6, side="right") / len(together) * 100
    assert (below <= LEVELS + 0.06).all()
    assert (upto >= LEVELS - 0.06).all()
    assert (np.diff(merged) >= 0).all()


def test_stacks_count_by_their_pixels():
    large, small = statistics([np.linspace(0, 1, 9000)]), statistics([np.linspace(100, 101, 1000)])
    median = merge([large, small]).quantiles[0][500]
    np.testing.assert_allclose(median, 0.5 / 0.9, atol=1e-3)


def test_one_stack_merges_to_itself():
    one = statistics([np.arange(50)])
    assert merge([one]) == one
    two = merge([one, one])
    np.testing.assert_allclose(two.quantiles, one.quantiles, atol=1e-6)


def test_stacks_with_other_channels_do_not_merge():
    with pytest.raises(PipelineError, match="same number of channels"):
        merge([statistics([[1, 2]]), statistics([[1, 2], [3, 4]])])
    with pytest.raises(PipelineError, match="no stack"):
        merge([])


def test_fixed_maps_black_and_white_to_0_and_1_whatever_the_image():
    fixed = Normalise("fixed", black=100.0, white=4100.0)
    normaliser = from_statistics(fixed, statistics([[5, 60000], [0, 1]]), np.uint16)
    raw = np.array([100, 2100, 4100], np.uint16).reshape(1, 1, 3).repeat(2, axis=0)
    np.testing.assert_allclose(normaliser(raw), np.broadcast_to([0, 0.5, 1], (2, 1, 3)), rtol=1e-6)
