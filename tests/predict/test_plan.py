import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import mirrored, read_window
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.plan import AlongZ, Tile, plan, read_box, read_tile


class Memory:
    """An image in memory that counts what is read of it."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.pixels = 0

    def read(self, plane, rows, columns):
        block = self.values[plane][:, rows, columns]
        self.pixels += block[0].size
        return block


@given(length=st.integers(1, 40), before=st.integers(0, 150), after=st.integers(0, 150))
def test_mirroring_equals_numpys_reflect(length, before, after):
    whole = np.pad(np.arange(length), (before, after), mode="reflect")
    np.testing.assert_array_equal(mirrored(-before, before + length + after, length), whole)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 150)),
    depth=st.integers(1, 3),
    tile=st.integers(1, 8),
    shard=st.integers(1, 6),
    regions=st.integers(1, 9),
    deep=st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3))),
)
@settings(max_examples=100)
def test_every_pixel_is_kept_once(shape, depth, tile, shard, regions, deep):
    geometry, along_z = unpadded(depth), AlongZ()
    stride = geometry.stride
    if deep:  # a network of volumes, whose levels see z from some depth on
        sizes = unpadded(deep[0])
        along_z = AlongZ(sizes, deep[1] * sizes.stride, deep[2] * sizes.stride)
    planned = plan(shape, geometry, tile * stride, (shard * stride, (shard + 1) * stride), regions, along_z)
    count = np.zeros(shape, int)
    shards = [number for index in range(regions) for number in planned.region(index)]
    assert shards == list(range(planned.shard_count))
    for number in shards:
        place = planned.shard_at(number)
        for one in planned.tiles(place):
            assert (one.y % planned.keep[0], one.x % planned.keep[1]) == (0, 0), "one grid, whatever the shards"
            assert one.z % planned.along_z.keep == 0
            assert planned.keep[0] % stride == planned.along_z.keep % along_z.geometry.stride == 0
            assert planned.keep[0] <= tile * stride
            assert all(
                part.start >= 0 and part.stop <= keep for part, keep in zip(one.part, planned.keeps, strict=True)
            )
            count[one.write.axes] += 1
    assert (count == 1).all()
    assert planned.tile_count(range(planned.shard_count)) == sum(
        len(list(planned.tiles(planned.shard_at(number)))) for number in shards
    )


def test_regions_divide_the_shards_evenly():
    planned = plan((7, 16, 16), unpadded(2), 16, (16, 16), 3)
    assert [len(planned.region(index)) for index in range(3)] == [2, 2, 3]
    with pytest.raises(PipelineError, match="0 to 2"):
        planned.region(3)


def test_tiles_divide_an_image_evenly():
    planned = plan((1, 520, 512), unpadded(3), 512, (1024, 512), 1)
    assert planned.keep == (264, 512)


def test_what_lies_in_several_shards_keeps_the_tile_size():
    """An even division of the shard would not fit the next one: tiles of 176 px would lie in two of them."""
    assert plan((1, 1000, 300), unpadded(3), 384, (512, 256), 1).keep == (384, 256)


def test_a_tile_in_two_shards_is_the_same_pass_for_both():
    image = Memory(np.random.default_rng(0).integers(0, 255, (1, 1, 100, 90), dtype=np.uint8))
    planned = plan((1, 100, 90), unpadded(2), 24, (64, 96), 1)
    seen = {}
    for number in (0, 1):
        shard = planned.shard_at(number)
        window = planned.read_shard(image, shard)
        for tile in planned.tiles(shard):
            part = window[:, *planned.window_of(tile, shard)]
            np.testing.assert_array_equal(part, read_tile(image, tile, planned))
            seen.setdefault((tile.y, tile.x), []).append(tile.write.rows)
    assert [rows for (_, x), rows in seen.items() if x == 0][2] == [slice(48, 64), slice(64, 72)]


@pytest.mark.parametrize(("tile", "shard"), [(388, (512, 512)), (384, (500, 512))])
def test_sizes_off_the_stride_are_refused(tile, shard):
    with pytest.raises(PipelineError, match="multiple of the pooling stride 16"):
        plan((1, 900, 900), unpadded(4), tile, shard, 1)


@given(height=st.integers(1, 60), width=st.integers(1, 60), y=st.integers(-70, 70), x=st.integers(-70, 70))
def test_a_window_equals_the_padded_plane(height, width, y, x):
    rng = np.random.default_rng(height * 100 + width)
    image = Memory(rng.integers(0, 255, (2, 3, height, width), dtype=np.uint8))
    reach = 200
    padded = np.pad(image.values[1], ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    window = read_window(image, 1, y, x, (45, 33))
    np.testing.assert_array_equal(window, padded[:, y + reach : y + reach + 45, x + reach : x + reach + 33])


def test_inner_tiles_read_real_neighbours_and_no_more():
    geometry = unpadded(2)
    image = Memory(np.random.default_rng(0).integers(0, 255, (1, 1, 400, 400), dtype=np.uint8))
    planned = plan((1, 400, 400), geometry, 40, (400, 400), 1)
    tile = Tile(0, 160, 200, Box.of(0, slice(160, 200), slice(200, 240)))
    window = read_tile(image, tile, planned)
    before, size = geometry.before, geometry.read_px(40)
    expected = image.values[0][:, None, 160 - before : 160 - before + size, 200 - before : 200 - before + size]
    np.testing.assert_array_equal(window, expected)
    assert image.pixels == size * size


def test_a_shard_is_clipped_at_the_image_edge():
    planned = plan((1, 70, 50), unpadded(1), 32, (64, 32), 1)
    assert planned.shard_at(3) == Box.of(0, slice(64, 70), slice(32, 50))


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20)),
    origin=st.tuples(*[st.integers(-30, 30)] * 3),
    size=st.tuples(*[st.integers(1, 25)] * 3),
)
def test_a_box_equals_the_padded_volume(shape, origin, size):
    image = Memory(np.random.default_rng(0).integers(0, 255, (shape[0], 2, *shape[1:]), dtype=np.uint8))
    padded = np.pad(image.values.swapaxes(0, 1), ((0, 0), *[(60, 60)] * 3), mode="reflect")
    part = tuple(slice(60 + first, 60 + first + length) for first, length in zip(origin, size, strict=True))
    np.testing.assert_array_equal(read_box(image, origin, size), padded[:, *part])


def test_a_mirrored_plane_is_read_once():
    image = Memory(np.zeros((3, 1, 8, 8), np.uint8))
    read_box(image, (-4, 0, 0), (11, 8, 8))
    assert image.pixels == 3 * 64
