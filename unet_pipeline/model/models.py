"""A network built, its folder on disk, and the device it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.model.averaging import Ensemble
from unet_pipeline.model.card import FIX, Architecture, ModelCard, read_card, write_card
from unet_pipeline.model.former import keep_former
from unet_pipeline.model.networks.encoders import EncoderUNet
from unet_pipeline.model.networks.pretrained import tensor_fault
from unet_pipeline.model.networks.unet import UNet
from unet_pipeline.model.package import LARGEST
from unet_pipeline.records.files import Check, atomic_path, sha256_bytes, unclaimed
from unet_pipeline.records.layout import CARD_FILE, WEIGHTS_FILE

NETWORKS: Mapping[str, Callable[[Architecture], nn.Module]] = {
    "unet": UNet,
    "vgg16": EncoderUNet,
    "resnet50": EncoderUNet,
}
"""By name; their sizes are those of `card.geometry`."""


def build(architecture: Architecture, seed: int = 0) -> nn.Module:
    """Return an initialised network on the CPU; the same seed gives the same weights."""
    # torch's own initialisation, which is overwritten, must not move the caller's random state
    with torch.random.fork_rng(devices=[]):
        network = NETWORKS[architecture.network](architecture)
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw kernels from N(0, 2 / N), N the incoming nodes of one neuron, and set biases to 0 (paper, section 3)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            incoming = math.prod(module.kernel_size) * module.in_channels
            if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
                # its kernels do not overlap where they are as large as the stride: each output pixel has one position
                incoming //= math.prod(module.stride)
            nn.init.normal_(module.weight, std=math.sqrt(2 / incoming), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def save_model(folder: Path, network: nn.Module, card: ModelCard, check: Check = unclaimed) -> ModelCard:
    """Write `weights.safetensors`, then `model.json` with its checksum; the same weights give the same bytes.

    A former card is removed first, so that a folder with a card is always whole; a model that was set aside is kept.

    Returns:
        The card as written, with the checksum.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    data = safetensors.torch.save(tensors)
    card = replace(card, weights_sha256=sha256_bytes(data))
    keep_former(folder, card, check)
    (folder / CARD_FILE).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_FILE, check) as partial:
        partial.write_bytes(data)
    write_card(folder, card, check)
    return card


def load_model(folder: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """Read a model folder.

    Returns:
        The network in evaluation mode on `device`, and its card.

    Raises:
        PipelineError: if a file is missing or malformed, the weights are not those the card was written for, or their
            tensors are not the network's.
    """
    card = read_card(folder)
    tensors = _read_weights(folder / WEIGHTS_FILE, card)
    with torch.device("meta"):
        network = network_of(card)
    _check_tensors(network.state_dict(), tensors, folder / WEIGHTS_FILE)
    network.load_state_dict(tensors, assign=True)
    return network.to(device).eval(), card


def network_of(card: ModelCard) -> nn.Module:
    """Return the network a card describes, uninitialised; one of several members is an `Ensemble`."""
    one = replace(card.architecture, members=1)
    members = [NETWORKS[one.network](one) for _ in range(card.architecture.members)]
    return Ensemble(members, card.activation) if len(members) > 1 else members[0]


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of one network by name, in the order of its layers."""
    with torch.device("meta"):
        network = NETWORKS[architecture.network](architecture)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def take_layers(network: nn.Module, folder: Path, card: ModelCard, layers: Collection[str]) -> None:
    """Copy layers of a finished model into a network in which they have the same names and shapes.

    Args:
        network: takes them.
        folder: the finished model.
        card: what its card said before.
        layers: names of the layers.

    Raises:
        PipelineError: the model is not whole, is no more the one with that card, or has values that are not finite.
    """
    source, found = load_model(folder, torch.device("cpu"))
    if found != card:
        raise PipelineError(folder, "the model whose card was read", "another: it was replaced", fix="run this again")
    own = network.state_dict()
    taken = {name: tensor for name, tensor in source.state_dict().items() if name.rpartition(".")[0] in layers}
    for name, tensor in taken.items():
        if fault := tensor_fault(tensor, own[name].is_floating_point()):
            raise PipelineError(f"{folder}: {name}", "finite numbers", fault, fix="name another model")
    network.load_state_dict(own | taken)  # with all names, so that one that is not the network's own is an error


def _read_weights(path: Path, card: ModelCard) -> dict[str, torch.Tensor]:
    try:
        data = read_small(path, LARGEST)
    except OSError as error:
        raise PipelineError(path, "the weights of the model", error, fix=FIX) from error
    if sha256_bytes(data) != card.weights_sha256:
        got = f"SHA-256 {sha256_bytes(data)[:12]}..., the file was altered"
        raise PipelineError(path, f"SHA-256 {card.weights_sha256[:12]}... as in {CARD_FILE}", got, fix=FIX)
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise PipelineError(path, "a safetensors file", error, fix=FIX) from error


def _check_tensors(wanted: Mapping[str, Any], found: Mapping[str, torch.Tensor], path: Path) -> None:
    """Compare names, shapes and data types, and name the tensors that differ."""
    expected = {name: f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in wanted.items()}
    got = {name: f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in found.items()}
    if expected != got:
        lacks = sorted(set(expected.values()) - set(got.values()))
        extra = sorted(set(got.values()) - set(expected.values()))
        raise PipelineError(
            path, f"tensors of the architecture, among them {_some(lacks)}", f"instead {_some(extra)}", fix=FIX
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"
