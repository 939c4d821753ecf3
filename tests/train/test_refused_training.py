"""Trainings that cannot go on, or cannot begin: one clear error, and no model that nobody should use."""

import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch
from synthetic_training import discs, every, settings
from training_run import STACKS, run

from unet_pipeline.config.sections import Compute
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import CHECKPOINT
from unet_pipeline.train import loop

pytestmark = pytest.mark.usefixtures("a_checkpoint_every_fifth_step")


def test_a_loss_that_is_not_finite_ends_early_and_keeps_the_last_checkpoint(tmp_path):
    class Spoilt:
        calls = 0

        def __call__(self, raw):
            self.calls += 1
            value = np.float32("nan") if self.calls > 30 else np.float32(1)
            return raw.astype(np.float32) / 100 * value

    stacks = [dataclasses.replace(discs(0), normaliser=Spoilt())]
    with pytest.raises(PipelineError) as caught:
        run(tmp_path, settings(batch=1, steps=1000), stacks=stacks, validation=[])
    message = str(caught.value)
    assert "a loss of nan at step 31, learning rate 0.00998" in message
    assert "lower train.learning_rate" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == [".training"]
    kept = safetensors.torch.load_file(tmp_path / CHECKPOINT)
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_a_learning_rate_that_is_far_too_high_ends_early(tmp_path):
    options = settings(steps=500, learning_rate=10.0, clip=0.0, warmup=0, momentum=0.999)
    wild = dataclasses.replace(STACKS[0], normaliser=lambda raw: raw.astype(np.float32) * 1e6)
    with pytest.raises(PipelineError, match=r"train\.learning_rate") as caught:
        run(tmp_path, options, stacks=[wild], validation=[])
    assert "set train.clip" in str(caught.value)


def test_weights_that_are_not_finite_never_become_a_model_or_a_checkpoint(tmp_path, monkeypatch):
    def spoil(self, *_):
        with torch.no_grad():
            next(iter(self.param_groups[0]["params"])).fill_(float("inf"))

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    monkeypatch.setattr(loop, "Cadence", every(1))
    for options in (settings(steps=1), settings(steps=2)):
        with pytest.raises(PipelineError, match="not finite after step 1"):
            run(tmp_path, options, validation=[])
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_full_gpu_says_which_key_to_lower(tmp_path, monkeypatch):
    def full(self, image):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr("unet_pipeline.model.models.UNet.forward", full)
    with pytest.raises(PipelineError, match=r"lower train\.tile_px or train\.batch"):
        run(tmp_path)


def test_cuda_asked_for_and_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match=r"compute\.device"):
        run(tmp_path, dataclasses.replace(settings(), compute=Compute("cuda", 1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_class_weights_that_mean_nothing_are_refused(tmp_path, weights):
    with pytest.raises(PipelineError, match="2 finite weights"):
        run(tmp_path, weights=weights)


def test_what_does_not_fit_the_network_is_refused_before_any_work(tmp_path):
    with pytest.raises(PipelineError, match="stack rgb: expected 1 channels"):
        run(tmp_path, validation=[discs(channels=3, name="rgb")])
    with pytest.raises(PipelineError, match="nearest legal value: 16"):
        run(tmp_path, settings(tile_px=17))
    with pytest.raises(PipelineError, match="float16"):
        run(tmp_path, settings(precision="float16"))
    assert not list(tmp_path.iterdir())
