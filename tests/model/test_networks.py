"""The networks: sizes, parameters, how far they see, and tiles that equal one whole pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from unet_pipeline.config.network_section import Model
from unet_pipeline.model.card import architecture, geometry
from unet_pipeline.model.fused import ConvolutionReLU, fuse
from unet_pipeline.model.models import build
from unet_pipeline.model.networks.blocks import Bilinear, doubled_by_convolution
from unet_pipeline.model.receptive_field import radius_px, resnet50, unet, vgg16

VARIANTS = {
    "default": Model(depth=2, base_channels=4),
    "paper": Model(depth=2, base_channels=4, dropout=0.5, batch_norm=False),
    "release": Model(depth=2, base_channels=4, dropout=0.5, batch_norm=False, up_relu=True, wide_up=True),
    "unpadded, all else": Model(depth=2, base_channels=4, batch_norm=True, down="stride", up="bilinear"),
    "padded": Model(depth=2, base_channels=4, batch_norm=False, padded=True),
    "padded, batch norm, bilinear": Model(depth=2, base_channels=4, padded=True, batch_norm=True, up="bilinear"),
    "padded, strided": Model(depth=2, base_channels=4, padded=True, batch_norm=True, down="stride"),
    "padded, strided, deeper": Model(
        depth=3, base_channels=2, batch_norm=False, padded=True, down="stride", up="bilinear"
    ),
    "half": Model(depth=2, base_channels=4, padded=True, stem="half"),
    "half, residual, strided, bilinear, narrow": Model(
        depth=2, base_channels=4, padded=True, stem="half", residual=True, down="stride", up="bilinear", widest=6
    ),
    "half, unpadded, residual": Model(depth=2, base_channels=4, batch_norm=False, stem="half", residual=True, widest=4),
    "vgg16": Model(network="vgg16", batch_norm=False),
    "vgg16, bilinear, batch norm": Model(network="vgg16", up="bilinear", batch_norm=True),
    "resnet50": Model(network="resnet50", batch_norm=False, up="bilinear"),
}


LEVELS = {
    "padded": unet(2, strided=False),
    "padded, batch norm, bilinear": unet(2, strided=False),
    "padded, strided": unet(2, strided=True),
    "padded, strided, deeper": unet(3, strided=True),
    "half": unet(2, strided=False),
    "half, residual, strided, bilinear, narrow": unet(2, strided=True),
    "vgg16": vgg16(),
    "vgg16, bilinear, batch norm": vgg16(),
    "resnet50": resnet50(),
}

FARTHEST = {"vgg16": [2], "vgg16, bilinear, batch norm": [3], "resnet50": [28]}


def network_of(model: Model, channels: int = 1, classes: int = 2, seed: int = 0) -> nn.Module:
    network = build(architecture(model, channels, classes), seed).eval()
    for module in network.modules():  # statistics as after a training, else batch norm changes nothing
        if isinstance(module, nn.BatchNorm2d):
            generator = torch.Generator().manual_seed(module.num_features)
            module.running_mean = 0.1 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
    return network


def variants(*slow: str) -> list[Any]:
    """All variants; of the encoders, which cannot be narrowed, some are for slow tests."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in VARIANTS]


@pytest.mark.parametrize("name", variants("vgg16", "vgg16, bilinear, batch norm", "resnet50"))
def test_tiles_equal_one_whole_pass(name: str) -> None:
    network, sizes = network_of(VARIANTS[name]), geometry(architecture(VARIANTS[name], 1, 2))
    stride, keep = sizes.stride, sizes.round_up(32)
    image = torch.rand(1, 1, *(sizes.read_px(2 * keep),) * 2, generator=torch.Generator().manual_seed(1))
    crop = sizes.crop_px
    with torch.inference_mode():
        whole = network(image)[..., crop : crop + 2 * keep, crop : crop + 2 * keep]
        places = [(keep, stride), (stride, keep), (0, 0), (0, keep)]
        for y, x in places[: None if VARIANTS[name].network == "unet" else 1]:
            read = sizes.read_px(keep)
            part = network(image[..., y : y + read, x : x + read])[..., crop : crop + keep, crop : crop + keep]
            torch.testing.assert_close(part, whole[..., y : y + keep, x : x + keep], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", variants("vgg16", "vgg16, bilinear, batch norm", "resnet50"))
def test_fused_layers_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the kernel, which only a GPU has."""
    taken: list[torch.Size] = []

    def kernel(x: torch.Tensor, weight: torch.Tensor, *more: Any) -> torch.Tensor:
        taken.append(weight.shape)
        return conv2d(x, weight, *more).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", kernel)
    network, size = network_of(VARIANTS[name]), geometry(architecture(VARIANTS[name], 1, 2)).training_px(32)
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = network(image)
        fuse(network, torch.float32)
        torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-4)
    kinds = [type(layer) for layer in network.modules()]
    assert taken and len(taken) == kinds.count(ConvolutionReLU)
    assert nn.BatchNorm2d not in kinds or "resnet" in name  # whose encoder is no sequence of layers


@pytest.mark.parametrize(
    "name", ["paper", "padded, strided", "half, unpadded, residual", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of the first kernel, which the output sees through all levels and through the highest skip."""
    network, generator = network_of(VARIANTS[name]).double(), torch.Generator().manual_seed(2)
    size = {"paper": 44, "half, unpadded, residual": 88}.get(name, 32)
    image = torch.rand(1, 1, size, size, dtype=torch.float64, generator=generator)
    kernel = next(network.parameters())
    along = torch.randn(kernel.shape, dtype=torch.float64, generator=generator)
    mask = torch.randn(network(image).shape, dtype=torch.float64, generator=generator)

    def value(step: float) -> float:
        kernel.data += step * along
        with torch.no_grad():
            found = float((network(image) * mask).sum())
        kernel.data -= step * along
        return found

    (network(image) * mask).sum().backward()
    assert kernel.grad is not None
    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    assert float((kernel.grad * along).sum()) == pytest.approx(expected, rel=1e-3)


def smooth(network: nn.Module) -> nn.Module:
    """Replace what hides gradients (ReLU, maximum) by what lets all through, kernels by positive ones."""
    for name, module in network.named_children():
        if isinstance(module, nn.ReLU):
            setattr(network, name, nn.Identity())
        elif isinstance(module, nn.MaxPool2d):
            setattr(network, name, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
        else:
            smooth(module)
    for parameter in network.parameters(recurse=False):
        parameter.data = parameter.data.abs() + 1e-3
    return network


def extent(network: nn.Module, height: int, width: int, at: int) -> tuple[int, int]:
    """First and last row of the image that changes output row `at`, by gradient."""
    image = torch.ones(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    output = network(image)
    output[0, :, at, output.shape[-1] // 2].sum().backward()
    rows = image.grad[0, 0].abs().amax(dim=1).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1])


@pytest.mark.parametrize("name", variants("vgg16, bilinear, batch norm", "resnet50"))
def test_sees_as_far_as_is_computed(name: str) -> None:
    sizes = geometry(architecture(VARIANTS[name], 1, 2))
    network, size = smooth(network_of(VARIANTS[name])).double(), sizes.read_px(sizes.stride)
    width = size if sizes.lost else 2 * sizes.stride  # as rows are alike, few columns say as much
    # of the slow networks only the row that sees farthest, found with one of all rows
    phases = FARTHEST[name] if name in FARTHEST else range(sizes.stride)
    seen = [extent(network, size, width, sizes.crop_px + phase) for phase in phases]
    if sizes.lost:  # what is read begins with the first pixel that the first kept one sees
        assert 0 <= seen[0][0] < sizes.stride
        assert sizes.before == sizes.lost // 2
    else:
        rows = [sizes.crop_px + phase for phase in phases]
        before, after = (max(abs(row - ends[side]) for row, ends in zip(rows, seen, strict=True)) for side in (0, 1))
        assert max(before, after) <= sizes.before < max(before, after) + sizes.stride
        radius = radius_px(LEVELS[name], VARIANTS[name].up == "bilinear")
        if VARIANTS[name].stem == "half":  # of pixels twice as large, and the other one of its own
            radius = 2 * radius + 1
        assert max(before, after) == radius


@pytest.mark.parametrize("padded", [False, True])
def test_doubling_by_convolution_is_bilinear_interpolation_gradient_included(padded):
    """So a GPU trains it, where the gradient of `interpolate` is slow if it is to be deterministic."""
    image = torch.rand(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(2, 3, 10 - 2 * (not padded), 16 - 2 * (not padded))
    ours, theirs = (image.clone().requires_grad_() for _ in range(2))
    doubled = doubled_by_convolution(ours, int(not padded)), Bilinear(padded)(theirs)
    for one in doubled:
        (one * weight).sum().backward()
    torch.testing.assert_close(*doubled, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-6)
