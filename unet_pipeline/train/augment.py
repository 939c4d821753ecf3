"""Random changes of a training tile, as pure functions of arrays and a random generator.

A tile is warped once: rotation, mirroring, scale and elastic deformation are composed into one map from output pixels
to source positions, at which the image is read by bilinear and the labels by nearest interpolation.
Positions are float tensors (2, y, x): the row and the column, in px, that each output pixel reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample

from unet_pipeline.config.sections import Augment
from unet_pipeline.model.copies import sent
from unet_pipeline.model.normalise import per_channel

Floats = npt.NDArray[np.float64]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Transform:
    """The change of one tile.

    Attributes:
        matrix: (2, 2); source offset from the centre = matrix @ output offset from the centre, both (y, x).
        displacement: (2, rows, columns) px, (y, x) elastic displacements on a grid centred on the tile; all 0 when off.
        spacing_px: distance of the grid points.
        contrast, brightness: (channels,); value -> value * contrast + brightness.
        noise: standard deviation of added Gaussian noise, in normalised values.
    """

    matrix: Floats
    displacement: Floats
    spacing_px: float
    contrast: Floats
    brightness: Floats
    noise: float


def draw(options: Augment, generator: np.random.Generator, channels: int, shape: tuple[int, int]) -> Transform:
    """Draw a transform.

    Args:
        options: section `augment`.
        generator: source of randomness; how much of it is used depends on nothing but the arguments.
        channels: channels of the image; contrast and brightness are drawn for each.
        shape: (y, x) of the tile as the network reads it, px.
    """
    return Transform(
        _matrix(options, generator),
        _displacement(options, generator, shape),
        _spacing_px(options),
        generator.uniform(1 - options.contrast, 1 + options.contrast, channels),
        generator.uniform(-options.brightness, options.brightness, channels),
        generator.uniform(0, options.noise),
    )


def _matrix(options: Augment, generator: np.random.Generator) -> Floats:
    """Compose rotation, mirroring and scale; objects grow by a factor of 1 ± scale, so positions shrink by it."""
    angle = _angle(options, generator)
    mirror = np.diag(generator.choice([-1.0, 1.0], size=2)) if options.flip else np.eye(2)
    size = generator.uniform(1 - options.scale, 1 + options.scale)
    cos, sin = (round(part(angle), 15) for part in (math.cos, math.sin))  # whole numbers at quarter turns
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix: Floats = turn @ mirror / size
    return matrix


def _angle(options: Augment, generator: np.random.Generator) -> float:
    """Draw an angle, radians."""
    if options.rotate == "quarter":
        return float(generator.integers(4)) * math.pi / 2
    return float(generator.uniform(0, 2 * math.pi)) if options.rotate == "any" else 0.0


def _spacing_px(options: Augment) -> float:
    return options.elastic_span_px / (options.elastic_grid - 1)


def _displacement(options: Augment, generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Draw displacements N(0, elastic_std_px); tiles larger than the span get more grid points, at the same spacing."""
    spacing = _spacing_px(options)
    beyond = [max(0, int(np.ceil((size - 1 - options.elastic_span_px) / (2 * spacing)))) for size in shape]
    points = [options.elastic_grid + 2 * more for more in beyond]
    return generator.normal(0.0, options.elastic_std_px, size=(2, *points))


def coordinates(transform: Transform, shape: tuple[int, int], device: torch.device = CPU) -> torch.Tensor:
    """Return where each output pixel reads the source.

    Elastic displacements are interpolated bicubically (Keys' kernel with a = -1/2) from their grid; at its edge the
    outermost points are repeated.

    Args:
        transform: from `draw`.
        shape: (y, x) of the output, px; the tile's shape given to `draw`.
        device: where they are computed.

    Returns:
        (2, y, x) float32, (y, x) offsets from the tile's centre, px; half-integers where the size is even.
    """
    y, x = (torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2 for size in shape)
    positions = _elastic(transform, shape, device)
    for axis, (from_y, from_x) in enumerate(transform.matrix.tolist()):
        positions[axis] += from_y * y[:, None] + from_x * x[None, :]
    return positions


def _elastic(transform: Transform, shape: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Return the displacement of each pixel, (2, y, x) float32 px."""
    points = transform.displacement.shape[1:]
    down, across = (
        _weights_on(device, size, number, transform.spacing_px) for size, number in zip(shape, points, strict=True)
    )
    # separable: the grid is regular in both axes
    return down @ sent(torch.from_numpy(transform.displacement).float(), device) @ across.T


@lru_cache(maxsize=16)
def _weights_on(device: torch.device, size: int, points: int, spacing_px: float) -> torch.Tensor:
    return torch.from_numpy(cubic_weights(size, points, spacing_px)).float().to(device)


def cubic_weights(size: int, points: int, spacing_px: float) -> Floats:
    """Return the (size, points) matrix that interpolates cubically from grid points to pixels, both centred alike.

    Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 4 and 15 with a = -1/2.
    """
    position = (np.arange(size) - (size - 1) / 2) / spacing_px + (points - 1) / 2
    before = np.floor(position).astype(int)
    weights = np.zeros((size, points))
    for tap in range(-1, 3):
        distance = np.abs(position - (before + tap))
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        value = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        np.add.at(weights, (np.arange(size), np.clip(before + tap, 0, points - 1)), value)
    return weights


def mirror(positions: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Fold positions outside an image back into it, the edge pixel not repeated, from any distance.

    Folding positions equals extending the image by repeated reflection and reading there.

    Args:
        positions: (2, y, x) floating, px; pixel centres are whole numbers.
        shape: (height, width) of the image, px.

    Returns:
        Like `positions`, within [0, height - 1] and [0, width - 1].
    """
    return torch.stack([_fold(axis, size - 1) for axis, size in zip(positions, shape, strict=True)])


def _fold(position: torch.Tensor, last: int) -> torch.Tensor:
    if position.device == CPU:  # elsewhere, asking would take longer than folding
        low, high = position.aminmax()
        if low >= 0 and high <= last:
            return position
    # an image of one pixel has no period: every position is its only pixel
    period = max(2 * last, 1)
    folded = position - period * (position * (1 / period)).floor_()
    return torch.minimum(folded, 2 * last - folded).clamp_(0, last)


def box(positions: torch.Tensor) -> tuple[slice, slice]:
    """Return the (rows, columns) of the pixels that interpolation at `positions` (2, y, x) needs."""
    rows, columns = (axis.aminmax() for axis in positions)
    return (
        slice(math.floor(rows.min.item()), math.ceil(rows.max.item()) + 1),
        slice(math.floor(columns.min.item()), math.ceil(columns.max.item()) + 1),
    )


def warp_image(image: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read an image at positions by bilinear interpolation.

    Args:
        image: (channels, height, width) float32.
        positions: (2, y, x) float32, px within the image; see `mirror`.

    Returns:
        (channels, y, x) float32.
    """
    # grid_sample wants (x, y) in [-1, 1]
    grid = torch.stack(
        [axis * (2 / max(size - 1, 1)) - 1 for axis, size in zip(positions, image.shape[1:], strict=True)][::-1], dim=-1
    )
    return grid_sample(image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def warp_nearest(labels: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read labels at positions by nearest interpolation.

    Args:
        labels: (..., height, width), any dtype.
        positions: (2, y, x) float32, px within the labels.

    Returns:
        (..., y, x) of the labels' dtype.
    """
    rows, columns = positions.round().long()
    return labels[..., rows, columns]


def grey(image: torch.Tensor, transform: Transform, generator: np.random.Generator) -> torch.Tensor:
    """Change contrast and brightness and add noise.

    Args:
        image: (channels, z, y, x) float32, normalised.
        transform: from `draw`.
        generator: source of the noise.

    Returns:
        A new image of the same shape and dtype.
    """
    contrast, brightness = (
        sent(per_channel(torch.as_tensor(part, dtype=torch.float32), image), image.device)
        for part in (transform.contrast, transform.brightness)
    )
    changed = image * contrast + brightness
    if transform.noise > 0:
        changed += transform.noise * _noise(changed, generator)
    return changed


def _noise(like: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Return noise N(0, 1) for an image (channels, z, y, x), made where the image is."""
    if like.device == CPU:
        return torch.from_numpy(generator.standard_normal(like.shape, dtype=np.float32))
    there = torch.Generator(like.device).manual_seed(int(generator.integers(2**63)))
    return torch.randn(like.shape, generator=there, device=like.device)
