import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from unet_pipeline.images import pictures
from unet_pipeline.images.pictures import INK, PAPER, ScaleBar, scale_bar

UNITS_UM = {"nm": 1e-3, "µm": 1.0, "mm": 1e3}
greys = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20).map(lambda shape: (*shape, 3)))


@given(st.integers(4, 20_000), st.floats(1e-3, 50))
def test_scale_bars_are_round_and_true(width_px, pixel_um):
    bar = scale_bar(width_px, pixel_um)
    value, unit = bar.label.split()
    assert float(value) * UNITS_UM[unit] == pytest.approx(bar.length_px * pixel_um)
    assert re.fullmatch(r"0*[125]0*", value.replace(".", ""))
    assert float(value) >= 1 or unit == "nm"
    assert width_px / 10 * 0.999 <= bar.length_px <= width_px / 4 * 1.001


@given(st.integers(1, 20_000))
def test_without_a_pixel_size_bars_are_in_px(width_px):
    bar = scale_bar(width_px, None)
    assert bar.label == f"{bar.length_px:.0f} px"
    assert 1 <= bar.length_px <= max(1, width_px / 4)


@pytest.mark.parametrize(("width_px", "pixel_um", "label"), [
    (384, 0.5, "20 µm"), (384, 0.004, "200 nm"), (384, 4.0, "200 µm"), (1024, 20.0, "5 mm"), (100, 0.4, "10 µm"),
])  # fmt: skip
def test_known_scale_bars(width_px, pixel_um, label):
    assert scale_bar(width_px, pixel_um).label == label


@given(st.integers(1, 60), st.integers(1, 6))
def test_the_drawn_bar_has_its_length(length_px, factor):
    rgb = np.full((80, 400, 3), 90, np.uint8)
    drawn = pictures.with_scale_bar(rgb, ScaleBar(length_px, "20 µm"), factor)
    unit = 400 // 26
    below = drawn[-unit // 2 - 2, :, :]
    white = np.flatnonzero((below == PAPER).all(axis=1))
    assert len(white) == length_px * factor
    assert white[-1] - white[0] + 1 == length_px * factor


def test_the_bar_covers_a_corner_only():
    rgb = np.full((300, 400, 3), 90, np.uint8)
    drawn = pictures.with_scale_bar(rgb, ScaleBar(50, "50 px"), 1)
    assert drawn.shape == rgb.shape
    changed = np.argwhere((drawn != rgb).any(axis=2))
    assert changed.min(axis=0)[0] > 240
    assert changed.min(axis=0)[1] > 300


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 3)])
def test_narrow_pictures_get_room_for_the_label(shape):
    rgb = np.zeros((*shape, 3), np.uint8)
    drawn = pictures.with_scale_bar(rgb, ScaleBar(1, "1 px"), 1)
    assert drawn.shape[0] >= shape[0]
    assert drawn.shape[1] >= shape[1]
    assert (drawn == PAPER).all(axis=2).any()
    assert (drawn == pictures.FIELD).all(axis=2).any()


def test_colours_depend_on_the_id_alone():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 500, (40, 50), dtype=np.uint32)
    alone = {number: tuple(pictures.as_instances(np.array([[number]], np.uint32))[0, 0]) for number in np.unique(ids)}
    found = pictures.as_instances(ids)
    for number, colour in alone.items():
        assert (found[ids == number] == colour).all()
    assert alone[0] == INK


def test_neighbouring_ids_look_different():
    colours = pictures.as_instances(np.arange(1, 400, dtype=np.uint32)[None])[0].astype(int)
    for distance in (1, 2, 3, 4):
        assert np.abs(colours[distance:] - colours[:-distance]).max(axis=1).min() > 40
    assert (np.abs(colours - INK).max(axis=1) > 100).all()
    assert pictures.as_instances(np.array([[2**32 - 1]], np.uint32)).shape == (1, 1, 3)


def test_grey():
    one = pictures.as_grey(np.array([[[-1.0, 0.0, 0.5, 1.0, 7.0]]]))
    assert one[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert (one == one[..., :1]).all()


def test_three_channels_are_red_green_and_blue():
    shares = np.random.default_rng(0).random((3, 4, 5))
    np.testing.assert_array_equal(pictures.as_grey(shares), np.rint(np.moveaxis(shares, 0, 2) * 255).astype(np.uint8))


@pytest.mark.parametrize("channels", [2, 4, 5, 9])
def test_other_channels_add_up_to_white(channels):
    colours = pictures.channel_colours(channels)
    assert len({tuple(colour) for colour in colours.round(6)}) == channels
    np.testing.assert_allclose(colours.sum(axis=0), 1, atol=0.35)
    full = pictures.as_grey(np.ones((channels, 1, 1)))
    assert full.min() > 160
    assert not pictures.as_grey(np.zeros((channels, 1, 1))).any()


def test_scales_grow_brighter():
    for name in ("viridis", "magma"):
        rgb = pictures.as_scale(np.linspace(0, 1, 50)[None], name)[0].astype(float)
        light = rgb @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) > 0).all()
        assert pictures.scale_colours(name)[0] == pictures.css(rgb[0].astype(int))
        assert pictures.scale_colours(name)[-1] == pictures.css(rgb[-1].astype(int))


def test_classes():
    rgb = pictures.as_classes(np.array([[0, 1, 2, 255]], np.uint8), unknown=255)[0]
    expected = [*(pictures.class_colour(index) for index in range(3)), pictures.UNKNOWN]
    assert [tuple(pixel) for pixel in rgb] == expected
    assert len({pictures.class_colour(index) for index in range(8)}) == 8
    assert all(pictures.class_colour(index) != INK for index in range(1, 32))


@given(greys)
def test_enlarging_repeats_pixels(rgb):
    large, factor = pictures.enlarged(rgb)
    np.testing.assert_array_equal(large, np.kron(rgb, np.ones((factor, factor, 1), np.uint8)))
    assert abs(factor * max(rgb.shape[:2]) - pictures.SHOWN_PX) <= max(rgb.shape[:2]) / 2
    assert pictures.enlarged(np.zeros((5000, 10, 3), np.uint8))[1] == 1


def test_lines_part_touching_objects_alone():
    ids = np.zeros((340, 340), np.uint32)
    ids[:, 100:150], ids[:, 150:200] = 1, 2
    large, factor = pictures.enlarged(pictures.as_instances(ids), ids)
    plain, _ = pictures.enlarged(pictures.as_instances(ids))
    changed = np.argwhere((large != plain).any(axis=2))
    assert factor == 2
    assert set(changed[:, 1]) == {300}


@given(greys)
def test_png_comes_back_equal(rgb):
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(pictures.png(rgb))).convert("RGB")), rgb)


def test_png_holds_nothing_but_the_picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for rgb, mode in ((noise, "RGB"), (noise // 100, "P")):
        data = pictures.png(rgb)
        assert data == pictures.png(rgb.copy())
        image = Image.open(io.BytesIO(data))
        assert image.mode == mode
        assert not image.info
        kinds = set(re.findall(rb"(IHDR|PLTE|IDAT|IEND|tEXt|iTXt|zTXt|tIME|pHYs|eXIf)", data))
        assert kinds <= {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def test_panels_with_their_bar_fit_a_palette():
    values = np.random.default_rng(0).random((96, 96))
    for rgb in (pictures.as_grey(values[None]), pictures.as_scale(values, "viridis")):
        large, factor = pictures.enlarged(rgb)
        data = pictures.png(pictures.with_scale_bar(large, ScaleBar(20, "20 µm"), factor))
        assert Image.open(io.BytesIO(data)).mode == "P"
