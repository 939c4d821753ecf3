"""The batches of the steps, made ahead of the network, on the device it learns on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TypeVar

import torch

from unet_pipeline.config.sections import Compute
from unet_pipeline.machine.parallel import ahead
from unet_pipeline.model.averaging import LAYOUTS
from unet_pipeline.model.copies import Beside, sent
from unet_pipeline.train.dataset import Sampler

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Image (n, channels, y, x) float32, target (n, y', x') int64 and boundary (n, y', x') float32; y', x' as returned.

Of volumes there is a z before each y.
"""

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
    beside = Beside(device)

    def parts(step: int) -> Batch:
        image, target, boundary = sampler.batch(step, indices)
        image = sent(image, device, LAYOUTS[image.ndim - 2])
        return image, sent(target, device).long(), sent(boundary, device)

    with closing(prefetch(lambda step: beside.make(lambda: parts(step)), steps, workers)) as made:
        for batch in made:
            image, target, boundary = batch.take()
            yield image, target, boundary
