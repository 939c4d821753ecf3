"""Sources of training tiles: windows read from a stack, or planes that stay on the device that learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.train import augment
from unet_pipeline.train.training_stack import TrainingStack

Read = Callable[[Sequence[int], slice, slice], npt.NDArray[Any]]
"""Gives some planes, rows and columns of a stack."""

RESIDENT_SHARE = 0.25
"""Share of a GPU's memory that planes may fill; the rest is for the network."""


@dataclass(frozen=True)
class View:
    """Some planes, or what is needed of them, and where all of them are read.

    Attributes:
        grey: gives normalised values, (channels, planes, height, width) float32.
        classes: gives class indices or `IGNORE`, (planes, height, width) uint8.
        term: gives the boundary term, (planes, height, width) float32.
        positions: (2, y, x) floating, px within these, on their device.
    """

    grey: Callable[[], torch.Tensor]
    classes: Callable[[], torch.Tensor]
    term: Callable[[], torch.Tensor]
    positions: torch.Tensor

    def image(self) -> torch.Tensor:
        """Return normalised grey values, (channels, planes, y, x) float32, by bilinear interpolation."""
        grey = self.grey()
        # planes like channels: the positions are the same for all of them
        warped = augment.warp_image(grey.flatten(0, 1), self.positions.float())
        return warped.reshape(*grey.shape[:2], *warped.shape[1:])

    def target(self) -> torch.Tensor:
        """Return class indices or `IGNORE`, (planes, y, x) uint8, of the nearest pixel."""
        return augment.warp_nearest(self.classes(), self.positions)

    def boundary(self) -> torch.Tensor:
        """Return the boundary term, (planes, y, x) float32, by bilinear interpolation."""
        return augment.warp_image(self.term(), self.positions.float())


class Source(Protocol):
    """A stack that can be sampled."""

    @property
    def stack(self) -> TrainingStack:
        """The stack."""
        ...

    @property
    def device(self) -> torch.device:
        """The device on which positions must lie, and on which tiles are made."""
        ...

    @property
    def annotated(self) -> bool:
        """Whether it is certain that every pixel is annotated; False also where nobody has looked."""
        ...

    def view(self, planes: Sequence[int], positions: torch.Tensor) -> View:
        """Look at planes at positions (2, y, x) float64, px within each, on the device."""
        ...


@dataclass(frozen=True)
class Windows:
    """A stack of which only the bounding box of each tile is read."""

    stack: TrainingStack
    device: torch.device = augment.CPU
    annotated: bool = False

    def view(self, planes: Sequence[int], positions: torch.Tensor) -> View:
        """Look at planes at positions (2, y, x) float64, px within each: only their bounding box is read."""
        stack, (rows, columns) = self.stack, augment.box(positions)
        corner = torch.tensor([rows.start, columns.start], dtype=positions.dtype)
        return View(
            lambda: as_tensor(stack.read_image(planes, rows, columns), np.float32),
            lambda: as_tensor(stack.read_target(planes, rows, columns), np.uint8),
            lambda: as_tensor(stack.read_boundary(planes, rows, columns), np.float32),
            (positions - corner[:, None, None]).float(),
        )


@dataclass(frozen=True)
class Resident:
    """A stack whose planes are on the device: nothing is copied there for a tile but a few numbers.

    Attributes:
        images: normalised planes by number, (channels, 1, height, width) float32.
        targets: (1, height, width) uint8.
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
        rows, columns = slice(0, stack.size[0]), slice(0, stack.size[1])

        def on_device(read: Read, dtype: npt.DTypeLike) -> dict[int, torch.Tensor]:
            return {plane: as_tensor(read([plane], rows, columns), dtype).to(device) for plane in stack.used}

        images = on_device(stack.read_image, np.float32)
        targets, boundaries = on_device(stack.read_target, np.uint8), on_device(stack.read_boundary, np.float32)
        annotated = not any(bool((values == IGNORE).any()) for values in targets.values())
        return cls(stack, device, annotated, images, targets, boundaries)

    def view(self, planes: Sequence[int], positions: torch.Tensor) -> View:
        """Look at one plane at positions (2, y, x) float64, px within it, on the device."""
        (plane,) = planes
        grey, classes, term = self.images[plane], self.targets[plane], self.boundaries[plane]
        return View(lambda: grey, lambda: classes, lambda: term, positions)


def sources(stacks: Sequence[TrainingStack], device: torch.device) -> tuple[Source, ...]:
    """Return the stacks ready to be sampled: on the GPU where they fit a quarter of its memory, else read by window."""
    if device.type == "cuda" and not any(stack.deep for stack in stacks):
        room = RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory
        if sum(_resident_bytes(stack) for stack in stacks) <= room:
            return tuple(Resident.load(stack, device) for stack in stacks)
    return tuple(Windows(stack) for stack in stacks)


def _resident_bytes(stack: TrainingStack) -> int:
    channels, target, boundary = stack.image.shape[1], 1, 4
    return stack.pixels * (4 * channels + target + boundary)


def as_tensor(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> torch.Tensor:
    """Wrap an array as a tensor of the same shape; torch wants its own contiguous, writable memory, else it warns."""
    return torch.from_numpy(np.require(values, dtype=dtype, requirements=["C", "W"]))
