"""Weights of an encoder that were learned elsewhere: read, matched by name, and reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from unet_pipeline.errors import PipelineError

FIX = "name a state-dict of torchvision's network of that name, as .safetensors or .pth, or set the key to null"
WHERE = "model.encoder_weights"


@dataclass(frozen=True)
class Match:
    """The tensors of a weights file, by name: taken or not.

    Attributes:
        loaded: went into the encoder.
        missing: of the encoder, but not in the file: they keep their random start.
        unused: of the file, but not in the encoder, such as those of the classifier.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """Return the numbers, and the names where there are few."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        parts += [f"{len(names)} {what}: {_some(names)}" for what, names in (
            ("not in the file", self.missing), ("not used", self.unused)) if names]  # fmt: skip
        return "; ".join(parts)


def load_encoder(encoder: nn.Module, path: Path) -> Match:
    """Copy the tensors of a file whose names and shapes are the encoder's.

    The first convolution of an image with another number of channels than 3 gets the mean of its three kernels, times
    3 / channels: a grey image then gives what it would give as RGB.

    Args:
        encoder: a network of torchvision, or part of it, with its names.
        path: `.safetensors`, or `.pth` read with weights-only loading, which runs no code.

    Raises:
        PipelineError: missing or unreadable file, a tensor of another shape or kind or with values that are not finite
            (which), or no tensor that fits.
    """
    found, wanted = read_tensors(path), encoder.state_dict()
    for name in wanted:
        if name in found and (fault := tensor_fault(found[name], wanted[name].is_floating_point())):
            raise PipelineError(f"{WHERE}: {path}: {name}", "a dense tensor of finite numbers", fault, fix=FIX)
    tensors = {name: _fitted(found[name], tensor.shape) for name, tensor in wanted.items() if name in found}
    wrong = [f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}" for name in tensors
             if tensors[name].shape != wanted[name].shape]  # fmt: skip
    if wrong:
        raise PipelineError(f"{WHERE}: {path}", "tensors of the encoder's shapes", _some(tuple(wrong)), fix=FIX)
    if not tensors:
        got = f"none of them, but {_some(tuple(found))}"
        raise PipelineError(f"{WHERE}: {path}", f"tensors named as {_some(tuple(wanted))}", got, fix=FIX)
    encoder.load_state_dict(tensors, strict=False)
    counters = {
        name for name in wanted if name.endswith("num_batches_tracked")
    }  # old files have none, and none is needed
    missing = tuple(name for name in wanted if name not in found and name not in counters)
    return Match(tuple(tensors), missing, tuple(name for name in found if name not in wanted))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name, of any shape; no code in it is run.

    Raises:
        PipelineError: missing, damaged, or with something else in it than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its readers raise
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise PipelineError(f"{WHERE}: {path}", "a readable file of tensors", reason[0], fix=FIX) from error
    got = type(found).__name__
    if isinstance(found, Mapping):
        strange = [str(name) for name, part in found.items() if not isinstance(part, torch.Tensor)]
        strange += [f"the key {name!r}" for name in found if not isinstance(name, str)]
        if not strange:
            return dict(found)
        got = f"{got}, in which these are none: {_some(tuple(strange))}"
    raise PipelineError(f"{WHERE}: {path}", "a state-dict: tensors by name", got, fix=FIX)


def tensor_fault(tensor: torch.Tensor, real: bool) -> str:
    """Return what keeps a tensor of any shape from being copied into a network, or nothing.

    Args:
        tensor: of a file.
        real: whether the tensor of the network that it goes to takes fractions.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
        return f"one that is {kind}, on {tensor.device}"
    if tensor.is_floating_point() != real or tensor.is_complex():
        return f"one of {str(tensor.dtype).removeprefix('torch.')}"
    bad = int((~torch.isfinite(tensor.float())).sum()) if real else 0
    return f"{bad} of {tensor.numel()} values NaN or infinite" if bad else ""


def _fitted(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Adapt kernels of RGB images to another number of channels; return other tensors as they are."""
    rgb = tensor.ndim == 4 and len(shape) == 4 and tensor.shape[1] == 3 and shape[1] != 3
    if not rgb or (tensor.shape[0], *tensor.shape[2:]) != (shape[0], *shape[2:]):
        return tensor
    return tensor.mean(dim=1, keepdim=True).expand(shape) * (3 / shape[1])


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
