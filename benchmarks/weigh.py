"""The boundary weight map against the common recipe, and how its cost grows: `python benchmarks/weigh.py`."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from figures import Figure, in_turn, on_cores, publish, sized, step
from scipy import ndimage
from scipy.spatial import cKDTree

from unet_pipeline.config.checks import from_dict
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.stacks.weight_map import boundary_term, open_gaps, open_volume_gaps, volume_boundary_term

EDGES = sized((512, 1024, 2048, 4096, 8192), (128, 256))
DENSITIES = (20, 300, 1300, 4000, 14_000)
"""Cells per Mpx."""
PLANES = 3
EDGE, LARGE_EDGE = sized((2048, 4096), (256, 512))
HALO_PX = 30
"""Beyond as many px a term of 5 px width is nothing."""
CUBE_PX = sized(128, 32)


def touching_cells(edge: int, per_mpx: float, seed: int = 0) -> npt.NDArray[np.uint32]:
    """Return (edge, edge) instances: round cells around random points, cut where they meet, so that they touch."""
    count = max(2, round(per_mpx * edge**2 / 1e6))
    points = np.random.default_rng(seed).uniform(0, edge, (count, 2))
    labels = np.empty((edge, edge), np.uint32)
    tree, radius = cKDTree(points), 0.7 * math.sqrt(1e6 / per_mpx)
    columns = np.arange(edge)
    for top in range(0, edge, 256):
        rows = np.arange(top, min(top + 256, edge))
        pixels = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        distance, nearest = tree.query(pixels, workers=-1)
        labels[rows] = np.where(distance <= radius, nearest + 1, 0).reshape(len(rows), edge)
    return labels


def ours(labels: npt.NDArray[np.uint32], block_px: int = 1024, halo: int = 30) -> None:
    """Compute the term as the stage does: block by block."""
    for y in range(0, labels.shape[0], block_px):
        for x in range(0, labels.shape[1], block_px):
            part = labels[max(0, y - halo) : y + block_px + halo, max(0, x - halo) : x + block_px + halo]
            boundary_term(open_gaps(part, 1), 10, 5)


def by_boxes(labels: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Do what a careful user writes: a distance transform in the box around each cell, the two least kept."""
    first = np.full(labels.shape, np.inf)
    second = first.copy()
    for cell, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        place = tuple(slice(max(0, part.start - HALO_PX), part.stop + HALO_PX) for part in box)
        distance = ndimage.distance_transform_edt(labels[place] != cell)
        second[place] = np.minimum(second[place], np.maximum(first[place], distance))
        first[place] = np.minimum(first[place], distance)
    return np.asarray(np.where(labels > 0, 0, 10 * np.exp(-((first + second) ** 2) / 50)))


def growth() -> list[Figure]:
    """Time planes of several sizes."""
    ms = []
    for edge in EDGES:
        step(f"{edge} px")
        labels = touching_cells(edge, 300)
        (taken,) = in_turn(lambda labels=labels: ours(labels), rounds=3 if edge > 4096 else 5)
        ms.append(taken.wall_s * 1e3)
    pixels = np.array(EDGES, float) ** 2
    exponent = float(np.polyfit(np.log(pixels), np.log(ms), 1)[0])
    worst = max(m / p * 1e6 for m, p in zip(ms, pixels, strict=True))
    return [
        Figure("weigh: exponent, 512 to 8192 px", exponent, None, "", 1.05, at_most=True),
        Figure("weigh: one core, slowest of these", worst, None, "ms/Mpx", 100, at_most=True),
    ]


def density() -> Figure:
    """Time planes that differ in the number of cells."""
    times = []
    for per_mpx in DENSITIES:
        step(f"{per_mpx} cells/Mpx")
        labels = touching_cells(EDGE, per_mpx)
        times += [taken.wall_s for taken in in_turn(lambda labels=labels: ours(labels), rounds=5)]
    return Figure("weigh: dearest over cheapest density", max(times) / min(times), None, "", 2, at_most=True)


def against_boxes() -> Figure:
    """Time the map of a plane on both sides, once both are found to be equal."""
    labels = touching_cells(EDGE, 320)
    parted = open_gaps(labels, 1)
    step(f"distance transforms in the boxes of {len(np.unique(labels)) - 1} cells")
    np.testing.assert_allclose(boundary_term(parted, 10, 5), by_boxes(parted), atol=1e-5)
    mine, other = in_turn(lambda: ours(labels), lambda: by_boxes(open_gaps(labels, 1)), rounds=3)
    name, cpu_s = f"weigh: {EDGE} px, transforms in the box of each cell", (mine.cpu_s, other.cpu_s)
    return Figure(name, mine.wall_s, other.wall_s, "s", larger=False, cpu_s=cpu_s)


def touching_balls(edge: int, count: int) -> npt.NDArray[np.uint32]:
    """Return a cube (edge, edge, edge) of round cells around random points, cut where they meet, so that they touch."""
    points = np.random.default_rng(0).uniform(0, edge, (count, 3))
    voxels = np.indices((edge,) * 3).reshape(3, -1).T
    distance, nearest = cKDTree(points).query(voxels)
    return np.where(distance <= 0.55 * edge / count ** (1 / 3), nearest + 1, 0).reshape((edge,) * 3).astype(np.uint32)


def volume() -> list[Figure]:
    """Time a cube of cubic voxels, against a transform per cell in its box and, of one cell, in the whole cube."""
    labels = open_volume_gaps(touching_balls(CUBE_PX, sized(157, 6)), 1, 1)
    cells = len(np.unique(labels)) - 1
    step(f"{CUBE_PX}³ voxels, distance transforms of {cells} cells")
    np.testing.assert_allclose(volume_boundary_term(labels, 1, 10, 5), by_boxes(labels), atol=1e-5)
    mine, boxes, cube = in_turn(
        lambda: volume_boundary_term(labels, 1, 10, 5),
        lambda: by_boxes(labels),
        lambda: ndimage.distance_transform_edt(labels != 1),
        rounds=3,
    )
    name = f"weigh: {CUBE_PX}³ voxels, {cells} cells"
    return [
        Figure(f"{name}, transforms in the box of each", mine.wall_s, boxes.wall_s, "s", larger=False,
               cpu_s=(mine.cpu_s, boxes.cpu_s)),
        Figure(f"{name}, in the whole cube (one, times cells)", mine.wall_s, cells * cube.wall_s, "s", larger=False,
               cpu_s=(mine.cpu_s, cells * cube.cpu_s)),
    ]  # fmt: skip


def stage() -> list[Figure]:
    """Time the stage from store to store, on one core and on two."""
    with tempfile.TemporaryDirectory() as folder:
        step(f"the stage, {PLANES} planes of {LARGE_EDGE} px")
        place = Path(folder)
        labels = touching_cells(LARGE_EDGE, 300).astype(np.uint16)
        for name, values in (("image", (labels % 251).astype(np.uint8)), ("labels", labels)):
            tifffile.imwrite(place / f"{name}.tif", np.stack([values] * PLANES), photometric="minisblack")
        record, config = place / "cells" / "ingest.json", from_dict({})
        ingest(Source("cells", str(place / "image.tif"), str(place / "labels.tif")), config, record)
        stack, output = Stack.open(record), record.with_name("weigh.json")

        def on(count: int) -> None:
            with on_cores(count):
                weigh(stack, config, output, threads=count)

        one, two = (taken.wall_s for taken in in_turn(lambda: on(1), lambda: on(2), rounds=3))
    mpx = PLANES * LARGE_EDGE**2 / 1e6
    return [
        Figure("weigh: stage on two cores, against one", two / mpx * 1e3, one / mpx * 1e3, "ms/Mpx", 1.8, larger=False),
    ]


def memory() -> Figure:
    """Measure the peak of a block in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import weigh; weigh.print_peak()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Figure("weigh: working memory of a block", float(ran.stdout), None, "B/px", 16, at_most=True)


def print_peak() -> None:
    """Print the bytes a pixel costs in a large block, beyond its labels."""
    labels = touching_cells(LARGE_EDGE, 300)
    open_gaps(labels[:64, :64], 1)
    boundary_term(labels[:64, :64], 10, 5)  # compiled and loaded
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = _memory("VmRSS")
    boundary_term(labels, 10, 5)
    print((_memory("VmHWM") - before) / labels.size)


def _memory(name: str) -> int:
    """Return a size from the process's status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


if __name__ == "__main__":
    publish("weigh", [*growth(), density(), *stage(), memory(), against_boxes(), *volume()])
