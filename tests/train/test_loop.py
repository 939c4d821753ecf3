import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from synthetic_training import ARCHITECTURE, CARD, every, settings
from torch import nn
from training_run import FILES, STACKS, Killed, content, run

from unet_pipeline.config.sections import Augment, Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.models import build, load_model
from unet_pipeline.records.layout import CHECKPOINT
from unet_pipeline.train import loop
from unet_pipeline.train.loop import dropout_seed
from unet_pipeline.train.optimisers import learning_rate

pytestmark = pytest.mark.usefixtures("a_checkpoint_every_fifth_step")


def test_the_folder_holds_the_model_and_nothing_else(unbroken, tmp_path):
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CHECKPOINT.parent.name, *FILES])
    assert content(tmp_path) == unbroken[0]  # the same training gives the same bytes
    network, card = load_model(tmp_path, torch.device("cpu"))
    assert card == unbroken[1].card
    assert card.training["digest"]
    assert network(torch.zeros(1, 1, 44, 44)).shape == (1, 2, 4, 4)


def test_a_training_that_was_taken_over_stops_before_it_writes(tmp_path):
    def taken():
        raise PipelineError("model.json", "no other job", "one")

    with pytest.raises(PipelineError, match="no other job"):
        run(tmp_path, check=taken)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


# the course of a training


def test_history(unbroken):
    rows = unbroken[1].history
    assert [row.step for row in rows] == list(range(1, 25))
    assert [row.step for row in rows if row.validation_loss is not None] == [7, 14, 21, 24]
    assert all(len(row.dice) == 2 for row in rows if row.validation_loss is not None)
    table = unbroken[0]["history.tsv"].decode().splitlines()
    assert table[0].split("\t")[-1] == "dice_cell"
    assert len(table) == 25


def test_long_trainings_sum_up_their_losses(tmp_path, monkeypatch):
    single, _ = run(tmp_path / "each", settings(steps=12), validation=[])
    monkeypatch.setattr("unet_pipeline.train.loop.ROWS", 3)
    summed, _ = run(tmp_path / "summed", settings(steps=12), validation=[])
    losses = [row.train_loss for row in single.history]
    assert [row.step for row in summed.history] == [4, 8, 12]
    np.testing.assert_allclose([row.train_loss for row in summed.history], np.reshape(losses, (3, 4)).mean(axis=1))


def test_losses_that_are_read_seldom_give_the_same_history(unbroken, tmp_path, monkeypatch):
    """On a GPU they stay there for some steps, whatever the number of rows; a row between two looks is added later."""
    looks, real = [], loop._read_losses
    monkeypatch.setattr(loop, "look_every", lambda device: 4)
    monkeypatch.setattr(loop, "_read_losses", lambda learner, state: looks.append(state.step) or real(learner, state))
    run(tmp_path / "whole")
    assert content(tmp_path / "whole") == unbroken[0]
    every = {step for spacing in (4, 5, 7) for step in range(spacing, 25, spacing)}
    assert looks == sorted(every), "looks, checkpoints and validations; rows, one a step, wait for them"
    with pytest.raises(Killed):
        run(tmp_path / "killed", at=9)
    run(tmp_path / "killed")
    assert content(tmp_path / "killed") == unbroken[0]


@pytest.mark.slow
def test_it_learns_and_keeps_the_best_weights(tmp_path):
    options = settings(steps=120, learning_rate=0.05, validate_every=20, warmup=10)
    options = dataclasses.replace(options, augment=dataclasses.replace(Augment(), elastic_std_px=2.0))
    card = dataclasses.replace(CARD, architecture=dataclasses.replace(ARCHITECTURE, base_channels=4))
    result, _ = run(tmp_path, options, card=card)
    losses = [row.validation_loss for row in result.history if row.validation_loss is not None]
    scores = [row.validation_score for row in result.history if row.validation_score is not None]
    assert result.card.training["validation_score"] == max(scores) > 0.5
    assert result.card.training["selected"] == "best"
    best = next(row for row in result.history if row.step == result.card.training["selected_step"])
    assert best.dice[1] > 0.8
    assert best.validation_loss < 0.6 * losses[0] or best.validation_loss < 0.25


@pytest.mark.parametrize(
    ("select", "losses", "scores"),
    [
        ("loss", (0.9, 0.2, 0.8, 0.7), (0.9, 0.1, 0.5, None)),
        ("score", (0.1, 0.9, 0.8, 0.7), (0.2, 0.9, 0.8, None)),
        ("score", (0.9, 0.2, 0.8, 0.7), (0.5, 0.5, 0.5, 0.5)),
        ("score", (0.9, 0.2, 0.8, 0.7), (None, None, None, None)),
    ],
)
def test_the_kept_weights_are_those_of_the_best_validation(tmp_path, monkeypatch, select, losses, scores):
    """Validations are made up, so that step 14 is the best; its weights are those of a training of 14 steps."""
    from unet_pipeline.train.validation import Score, Validation

    made_up = iter(zip(losses, scores, strict=True))

    def score(*_):
        loss, value = next(made_up)
        return Score(loss, (0.5, 0.5), value)

    monkeypatch.setattr(Validation, "score", score)
    result, _ = run(tmp_path / "best", settings(schedule="constant", select=select))
    assert (result.card.training["selected"], result.card.training["selected_step"]) == ("best", 14)
    run(tmp_path / "short", settings(schedule="constant", steps=14, select="last"), validation=[])
    assert (tmp_path / "best" / FILES[0]).read_bytes() == (tmp_path / "short" / FILES[0]).read_bytes()


@pytest.fixture
def made_up(monkeypatch):
    """Scores of the validations, one after the other; 0.1 behind the last. Resumed, they go on where they were."""
    from unet_pipeline.train.validation import Score, Validation

    def use(*values):
        scores = iter([*values, *[0.1] * 99])
        monkeypatch.setattr(Validation, "score", lambda *_: Score(0.5, (0.5, 0.5), next(scores)))

    return use


@pytest.mark.parametrize(
    ("values", "more", "ended"),
    [
        ((0.2, 0.6, 0.4, 0.5), {}, 8),  # the second was the best: two in vain after it
        ((0.2, 0.3, 0.4, 0.5, 0.6), {}, 14),
        ((0.6,), {"warmup": 11}, 14),  # those of the warm-up do not count
        ((0.1, 0.2, 0.1, 0.3, 0.1, 0.4, 0.1, 0.5, 0.1, 0.6, 0.1, 0.7), {}, 24),  # never two in vain
    ],
)
def test_training_ends_when_no_validation_is_better(tmp_path, made_up, values, more, ended):
    options = settings(schedule="constant", validate_every=2, patience=2, **more)
    made_up(*values)
    result, text = run(tmp_path / "ended", options)
    record = result.card.training
    assert (record["steps"], result.history[-1].step) == (ended, ended)
    assert record["settings"]["train"]["steps"] == 24
    best = 2 * (1 + values.index(max(values)))
    assert record["selected_step"] == best
    told = f"2 validations without a better score than that of step {best}"
    assert record.get("ended") == (told if ended < 24 else None)
    assert (f"ends after step {ended} of 24: {told}" in text) == (ended < 24)
    # not one step of another training: the weights are those of that many steps
    run(tmp_path / "short", settings(schedule="constant", steps=best, select="last", **more), validation=[])
    assert (tmp_path / "ended" / FILES[0]).read_bytes() == (tmp_path / "short" / FILES[0]).read_bytes()


@pytest.mark.parametrize("at", [3, 6, 7])
def test_a_training_that_was_interrupted_ends_at_the_same_step(tmp_path, made_up, monkeypatch, at):
    values, options = (0.2, 0.6, 0.4, 0.5), settings(validate_every=2, patience=2)
    made_up(*values)
    run(tmp_path / "whole", options)
    monkeypatch.setattr(loop, "Cadence", every(1))
    made_up(*values)
    with pytest.raises(Killed):
        run(tmp_path / "killed", options, at=at)
    made_up(*values[at // 2 :])
    result, _ = run(tmp_path / "killed", options)
    assert (result.resumed_step, result.card.training["steps"]) == (at, 8)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    # and one whose files were lost is restored without a step
    for name in FILES:
        (tmp_path / "killed" / name).unlink()
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    assert run(tmp_path / "killed", options)[0].resumed_step == 8
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_patience_without_validation_is_told_to_end_nothing(tmp_path):
    result, text = run(tmp_path, settings(patience=1), validation=[])
    assert "train.patience ends nothing" in text
    assert result.card.training["steps"] == 24


def test_without_validation_stacks_the_last_weights_are_kept_and_it_is_said(tmp_path):
    result, text = run(tmp_path, validation=[])
    assert "the last weights are kept" in text
    assert result.card.training["selected"] == "last"
    assert result.card.training["selected_step"] == 24
    assert all(row.validation_loss is None for row in result.history)


def test_one_step_is_the_textbooks(tmp_path):
    """No momentum, dropout, clipping or augmentation: weights - rate * gradient of the loss on the sampler's tile."""
    from unet_pipeline.train.dataset import Sampler
    from unet_pipeline.train.losses import Loss, pixel_weight
    from unet_pipeline.train.sources import Windows

    architecture = dataclasses.replace(ARCHITECTURE, dropout=0.0)
    options = settings(steps=1, momentum=0.0, clip=0.0, warmup=0, schedule="constant")
    run(tmp_path, options, validation=[], card=dataclasses.replace(CARD, architecture=architecture))
    network = build(architecture, seed=3)
    sampler = Sampler(tuple(map(Windows, STACKS)), network.geometry, 16, Augment(), 3)
    image, target, boundary = sampler.batch(0, range(2))
    weight = pixel_weight(target.long(), boundary, torch.tensor([1.0, 2.0]))
    Loss()(network(image), target.long(), weight).backward()
    written = safetensors.torch.load_file(tmp_path / FILES[0])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(written[name], parameter.detach() - 0.01 * parameter.grad, atol=1e-6, rtol=1e-5)


def test_weight_decay_pulls_kernels_but_not_biases(tmp_path):
    for name, decay in (("plain", 0.0), ("decayed", 1.0)):
        options = settings(steps=1, momentum=0.0, warmup=0, schedule="constant", weight_decay=decay, clip=0.0)
        run(tmp_path / name, options, validation=[])
    without, with_decay = (safetensors.torch.load_file(tmp_path / name / FILES[0]) for name in ("plain", "decayed"))
    start = build(ARCHITECTURE, seed=3).state_dict()
    for name, tensor in without.items():
        pulled = tensor - 0.01 * start[name] if tensor.ndim > 1 else tensor
        torch.testing.assert_close(with_decay[name], pulled, atol=1e-6, rtol=1e-5)


def test_clipping_bounds_the_step(tmp_path):
    options = settings(steps=1, momentum=0.0, warmup=0, schedule="constant", learning_rate=1.0, clip=1e-3)
    run(tmp_path, options, validation=[])
    start, end = build(ARCHITECTURE, seed=3).state_dict(), safetensors.torch.load_file(tmp_path / FILES[0])
    moved = sum(((end[name] - start[name]) ** 2).sum() for name in start) ** 0.5
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-2)


def test_learning_rate():
    options = Train(steps=100, warmup=10, learning_rate=0.5, schedule="cosine")
    rates = [learning_rate(options, step) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.05)
    assert rates[10] == 0.5
    np.testing.assert_allclose(rates[55], 0.25)
    assert 0 < rates[-1] < 0.001
    assert (np.diff(rates[10:]) < 0).all()
    constant = dataclasses.replace(options, schedule="constant")
    assert {learning_rate(constant, step) for step in range(9, 100)} == {0.5}
    short = Train(steps=5, warmup=50, learning_rate=0.5)
    assert learning_rate(short, 4) == 0.05


def test_dropout_seeds_differ_by_seed_and_step():
    assert len({dropout_seed(seed, step) for seed in range(5) for step in range(50)}) == 250


# what can go wrong


def test_the_card_given_is_kept_and_completed(unbroken, tmp_path):
    card = dataclasses.replace(CARD, training={"provenance": {"commit": "abc"}})
    run(tmp_path, settings(steps=2), card=card, validation=[])
    written = json.loads((tmp_path / "model.json").read_text())
    assert written["training"]["provenance"] == {"commit": "abc"}
    assert written["training"]["settings"]["train"]["steps"] == 2
    assert written["training"]["class_weights"] == [1, 2]
    assert written["classes"] == ["background", "cell"]
    assert "seconds" not in json.dumps(written)


def test_the_number_of_reading_threads_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr("unet_pipeline.train.learner.readers", lambda *_: 3)
    run(tmp_path / "three", settings(steps=4))
    monkeypatch.setattr("unet_pipeline.train.learner.readers", lambda *_: 1)
    run(tmp_path / "one", settings(steps=4))
    assert content(tmp_path / "three") == content(tmp_path / "one")


def test_dropout_is_drawn_anew_each_step(tmp_path, monkeypatch):
    masks = []
    original = nn.Dropout.forward

    def seen(self, x):
        out = original(self, x)
        if self.training:
            masks.append((out == 0).float().mean().item())
        return out

    monkeypatch.setattr(nn.Dropout, "forward", seen)
    run(tmp_path, settings(steps=3), validation=[])
    assert len(masks) == 6
    assert len(set(masks)) > 2


def test_every_update_is_made_at_the_rate_of_its_step(tmp_path, monkeypatch):
    """What the optimiser holds, not what the table says."""
    options, used, step = settings(schedule="cosine", steps=9), [], torch.optim.SGD.step

    def noted(self, *given, **named):
        used.append({group["lr"] for group in self.param_groups})
        return step(self, *given, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    run(tmp_path, options)
    assert used == [{learning_rate(options.train, step)} for step in range(9)]
    assert len(set.union(*used)) > 6, "they rise and fall"
