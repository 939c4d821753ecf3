import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_ingested, settings
from matplotlib.colors import to_hex
from PIL import Image

from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.predict.plan import plan, read_tile
from unet_pipeline.report import plan_drawing
from unet_pipeline.report.curves import drawn_png
from unet_pipeline.report.plan_drawing import READ, SHARD, TILE, detail, overview, sampled
from unet_pipeline.stacks.stack import Stack

SHADES = Normaliser((0.0,), (1 / 255,))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    config = settings()
    return Stack.open(make_ingested(tmp_path_factory.mktemp("plans"), "a", (2, 150, 213), config))


class Held:
    """A stack in memory."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.largest = 0

    def read(self, plane, rows, columns):
        block = self.values[plane][:, rows, columns]
        self.largest = max(self.largest, block.size)
        return block


def outlines(figure):
    """Boxes (x, y, width, height) of the outlines, by their colour."""
    patches = [one for one in figure.axes[0].patches if not one.get_fill()]
    return {
        to_hex(patch.get_edgecolor()): (*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in patches
    }


def line_places(figure, colour):
    """Rows and columns where lines of a colour lie."""
    rows, columns = (
        {float(segment[0][1 - axis]) for segment in lines.get_segments()}
        for axis, lines in enumerate(one for one in figure.axes[0].collections if to_hex(one.get_color()[0]) == colour)
    )
    return rows, columns


def picture(figure):
    """The grey values of the picture behind, and its opacity."""
    rgba = np.asarray(figure.axes[0].images[0].get_array())
    return rgba[..., 0], rgba[..., 3]


@pytest.mark.parametrize("tile_px", [16, 48, 96])
def test_tiles_and_shards_are_where_the_plan_has_them(stack, tile_px):
    planned = plan((2, 150, 213), unpadded(2), tile_px, (64, 128), 3)
    figure = overview(stack, planned, 1, SHADES)
    shards = [planned.shard_at(number) for number in range(planned.shard_count)]
    tiles = [tile for shard in shards for tile in planned.tiles(shard)]
    assert line_places(figure, TILE) == ({float(t.y) for t in tiles}, {float(t.x) for t in tiles})
    expected = {float(s.rows.start) for s in shards}, {float(s.columns.start) for s in shards}
    assert line_places(figure, SHARD) == expected


def test_outline_and_margins_of_the_first_tile(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    before, read = planned.geometry.before, planned.read[1:]
    figure = overview(stack, planned, 0, SHADES)
    found = outlines(figure)
    assert found[SHARD] == (0, 0, 213, 150)
    assert found[READ] == (-before, -before, read[1], read[0])
    after = planned.geometry.after
    assert figure.axes[0].get_xlim() == (-before, 213 + after)
    assert figure.axes[0].get_ylim() == (150 + after, -before)
    _, opacity = picture(figure)
    assert opacity.shape == (150 + before + after, 213 + before + after)
    assert (opacity[before:-after, before:-after] == plan_drawing.PALE).all()
    assert (opacity == plan_drawing.PALE).sum() == 150 * 213


def test_the_first_tile_of_each_plane(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    for plane in (0, 1):
        tile = plan_drawing.first_tile(planned, plane)
        assert (tile.z, tile.y, tile.x) == (plane, 0, 0)


def test_the_detail_shows_what_the_network_reads(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    figure = detail(stack, planned, 1, SHADES)
    window = read_tile(stack.image, plan_drawing.first_tile(planned, 1), planned)[0, 0]
    before, after = planned.geometry.before, planned.geometry.after
    shown, opacity = picture(figure)
    np.testing.assert_array_equal(shown, window)
    assert (opacity[before:, before:] == plan_drawing.PALE).all()
    assert (opacity[:before] == plan_drawing.PALER).all()
    lengths = [int(text.get_text()) for text in figure.axes[0].texts]
    assert lengths == [before, planned.keep[0], after, before, planned.keep[1], after]


@pytest.mark.slow
def test_long_lengths_are_not_cut(stack):
    """Four and more digits at the left of the drawing: paper is left around all that is drawn."""
    planned = plan((1, 20_000, 20_000), unpadded(2), 16_384, (16_384, 16_384), 1)
    image = SimpleNamespace(shape=(1, 1, 20_000, 20_000), read=lambda plane, rows, columns: np.zeros(
        (1, rows.stop - rows.start, columns.stop - columns.start), np.uint8))  # fmt: skip
    png = drawn_png(detail(SimpleNamespace(image=image), planned, 0, SHADES), cut=True)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    rim = np.concatenate([pixels[:2].ravel(), pixels[:, :2].ravel()])
    assert (rim == 255).all()
    assert (pixels < 200).any()


def test_an_image_smaller_than_the_margin(tmp_path):
    small = Stack.open(make_ingested(tmp_path, "s", (1, 9, 13), settings()))
    planned = plan((1, 9, 13), unpadded(3), 64, (16, 16), 1)
    before = planned.geometry.before
    shown, _ = picture(overview(small, planned, 0, SHADES))
    whole = small.image.read(0, slice(0, 9), slice(0, 13))[0]
    after = planned.geometry.after
    np.testing.assert_array_equal(shown, np.pad(whole, ((before, after), (before, after)), mode="reflect"))
    assert detail(small, planned, 0, SHADES).axes[0].images


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(-30, 20), st.integers(-30, 20), st.integers(1, 60),
    st.integers(1, 60), st.integers(4, 80),
)  # fmt: skip
def test_sampling_takes_every_nth_pixel_of_the_window(height, width, y, x, high, wide, shown):
    values = np.arange(height * width, dtype=np.int64).reshape(1, 1, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_drawing, "SHOWN_PX", shown)
        patch.setattr(plan_drawing, "STRIP_PX", 8)
        found = sampled(SimpleNamespace(image=Held(values)), 0, (y, x), (high, wide))
    padded = np.pad(values[0, 0], 100, mode="reflect")[100 + y : 100 + y + high, 100 + x : 100 + x + wide]
    step = -(-max(high, wide) // shown)
    np.testing.assert_array_equal(found[0], padded[::step, ::step])
    assert max(found.shape) <= shown


def test_large_windows_are_read_in_strips():
    image = Held(np.zeros((1, 1, 3000, 3000), np.uint8))
    assert max(sampled(SimpleNamespace(image=image), 0, (-50, -50), (2900, 2900)).shape) <= plan_drawing.SHOWN_PX
    assert image.largest <= 3000 * plan_drawing.STRIP_PX


def placed(in_place):
    """What a record says of an image."""
    return SimpleNamespace(image=SimpleNamespace(in_place=in_place))


def test_a_large_plan_stays_a_small_drawing(monkeypatch):
    planned = plan((1, 100_000, 100_000), unpadded(4), 512, (4096, 4096), 8)
    side = -(-100_000 // 2**8)  # the finest level of at most 480 px
    monkeypatch.setattr(plan_drawing, "read_image", lambda stack, view, level: np.zeros((1, side, side), np.uint8))
    large = SimpleNamespace(ingested=placed(False), store=None, image=None, vouch=None)
    figure = overview(large, planned, 0, SHADES)
    assert len(drawn_png(figure, cut=True)) < 200_000
    assert plan_drawing.tile_edges(planned)[2:] == (4096, 4096)
    rows, columns = line_places(figure, TILE)
    assert rows == columns == {float(y) for y in range(0, 4096, 512)}
    assert len(line_places(figure, SHARD)[0]) == 25


def test_a_large_image_used_in_place_is_not_read_whole():
    planned = plan((1, 50_000, 50_000), unpadded(4), 512, (4096, 4096), 8)
    huge = SimpleNamespace(ingested=placed(True), store=None, image=None)
    assert not overview(huge, planned, 0, SHADES).axes[0].images


def test_coordinates_of_large_images_are_exact(stack):
    planned = plan((2, 1_234_567, 150), unpadded(2), 64, (64, 64), 3)
    huge = SimpleNamespace(ingested=placed(True), store=None, image=None)
    figure = overview(huge, planned, 0, SHADES)
    assert outlines(figure)[SHARD] == (0, 0, 150, 1_234_567)
    height, width = np.asarray(Image.open(io.BytesIO(drawn_png(figure, cut=True)))).shape[:2]
    assert height < 2 * 1000
    assert width < height
    assert isinstance(stack.image, PlaneArray)
