import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import padded, resized, unpadded


def walk(size: int, depth: int) -> int | None:
    """Follow one axis through figure 1 of the paper, level by level; None where a level is odd or empty."""
    for _ in range(depth):
        size -= 4
        if size <= 0 or size % 2:
            return None
        size //= 2
    size -= 4
    for _ in range(depth):
        if size <= 0:
            return None
        size = 2 * size - 4
    return size if size > 0 else None


def test_the_papers_numbers():
    geometry = unpadded(4)
    assert geometry.stride == 16
    assert (geometry.before, geometry.lost) == (92, 184)
    assert geometry.output_px(572) == 388
    assert geometry.read_px(384) == 572


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_legal_sizes_are_those_the_figure_allows(depth):
    geometry = unpadded(depth)
    for size in range(1, 900):
        expected = walk(size, depth)
        if expected is None:
            with pytest.raises(PipelineError):
                geometry.output_px(size)
        else:
            assert geometry.output_px(size) == expected


@given(depth=st.integers(1, 5), count=st.integers(1, 40))
def test_a_tile_keeps_what_it_says(depth, count):
    geometry = unpadded(depth)
    keep = count * geometry.stride
    assert walk(geometry.read_px(keep), depth) >= keep
    assert walk(geometry.read_px(keep) - geometry.stride, depth) in (
        None,
        walk(geometry.read_px(keep), depth) - geometry.stride,
    )


def test_a_kept_size_off_the_stride_names_the_nearest():
    with pytest.raises(PipelineError) as caught:
        unpadded(4).read_px(388)
    assert "384" in str(caught.value)
    assert "tile.tile_px" in str(caught.value)


@given(size=st.integers(-5, 2000))
def test_the_nearest_legal_input_is_legal_and_nearest(size):
    geometry = unpadded(3)
    try:
        geometry.check_read(size, "input")
    except PipelineError as error:
        nearest = int(str(error).split("nearest legal value: ")[1].split()[0])
        assert walk(nearest, 3)
        legal = [n for n in range(1, 2100) if walk(n, 3)]
        assert abs(nearest - size) == min(abs(n - size) for n in legal)


@given(depth=st.integers(1, 4), size=st.integers(1, 900))
def test_legal_sizes_at_half_the_resolution_are_twice_those_of_the_figure(depth, size):
    geometry = unpadded(depth).doubled()
    half = walk(size // 2, depth) if size % 2 == 0 else None
    if half is None:
        with pytest.raises(PipelineError):
            geometry.output_px(size)
    else:
        assert geometry.output_px(size) == 2 * half
        assert (size - geometry.smallest_px) % geometry.stride == 0


def test_a_padded_network_at_half_the_resolution_cuts_away_twice_as_much():
    assert padded(14, 4).doubled() == padded(32, 8)


def test_a_validation_reads_no_more_than_half_a_tile_around():
    wide = padded(224, 32)
    assert wide.validating(128) == padded(64, 32)
    assert wide.validating(160).read_px(160) == 160 + 2 * 96, "whole strides"
    for sizes in (padded(112, 16), unpadded(4), resized(2)):
        assert sizes.validating(256) == sizes


def test_depth_zero_is_refused():
    with pytest.raises(PipelineError, match=r"model\.depth"):
        unpadded(-1)


def test_a_stretched_output_still_wants_the_sizes_of_its_levels():
    sizes = resized(2)
    assert sizes.smallest_px == unpadded(2).smallest_px == 44
    with pytest.raises(PipelineError, match="44 px or more in steps of 4"):
        sizes.check_read(40, "x")
    sizes.check_read(48, "x")
    assert (sizes.read_px(128), sizes.output_px(128), sizes.training_px(128)) == (128, 128, 128)
