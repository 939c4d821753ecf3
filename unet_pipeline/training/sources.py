"""Where training tiles are sampled: windows read from a stack, or planes that stay on the device that learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config import IGNORE
from unet_pipeline.training import augment
from unet_pipeline.training.training_stack import Label, TrainingStack

RESIDENT_SHARE = 0.25
"""Part of a GPU's memory that planes may fill; the rest is for the network."""


class View(Protocol):
    """One plane, read at sampling positions."""

    def image(self) -> torch.Tensor:
        """Return normalised grey values, (channels, y, x) float32, by bilinear interpolation."""
        ...

    def target(self) -> torch.Tensor:
        """Return class indices or `IGNORE`, (y, x) uint8, of the nearest pixel."""
        ...

    def boundary(self) -> torch.Tensor:
        """Return the boundary term, (y, x) float32, by bilinear interpolation."""
        ...


class Source(Protocol):
    """A stack that can be sampled."""

    @property
    def stack(self) -> TrainingStack:
        """The stack."""
        ...

    @property
    def device(self) -> torch.device:
        """Where sampling positions have to be, and tiles are."""
        ...

    @property
    def annotated(self) -> bool:
        """Whether every pixel is known to be."""
        ...

    def view(self, plane: int, positions: torch.Tensor) -> View:
        """Look at a plane at positions (2, y, x) float64, px within it, on the device."""
        ...


@dataclass(frozen=True)
class Windows:
    """A stack of which only the bounding box of each tile is read."""

    stack: TrainingStack
    device: torch.device = torch.device("cpu")
    annotated: bool = False

    def view(self, plane: int, positions: torch.Tensor) -> Window:
        """Look at a plane at positions (2, y, x) float64, px within it, on the device."""
        return Window.around(self.stack, plane, positions)


@dataclass(frozen=True)
class Window:
    """The bounding box of sampling positions, all that is read of a plane, and the positions (2, y, x) within it."""

    stack: TrainingStack
    plane: int
    rows: slice
    columns: slice
    positions: torch.Tensor

    @classmethod
    def around(cls, stack: TrainingStack, plane: int, positions: torch.Tensor) -> Window:
        """Look at a plane at positions (2, y, x) float64, px."""
        rows, columns = augment.box(positions)
        corner = torch.tensor([rows.start, columns.start], dtype=positions.dtype)
        return cls(stack, plane, rows, columns, (positions - corner[:, None, None]).float())

    def image(self) -> torch.Tensor:
        """Return normalised grey values, (channels, y, x) float32, by bilinear interpolation."""
        values = self.stack.normaliser(self.stack.image.read(self.plane, self.rows, self.columns))
        return augment.warp_image(as_tensor(values, np.float32), self.positions)

    def target(self) -> torch.Tensor:
        """Return class indices or `IGNORE`, (y, x) uint8, of the nearest pixel."""
        values = as_tensor(self.stack.target.read_label(self.plane, self.rows, self.columns), np.uint8)
        return augment.warp_nearest(values, self.positions)

    def boundary(self) -> torch.Tensor:
        """Return the boundary term, (y, x) float32, by bilinear interpolation."""
        values = as_tensor(self.stack.boundary.read_label(self.plane, self.rows, self.columns), np.float32)
        return augment.warp_image(values[None], self.positions)[0]


@dataclass(frozen=True)
class Resident:
    """A stack whose planes are on the device: nothing is copied there for a tile but a few numbers.

    Attributes:
        images: normalised planes by number, (channels, height, width) float32.
        targets: (height, width) uint8.
        boundaries: (1, height, width) float32.
    """

    stack: TrainingStack
    device: torch.device
    annotated: bool
    images: dict[int, torch.Tensor]
    targets: dict[int, torch.Tensor]
    boundaries: dict[int, torch.Tensor]

    @classmethod
    def load(cls, stack: TrainingStack, device: torch.device) -> Resident:
        """Copy the used planes of a stack to a device."""
        every = slice(0, stack.size[0]), slice(0, stack.size[1])

        def labels(label: Label, dtype: npt.DTypeLike) -> dict[int, torch.Tensor]:
            return {plane: as_tensor(label.read_label(plane, *every), dtype).to(device) for plane in stack.used}

        images = {
            plane: as_tensor(stack.normaliser(stack.image.read(plane, *every)), np.float32).to(device)
            for plane in stack.used
        }
        targets = labels(stack.target, np.uint8)
        boundaries = {plane: values[None] for plane, values in labels(stack.boundary, np.float32).items()}
        annotated = not any(bool((values == IGNORE).any()) for values in targets.values())
        return cls(stack, device, annotated, images, targets, boundaries)

    def view(self, plane: int, positions: torch.Tensor) -> ResidentView:
        """Look at a plane at positions (2, y, x) float64, px within it, on the device."""
        return ResidentView(self, plane, positions)


@dataclass(frozen=True)
class ResidentView:
    """A plane on the device and positions (2, y, x) float64 in it."""

    source: Resident
    plane: int
    positions: torch.Tensor

    def image(self) -> torch.Tensor:
        """Return normalised grey values, (channels, y, x) float32, by bilinear interpolation."""
        return augment.warp_image(self.source.images[self.plane], self.positions.float())

    def target(self) -> torch.Tensor:
        """Return class indices or `IGNORE`, (y, x) uint8, of the nearest pixel."""
        return augment.warp_nearest(self.source.targets[self.plane], self.positions)

    def boundary(self) -> torch.Tensor:
        """Return the boundary term, (y, x) float32, by bilinear interpolation."""
        return augment.warp_image(self.source.boundaries[self.plane], self.positions.float())[0]


def sources(stacks: Sequence[TrainingStack], device: torch.device) -> tuple[Source, ...]:
    """Return the stacks ready to be sampled: on the GPU where they fit a quarter of its memory, else read by window."""
    if device.type == "cuda":
        room = RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
        if sum(_resident_bytes(stack) for stack in stacks) <= room:
            return tuple(Resident.load(stack, device) for stack in stacks)
    return tuple(Windows(stack) for stack in stacks)


def _resident_bytes(stack: TrainingStack) -> int:
    channels, target, boundary = stack.image.shape[1], 1, 4
    return len(stack.used) * stack.size[0] * stack.size[1] * (4 * channels + target + boundary)


def as_tensor(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> torch.Tensor:
    """Wrap an array as a tensor of the same shape; torch wants its own contiguous, writable memory, else it warns."""
    return torch.from_numpy(np.require(values, dtype=dtype, requirements=["C", "W"]))
