"""A network built, its folder on disk, and the device it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from unet_pipeline.config.sections import Compute, Precision
from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.averaging import Ensemble
from unet_pipeline.model.card import (
    CARD_FILE,
    FIX,
    WEIGHTS_FILE,
    Architecture,
    ModelCard,
    read_card,
    write_card,
)
from unet_pipeline.model.networks.encoders import EncoderUNet
from unet_pipeline.model.networks.unet import UNet
from unet_pipeline.records.files import Check, atomic_path, sha256_bytes, unclaimed

LARGEST = 2**34
"""Bytes of a weights file: more than the largest network has."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


NETWORKS: Mapping[str, Callable[[Architecture], nn.Module]] = {
    "unet": UNet,
    "vgg16": EncoderUNet,
    "resnet50": EncoderUNet,
}
"""By name; their sizes are those of `modelcard.geometry`."""


def build(architecture: Architecture, seed: int = 0) -> nn.Module:
    """Return an initialised network on the CPU; the same seed gives the same weights."""
    # torch's own initialisation, which is overwritten, must not move the caller's random state
    with torch.random.fork_rng(devices=[]):
        network = NETWORKS[architecture.network](architecture)
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw kernels from N(0, 2 / N), N = kernel area x input channels, and set biases to 0 (paper, section 3.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            incoming = math.prod(module.kernel_size) * module.in_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / incoming), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def save_model(folder: Path, network: nn.Module, card: ModelCard, check: Check = unclaimed) -> ModelCard:
    """Write `weights.safetensors`, then `model.json` with its checksum; the same weights give the same bytes.

    A former card is removed first, so that a folder with a card is always whole.

    Returns:
        The card as written, with the checksum.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    data = safetensors.torch.save(tensors)
    check()
    (folder / CARD_FILE).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_FILE, check) as partial:
        partial.write_bytes(data)
    card = replace(card, weights_sha256=sha256_bytes(data))
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


class Compiled:
    """A network that torch compiles at its first call for each shape, or the network itself where that fails."""

    def __init__(self, network: nn.Module) -> None:
        """Nothing is compiled yet."""
        self._network = network
        self._fast: Callable[[torch.Tensor], torch.Tensor] | None = torch.compile(network, dynamic=False)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the network returns."""
        if self._fast is not None:
            try:
                return self._fast(batch)
            except (torch.cuda.OutOfMemoryError, PipelineError):
                raise
            except Exception as error:  # a compiler that is missing, or any mistake of it
                first = str(error).strip().splitlines()[:1]
                tell(f"compute.compile: failed, so the network runs as it is ({type(error).__name__}: {first})")
                self._fast = None
        result: torch.Tensor = self._network(batch)
        return result


def choose_device(compute: Compute) -> torch.device:
    """Return the device of section `compute`: "auto" is CUDA where there is a GPU, else the CPU.

    Raises:
        PipelineError: if CUDA is asked for and absent.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise PipelineError(
            "compute.device", "a CUDA GPU that torch can use", f"none (torch {torch.__version__})", "cpu",
            "set compute.device: auto, or run on a machine with a GPU and a CUDA build of torch",
        )  # fmt: skip
    return torch.device("cuda" if available and compute.device != "cpu" else "cpu")


def usable_precision(device: torch.device, precision: Precision, where: str) -> Precision:
    """Return the number format for a device: the one asked for, or float32 (told) where the device has no bfloat16.

    Raises:
        PipelineError: float16 on a CPU, whose kernels are slow or absent; `where` is the key, e.g. "train.precision".
    """
    if precision == "float16" and device.type == "cpu":
        raise PipelineError(where, "float32 or bfloat16 on a CPU", precision, "bfloat16")
    if precision == "bfloat16" and not has_bfloat16(device):
        tell(f"{where}: this {device.type.upper()} does not compute in bfloat16, so float32 is used")
        return "float32"
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that convolutions in it are not emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which convolutions run in `precision` (see `usable_precision`); weights stay float32."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "float32")
