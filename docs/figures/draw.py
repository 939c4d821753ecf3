"""Draw the figures of these pages from the demo: `python docs/figures/draw.py results demo`, after `make demo`.

Nothing else is shown in them, so they may be given on under the licence of this project.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import ndimage

import unet_pipeline
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.evaluate.trials import divided, objects_from
from unet_pipeline.images.overlays import beside
from unet_pipeline.images.pictures import as_grey, as_instances, as_scale
from unet_pipeline.model.geometry import Geometry, unpadded
from unet_pipeline.report.views import borders
from unet_pipeline.stacks.demo import cells
from unet_pipeline.stacks.weight_map import boundary_term, open_gaps

HERE = Path(__file__).parent
SHOWN_PX = 260
FAULT_PX = 150
COLOURS = 96
YELLOW = (255, 221, 51)
KEPT, READ = "#0072b2", "#d55e00"

Array = npt.NDArray[Any]


def outlined(grey: Array, ids: Array, factor: int = 2, line_px: int = 1) -> Array:
    """Return grey values (y, x) of 0..1, `factor` times enlarged, with a yellow line around each object."""
    rgb = as_grey(np.kron(grey, np.ones((factor, factor)))[None])
    around = borders(np.kron(ids, np.ones((factor, factor), ids.dtype)))
    rgb[ndimage.binary_dilation(around, iterations=line_px - 1) if line_px > 1 else around] = YELLOW
    return rgb


def scaled(grey: Array) -> npt.NDArray[np.float64]:
    """Return grey values with their 1st percentile as 0 and their 99.8th as 1."""
    low, high = np.percentile(grey, (1, 99.8))
    return np.clip((grey.astype(float) - low) / (high - low), 0, 1)


def row(panels: Sequence[tuple[str, Array]], columns: int = 4, inches: float = 2.4) -> Figure:
    """Return pictures side by side, each below its name."""
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * inches, rows * inches * 1.12), layout="constrained")
    for axis, (name, picture) in zip(np.ravel(axes), panels, strict=True):
        axis.imshow(picture, interpolation="antialiased", cmap="magma")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    return figure


def saved(figure: Figure, name: str) -> None:
    """Write a figure as a PNG of few colours, which is a third as large."""
    figure.savefig(HERE / name, dpi=110)
    plt.close(figure)
    with Image.open(HERE / name) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(HERE / name, optimize=True)


def result(results: Path) -> None:
    """Draw what comes out for a stack that the network has not seen: image, probability, objects."""
    grey, cell, ids = unseen(results, SHOWN_PX)
    large = np.ones((2, 2))
    strip = [as_grey(np.kron(grey, large)[None]), as_scale(np.kron(cell, large), "viridis")]
    strip += [as_instances(np.kron(ids, large.astype(ids.dtype))), outlined(grey, ids)]
    Image.fromarray(beside(strip)).quantize(COLOURS).save(HERE / "result.png", optimize=True)


def unseen(results: Path, size_px: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Array]:
    """Return a window of the stack `unseen`: grey values, probability of a cell (both 0..1), and ids of objects."""
    stack = results / "unseen"
    top, left = 60, 80
    window = slice(top, top + size_px), slice(left, left + size_px)
    image = unet_pipeline.open_stack(stack / "image.ome.zarr")[0][0]
    probabilities = unet_pipeline.open_stack(stack / "segmentation.ome.zarr")[0][1]
    ids = unet_pipeline.open_stack(stack / "segmentation.ome.zarr" / "labels" / "instances", labels=True)[0][0]
    return scaled(image)[window], probabilities[window] / 255.0, ids[window]


def faults(results: Path) -> None:
    """Make objects of the same probabilities with keys that do not fit, one fault for each."""
    grey, cell, _ = unseen(results, FAULT_PX)
    stored = np.rint(np.stack([1 - cell, cell]) * 255).astype(np.uint8)
    right = ObjectSettings(threshold=0.5, grow_px=1)
    keys = {
        "right": right,
        "joined": replace(right, threshold=0.03, grow_px=0),
        "split": replace(right, method="watershed", seed=1.0, seed_min_area_px=1),
        "missed": replace(right, min_area_px=700),
        "too small": replace(right, threshold=0.98, grow_px=0),
        "too large": replace(right, grow_px=4),
    }
    panels = [(name, outlined(grey, made(stored, settings), 6, 4)) for name, settings in keys.items()]
    saved(row(panels, columns=3), "faults.png")


def made(probabilities: Array, settings: ObjectSettings) -> Array:
    """Return the objects, (y, x), of probabilities (classes, y, x)."""
    return objects_from(*divided(probabilities, settings), settings)


def weight_map() -> None:
    """Draw what the network is to learn of touching cells: target with gaps, and the weight of each pixel."""
    grey, labels = cells((150, 150), np.random.default_rng(7))
    target = open_gaps(labels, 1) > 0
    weights = 1 + boundary_term(open_gaps(labels, 1), w0=10, sigma_px=4)
    panels = [("image", as_grey(scaled(grey)[None])), ("reference", as_instances(labels))]
    panels += [("target, with gaps", as_grey(target[None].astype(float))), ("weight map", weights)]
    saved(row(panels), "weight-map.png")


def overlap_tile(demo: Path) -> None:
    """Draw a plane with its mirrored surroundings, and for a tile at its corner what is read and what is kept."""
    plane = scaled(unet_pipeline.open_stack(demo / "train_b.tif")[0][0])[:320, :480]
    geometry, keep = unpadded(3), 160
    before, read = geometry.before, geometry.read_px(keep)
    wide = np.pad(plane, before, mode="reflect")
    paler = np.pad(np.ones(plane.shape), before, constant_values=0.45)
    figure, (whole, tile) = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained", width_ratios=(1.7, 1))
    corner = -before - 0.5
    across, down = (corner + length for length in reversed(wide.shape))
    whole.imshow(wide, cmap="gray", extent=(corner, across, down, corner), alpha=paler)
    for top in range(0, plane.shape[0], keep):
        for left in range(0, plane.shape[1], keep):
            _square(whole, (left, top), keep, "#56b4e9", "-")
    _tile(whole, geometry, keep, (0, 0))
    whole.set_title("tiles of a plane; paler: mirrored beyond its edge", fontsize=9)
    tile.imshow(wide[:read, :read], cmap="gray", extent=(corner, corner + read, corner + read, corner))
    _tile(tile, geometry, keep, (0, 0))
    tile.set_title(f"one pass: reads {read} px a side, keeps {keep}", fontsize=9)
    for axis in (whole, tile):
        axis.axis("off")
    saved(figure, "overlap-tile.png")


def _tile(axis: Axes, geometry: Geometry, keep: int, corner: tuple[int, int]) -> None:
    left, top = corner
    _square(axis, (left - geometry.before, top - geometry.before), geometry.read_px(keep), READ, "--")
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), keep, keep, facecolor=KEPT, alpha=0.25))
    _square(axis, corner, keep, KEPT, "-")


def _square(axis: Axes, corner: tuple[int, int], side: int, colour: str, line: str) -> None:
    left, top = corner
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=colour, linestyle=line, lw=1.4))


if __name__ == "__main__":
    results, demo = map(Path, sys.argv[1:])
    result(results)
    faults(results)
    weight_map()
    overlap_tile(demo)
