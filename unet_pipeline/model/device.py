"""The device a network runs on, and its precision there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unet_pipeline.config.sections import AutoPrecision, Compute, Precision
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.caches import user_cache
from unet_pipeline.machine.gpus import held_gpu
from unet_pipeline.machine.progress import tell

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Compiled:
    """A network that torch compiles at its first call for each shape, or the network itself where that fails."""

    def __init__(self, network: nn.Module) -> None:
        """Nothing is compiled yet; what was, by an earlier job on this machine, is found again."""
        if folder := user_cache("compiled"):  # torch's own place is the folder for temporary files, which may not last
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
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

    Of several GPUs it is one that no other process of this package holds, and is this process's from then on.

    Raises:
        PipelineError: if CUDA is asked for and absent, or a training's process finds no GPU of its own.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise PipelineError(
            "compute.device", "a CUDA GPU that torch can use", f"none (torch {torch.__version__})", "cpu",
            "set compute.device: auto, or run on a machine with a GPU and a CUDA build of torch",
        )  # fmt: skip
    if not available or compute.device == "cpu":
        return torch.device("cpu")
    if (count := torch.cuda.device_count()) < 2:
        return torch.device("cuda")
    names = tuple(str(getattr(torch.cuda.get_device_properties(number), "uuid", number)) for number in range(count))
    device = torch.device("cuda", held_gpu(names, int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    torch.cuda.set_device(device)  # else every process would also take some memory of the first GPU
    return device


def usable_precision(device: torch.device, precision: AutoPrecision, where: str) -> Precision:
    """Return the number format for a device: the one asked for; float32, and says so, where it has no bfloat16.

    "auto" is bfloat16 on GPUs that have it: several times as fast as float32 there, and within `prove`'s tolerance for
    it. On a CPU it is float32, of which the first promise speaks.

    Raises:
        PipelineError: float16 on a CPU, whose kernels are slow or absent; `where` is the key, e.g. "train.precision".
    """
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and has_bfloat16(device) else "float32"
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


@contextmanager
def explain_memory(where: str, fix: str) -> Iterator[None]:
    """Turn "CUDA out of memory" into a PipelineError that says which key to lower."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        first = str(error).splitlines()[0] if str(error) else "CUDA out of memory"
        raise PipelineError(where, "tiles that fit the GPU's memory", first, fix=fix) from error
