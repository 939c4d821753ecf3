from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.config.sections import Loss as LossName
from unet_pipeline.train.losses import SMOOTH_PX, Loss, binary_cross_entropy, focal, picked, pixel_weight, total


def example(seed, classes=3, ignore=0.3):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (2, classes, 5, 4))
    target = generator.integers(0, classes, (2, 5, 4))
    target[generator.random(target.shape) < ignore] = IGNORE
    return logits, target, generator.uniform(0, 5, target.shape)


def brute_force(logits, target, weight):
    """Equation 1 pixel by pixel."""
    total, weights = 0.0, 0.0
    for index in np.ndindex(target.shape):
        if target[index] == IGNORE:
            continue
        scores = logits[index[0], :, index[1], index[2]]
        p = np.exp(scores) / np.exp(scores).sum()
        total -= weight[index] * np.log(p[target[index]])
        weights += weight[index]
    return total / weights if weights else 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0, 1))
def test_equals_the_definition(seed, classes, ignore):
    logits, target, weight = example(seed, classes, ignore)
    loss = Loss()(torch.tensor(logits), torch.tensor(target), torch.tensor(weight).float())
    np.testing.assert_allclose(loss.item(), brute_force(logits, target, weight), rtol=1e-4, atol=1e-6)


def test_uniform_weights_equal_torchs_cross_entropy_gradient_included():
    logits, target, _ = example(0)
    ours, theirs = (torch.tensor(logits, dtype=torch.float32, requires_grad=True) for _ in range(2))
    wanted = torch.tensor(target)
    Loss()(ours, wanted, torch.full(wanted.shape, 7.0)).backward()
    torch.nn.functional.cross_entropy(theirs, wanted, ignore_index=IGNORE).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("classes", [2, 3, 21])
def test_picking_by_comparison_gives_the_bits_of_gather_gradient_included(classes):
    """So it is done on a GPU, where gather's gradient is slow."""
    logits, target, weight = (torch.tensor(part) for part in example(4, classes, ignore=0))
    ours, theirs = (logits.float().requires_grad_() for _ in range(2))
    losses = [picked(ours.log_softmax(1), target), theirs.log_softmax(1).gather(1, target[:, None])[:, 0]]
    for loss in losses:
        (loss * weight).sum().backward()
    assert torch.equal(*losses)
    assert torch.equal(ours.grad, theirs.grad)


def test_the_scale_of_the_weights_does_not_matter():
    logits, target, weight = (torch.tensor(part) for part in example(1))
    torch.testing.assert_close(
        Loss()(logits, target, weight.float()),
        Loss()(logits, target, 1000 * weight.float()),
    )


def test_unannotated_pixels_change_nothing():
    logits, target, weight = (torch.tensor(part) for part in example(2))
    changed, heavier = logits.clone(), weight.clone()
    changed.permute(0, 2, 3, 1)[target == IGNORE] = 50.0
    heavier[target == IGNORE] = 1e6
    assert Loss()(logits, target, weight) == Loss()(changed, target, heavier)


def test_no_weight_is_no_loss_and_no_gradient():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    target = torch.full((1, 3, 3), IGNORE)
    for wanted, weight in ((target, torch.ones(1, 3, 3)), (torch.zeros_like(target), torch.zeros(1, 3, 3))):
        loss = Loss()(logits, wanted, weight)
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()


def test_half_precision_scores_are_summed_in_float32():
    logits = torch.randn(1, 2, 200, 200).bfloat16()
    target = torch.randint(0, 2, (1, 200, 200))
    loss = Loss()(logits, target, torch.ones(1, 200, 200))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits.float(), target))


def test_sums_of_parts_add_up():
    logits, target, weight = (torch.tensor(part) for part in example(3))
    loss = Loss("focal+dice", alpha=0.3)
    parts = [loss.sums(logits[[n]], target[[n]], weight[[n]]) for n in range(2)]
    sums = (sum(part) for part in zip(*parts, strict=True))
    torch.testing.assert_close(total(*sums), loss(logits, target, weight))


def test_pixel_weight_is_class_weight_plus_boundary():
    target = torch.tensor([[[0, 1, IGNORE], [2, 0, 1]]])
    boundary = torch.tensor([[[0.5, 0.0, 9.0], [0.0, 10.0, 0.25]]])
    weight = pixel_weight(target, boundary, torch.tensor([1.0, 3.0, 5.0]))
    torch.testing.assert_close(weight, torch.tensor([[[1.5, 3.0, 0.0], [5.0, 11.0, 3.25]]]))


@pytest.mark.parametrize("name", get_args(LossName))
def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much(name):
    target = torch.tensor([[[0, 1, 2], [IGNORE, 1, 0]]])
    right = 40.0 * torch.nn.functional.one_hot(torch.where(target == IGNORE, 0, target), 3).movedim(-1, 1) - 20.0
    weight, loss = torch.ones(target.shape), Loss(name)
    assert loss(right, target, weight) == pytest.approx(0, abs=1e-4)
    wrong = right.roll(1, dims=1).requires_grad_()
    cost = loss(wrong, target, weight)
    assert cost > 0.5
    cost.backward()
    assert bool(torch.isfinite(wrong.grad).all())


def test_focal_loss_without_focus_is_the_cross_entropy_and_its_factors_are_those_of_the_paper():
    logits, target, weight = (torch.tensor(part) for part in example(5, ignore=0))
    torch.testing.assert_close(Loss("focal", gamma=0.0)(logits, target, weight), Loss()(logits, target, weight))
    p = logits.softmax(dim=1).gather(1, target[:, None])[:, 0]
    expected = -torch.where(target > 0, 0.25, 0.75) * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(focal(logits, target, 2.0, 0.25), expected)


def test_binary_cross_entropy_equals_torchs():
    logits, target, _ = (torch.tensor(part) for part in example(6, ignore=0))
    wanted = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
    torch.testing.assert_close(binary_cross_entropy(logits, target), expected)


def test_dice_loss_is_the_mean_over_tiles_of_what_torchs_sums_say():
    logits, target, weight = (torch.tensor(part) for part in example(7))
    missed = []
    for scores, wanted in zip(logits.softmax(dim=1).float(), target, strict=True):
        annotated = wanted != IGNORE
        dice = [
            (2 * scores[c][annotated & (wanted == c)].sum() + SMOOTH_PX)
            / (scores[c][annotated].sum() + (wanted == c).sum() + SMOOTH_PX)
            for c in range(3)
        ]
        missed.append(1 - torch.stack(dice).mean())
    torch.testing.assert_close(Loss("dice")(logits, target, weight), torch.stack(missed).mean())


def test_the_activation_follows_the_loss():
    assert Loss("focal+dice").activation == Loss("dice").activation == "softmax"
    assert Loss("binary_cross_entropy+dice").activation == "sigmoid"
