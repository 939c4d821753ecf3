"""The building blocks of the networks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import conv_transpose2d, interpolate

from unet_pipeline.config.network_section import Down, Up
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import Geometry


@dataclass(frozen=True)
class Space:
    """What the layers of a level see: a plane, or a volume, of which they may leave z alone (Çiçek et al. 2016).

    Attributes:
        dimensions: 2 for images (n, c, y, x), 3 for volumes (n, c, z, y, x).
        along_z: whether layers of a volume see its z; else they work plane by plane.
    """

    dimensions: int = 2
    along_z: bool = True

    def edges(self, edge: int, flat: int = 1) -> tuple[int, ...]:
        """Return an edge for each axis; `flat` for a z that is left alone."""
        return (edge,) * 2 if self.dimensions == 2 else (edge if self.along_z else flat, edge, edge)

    def convolution(
        self, inputs: int, outputs: int, edge: int = 3, stride: int = 1, padded: bool = False, bias: bool = True
    ) -> nn.Module:
        """Return a convolution of `edge` px, with a pixel of zeros around where `padded`."""
        kind = nn.Conv2d if self.dimensions == 2 else nn.Conv3d
        padding = self.edges(int(padded), 0)
        return kind(inputs, outputs, self.edges(edge), self.edges(stride), padding, bias=bias)  # type: ignore[arg-type]

    def up_convolution(self, inputs: int, outputs: int) -> nn.Module:
        """Return an up-convolution of 2 px, stride 2."""
        kind = nn.ConvTranspose2d if self.dimensions == 2 else nn.ConvTranspose3d
        return kind(inputs, outputs, self.edges(2), self.edges(2))  # type: ignore[arg-type]

    def pooling(self) -> nn.Module:
        """Return a maximum over 2 px."""
        kind = nn.MaxPool2d if self.dimensions == 2 else nn.MaxPool3d
        return kind(self.edges(2))

    def normalisation(self, channels: int) -> nn.Module:
        """Return a batch normalisation."""
        return nn.BatchNorm2d(channels) if self.dimensions == 2 else nn.BatchNorm3d(channels)


PLANE = Space()


def convolutions(widths: tuple[int, int, int], padded: bool, batch_norm: bool, space: Space = PLANE) -> nn.Sequential:
    """Return two 3x3 convolutions, each with ReLU, and batch normalisation before it if wanted.

    Args:
        widths: channels that enter, between the two, and that leave.
        padded: zeros around, so that the size stays; else each loses a pixel on each side.
        batch_norm: convolutions then have no bias, which the normalisation would take away again.
        space: what they see; 3x3x3 convolutions of a volume, 1x3x3 where z is left alone.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(space.convolution(inputs, outputs, padded=padded, bias=not batch_norm))
        layers += [space.normalisation(outputs)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions with what enters added before the last ReLU (He et al. 2016), by a 1x1 convolution."""

    def __init__(self, widths: tuple[int, int, int], padded: bool, batch_norm: bool, space: Space = PLANE) -> None:
        """Build it of the layers of `convolutions`; unpadded, the middle of what enters is added."""
        super().__init__()
        *layers, self.relu = convolutions(widths, padded, batch_norm, space)
        self.convolutions = nn.Sequential(*layers)
        # of all levels, also where the channels stay: a sum of two ReLUs would only grow from level to level
        self.shortcut = space.convolution(widths[0], widths[2], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, widths[2], y - lost, x - lost), of a volume with z; 4 px lost unless padded."""
        changed = self.convolutions(x)
        found: torch.Tensor = self.relu(changed + self.shortcut(centre_crop(x, changed)))
        return found


def halving(kind: Down, inputs: int, outputs: int, padded: bool, batch_norm: bool, space: Space = PLANE) -> nn.Module:
    """Return a 2x2 max pooling, or a convolution of stride 2 with ReLU: 3x3 where padded, else 2x2, losing nothing."""
    if kind == "pool":
        return space.pooling()
    layers = [space.convolution(inputs, outputs, 3 if padded else 2, 2, padded, bias=not batch_norm)]
    layers += [space.normalisation(outputs)] if batch_norm else []
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def doubling(kind: Up, inputs: int, outputs: int, padded: bool, relu: bool, space: Space = PLANE) -> nn.Module:
    """Return a 2x2 up-convolution from `inputs` to `outputs` channels, or bilinear interpolation, which keeps them."""
    if kind == "bilinear":
        return Bilinear(padded)
    up = space.up_convolution(inputs, outputs)
    return nn.Sequential(up, nn.ReLU(inplace=True)) if relu else up


class Bilinear(nn.Module):
    """Bilinear interpolation to twice the size, pixel centres kept (corners aligned would depend on the tile's size).

    The outermost pixels depend on where the tile ends: unpadded networks drop them.
    """

    def __init__(self, padded: bool) -> None:
        """There is nothing to learn."""
        super().__init__()
        self.lost = 0 if padded else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, c, 2 y - 2 lost, 2 x - 2 lost)."""
        if x.is_cuda and x.requires_grad:  # where `interpolate` has no deterministic gradient but a slow one
            return doubled_by_convolution(x, self.lost)
        doubled = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return doubled[:, :, 1:-1, 1:-1] if self.lost else doubled


def doubled_by_convolution(x: torch.Tensor, lost: int) -> torch.Tensor:
    """Return what bilinear interpolation to twice the size gives, by an up-convolution with fixed weights.

    A pixel lies a quarter of the way from one source pixel to the next: 3/4 of the nearer, 1/4 of the farther.

    Args:
        x: (n, c, y, x) float.
        lost: 1 leaves the outermost pixels away, 0 repeats the edge beyond the image for them.

    Returns:
        (n, c, 2 y - 2 lost, 2 x - 2 lost).
    """
    if not lost:
        for axis in (2, 3):
            x = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, x.shape[axis] - 1, 1)], dim=axis)
    share = x.new_tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(share, share).expand(x.shape[1], 1, 4, 4)
    return conv_transpose2d(x, kernel, stride=2, padding=2 if lost else 3, groups=x.shape[1])


def centre_crop(skip: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the middle of `skip` (n, c, y, x) or (n, c, z, y, x) that has the height, width and depth of `like`."""
    middle = [slice(None), slice(None)]
    for whole, size in zip(skip.shape[2:], like.shape[2:], strict=True):
        first = (whole - size) // 2
        middle.append(slice(first, first + size))
    return skip[tuple(middle)]


def check_input(image: torch.Tensor, channels: int, *sizes: Geometry) -> None:
    """Refuse what a network cannot take.

    Args:
        image: (n, channels, y, x), or (n, channels, z, y, x).
        channels: those of the network.
        sizes: its legal sizes, one for each axis of space.

    Raises:
        PipelineError: names the nearest legal size.
    """
    if torch.compiler.is_exporting():
        return  # sizes are symbols there; `export` says the legal ones beside the network
    axes = "zyx"[-len(sizes) :]
    if image.ndim != 2 + len(sizes) or image.shape[1] != channels:
        raise PipelineError("network input", f"(n, {channels}, {', '.join(axes)})", tuple(image.shape))
    for axis, size_px, legal in zip(axes, image.shape[2:], sizes, strict=True):
        legal.check_read(size_px, f"network input, {axis}")
