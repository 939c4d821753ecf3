"""A seeded, realistic stack of touching cells with its reference, so that the pipeline runs without any data.

Cells are noisy ellipses that press against each other; where two meet only a thin darker seam shows. Brightness
differs from cell to cell, the light is uneven, and camera noise is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

from unet_pipeline.records.files import atomic_path

PIXEL_UM = 0.5


@dataclass(frozen=True)
class DemoStack:
    """One file of the demo.

    Attributes:
        name: file name without suffix.
        shape: (planes, height, width).
        dtype: of the file; 16-bit files carry a camera offset.
        seed: of the random generator.
        tiled: written as a tiled TIFF.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    seed: int
    tiled: bool = False


STACKS = (
    DemoStack("train_a", (4, 512, 512), "uint8", 1),
    DemoStack("train_b", (1, 600, 777), "uint16", 2),
    DemoStack("val", (1, 512, 512), "uint8", 3),
    DemoStack("unseen", (2, 701, 999), "uint8", 4),
    DemoStack("small", (1, 40, 57), "uint8", 5),
    DemoStack("new", (1, 1200, 900), "uint16", 6, tiled=True),
)


def write_demo(folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
    """Write every demo stack as `{name}.tif` and its reference as `{name}_labels.tif` (uint16 instances)."""
    for stack in STACKS:
        planes = [cells(stack.shape[1:], np.random.default_rng([stack.seed, plane])) for plane in range(stack.shape[0])]
        image = np.stack([_camera(grey, stack.dtype) for grey, _ in planes])
        labels = np.stack([ids for _, ids in planes])
        _write(folder / f"{stack.name}.tif", image, (256, 256) if stack.tiled else None)
        _write(folder / f"{stack.name}_labels.tif", labels, None)
        report(
            f"{folder / stack.name}.tif  {stack.shape}  {stack.dtype}  {sum(int(ids.max()) for _, ids in planes)} cells"
        )


def cells(
    shape: tuple[int, int], rng: np.random.Generator, spacing_px: float = 34.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint16]]:
    """Draw one plane.

    Args:
        shape: (height, width), px.
        rng: source of everything random.
        spacing_px: mean distance between neighbouring cells.

    Returns:
        Grey values (y, x) float64, about 0 to 1, and instance ids (y, x) uint16, 0 outside cells.
    """
    labels = _shapes(shape, rng, spacing_px)
    brightness = np.concatenate([[0.0], rng.uniform(0.42, 0.75, int(labels.max()))])
    grey = np.where(labels > 0, brightness[labels], 0.22) + 0.06 * _smooth_noise(shape, rng, 2.5)
    grey = np.where(_seams(labels), grey - 0.25, grey)
    light = 1.0 + 0.12 * _smooth_noise(shape, rng, max(shape) / 4)
    blurred = ndimage.gaussian_filter(grey * light, 0.9)
    return blurred + rng.normal(0, 0.03, shape), labels


def _shapes(shape: tuple[int, int], rng: np.random.Generator, spacing_px: float) -> npt.NDArray[np.uint16]:
    """Return instance ids of noisy ellipses; where two overlap the relatively nearer centre wins."""
    nearest = np.full(shape, 1.0)
    labels = np.zeros(shape, np.uint16)
    wobble = 0.16 * _smooth_noise(shape, rng, 6.0)
    for number, (y, x) in enumerate(_centres(shape, rng, spacing_px), 1):
        radii = rng.uniform(0.42, 0.72, 2) * spacing_px
        angle = rng.uniform(0, np.pi)
        reach = int(2 * radii.max()) + 2
        rows, columns = (
            slice(max(0, int(at) - reach), max(0, min(size, int(at) + reach + 1)))
            for at, size in zip((y, x), shape, strict=True)
        )
        dy, dx = np.mgrid[rows, columns] - np.array([y, x])[:, None, None]
        along, across = dy * np.cos(angle) + dx * np.sin(angle), dx * np.cos(angle) - dy * np.sin(angle)
        distance = np.hypot(along / radii[0], across / radii[1]) + wobble[rows, columns]
        wins = distance < nearest[rows, columns]
        nearest[rows, columns][wins] = distance[wins]
        labels[rows, columns][wins] = number
    return _whole_cells(labels)


def _centres(shape: tuple[int, int], rng: np.random.Generator, spacing_px: float) -> npt.NDArray[np.float64]:
    """Return jittered grid points, (n, 2), of which some are left out so that there is background."""
    grid = np.stack(np.meshgrid(*[np.arange(-0.5, size / spacing_px + 0.5) for size in shape], indexing="ij"), axis=-1)
    points = (grid.reshape(-1, 2) + rng.uniform(-0.32, 0.32, (grid.size // 2, 2))) * spacing_px
    kept: npt.NDArray[np.float64] = points[rng.random(len(points)) < 0.8]
    return kept


def _whole_cells(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Keep the largest piece of each cell, drop specks, and number what is left."""
    result = np.zeros_like(labels)
    number = 0
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        pieces, _ = ndimage.label(labels[box] == label)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= 40:
            number += 1
            filled = ndimage.binary_fill_holes(pieces == sizes.argmax() + 1) & np.isin(labels[box], (0, label))
            result[box][filled] = number
    return result


def _seams(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Return the pixels where two different cells meet."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels == 0, np.iinfo(labels.dtype).max, labels), 3)
    return np.asarray((labels > 0) & (highest != lowest) & (lowest < highest))


def _smooth_noise(shape: tuple[int, int], rng: np.random.Generator, sigma_px: float) -> npt.NDArray[np.float64]:
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma_px, mode="reflect")
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def _camera(grey: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.uint8 | np.uint16]:
    if dtype == "uint8":
        return np.clip(np.rint(40 + 150 * grey), 0, 255).astype(np.uint8)
    return np.clip(np.rint(1200 + 9000 * grey), 0, 65535).astype(np.uint16)


def _write(path: Path, stack: npt.NDArray[np.uint8 | np.uint16], tile: tuple[int, int] | None) -> None:
    with atomic_path(path) as partial:
        tifffile.imwrite(
            partial,
            stack,
            tile=tile,
            compression="zlib",
            resolution=(1e4 / PIXEL_UM, 1e4 / PIXEL_UM),
            resolutionunit="CENTIMETER",
            metadata={"axes": "ZYX", "spacing": 1.0, "unit": "um"},
            photometric="minisblack",
        )
