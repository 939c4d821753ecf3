import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import calm

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_numbers import natural_key, parse_planes
from unet_pipeline.images.readers.axes import check_axes, find_layout

WHERE = Path("stack.tif")


@calm
@given(st.permutations("tzcyx"), st.data())
def test_any_order_becomes_planes_channels_height_width(order, data):
    letters = "".join(order[: data.draw(st.integers(2, 5))])
    letters += "".join(a for a in "yx" if a not in letters)
    plane = data.draw(st.sampled_from([a for a in letters if a in "tz"] or [""]))
    sizes = {"y": 5, "x": 6, "c": data.draw(st.integers(1, 3)), "t": 1, "z": 1} | ({plane: 4} if plane else {})
    array = np.arange(np.prod([sizes[a] for a in letters])).reshape([sizes[a] for a in letters])
    layout = find_layout(WHERE, array.shape, letters)

    # The oracle addresses every pixel by name.
    count, channels = sizes[plane] if plane else 1, sizes["c"] if "c" in letters else 1
    expected = np.empty((count, channels, 5, 6), array.dtype)
    for p, c, y, x in itertools.product(range(count), range(channels), range(5), range(6)):
        place = {"y": y, "x": x, "c": c, "t": 0, "z": 0} | ({plane: p} if plane else {})
        expected[p, c, y, x] = array[tuple(place[a] for a in letters)]
    assert layout.shape == expected.shape
    # Dimensions that are none of the four keep their one entry in front.
    np.testing.assert_array_equal(layout.canonical(array), expected)


@pytest.mark.parametrize(
    ("shape", "letters", "axes", "expected", "plane_axis"),
    [
        ((5, 40, 50), "?yx", None, (5, 1, 40, 50), "z"),
        ((5, 40, 50), "?yx", "tyx", (5, 1, 40, 50), "t"),
        ((5, 40, 50), "zyx", "TYX", (5, 1, 40, 50), "t"),
        ((5, 40, 50), "zyx", "cyx", (1, 5, 40, 50), "z"),
        ((5, 40, 50, 1), "?yxc", None, (5, 1, 40, 50), "z"),
        ((1, 5, 1, 40, 50, 1), "tzcyxc", None, (5, 1, 40, 50), "z"),
        ((5, 1, 1, 40, 50, 1), "tzcyxc", None, (5, 1, 40, 50), "t"),
        ((5, 1, 1, 40, 50, 1), "tzcyxc", "zyx", (5, 1, 40, 50), "z"),
        ((1, 1, 1, 40, 50, 3), "tzcyxc", None, (1, 3, 40, 50), "z"),
        ((40, 50, 3), "yxc", None, (1, 3, 40, 50), "z"),
        ((40, 50, 3), "yx?", "yxs", (1, 3, 40, 50), "z"),
        ((40, 50), "yx", "tyx", (1, 1, 40, 50), "t"),
        ((5, 1, 50), "???", "zyx", (5, 1, 1, 50), "z"),
        ((3, 5, 40, 50), "?cyx", "czyx", (5, 3, 40, 50), "z"),
        ((7, 5, 40, 50), "c?yx", None, (5, 7, 40, 50), "z"),
        ((1, 40, 50), "tyx", None, (1, 1, 40, 50), "t"),
    ],
)
def test_layouts(shape, letters, axes, expected, plane_axis):
    layout = find_layout(WHERE, shape, letters, axes)
    assert (layout.shape, layout.plane_axis) == (expected, plane_axis)


@pytest.mark.parametrize(
    ("shape", "letters", "axes", "words"),
    [
        ((2, 5, 40, 50), "tzyx", None, ["2 time points of 5 z planes", "split"]),
        ((2, 5, 40, 50), "??yx", None, ["2 × 5 × 40 × 50 (??yx)", "set axes"]),
        ((40, 50, 7), "yx?", None, ["40 × 50 × 7", "set axes"]),
        ((5, 2, 40, 50), "z?yx", None, ["set axes"]),
        ((2, 40, 50, 3), "cyxc", None, ["one c axis", "2 × 40 × 50 × 3"]),
        ((5, 40, 50), "zyx", "yx", ["'yx'", "nearest legal value: zyx"]),
        ((40, 50), "yx", "zy", ["'zy'", "nearest legal value: zyx"]),
        ((5, 40, 50), "zyx", "zzyx", ["at most once"]),
        ((5, 40, 50), "zyx", "qyx", ["'qyx'", "nearest legal value: yx"]),
        ((0, 40, 50), "zyx", None, ["an image with pixels"]),
        ((40, 50), "zt", None, ["height and width"]),
        ((), "", None, ["an image with pixels"]),
        ((5, 6), "zc", None, ["height and width"]),
    ],
)
def test_layouts_that_cannot_be(shape, letters, axes, words):
    with pytest.raises(PipelineError) as caught:
        find_layout(WHERE, shape, letters, axes)
    for word in ["stack.tif", *words]:
        assert word in str(caught.value)


def test_check_axes():
    assert check_axes(WHERE, " TZCYX ") == "tzcyx"
    assert check_axes(WHERE, "yxs") == "yxc"


@st.composite
def selections(draw):
    """A list of distinct planes and one of the texts that mean it."""
    runs, planes, count = [], [], draw(st.integers(1, 60))
    free = set(range(count))
    for first in draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)):
        last = min(count - 1, first + draw(st.integers(0, 5)))
        if set(range(first, last + 1)) <= free:
            free -= set(range(first, last + 1))
            planes += range(first, last + 1)
            space = draw(st.sampled_from(["", " "]))
            plain = first == last and draw(st.booleans())
            runs.append(f"{space}{first}{space}" if plain else f"{first}{space}-{space}{last}")
    return count, ",".join(runs), planes


@calm
@given(selections())
def test_planes_keep_their_order(case):
    count, text, planes = case
    assert list(parse_planes(WHERE, text, count)) == planes


@calm
@given(st.integers(1, 20))
def test_no_text_means_all_planes(count):
    assert parse_planes(WHERE, None, count) == parse_planes(WHERE, "  ", count) == range(count)


@pytest.mark.parametrize(
    ("text", "nearest", "word"),
    [
        ("0-17,20", "19", "from 0 to 19"),
        ("20", "19", "from 0 to 19"),
        ("5-2", "2-5", "upwards"),
        ("1,1", "None", "plane 1 twice"),
        ("0-4,3", "None", "plane 3 twice"),
        ("a", "None", "'a'"),
        ("1,,2", "None", "''"),
        ("-3", "None", "'-3'"),
        ("1.5", "None", "'1.5'"),
        ("٣", "None", "'٣'"),
    ],
)
def test_planes_that_cannot_be(text, nearest, word):
    with pytest.raises(PipelineError) as caught:
        parse_planes(WHERE, text, 20)
    assert str(caught.value.nearest) == nearest
    assert "stack.tif" in str(caught.value)
    assert word in str(caught.value)


@calm
@given(st.text(max_size=12), st.integers(1, 9))
def test_any_text_is_parsed_or_refused(text, count):
    try:
        planes = parse_planes(WHERE, text, count)
    except PipelineError:
        return
    assert len(set(planes)) == len(planes)
    assert set(planes) <= set(range(count))


def test_natural_order():
    names = ["img10.png", "IMG2.png", "img1.png", "img02.png", "a.png", "img2b.png", "10.png", "9.png"]
    expected = ["9.png", "10.png", "a.png", "img1.png", "img2b.png", "IMG2.png", "img02.png", "img10.png"]
    assert sorted(names, key=natural_key)[:4] == expected[:4]
    assert sorted(names, key=natural_key)[-1] == "img10.png"
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


@calm
@given(st.lists(st.integers(0, 10**9), unique=True, max_size=30))
def test_natural_order_of_numbers_is_that_of_numbers(numbers):
    names = sorted((f"z{n}.tif" for n in numbers), key=natural_key)
    assert names == [f"z{n}.tif" for n in sorted(numbers)]
