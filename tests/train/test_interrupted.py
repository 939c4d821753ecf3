"""Trainings that end at any moment: resumed, they equal an unbroken one; checkpoints that cannot be used are not."""

import dataclasses
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_training import discs, settings
from training_run import FILES, Killed, content, run

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import CHECKPOINT
from unet_pipeline.train import loop
from unet_pipeline.train.checkpoint import Cadence

pytestmark = pytest.mark.usefixtures("a_checkpoint_every_fifth_step")


def test_a_finished_model_that_was_lost_is_restored_without_a_step(unbroken, tmp_path, monkeypatch):
    run(tmp_path)
    for name in FILES:
        (tmp_path / name).unlink()
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    result, _ = run(tmp_path)
    assert content(tmp_path) == unbroken[0]
    assert result.resumed_step == 24


@pytest.mark.parametrize("at", [3, 5, 13, 23])
def test_a_training_killed_anywhere_and_resumed_equals_an_unbroken_one(unbroken, tmp_path, at):
    with pytest.raises(Killed):
        run(tmp_path, at=at)
    assert not (tmp_path / "model.json").exists()
    result, text = run(tmp_path)
    assert content(tmp_path) == unbroken[0]
    assert result.history == unbroken[1].history
    assert result.resumed_step == at // 5 * 5
    assert ("resuming after step" in text) == (at >= 5)


@pytest.mark.parametrize(("minutes", "count"), [(1000.0, 1), (0.0, 24)])
def test_the_time_between_checkpoints_changes_no_result(unbroken, tmp_path, monkeypatch, minutes, count):
    """The last alone, and one after every step: by the clock, which no result may depend on."""
    written, real = [], loop.write_checkpoint
    monkeypatch.setattr(loop, "Cadence", Cadence)
    monkeypatch.setattr(loop, "write_checkpoint", lambda *all: written.append(all[1].state["step"]) or real(*all))
    options = settings()
    compute = dataclasses.replace(options.compute, checkpoint_minutes=minutes)
    run(tmp_path, dataclasses.replace(options, compute=compute))
    assert content(tmp_path) == unbroken[0]
    assert written == list(range(25 - count, 25))


def test_training_goes_on_while_a_checkpoint_is_written_and_cannot_change_it(unbroken, tmp_path, monkeypatch):
    """The writer holds the first one back until two more steps are done: it is that of step 5 all the same."""
    further, real = threading.Event(), loop.write_checkpoint

    def slow(path, checkpoint, check):
        assert further.wait(60)
        real(path, checkpoint, check)

    def end():
        further.set()
        raise Killed

    monkeypatch.setattr(loop, "write_checkpoint", slow)
    with pytest.raises(Killed):
        run(tmp_path, at=7, act=end)
    result, _ = run(tmp_path)
    assert result.resumed_step == 5
    assert content(tmp_path) == unbroken[0]


def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path, monkeypatch):
    def full(path, checkpoint, check):
        raise PipelineError(path, "room", "a full disk")

    monkeypatch.setattr(loop, "write_checkpoint", full)
    with pytest.raises(PipelineError, match="a full disk"):
        run(tmp_path)
    assert not (tmp_path / "model.json").exists()


def test_checkpoints_are_due_by_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("unet_pipeline.train.checkpoint.time", SimpleNamespace(monotonic=lambda: now[0]))
    cadence, due = Cadence(2.0), []
    for now[0] in (100.0, 219.0, 220.0, 221.0, 400.0, 519.0, 520.0):
        due.append(cadence.due())
    assert due == [False, False, True, False, True, False, True]


def test_a_training_killed_twice_and_in_bfloat16(tmp_path):
    options = settings(precision="bfloat16", weight_decay=0.01, momentum=0.99)
    for name, stops in (("once", ()), ("thrice", (8, 17))):
        for at in stops:
            with pytest.raises(Killed):
                run(tmp_path / name, options, at=at)
        run(tmp_path / name, options)
    assert content(tmp_path / "once") == content(tmp_path / "thrice")


def test_the_scale_of_half_precision_gradients_is_resumed_too(tmp_path, monkeypatch):
    """Float16 belongs to GPUs and is refused on a CPU; allowed here, its scaler is the same object."""

    monkeypatch.setattr("unet_pipeline.train.learner.usable_precision", lambda device, precision, where: precision)
    scales = []
    update = torch.amp.GradScaler.update
    monkeypatch.setattr(torch.amp.GradScaler, "update", lambda self: (update(self), scales.append(self.get_scale())))
    options = settings(steps=14, precision="float16", weight_decay=0.01)
    # the loss is large where the image is: the first scales overflow and are halved
    bright = [dataclasses.replace(discs(0), normaliser=lambda raw: raw.astype(np.float32) * 20)]
    with pytest.raises(Killed):
        run(tmp_path / "killed", options, at=7, stacks=bright, validation=[])
    assert scales[4] < 2.0**16
    for name in ("killed", "unbroken"):
        run(tmp_path / name, options, stacks=bright, validation=[])
    assert content(tmp_path / "killed") == content(tmp_path / "unbroken")


def test_without_momentum_there_is_nothing_of_it_to_resume(tmp_path):
    options = settings(momentum=0.0)
    with pytest.raises(Killed):
        run(tmp_path / "killed", options, at=11)
    for name in ("killed", "unbroken"):
        run(tmp_path / name, options)
    assert content(tmp_path / "killed") == content(tmp_path / "unbroken")


@pytest.mark.slow
def test_a_checkpoint_of_other_inputs_or_settings_is_not_used(unbroken, tmp_path):
    for digest, options in (("other", settings()), ("d", settings(learning_rate=0.02))):
        with pytest.raises(Killed):
            run(tmp_path, options, at=12, digest=digest)
        result, text = run(tmp_path)
        assert "belongs to another configuration" in text
        assert result.resumed_step == 0
        assert content(tmp_path) == unbroken[0]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: data[:-9] + b"123456789"])
def test_a_damaged_checkpoint_is_noticed_and_the_training_starts_again(unbroken, tmp_path, damage):
    with pytest.raises(Killed):
        run(tmp_path, at=12)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    result, text = run(tmp_path)
    assert "cannot be used" in text
    assert result.resumed_step == 0
    assert content(tmp_path) == unbroken[0]


def test_sigterm_ends_after_the_step_with_a_checkpoint(unbroken, tmp_path):
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PipelineError, match=r"SIGTERM after step 9.*(?s:.*)run the same command again"):
        run(tmp_path, at=8, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == former
    result, _ = run(tmp_path)
    assert result.resumed_step == 9
    assert content(tmp_path) == unbroken[0]
