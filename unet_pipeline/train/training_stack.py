"""Labelled stacks as training sees them, from a store or held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.errors import PipelineError

CACHE_BYTES = 1_000_000_000
"""Planes are held decoded in memory when those of all stacks together take no more than this."""


class Image(Protocol):
    """Grey values, read plane by plane, as `PlaneArray` and the readers of `images` give them."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, channels, height, width)."""
        ...

    def read(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return raw grey values, (channels, rows, columns)."""
        ...


class Label(Protocol):
    """One value per pixel, read plane by plane, as `PlaneArray` gives them."""

    def read_label(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (rows, columns)."""
        ...


@dataclass(frozen=True)
class TrainingStack:
    """A labelled stack as training sees it.

    Attributes:
        name: name of the stack, for messages.
        image: raw grey values.
        normaliser: raw (channels, y, x) -> float32 of the same shape, pixel by pixel.
        target: uint8 class index, `IGNORE` (255) where nobody annotated.
        boundary: float32 >= 0, the boundary term of the weight map.
        planes: the planes tiles are taken from; None means all. Leave out planes nobody annotated.
        cubes: whether its voxels are cubes, so that tiles may be turned about all axes.
        deep: whether the planes around them are read too, by a network of volumes; what they show is not learned.
    """

    name: str
    image: Image
    normaliser: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]
    target: Label
    boundary: Label
    planes: tuple[int, ...] | None = None
    deep: bool = False
    cubes: bool = False

    @property
    def used(self) -> Sequence[int]:
        """The planes tiles are taken from."""
        return range(self.image.shape[0]) if self.planes is None else self.planes

    @property
    def seen(self) -> Sequence[int]:
        """The planes of which grey values are read."""
        return range(self.image.shape[0]) if self.deep else self.used

    def read_image(self, planes: Sequence[int], rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        """Return normalised grey values, (channels, planes, rows, columns)."""
        return self.normaliser(np.stack([self.image.read(plane, rows, columns) for plane in planes], axis=1))

    def read_target(self, planes: Sequence[int], rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
        """Return class indices, (planes, rows, columns); `IGNORE` in planes that are not used."""
        return self._read_used(self.target, planes, rows, columns, np.uint8, IGNORE)

    def read_boundary(self, planes: Sequence[int], rows: slice, columns: slice) -> npt.NDArray[np.float32]:
        """Return the boundary term, (planes, rows, columns)."""
        return self._read_used(self.boundary, planes, rows, columns, np.float32, 0)

    def _read_used(
        self, label: Label, planes: Sequence[int], rows: slice, columns: slice, dtype: npt.DTypeLike, other: int
    ) -> npt.NDArray[Any]:
        size, used = (rows.stop - rows.start, columns.stop - columns.start), self.used
        values = np.full((len(planes), *size), other, dtype)
        for place, plane in enumerate(planes):
            if plane in used:
                values[place] = label.read_label(plane, rows, columns)
        return values

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a plane, px."""
        return self.image.shape[2:]

    @property
    def pixels(self) -> int:
        """Pixels of all used planes."""
        return len(self.used) * self.size[0] * self.size[1]


def check_stacks(stacks: Sequence[TrainingStack], channels: int) -> None:
    """Refuse training without stacks, with empty ones, or with another number of channels than the network's.

    Raises:
        PipelineError: naming the stack.
    """
    if not stacks:
        raise PipelineError("stacks", "at least one stack with role train and labels", "none")
    for stack in stacks:
        if not len(stack.used):
            raise PipelineError(f"stack {stack.name}", "annotated planes", "none", fix="annotate some, or drop the row")
        if stack.image.shape[1] != channels:
            raise PipelineError(
                f"stack {stack.name}", f"{channels} channels, as the network", f"{stack.image.shape[1]} channels"
            )


@dataclass(frozen=True)
class MemoryPlanes:
    """Decoded planes held in memory, (channels, height, width) each; read like the store they came from.

    Attributes:
        shape: (planes, channels, height, width).
        planes: the decoded planes by number.
    """

    shape: tuple[int, int, int, int]
    planes: dict[int, npt.NDArray[Any]]

    def read(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (channels, rows, columns)."""
        return self.planes[plane][:, rows, columns]

    def read_label(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return (rows, columns) of the first channel."""
        values: npt.NDArray[Any] = self.planes[plane][0, rows, columns]
        return values


def in_memory(stacks: Sequence[TrainingStack], limit_bytes: int = CACHE_BYTES) -> tuple[TrainingStack, ...]:
    """Return the stacks with all used planes decoded into memory, or unchanged if they would exceed the limit."""
    if sum(_decoded_bytes(stack) for stack in stacks) > limit_bytes:
        return tuple(stacks)
    return tuple(_decode(stack) for stack in stacks)


def _decoded_bytes(stack: TrainingStack) -> int:
    one = stack.image.read(stack.used[0], slice(0, 1), slice(0, 1))
    target_and_boundary, (height, width) = 1 + 4, stack.size
    return height * width * (len(stack.seen) * one.nbytes + len(stack.used) * target_and_boundary)


def _decode(stack: TrainingStack) -> TrainingStack:
    rows, columns = slice(0, stack.size[0]), slice(0, stack.size[1])

    def decoded(label: Label) -> MemoryPlanes:
        planes = {plane: label.read_label(plane, rows, columns)[None] for plane in stack.used}
        return MemoryPlanes((stack.image.shape[0], 1, *stack.size), planes)

    image = MemoryPlanes(stack.image.shape, {plane: stack.image.read(plane, rows, columns) for plane in stack.seen})
    return replace(stack, image=image, target=decoded(stack.target), boundary=decoded(stack.boundary))
