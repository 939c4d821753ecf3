"""Objects of probabilities, against scikit-image and scipy on a whole plane: `python benchmarks/objects.py`.

Both sides have the plane in memory and one core. The others' recipes are what a careful user writes: they see the whole
plane at once, where ours could go through it block by block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from figures import Figure, in_turn, on_cores, publish, sized, step
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from weigh import touching_cells

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.evaluate.examples import Example
from unet_pipeline.evaluate.trials import divided, objects_from, search
from unet_pipeline.stacks.weight_map import open_gaps

EDGE, CALIBRATED_EDGE = sized((4096, 1024), (256, 128))
PER_MPX = 300
STATED = ObjectSettings(grow_px=0)


def plane(edge: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Return probabilities (2, y, x) in which one cell of twenty still touches another, and the cells (y, x)."""
    cells = touching_cells(edge, PER_MPX)
    soft = ndimage.gaussian_filter((open_gaps(cells, 2) > 0).astype(np.float32), 2)
    cell = (soft * 255).round().astype(np.uint8)
    return np.stack([255 - cell, cell]), cells


def ours(probabilities: npt.NDArray[np.uint8], settings: ObjectSettings) -> npt.NDArray[np.uint32]:
    """Make objects as `stitch` does."""
    return objects_from(*divided(probabilities, settings), settings)[0]


def without_small(labels: npt.NDArray) -> npt.NDArray:
    """Fill holes of the mask, and drop what is small, as ours do."""
    small = np.flatnonzero(np.bincount(labels.ravel()) < STATED.min_area_px)
    return np.where(np.isin(labels, small), 0, labels)


def by_components(probabilities: npt.NDArray[np.uint8]) -> npt.NDArray:
    """Number what is connected, with scipy."""
    return without_small(ndimage.label(ndimage.binary_fill_holes(probabilities[1] > 127))[0])


def by_seeds(probabilities: npt.NDArray[np.uint8]) -> npt.NDArray:
    """Flood from where the network is surest, with scikit-image."""
    mask = ndimage.binary_fill_holes(probabilities[1] > 127)
    seeds = ndimage.label(probabilities[1] >= 0.8 * 255)[0]
    return without_small(watershed(probabilities[0], seeds, mask=mask))


def by_distance(probabilities: npt.NDArray[np.uint8]) -> npt.NDArray:
    """Flood the distance transform from its maxima, with scipy and scikit-image."""
    mask = ndimage.binary_fill_holes(probabilities[1] > 127)
    distance = ndimage.distance_transform_edt(mask)
    seeds = np.zeros(mask.shape, np.int32)
    tops = peak_local_max(distance, min_distance=10, labels=mask.astype(np.int32))
    seeds[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    return without_small(watershed(-distance, seeds, mask=mask))


OTHERS = {"components": by_components, "watershed": by_seeds, "distance": by_distance}


def against_whole_planes() -> list[Figure]:
    """Time each method on both sides."""
    figures, (probabilities, _) = [], plane(EDGE)
    for method, other in OTHERS.items():
        settings = replace(STATED, method=method)
        counts = [len(np.unique(found)) - 1 for found in (ours(probabilities, settings), other(probabilities))]
        step(f"{method}: {counts[0]} objects, the other's {counts[1]}")
        mine, theirs = in_turn(
            lambda settings=settings: ours(probabilities, settings),
            lambda other=other: other(probabilities),
            rounds=3,
        )
        name, cpu_s = f"objects: {method}, {EDGE} px", (mine.cpu_s, theirs.cpu_s)
        figures.append(Figure(name, mine.wall_s, theirs.wall_s, "s", larger=False, cpu_s=cpu_s))
    return figures


def calibration() -> Figure:
    """Time the search of `calibrate` on one plane."""
    probabilities, cells = plane(CALIBRATED_EDGE)
    example = Example(probabilities, (cells > 0).astype(np.uint8), cells)
    median_px = float(np.median(np.bincount(cells.ravel())[1:]))
    step("the search of calibrate")
    (taken,) = in_turn(lambda: search([example], "seg+ap50", STATED, median_px), rounds=1)
    mpx = CALIBRATED_EDGE**2 / 1e6
    return Figure("objects: the search of calibrate, CPU time", taken.cpu_s / mpx, None, "s/Mpx", 60, at_most=True)


if __name__ == "__main__":
    with on_cores(1):
        publish("objects", [*against_whole_planes(), calibration()], f"{PER_MPX} touching cells a megapixel, one core.")
