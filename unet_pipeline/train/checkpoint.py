"""One safetensors file holds all that an interrupted training needs; it proves that it is whole, or is not used."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.files import Check, atomic_path, unclaimed

FIX = "remove it: an unfinished training then starts over, a finished one does not need it"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training after a step.

    Attributes:
        tensors: on the CPU, named `model.*`, `momentum.*` and `best.*`.
        state: everything else, plain values; `digest` names the configuration and inputs it belongs to.
    """

    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


class Cadence:
    """When a checkpoint is due: by the clock, so that it costs the same small share of any training."""

    def __init__(self, minutes: float) -> None:
        """The first is due in so many minutes."""
        self._seconds = 60 * minutes
        self._next = time.monotonic() + self._seconds

    def due(self) -> bool:
        """Whether one is due now; the next then is due in as many minutes again."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def write_checkpoint(path: Path, checkpoint: Checkpoint, check: Check = unclaimed) -> None:
    """Write a checkpoint; the former one stays until the new one is whole.

    Raises:
        PipelineError: from `check`, just before the file gets its name, or if the disk is full or cannot be written.
    """
    state = json.dumps(dict(checkpoint.state), allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    # one entry, because safetensors keeps several in no fixed order, and the same state shall give the same bytes
    whole = json.dumps({"state": state, "sha256": _sha256(tensors, state)})
    data = safetensors.torch.save(tensors, metadata={"checkpoint": whole})
    with atomic_path(path, check) as partial:
        partial.write_bytes(data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it against its own checksum.

    Raises:
        PipelineError: if the file is missing, cut short or altered.
    """
    if path.exists() and not path.is_file():
        raise PipelineError(path, "a training checkpoint", "a folder, a pipe or a device", fix=FIX)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = json.loads(metadata["state"])
    except (OSError, safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise PipelineError(path, "a training checkpoint", error, fix=FIX) from error
    if metadata.get("sha256") != _sha256(tensors, metadata["state"]):
        raise PipelineError(path, "the checksum it was written with", "another: it was altered", fix=FIX)
    return Checkpoint(tensors, state)


def _sha256(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    """Return the SHA-256 over the state and over name, data type, shape and bytes of each tensor, in order of names."""
    total = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
