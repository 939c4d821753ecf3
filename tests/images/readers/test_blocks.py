import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import calm

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.blocks import BlockCache, Window, paste, pixel_dtype

spans = st.tuples(st.integers(0, 12), st.integers(0, 8))


@calm
@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=3))
def test_paste_is_like_pasting_into_one_large_array(boxes):
    target_at, target_n = zip(*(a for a, _ in boxes), strict=True)
    block_at, block_n = zip(*(b for _, b in boxes), strict=True)
    target = np.zeros(target_n, int)
    block = np.arange(1, np.prod(block_n) + 1).reshape(block_n)
    canvas = np.zeros([20] * len(boxes), int)
    canvas[tuple(slice(a, a + n) for a, n in zip(block_at, block_n, strict=True))] = block
    paste(target, target_at, block, block_at)
    window = tuple(slice(a, a + n) for a, n in zip(target_at, target_n, strict=True))
    np.testing.assert_array_equal(target, canvas[window])


def test_paste_leaves_the_rest():
    target = np.full((3, 4), 7)
    paste(target, (0, 0), np.zeros((1, 1)), (2, 3))
    assert target.sum() == 11 * 7
    paste(target, (0, 0), np.zeros((9, 9)), (3, 0))
    assert target.sum() == 11 * 7


def test_cache_drops_what_was_used_longest_ago():
    cache = BlockCache(30)
    for key in "abc":
        cache.put(key, np.zeros(10, np.uint8))
    assert cache.get("a") is not None
    cache.put("d", np.zeros(10, np.uint8))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    cache.put("a", np.zeros(20, np.uint8))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "d"]
    cache.put("huge", np.zeros(100, np.uint8))
    assert [key for key in ("a", "d", "huge") if cache.get(key) is not None] == ["huge"]
    cache.put("b", np.zeros(10, np.uint8))
    assert [key for key in ("b", "huge") if cache.get(key) is not None] == ["b"]
    cache.clear()
    assert cache.get("b") is None


def test_cache_is_shared_by_threads():
    cache, errors = BlockCache(500), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for key in rng.integers(0, 40, 3000).tolist():
            block = cache.get(key)
            if block is None:
                cache.put(key, np.full(int(rng.integers(1, 60)), key, np.uint8))
            elif (block != key).any():
                errors.append(key)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    kept = [block.nbytes for key in range(40) if (block := cache.get(key)) is not None]
    assert 0 < sum(kept) <= 500


@pytest.mark.parametrize("name", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_numbers_are_pixels(name, order):
    dtype = pixel_dtype("a.tif", np.dtype(order + name))
    assert dtype == np.dtype(name)
    assert dtype.isnative


def test_bool_reads_as_uint8():
    assert pixel_dtype("a.tif", np.dtype(bool)) == np.uint8


@pytest.mark.parametrize(
    "dtype", [np.dtype("c8"), np.dtype("O"), np.dtype("U3"), np.dtype([("a", "u1")]), None, "text"]
)
def test_other_types_are_refused(dtype):
    with pytest.raises(PipelineError, match=r"a\.tif"):
        pixel_dtype(Path("a.tif"), dtype)


def test_window_shape():
    assert Window(2, 5, 1, 9).shape == (3, 8)
