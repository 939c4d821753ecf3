"""Training and validation tiles of volumes, and a training that learns what no plane alone shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_training import CARD, planes, settings

from unet_pipeline.config.sections import IGNORE, Augment, Train
from unet_pipeline.images.mirrored import mirrored
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.card import Architecture, ModelCard, training_tile
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.train.dataset import Deep, Sampler, validation_tiles
from unet_pipeline.train.folds import divide
from unet_pipeline.train.loop import train
from unet_pipeline.train.sources import Windows
from unet_pipeline.train.training_stack import TrainingStack, in_memory

STILL = Augment(
    rotate="none", flip=False, scale=0, elastic_std_px=0, contrast=0, brightness=0, noise=0
)  # fmt: skip
GEOMETRY = unpadded(1)
NETWORK = Architecture("unet", depth=1, base_channels=4, dropout=0, dimensions=3, z_levels=2, batch_norm=True)


def volume(shape=(12, 30, 34), seed=0, used=None):
    """Voxels whose value, target and boundary term say where they are."""
    z, y, x = np.indices(shape)
    image = (z * 10000 + y * 100 + x).astype(np.float32)
    target = ((z + y + x) % 2).astype(np.uint8)
    normaliser = Normaliser((0.0,), (1.0,))
    parts = (planes(part[:, None]) for part in (image, target, image))
    image, target, boundary = parts
    return TrainingStack("volume", image, normaliser, target, boundary, planes=used, deep=True)


def sampler(stack, options=STILL, cubes=False):
    return Sampler((Windows(replace(stack, cubes=cubes)),), GEOMETRY, 8, options, 3, Deep(GEOMETRY, 8))


def test_a_tile_is_a_mirrored_part_of_the_volume():
    stack = volume()
    whole = np.stack([stack.image.planes[plane][0] for plane in range(12)])
    for step in range(20):
        tile = sampler(stack).tile(step, 0)
        read = GEOMETRY.read_px(8)
        assert tile.image.shape == (1, read, read, read)
        assert tile.target.shape == tile.boundary.shape == (8, 8, 8)
        inner = GEOMETRY.lost // 2
        middle = tile.image[0, inner : inner + 8, inner : inner + 8, inner : inner + 8]
        torch.testing.assert_close(middle, tile.boundary)
        z = (tile.image[0, :, 0, 0] // 10000).round().int().tolist()
        steps = set(np.abs(np.diff(z)).tolist())
        assert steps == {1}, "neighbouring planes, mirrored at the ends of the stack"
        assert np.isin(tile.image.numpy().round().astype(int), whole.round().astype(int)).all()
        place = tile.boundary.numpy().round().astype(int)
        assert ((place // 10000 + place // 100 % 100 + place % 100) % 2 == tile.target.numpy()).all()


def test_flips_reverse_z_and_turns_of_cubes_exchange_it():
    stack, seen = volume(), set()
    for step in range(60):
        tile = sampler(stack, replace(STILL, flip=True, rotate="quarter"), cubes=True).tile(step, 0)
        here = tile.boundary[2, 2, 2]
        along = [tile.boundary[3, 2, 2] - here, tile.boundary[2, 3, 2] - here, tile.boundary[2, 2, 3] - here]
        sizes = [round(abs(float(value))) for value in along]
        seen.add((*(sizes.index(size) for size in (10000, 100, 1) if size in sizes), along[0] > 0))
    assert {axes[0] for axes in seen if len(axes) == 4} == {0, 1, 2}, "z lies along every axis now and then"
    turn = replace(STILL, rotate="quarter")
    uneven = [sampler(stack, turn).tile(step, 0).boundary for step in range(20)]
    assert all(abs(float(part[3, 2, 2] - part[2, 2, 2])) > 5000 for part in uneven), "z stays z unless voxels are cubes"
    flipped = {bool(tile.image[0, 1, 0, 0] > tile.image[0, 0, 0, 0]) for tile in (
        sampler(stack, replace(STILL, flip=True)).tile(step, 0) for step in range(20)
    )}  # fmt: skip
    assert flipped == {True, False}


def test_planes_that_validate_are_seen_but_not_learned():
    stack = volume(used=(0, 1, 2, 9))
    (decoded,) = in_memory([stack])
    for source in (stack, decoded):
        for step in range(10):
            tile = sampler(source).tile(step, 0)
            known = (tile.target != IGNORE).flatten(1).any(dim=1)
            z = (tile.image[0, GEOMETRY.lost // 2 :, 4, 4] // 10000).round().int().tolist()[:8]
            assert known.tolist() == [plane in (0, 1, 2, 9) for plane in z]
            assert (tile.boundary[~known] == 0).all()


def test_validation_tiles_cover_the_used_planes_once():
    stack = volume(used=(1, 2, 3, 8, 9, 11))
    tiles, absent = validation_tiles([stack], 8, 1000, 2, planes=4)
    assert absent == set()
    assert {tile.plane for tile in tiles} == {0, 8}
    count = np.zeros((12, 30, 34), int)
    for one in tiles:
        tile = one.read(GEOMETRY, 8, Deep(GEOMETRY, 4))
        assert tile.target.shape == (4, 8, 8)
        first = one.plane - GEOMETRY.before
        z = (tile.image[0, :, 8, 8] // 10000).round().int().tolist()
        assert z == mirrored(first, GEOMETRY.read_px(4), 12).tolist()
        known = tile.target != IGNORE
        place = tile.boundary[known].numpy().round().astype(int)
        np.add.at(count, (place // 10000, place // 100 % 100, place % 100), 1)
    used = np.zeros(12, bool)
    used[[1, 2, 3, 8, 9, 11]] = True
    assert (count[used] == 1).all()
    assert (count[~used] == 0).all()


@pytest.mark.parametrize("options", [Train(folds=3), *(Train(hold_out=share) for share in (0.25, 0.4, 0.75))])
def test_whole_runs_of_planes_are_held_out(options):
    stack = volume()
    folds = range(3) if options.folds > 1 else [None]
    held_out = [divide([stack], options, fold).held_out[0] for fold in folds]
    for part in held_out:
        cyclic = [(b - a) % 12 for a, b in zip(part, (*part[1:], part[0]), strict=True)]
        assert sum(gap != 1 for gap in cyclic) == 1, "neighbours, perhaps around the end"
    if options.folds > 1:
        assert sorted(sum(held_out, ())) == list(range(12))
    else:
        assert len(held_out[0]) == round(12 * options.hold_out)


def test_sizes_of_training_tiles():
    deep = replace(NETWORK, depth=3, z_levels=4)
    assert training_tile(deep, Train(tile_px=64)) == (64, 64, 64)
    assert training_tile(replace(deep, z_levels=2), Train(tile_px=64)) == (16, 64, 64), "voxels four times as long"
    assert training_tile(replace(deep, z_levels=1), Train(tile_px=8)) == (1, 8, 8)
    assert training_tile(deep, Train(tile_px=64, tile_planes=24)) == (24, 64, 64)
    assert training_tile(Architecture(), Train(tile_px=64)) == (64, 64)


def noisy(seed):
    """Balls in noise that is as strong as they are: planes around show what one hides."""
    rng, shape = np.random.default_rng(seed), (24, 40, 40)
    grid, target = np.indices(shape), np.zeros(shape, np.uint8)
    for centre in rng.uniform(0, shape, (12, 3)):
        target[((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 30] = 1
    image = target + rng.normal(0, 1, shape).astype(np.float32)
    empty = planes(np.zeros((24, 1, 40, 40), np.float32))
    normaliser = Normaliser((0.0,), (1.0,))
    return TrainingStack("balls", planes(image[:, None]), normaliser, planes(target[:, None]), empty, deep=True)


@pytest.mark.slow
def test_volumes_are_learned_better_by_a_network_of_volumes(tmp_path):
    losses = {}
    for name, network in (("planes", replace(NETWORK, dimensions=2, z_levels=0)), ("volumes", NETWORK)):
        card = ModelCard(network, CARD.classes, CARD.normalise)
        keys = {"steps": 60, "tile_px": 16, "batch": 2, "validate_every": 60, "validate_tiles": 8, "warmup": 0}
        chosen = settings(**keys, learning_rate=0.05)
        stacks = [replace(noisy(seed), deep=network.dimensions == 3) for seed in (0, 1)]
        found = train(stacks[:1], stacks[1:], card, np.ones(2), chosen, tmp_path / name, name, Progress(60, name))
        losses[name] = found.card.training["validation_loss"]
    assert losses["volumes"] < 0.8 * losses["planes"]
