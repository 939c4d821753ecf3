"""What the tests of the training loop share."""

import pytest
from synthetic_training import every
from training_run import content, run

from unet_pipeline.train import loop


@pytest.fixture
def a_checkpoint_every_fifth_step(monkeypatch):
    monkeypatch.setattr(loop, "Cadence", every(5))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    result, _ = run(folder)
    return content(folder), result
