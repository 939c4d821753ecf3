"""What the tile and the batch of a training come to: legal, learned from enough, and within a modest memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.files import load_merged
from unet_pipeline.config.sections import Config, Train
from unet_pipeline.model.card import architecture, geometry
from unet_pipeline.model.models import build
from unet_pipeline.stacks.object_sizes import ObjectSizes
from unet_pipeline.train.automatic import STEP_BYTES, USEFUL, VALUES, settle

NO_OBJECT = ObjectSizes(np.zeros(0), 0, 0, 1, 1)


def opened(config: Config, side: int = 4096, **train: object) -> tuple[Config, dict[str, str]]:
    """Settle tile and batch of a configuration, unless `train` says them."""
    keys = {"tile_px": "auto", "batch": "auto"} | train
    return settle(replace(config, train=replace(config.train, **keys)), NO_OBJECT, (side, side + 9))  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", [None, "fast"])
def test_they_come_to_what_the_default_and_fast_have(preset: str | None) -> None:
    files = [ROOT / "config.yaml", *([] if preset is None else [ROOT / "workflow" / "presets" / f"{preset}.yaml"])]
    config = load_merged([str(file) for file in files])
    found, said = opened(config)
    assert found == config
    assert set(said) == {"train.tile_px", "train.batch"}


@pytest.mark.parametrize(
    ("model", "train", "side", "tile_px", "tiles"),
    [
        ({"depth": 4}, {}, 4096, 336, 2),
        ({"depth": 4, "base_channels": 64, "batch_norm": False}, {}, 4096, 336, 1),  # the paper's one large tile
        ({"depth": 4, "base_channels": 256}, {}, 4096, 48, 2),  # what fits: 2 x 236 px at 256 channels
        ({}, {}, 100, 96, 6),  # no more than the plane has
        ({}, {}, 30, 24, 8),
        ({}, {}, 5, 8, 8),
        ({"padded": True}, {}, 4096, 128, 4),
        ({}, {"tile_px": 64}, 4096, 64, 8),
        ({}, {"tile_px": 512}, 4096, 512, 2),
        ({}, {"batch": 7}, 4096, 160, 7),
        ({"base_channels": 128, "depth": 2}, {"batch": 16}, 4096, 76, 16),
    ],
)
def test_what_they_come_to(
    model: dict[str, object], train: dict[str, object], side: int, tile_px: int, tiles: int
) -> None:
    found, said = opened(from_dict({"model": model}), side, **train)
    assert (found.train.tile_px, found.train.batch) == (tile_px, tiles)
    assert {name.removeprefix("train.") for name in said} == {"tile_px", "batch"} - set(train)


@given(
    depth=st.integers(1, 6), channels=st.integers(1, 256), side=st.integers(1, 5000), norm=st.booleans(),
    padded=st.booleans(), half=st.booleans(),
)  # fmt: skip
def test_they_are_legal_and_modest(depth: int, channels: int, side: int, norm: bool, padded: bool, half: bool) -> None:
    model = {"depth": depth, "base_channels": channels, "padded": padded, "batch_norm": norm}
    config = from_dict({"model": {**model, "stem": "half" if half else "full"}, "train": {"tile_px": "auto"}})
    found, _ = opened(config, side)
    sizes, train = geometry(architecture(found.model, 1, 2)), found.train
    assert from_dict(found.section("model", "train"))
    assert train.tile_edge_px <= max(side, sizes.stride)
    assert train.tiles >= 1 + norm or train.tiles == 1
    read_px = sizes.training_px(train.tile_edge_px)
    kept = train.tiles * read_px**2 * VALUES * 4 * channels / (4 if half else 1)
    assert kept <= STEP_BYTES or train.tile_edge_px == sizes.stride
    larger = train.tile_edge_px + sizes.stride
    enough = (train.tile_edge_px / read_px) ** 2 >= USEFUL
    room = (1 + norm) * sizes.training_px(larger) ** 2 * VALUES * 4 * channels / (4 if half else 1) <= STEP_BYTES
    assert enough or larger > side or not room


@pytest.mark.parametrize(
    "model",
    [{}, {"depth": 4, "batch_norm": False}, {"padded": True, "residual": True}, {"padded": True, "stem": "half"}],
)
def test_the_estimate_of_memory_is_no_less_than_what_is_kept(model: dict[str, object]) -> None:
    """Against what autograd keeps, tensor by tensor."""
    network, edge_px = architecture(from_dict({"model": model}).model, 1, 2), 64
    read_px, module = geometry(network).training_px(edge_px), build(network)
    own, kept = {one.untyped_storage().data_ptr() for one in module.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.rand(1, 1, read_px, read_px))
    found = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)
    channels = network.base_channels / (4 if network.stem == "half" else 1)
    assert 5 <= found / (read_px**2 * 4 * channels) <= VALUES


def test_what_is_open_is_no_number() -> None:
    with pytest.raises(Exception, match=r"train\.tile_px: expected a number where nothing settles it, got auto"):
        _ = Train(tile_px="auto").tile_edge_px
