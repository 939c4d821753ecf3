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
from unet_pipeline.train.training_stack import Label, TrainingStack

RESIDENT_SHARE = 0.25
"""Share of a GPU's memory that planes may fill; the rest is for the network."""


@dataclass(frozen=True)
class View:
    """One plane, or what is needed of it, and where it is read.

    Attributes:
        grey: gives normalised values, (channels, height, width) float32.
        classes: gives class indices or `IGNORE`, (height, width) uint8.
        term: gives the boundary term, (1, height, width) float32.
        positions: (2, y, x) floating, px within these, on their device.
    """

    grey: Callable[[], torch.Tensor]
    classes: Callable[[], torch.Tensor]
    term: Callable[[], torch.Tensor]
    positions: torch.Tensor

    def image(self) -> torch.Tensor:
        """Return normalised grey values, (channels, y, x) float32, by bilinear interpolation."""
        return augment.warp_image(self.grey(), self.positions.float())

    def target(self) -> torch.Tensor:
        """Return class indices or `IGNORE`, (y, x) uint8, of the nearest pixel."""
        return augment.warp_nearest(self.classes(), self.positions)

    def boundary(self) -> torch.Tensor:
        """Return the boundary term, (y, x) float32, by bilinear interpolation."""
        return augment.warp_image(self.term(), self.positions.float())[0]


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

    def view(self, plane: int, positions: torch.Tensor) -> View:
        """Look at a plane at positions (2, y, x) float64, px within it, on the device."""
        ...


@dataclass(frozen=True)
class Windows:
    """A stack of which only the bounding box of each tile is read."""

    stack: TrainingStack
    device: torch.device = augment.CPU
    annotated: bool = False

    def view(self, plane: int, positions: torch.Tensor) -> View:
        """Look at a plane at positions (2, y, x) float64, px within it: only their bounding box is read."""
        stack, (rows, columns) = self.stack, augment.box(positions)
        corner = torch.tensor([rows.start, columns.start], dtype=positions.dtype)
        return View(
            lambda: as_tensor(stack.normaliser(stack.image.read(plane, rows, columns)), np.float32),
            lambda: as_tensor(stack.target.read_label(plane, rows, columns), np.uint8),
            lambda: as_tensor(stack.boundary.read_label(plane, rows, columns), np.float32)[None],
            (positions - corner[:, None, None]).float(),
        )


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
        rows, columns = slice(0, stack.size[0]), slice(0, stack.size[1])

        def labels(label: Label, dtype: npt.DTypeLike) -> dict[int, torch.Tensor]:
            return {plane: as_tensor(label.read_label(plane, rows, columns), dtype).to(device) for plane in stack.used}

        images = {
            plane: as_tensor(stack.normaliser(stack.image.read(plane, rows, columns)), np.float32).to(device)
            for plane in stack.used
        }
        targets = labels(stack.target, np.uint8)
        boundaries = {plane: values[None] for plane, values in labels(stack.boundary, np.float32).items()}
        annotated = not any(bool((values == IGNORE).any()) for values in targets.values())
        return cls(stack, device, annotated, images, targets, boundaries)

    def view(self, plane: int, positions: torch.Tensor) -> View:
        """Look at a plane at positions (2, y, x) float64, px within it, on the device."""
        grey, classes, term = self.images[plane], self.targets[plane], self.boundaries[plane]
        return View(lambda: grey, lambda: classes, lambda: term, positions)


def sources(stacks: Sequence[TrainingStack], device: torch.device) -> tuple[Source, ...]:
    """Return the stacks ready to be sampled: on the GPU where they fit a quarter of its memory, else read by window."""
    if device.type == "cuda":
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
