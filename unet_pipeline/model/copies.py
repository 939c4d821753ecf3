"""The way of arrays to a GPU and back, beside the stream in which it computes; on a CPU nothing is copied.

```
reading thread    raw bytes -> pinned memory -> GPU -> normalised there     stream "up"
this thread                                             network             stream of the network
writing thread                                          pinned memory       stream "down"
```
Each arrow between two streams is an event, so that no thread waits for more than what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.model.normalise import Normaliser, per_channel

Parts = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Arriving:
    """Tensors that another stream may still be making; of any shape.

    Attributes:
        parts: the tensors.
        ready: happens when they are made; None on a CPU, where they are.
    """

    parts: Parts
    ready: torch.cuda.Event | None = None

    def take(self) -> Parts:
        """Return the tensors, for whose making the current stream of their device waits; the caller does not."""
        if self.ready is not None:
            using = torch.cuda.current_stream(self.parts[0].device)
            using.wait_event(self.ready)
            for part in self.parts:  # its memory must not be given away before it was used
                part.record_stream(using)
        return self.parts


class Beside:
    """A stream beside the one that a GPU computes in; on a CPU there is none, and the caller does the work."""

    def __init__(self, device: torch.device) -> None:
        """Make the stream; it begins after what the current one was given so far."""
        self.device = device
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def make(self, function: Callable[[], Parts]) -> Arriving:
        """Let the stream do what `function` asks for; it may be called in any thread."""
        with torch.cuda.stream(self._stream):  # None: nothing changes
            parts = function()
            return Arriving(parts, self._stream.record_event() if self._stream else None)

    def fetch(self, tensor: torch.Tensor, ready: torch.cuda.Event | None) -> npt.NDArray[Any]:
        """Return a tensor of any shape in memory.

        Only the calling thread waits: the stream of the network goes on, and the copy leaves by direct memory access.

        Args:
            tensor: on the device.
            ready: happens when it is computed; None on a CPU.
        """
        if self._stream is None or ready is None:
            return tensor.numpy()
        with torch.cuda.stream(self._stream):
            memory = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._stream.wait_event(ready)
            memory.copy_(tensor, non_blocking=True)
            self._stream.record_event().synchronize()
        return memory.numpy()


def mark(device: torch.device) -> torch.cuda.Event | None:
    """Return an event that happens when all is done that the network's stream was given; None on a CPU."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def sent(values: torch.Tensor, device: torch.device, layout: torch.memory_format | None = None) -> torch.Tensor:
    """Return a tensor of any shape on a device, without waiting for it: from pinned memory, where it must be copied.

    Args:
        values: in memory, or there already.
        device: where it is wanted.
        layout: memory format; None keeps it.
    """
    pinned = values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values
    return pinned.to(device, non_blocking=True, memory_format=layout or torch.preserve_format)


def sent_normalised(raw: npt.NDArray[Any], normaliser: Normaliser, device: torch.device) -> torch.Tensor:
    """Return grey values (channels, ..., y, x) normalised on a device, float32: the bits that `normaliser` gives.

    Numbers of 8 and 16 bits travel as they are, in a quarter or half of the bytes, and are normalised there.
    """
    normaliser.check_channels(len(raw))
    small = raw.dtype.kind in "uif" and raw.dtype.itemsize <= 2 and raw.dtype.isnative
    if not small:
        return sent(torch.from_numpy(normaliser(raw)), device)
    unsigned = raw.dtype == np.uint16  # torch computes with none: they travel as int16
    dense = np.ascontiguousarray(raw)
    values = sent(torch.from_numpy(dense.view(np.int16) if unsigned else dense), device)
    wide = (values.to(torch.int32) & 0xFFFF) if unsigned else values
    # the same two operations in float32 as in `Normaliser`, each rounded once: no bit differs
    offset, scale = (
        sent(per_channel(torch.tensor(part, dtype=torch.float32), raw), device)
        for part in (normaliser.offset, normaliser.scale)
    )
    return wide.to(torch.float32).sub_(offset).mul_(scale)
