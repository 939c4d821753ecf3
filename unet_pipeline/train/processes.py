"""Training on several GPUs: processes that torchrun starts, each with its share of every batch.

The sum over a batch is split, nothing else: weights of pixels and gradients are added up over the processes, so a step
is the same update as that of one process with the whole batch, but for the order of float32 sums and the dropout masks,
which each process draws for its own tiles. The first process alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from unet_pipeline.errors import PipelineError

PATIENCE = timedelta(minutes=30)
"""Time that processes wait for one another, longer than any validation."""


@dataclass(frozen=True)
class Group:
    """The processes of one training.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes; 1 without torchrun.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, batch: int, where: str = "train.batch") -> range:
        """Return the tiles of a batch that are this process's; `where` is the key that says how many a batch has.

        Raises:
            PipelineError: if the batch cannot be divided evenly.
        """
        if batch % self.size:
            nearest = max(self.size, round(batch / self.size) * self.size)
            raise PipelineError(where, f"a multiple of {self.size}, the number of processes", batch, nearest)
        return range(self.rank, batch, self.size)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes of a tensor, of the same shape in each."""
        if self.size > 1:
            tensor = tensor.detach().clone()
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, network: nn.Module) -> None:
        """Add up the gradients of all processes, in each of them."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)))


def present_group() -> Group:
    """Return what torchrun says of this process, or one process alone."""
    return Group(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


@contextmanager
def joined(group: Group, device: torch.device) -> Iterator[None]:
    """Let the processes reach one another within the block."""
    if group.size == 1:
        yield
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()
