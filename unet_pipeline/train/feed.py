"""The batches of the steps, made ahead of the network, on the device it learns on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

import torch

from unet_pipeline.config.sections import Compute
from unet_pipeline.machine.parallel import ahead
from unet_pipeline.train.dataset import Sampler

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Image (n, channels, y, x) float32, target (n, y', x') int64 and boundary (n, y', x') float32; y', x' as returned."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def readers(compute: Compute, device: torch.device) -> int:
    """Return the number of reading threads; on a CPU they share the cores with the network."""
    return compute.threads if device.type == "cuda" else max(1, compute.threads // 2)


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """Yield function(item) in the order of the items, computed by threads in which torch uses one core each."""
    # torch.set_num_threads holds for the calling thread alone: without it each worker would take every core
    return ahead(function, items, workers, more=2, initializer=lambda: torch.set_num_threads(1))


def batches(
    sampler: Sampler, device: torch.device, steps: Iterable[int], indices: Sequence[int], workers: int
) -> Generator[Batch, None, None]:
    """Yield the batch of each step on the device.

    A GPU makes or receives them in a stream of its own, beside the one it learns in.

    Args:
        sampler: the tiles.
        device: of the network.
        steps: numbers of the steps.
        indices: which tiles of each batch.
        workers: threads that make batches.
    """
    beside = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    if beside is not None:  # the planes must have arrived
        beside.wait_stream(torch.cuda.current_stream(device))

    def make(step: int) -> tuple[Batch, torch.cuda.Event | None]:
        with torch.cuda.stream(beside):  # None: nothing changes
            image, target, boundary = (_pinned(part, device) for part in sampler.batch(step, indices))
            image = image.to(device, non_blocking=True, memory_format=torch.channels_last)
            target, boundary = (part.to(device, non_blocking=True) for part in (target, boundary))
            return (image, target.long(), boundary), beside.record_event() if beside else None

    with closing(prefetch(make, steps, workers)) as made:
        for batch, ready in made:
            if ready is not None:
                learning = torch.cuda.current_stream(device)
                learning.wait_event(ready)
                for part in batch:  # its memory must not be given away before it was learned from
                    part.record_stream(learning)
            yield batch


def _pinned(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return memory that a GPU can fetch by itself, where it has to."""
    return part.pin_memory() if device.type == "cuda" and part.device.type == "cpu" else part
