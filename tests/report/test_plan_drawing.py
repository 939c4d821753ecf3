from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import make_ingested, settings
from read_page import decoded

from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.predict.plan import plan, read_tile
from unet_pipeline.report import plan_drawing
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


def drawn(markup):
    return ElementTree.fromstring(markup)


def rectangles(svg):
    return {
        (rect.get("stroke"), rect.get("stroke-dasharray") is not None): tuple(
            float(rect.get(name)) for name in ("x", "y", "width", "height")
        )
        for rect in svg.iter("rect")
    }


def line_places(svg, colour):
    paths = [path.get("d") for path in svg.iter("path") if path.get("stroke") == colour]
    rows, columns = set(), set()
    for path in paths:
        for part in path.split("M")[1:]:
            if "H" in part:
                rows.add(float(part.split("H")[0].split()[1]))
            else:
                columns.add(float(part.split("V")[0].split()[0]))
    return rows, columns


@pytest.mark.parametrize("tile_px", [16, 48, 96])
def test_tiles_and_shards_are_where_the_plan_has_them(stack, tile_px):
    planned = plan((2, 150, 213), unpadded(2), tile_px, (64, 128), 3)
    svg = drawn(overview(stack, planned, 1, SHADES))
    shards = [planned.shard_at(number) for number in range(planned.shard_count)]
    tiles = [tile for shard in shards for tile in planned.tiles(shard)]
    assert line_places(svg, TILE) == ({float(t.y) for t in tiles} - {0}, {float(t.x) for t in tiles} - {0})
    expected = {float(s.rows.start) for s in shards} - {0}, {float(s.columns.start) for s in shards} - {0}
    assert line_places(svg, SHARD) == expected


def test_outline_and_margins_of_the_first_tile(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    before, read = planned.geometry.before, planned.read
    found = rectangles(drawn(overview(stack, planned, 0, SHADES)))
    assert found[SHARD, False] == (0, 0, 213, 150)
    assert found[READ, True] == (-before, -before, read[1], read[0])
    view = [float(part) for part in drawn(overview(stack, planned, 0, SHADES)).get("viewBox").split()]
    assert view[0] < -before
    assert view[0] + view[2] > 213 + planned.geometry.after


def test_the_first_tile_of_each_plane(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    for plane in (0, 1):
        tile = plan_drawing.first_tile(planned, plane)
        assert (tile.plane, tile.y, tile.x) == (plane, 0, 0)


def test_the_detail_shows_what_the_network_reads(stack):
    planned = plan((2, 150, 213), unpadded(2), 48, (64, 128), 3)
    svg = drawn(detail(stack, planned, 1, SHADES))
    window = read_tile(stack.image, plan_drawing.first_tile(planned, 1), planned)[0]
    np.testing.assert_array_equal(decoded(svg.find("image").get("href"))[..., 0], window)
    lengths = [int(text.text) for text in svg.iter("text")]
    before, after = planned.geometry.before, planned.geometry.after
    assert lengths == [before, planned.keep[1], after, before, planned.keep[0], after]


def test_an_image_smaller_than_the_margin(tmp_path):
    small = Stack.open(make_ingested(tmp_path, "s", (1, 9, 13), settings()))
    planned = plan((1, 9, 13), unpadded(3), 64, (16, 16), 1)
    svg = drawn(overview(small, planned, 0, SHADES))
    before = planned.geometry.before
    shown = decoded(svg.find("image").get("href"))[..., 0]
    whole = small.image.read(0, slice(0, 9), slice(0, 13))[0]
    after = planned.geometry.after
    np.testing.assert_array_equal(shown, np.pad(whole, ((before, after), (before, after)), mode="reflect"))
    assert drawn(detail(small, planned, 0, SHADES)).find("image") is not None


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


def test_a_large_plan_stays_a_small_drawing(monkeypatch):
    planned = plan((1, 100_000, 100_000), unpadded(4), 512, (4096, 4096), 8)
    coarse = Held(np.zeros((1, 1, 1000, 1000), np.uint8))
    level = SimpleNamespace(factor=100, read=lambda plane: coarse.values[plane])
    monkeypatch.setattr(plan_drawing, "coarse_level", lambda store: level)
    large = SimpleNamespace(facts={"image": {"in_place": False}}, store=None, image=None)
    markup = overview(large, planned, 0, SHADES)
    assert len(markup) < 20_000 + len(drawn(markup).find("image").get("href"))
    assert not plan_drawing.all_tiles_drawn(planned)
    rows, columns = line_places(drawn(markup), TILE)
    assert rows == columns == {float(y) for y in range(512, 4096, 512)}
    assert len(line_places(drawn(markup), SHARD)[0]) == 24


def test_a_large_image_used_in_place_is_not_read_whole():
    planned = plan((1, 50_000, 50_000), unpadded(4), 512, (4096, 4096), 8)
    huge = SimpleNamespace(facts={"image": {"in_place": True}}, store=None, image=None)
    assert drawn(overview(huge, planned, 0, SHADES)).find("image") is None


def test_coordinates_of_large_images_are_exact(stack):
    planned = plan((2, 1_234_567, 150), unpadded(2), 64, (64, 64), 3)
    huge = SimpleNamespace(facts={"image": {"in_place": True}}, store=None, image=None)
    assert rectangles(drawn(overview(huge, planned, 0, SHADES)))[SHARD, False] == (0, 0, 150, 1_234_567)
    assert isinstance(stack.image, PlaneArray)
