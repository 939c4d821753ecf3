"""The device a network runs on, and its precision there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_pipeline.config.sections import Compute, Precision
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import tell

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
                tell(f"compute.compile: failed, so the network runs as it is ({_reason(error)})")
                self._fast = None
        result: torch.Tensor = self._network(batch)
        return result


def _reason(error: Exception) -> str:
    """Return why a compilation failed: PyTorch hands the folders of its libraries to the C++ compiler unquoted."""
    place = Path(torch.__file__).parent
    if " " in str(place):
        return f"PyTorch cannot compile for a CPU from a folder whose path has a space: {place}"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"


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
    """Return the number format for a device: the one asked for; float32, and says so, where it has no bfloat16.

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
