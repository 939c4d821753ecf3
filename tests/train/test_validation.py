import dataclasses

import numpy as np
import pytest
import torch
from synthetic_training import ARCHITECTURE, discs
from torch import nn

from unet_pipeline.config.sections import IGNORE, Compute, Train
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.model.models import build
from unet_pipeline.train.dataset import validation_tiles
from unet_pipeline.train.learner import Settings, prepare
from unet_pipeline.train.validation import Validation

STACKS = [discs(1, (2, 37, 50)), discs(2, (1, 20, 16))]
WEIGHTS = torch.tensor([0.5, 2.0])


def scored(network, batch=2, stacks=STACKS, count=1000, geometry=None):
    tiles, _ = validation_tiles(stacks, 16, count)
    return Validation(tiles, geometry or network.geometry, 16, batch, "float32", 2).score(network, WEIGHTS)


def one_pass(network, stack, plane):
    """Logits of a whole plane, by one pass over the mirrored plane."""
    height, width = stack.size
    geometry = network.geometry
    pads = [(geometry.before, geometry.round_up(size) - size + geometry.after) for size in (height, width)]
    image = np.pad(stack.normaliser(stack.image.planes[plane])[0], pads, mode="reflect")
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(image)[None, None])[0, :, :height, :width].double().numpy()


def by_definition(network):
    total = weights = 0.0
    overlap = np.zeros((3, 2))
    for stack in STACKS:
        for plane in stack.used:
            logits = one_pass(network, stack, plane)
            target, boundary = stack.target.planes[plane][0], stack.boundary.planes[plane][0]
            annotated = target != IGNORE
            wanted = np.where(annotated, target, 0)
            log_p = logits - np.log(np.exp(logits).sum(0))
            weight = np.where(annotated, WEIGHTS.numpy()[wanted] + boundary, 0.0)
            total -= (weight * np.take_along_axis(log_p, wanted[None].astype(int), 0)[0]).sum()
            weights += weight.sum()
            predicted = logits.argmax(0)
            for one in range(2):
                p, t = (predicted == one) & annotated, (target == one)
                overlap[:, one] += (p & t).sum(), p.sum(), t.sum()
    return total / weights, 2 * overlap[0] / (overlap[1] + overlap[2])


@pytest.mark.parametrize("batch", [1, 3])
def test_loss_and_dice_are_those_of_whole_planes(batch):
    network = build(ARCHITECTURE, seed=2)
    score = scored(network, batch)
    loss, dice = by_definition(network)
    np.testing.assert_allclose(score.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(score.dice, dice, rtol=1e-6)


def test_dropout_is_off_and_the_network_trains_on_afterwards():
    network = build(ARCHITECTURE, seed=2).train()
    assert scored(network) == scored(network)
    assert network.training


def test_a_class_that_is_nowhere_has_no_dice():
    class Always0(nn.Module):
        def forward(self, image):
            return torch.stack([torch.ones_like(image[:, 0]), torch.zeros_like(image[:, 0])], dim=1)

    empty = dataclasses.replace(STACKS[0], target=dataclasses.replace(STACKS[0].target, planes={
        plane: np.where(values == IGNORE, values, 0) for plane, values in STACKS[0].target.planes.items()
    }))  # fmt: skip
    padded = Geometry(stride=4, before=8, after=8, lost=0, crop_px=8)
    assert scored(Always0(), stacks=[empty], geometry=padded).dice == (1.0, None)


def test_padded_networks_are_scored_on_the_kept_block_alone():
    class Echo(nn.Module):
        """Predicts class 1 where the image is bright; garbage in the margin that is to be cropped."""

        def forward(self, image):
            bright = image[:, 0] - 0.5
            bright[:, :8] = bright[:, -8:] = bright[:, :, :8] = bright[:, :, -8:] = 99.0
            return torch.stack([-bright, bright], dim=1)

    clean = discs(1, (1, 32, 32))
    image = dataclasses.replace(clean.image, planes={0: 60 + 100 * (clean.target.planes[0] == 1).astype(np.uint8)})
    padded = Geometry(stride=4, before=8, after=8, lost=0, crop_px=8)
    assert scored(Echo(), stacks=[dataclasses.replace(clean, image=image)], geometry=padded).dice == (1.0, 1.0)


def test_a_padded_network_is_validated_by_half_a_tile_around(tmp_path):
    network = dataclasses.replace(ARCHITECTURE, depth=2, padded=True, stem="half")
    card = ModelCard(network, ("background", "cell"))
    options = Settings(Train(steps=1, batch=1, tile_px=16, warmup=0), compute=Compute(device="cpu", threads=1))
    learner = prepare(STACKS, STACKS, card, np.ones(2), options, tmp_path, "d")
    sizes = []
    learner.network.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape[2:])))
    learner.validation.score(learner.network, WEIGHTS)
    assert set(sizes) == {(32, 32)}
    assert card.geometry.read_px(16) > 32
