import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_pipeline.config import IGNORE
from unet_pipeline.training.losses import Loss, pixel_weight, total


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
    goal = torch.tensor(target)
    Loss()(ours, goal, torch.full(goal.shape, 7.0)).backward()
    torch.nn.functional.cross_entropy(theirs, goal, ignore_index=IGNORE).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


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
    for goal, weight in ((target, torch.ones(1, 3, 3)), (torch.zeros_like(target), torch.zeros(1, 3, 3))):
        loss = Loss()(logits, goal, weight)
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
