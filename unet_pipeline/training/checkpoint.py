"""One safetensors file holds all that an interrupted training needs; it proves that it is whole, or is not used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.record import atomic_path

STATE = "checksum and state"
"""The entry of the file's header: SHA-256, a line break, the state as JSON."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step.

    Attributes:
        tensors: on the CPU, named `model.*`, `momentum.*` and `best.*`.
        state: everything else, plain values; `digest` names the configuration and inputs it belongs to.
    """

    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the former one stays until the new one is whole.

    Raises:
        PipelineError: if the disk is full or cannot be written.
    """
    state = json.dumps(dict(checkpoint.state), allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    # One entry: safetensors writes several in an order that changes from process to process.
    data = safetensors.torch.save(tensors, metadata={STATE: f"{_sha256(tensors, state)}\n{state}"})
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it against its own checksum.

    Raises:
        PipelineError: if the file is missing, cut short or altered.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        checksum, text = metadata[STATE].split("\n", 1)
        state = json.loads(text)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise PipelineError(path, "a training checkpoint", error, fix="remove it to train from the start") from error
    if checksum != _sha256(tensors, text):
        raise PipelineError(path, "the checksum it was written with", "another: the file was altered")
    return Checkpoint(tensors, state)


def _sha256(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    """Return the SHA-256 over the state and over name, data type, shape and bytes of each tensor, in order of names."""
    total = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
