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
from typing import Any

import torch
from torch import distributed, nn

from unet_pipeline.errors import PipelineError

PATIENCE = timedelta(minutes=30)
"""Time that processes wait for one another, longer than any validation."""
BUCKET_BYTES = 2**24
"""Gradients that are sent together, at least: fewer cost more in starting than in sending."""


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

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)))


class GradientSum:
    """Adds up the gradients of all processes while the backward pass is still at work on earlier layers.

    Gradients are sent in buckets, whose content and order are fixed: the last layers, whose gradients are there first,
    go first. So the processes agree on what they add up, and the same training gives the same bits again.
    """

    def __init__(self, group: Group, network: nn.Module, bucket_bytes: int = BUCKET_BYTES) -> None:
        """Listen to the gradients of a network, all of whose parameters can learn; with one process there is no need.

        Args:
            group: the processes.
            network: on the device that it learns on.
            bucket_bytes: a bucket has as many gradients as make up this much.
        """
        self._buckets: list[list[nn.Parameter]] = []
        self._there: set[nn.Parameter] = set()
        self._sent: list[tuple[list[torch.Tensor], torch.Tensor, Any]] = []
        if group.size == 1:
            return
        size = bucket_bytes
        for parameter in reversed(list(network.parameters())):
            if size >= bucket_bytes:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
            parameter.register_post_accumulate_grad_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, parameter: torch.Tensor) -> None:
        """Send all buckets that are next and full; parameters that do not learn now are not waited for."""
        self._there.add(parameter)  # type: ignore[arg-type]
        while (number := len(self._sent)) < len(self._buckets):
            if any(one.requires_grad and one not in self._there for one in self._buckets[number]):
                return
            self._send(number)

    def _send(self, number: int) -> None:
        gradients = [one.grad for one in self._buckets[number] if one in self._there and one.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients]) if gradients else torch.empty(0)
        work = distributed.all_reduce(together, async_op=True) if gradients else None
        self._sent.append((gradients, together, work))

    def finish(self) -> None:
        """Send what is left, wait, and put the sums in the place of this process's gradients."""
        while len(self._sent) < len(self._buckets):
            self._send(len(self._sent))
        for gradients, together, work in self._sent:
            if work is not None:
                work.wait()
            parts = torch.split(together, [gradient.numel() for gradient in gradients]) if gradients else ()
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        self._sent.clear()
        self._there.clear()


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
