"""A model that the tests of exports share."""

import pytest
import torch
from chain import make_model

from unet_pipeline.model.models import load_model

DEPTH = 3
"""The first at which an output is no multiple of the stride: 8 n + 4 px."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two channels, three classes."""
    return make_model(
        tmp_path_factory.mktemp("model"), 2, depth=DEPTH, base_channels=2, classes=("background", "a", "b")
    )


@pytest.fixture(scope="module")
def network(model):
    return load_model(model, torch.device("cpu"))[0]
