import dataclasses

import numpy as np
import pytest
import torch
from synthetic_training import discs, planes
from test_training_stack import counted

from unet_pipeline.config.sections import IGNORE, Augment
from unet_pipeline.model.geometry import Geometry, unpadded
from unet_pipeline.train.dataset import Sampler, validation_tiles
from unet_pipeline.train.feed import prefetch
from unet_pipeline.train.sources import Windows
from unet_pipeline.train.training_stack import TrainingStack

OFF = Augment(0.0, 3, 256, False, False, 0.0, 0.0, 0.0, 0.0)
GEOMETRY = unpadded(2)  # keeps 16, reads 56 (20 before, 20 after), returns 16


def as_they_are(raw):
    return raw.astype(np.float32)


def coordinates_stack(height, width, count=1, name="coordinates"):
    """A stack whose image, target and boundary say where a pixel lies, so that tiles can be checked against it."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([np.stack([y, x, np.full_like(y, plane)]) for plane in range(count)])
    target = np.broadcast_to((y + 3 * x) % 7, (count, 1, height, width)).astype(np.uint8)
    boundary = np.broadcast_to(y + 1000 * x, (count, 1, height, width)).astype(np.float32)
    return TrainingStack(name, planes(image), as_they_are, planes(target), planes(boundary))


def sampler(*stacks, options=OFF, tile_px=16, seed=0, geometry=GEOMETRY):
    return Sampler(tuple(map(Windows, stacks)), geometry, tile_px, options, seed)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_sizes_and_types():
    tile = sampler(discs(channels=3), options=Augment()).tile(0, 0)
    assert tile.image.shape == (3, 56, 56)
    assert tile.image.dtype == torch.float32
    assert tile.target.shape == (16, 16)
    assert tile.target.dtype == torch.uint8
    assert tile.boundary.shape == (16, 16)
    assert tile.boundary.dtype == torch.float32
    deeper = sampler(discs(), options=Augment(), geometry=unpadded(3)).tile(0, 0)
    assert deeper.image.shape == (1, 108, 108)
    assert deeper.target.shape == (20, 20)  # 4 px more than are kept: all that the network returns is learnt from
    batch = sampler(discs(), options=Augment()).batch(0, range(4))
    assert [part.shape[0] for part in batch] == [4, 4, 4]


@pytest.mark.parametrize("size", [(200, 160), (40, 35), (5, 90), (1, 3)])
def test_an_unaugmented_tile_is_a_piece_of_the_mirrored_plane(size):
    stack = coordinates_stack(*size)
    margin = 100
    y, x = (np.pad(stack.image.planes[0][axis], margin, mode="reflect") for axis in (0, 1))
    draws = sampler(stack)
    for step in range(10):
        tile = draws.tile(step, 0)
        # the smallest shift at which the tile lies in the mirrored plane: found by looking everywhere
        patch = tile.image.numpy()
        wide = np.lib.stride_tricks.sliding_window_view(y, (56, 56))
        across = np.lib.stride_tricks.sliding_window_view(x, (56, 56))
        first_y = np.flatnonzero((np.abs(wide[:, 0, :, 0] - patch[0][:, 0]) < 1e-3).all(axis=1))
        first_x = np.flatnonzero((np.abs(across[0, :, 0, :] - patch[1][0]) < 1e-3).all(axis=1))
        assert len(first_y)
        assert len(first_x)
        top, left = first_y[0] + 20, first_x[0] + 20  # the output starts `before` px further in
        window = slice(top, top + 16), slice(left, left + 16)
        np.testing.assert_array_equal(tile.target, (y[window] + 3 * x[window]) % 7)
        np.testing.assert_allclose(tile.boundary, y[window] + 1000 * x[window], rtol=1e-4, atol=1e-2)


def test_label_and_weight_follow_the_image_through_every_augmentation():
    """The image says where each of its pixels comes from: there the target must be found."""
    stack = coordinates_stack(120, 150)
    options = dataclasses.replace(Augment(), brightness=0.0, contrast=0.0, noise=0.0)
    draws = sampler(stack, options=options)
    checked = 0
    for step in range(12):
        tile = draws.tile(step, 0)
        y, x = tile.image[0, 20:36, 20:36].numpy(), tile.image[1, 20:36, 20:36].numpy()
        between = (np.abs(y % 1 - 0.5) < 0.02) | (np.abs(x % 1 - 0.5) < 0.02)
        between |= (y < 1) | (x < 1) | (y > 118) | (x > 148)  # folded positions average two sides
        expected = (np.rint(y) + 3 * np.rint(x)) % 7
        np.testing.assert_array_equal(tile.target.numpy()[~between], expected[~between])
        np.testing.assert_allclose(tile.boundary.numpy()[~between], (y + 1000 * x)[~between], rtol=1e-3, atol=1)
        checked += (~between).sum()
        assert len(np.unique(np.round(np.diff(y, axis=0), 4))) > 3  # it was deformed
    assert checked > 1500


def test_a_tile_is_a_function_of_seed_step_and_index_alone():
    stack = discs(shape=(3, 90, 80))
    draws = sampler(stack, options=Augment(), seed=5)
    first = draws.tile(7, 1)
    draws.tile(8, 0)
    assert same(first, draws.tile(7, 1))
    assert same(first, sampler(stack, options=Augment(), seed=5).tile(7, 1))
    assert same(first, draws.batch(7, range(3))._replace()) is False
    assert all(torch.equal(part[1], one) for part, one in zip(draws.batch(7, range(3)), first, strict=True))
    for other in (draws.tile(7, 2), draws.tile(6, 1), sampler(stack, options=Augment(), seed=6).tile(7, 1)):
        assert not torch.equal(first.image, other.image)


def test_stacks_and_planes_are_chosen_by_their_pixels():
    small, large = coordinates_stack(30, 40, 1), coordinates_stack(60, 60, 3)
    large = dataclasses.replace(large, normaliser=lambda raw: raw.astype(np.float32) + 1000)
    draws = sampler(small, large)
    seen = [draws.tile(step, 0).image[2, 0, 0].item() for step in range(600)]
    shares = [seen.count(value) / 600 for value in (0.0, 1000.0, 1001.0, 1002.0)]
    expected = np.array([1200, 3600, 3600, 3600]) / 12000
    np.testing.assert_allclose(shares, expected, atol=0.06)


def test_centres_are_even_over_the_plane_up_to_its_border():
    draws = sampler(coordinates_stack(40, 80))
    rows = np.array([draws.tile(step, 0).image[1, 28, 27:29].mean().item() for step in range(500)])
    assert np.histogram(rows, 4, (0, 80))[0].min() > 90


def test_only_the_planes_named_are_used():
    stack = dataclasses.replace(coordinates_stack(40, 40, 5), planes=(1, 4))
    draws = sampler(stack)
    assert {draws.tile(step, 0).image[2, 0, 0].item() for step in range(30)} == {1.0, 4.0}


def test_tiles_without_annotation_are_drawn_again():
    stack = coordinates_stack(400, 400)
    target = np.full((1, 1, 400, 400), IGNORE, np.uint8)
    target[0, 0, 100:160, 200:260] = 1  # 4 % of the tiles meet it
    draws = sampler(dataclasses.replace(stack, target=planes(target)))
    found = [bool((draws.tile(step, 0).target != IGNORE).any()) for step in range(60)]
    assert 0.55 < np.mean(found) < 0.95  # 1 - 0.96^32 = 0.73; without tries 0.04


def test_a_plane_nobody_annotated_ends_after_the_stated_tries():
    stack = dataclasses.replace(discs(), target=planes(np.full((2, 1, 60, 70), IGNORE, np.uint8)))
    assert (sampler(stack).tile(0, 0).target == IGNORE).all()


def test_no_more_than_the_bounding_box_is_read():
    stack = counted(coordinates_stack(1400, 1900))
    draws = sampler(stack, options=Augment())
    for step in range(20):
        draws.tile(step, 0)
    largest = np.ceil(56 * 2**0.5 / 0.9 + 2 * 60)  # turned, shrunk, and 6 standard deviations of displacement
    for _, rows, columns in stack.image.reads:
        assert 0 <= rows.start < rows.stop <= 1400
        assert rows.stop - rows.start <= largest
        assert columns.stop - columns.start <= largest
    area = [np.prod([part.stop - part.start for part in read[1:]]) for read in stack.target.reads]
    assert np.median(area) < 56 * 56


def test_a_padded_network_learns_from_its_whole_output():
    padded = Geometry(stride=4, before=16, after=16, lost=0, crop_px=16)
    tile = sampler(coordinates_stack(90, 90), geometry=padded).tile(0, 0)
    assert tile.target.shape == tile.image.shape[1:] == (16, 16)
    np.testing.assert_allclose(tile.boundary, tile.image[0] + 1000 * tile.image[1], rtol=1e-4, atol=1e-2)


# validation


def test_validation_covers_every_pixel_once_when_all_tiles_are_taken():
    stacks = [discs(1, (2, 37, 50)), discs(2, (1, 16, 16))]
    tiles, _ = validation_tiles(stacks, 16, 10_000)
    assert len(tiles) == 2 * 3 * 4 + 1
    annotated = sum((tile.read(GEOMETRY, 16).target != IGNORE).sum().item() for tile in tiles)
    assert annotated == sum((plane != IGNORE).sum() for stack in stacks for plane in stack.target.planes.values())


def test_a_validation_tile_is_a_piece_of_the_mirrored_plane_with_unknown_beyond():
    stack = discs(4, (1, 37, 50))
    raw, target, boundary = (source.planes[0][0] for source in (stack.image, stack.target, stack.boundary))
    wide = np.pad(stack.normaliser(raw[None])[0], 64, mode="reflect")
    for tile in validation_tiles([stack], 16, 100)[0]:
        read = tile.read(GEOMETRY, 16)
        top, left = tile.row + 64 - 20, tile.column + 64 - 20
        np.testing.assert_allclose(read.image[0], wide[top : top + 56, left : left + 56], atol=1e-5)
        inside = target[tile.row : tile.row + 16, tile.column : tile.column + 16]
        height, width = inside.shape
        np.testing.assert_array_equal(read.target[:height, :width], inside)
        assert (read.target[height:] == IGNORE).all()
        assert (read.target[:, width:] == IGNORE).all()
        part = boundary[tile.row : tile.row + 16, tile.column : tile.column + 16]
        np.testing.assert_array_equal(read.boundary[:height, :width], part)


def test_validation_tiles_are_spread_over_planes_and_always_the_same():
    stack = discs(1, (8, 64, 64))
    tiles, _ = validation_tiles([stack], 16, 8)
    assert [tile.plane for tile in tiles] == list(range(8))
    assert tiles == validation_tiles([stack], 16, 8)[0]


@pytest.mark.parametrize("count", [8, 42])
def test_validation_tiles_do_not_lie_in_one_row_or_column(count):
    """520 x 696 px in blocks of 160 px: in raster order the middles of 8 runs all lay in one column."""
    target = np.zeros((42, 1, 520, 696), np.uint8)
    target[..., ::7] = 1
    stack = dataclasses.replace(coordinates_stack(520, 696, count=42), target=planes(target))
    tiles, absent = validation_tiles([stack], 160, count)
    assert len({(tile.plane, tile.row, tile.column) for tile in tiles}) == count
    assert not absent
    for places, there in (([tile.row for tile in tiles], 4), ([tile.column for tile in tiles], 5)):
        shares = np.bincount(np.array(places) // 160, minlength=there) / count
        assert np.count_nonzero(shares) >= 3
        assert shares.max() <= 0.5


def test_validation_tiles_show_every_class_where_there_are_any():
    target = np.zeros((4, 1, 64, 64), np.uint8)
    target[1, 0, 20:24, 36:40] = 1
    stack = dataclasses.replace(discs(1, (4, 64, 64)), target=planes(target))
    tiles, absent = validation_tiles([stack], 16, 4, classes=3)
    assert (1, 16, 32) in [(tile.plane, tile.row, tile.column) for tile in tiles]
    assert absent == {2}


def test_validation_passes_over_blocks_nobody_annotated():
    target = np.full((4, 1, 64, 64), IGNORE, np.uint8)
    target[2, 0, 20:24, 36:40] = 1
    stack = dataclasses.replace(discs(1, (4, 64, 64)), target=planes(target))
    (tile,), absent = validation_tiles([stack], 16, 4)
    assert absent == {0}
    assert (tile.plane, tile.row, tile.column) == (2, 16, 32)
    assert validation_tiles([], 16, 4) == ([], {0, 1})


# reading ahead


def test_workers_take_one_core_each_and_leave_the_callers_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda _: torch.get_num_threads(), range(3), workers=2)) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
