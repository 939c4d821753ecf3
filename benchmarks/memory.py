"""Peak memory of the stages on small and large planes: `python benchmarks/memory.py --edges 2048 16384 65536`.

Each stage is a process of its own, as in the workflow. Memory that is flat does not grow with the image.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
import torch
import zarr
from figures import SMALL, TABLES, Figure, peak_memory, publish, sized, step
from torch import nn

from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.models import UNet, save_model

STAGES = ("ingest", "weigh", "tile", "predict", "stitch watershed", "stitch distance", "stitch", "measure", "evaluate")
"""A verb, and of `stitch` the method by which objects are divided; by itself it is by what is connected."""
LABELLED = ("weigh", "evaluate")
BLOCK, SHARD_PX = sized((1024, 2048), (256, 256))
LIMIT_GB = 3
BRIGHT = 0.3
"""Normalised grey value between background and cells."""
Peaks = dict[int, dict[str, tuple[float, float]]]
"""By edge of the plane, px, and stage: peak in MB, seconds."""
NETWORK = Architecture("unet", 1, 1, 1, 2, 0.5)
CONFIG: dict[str, dict[str, object]] = {
    "model": {"depth": 1, "base_channels": 1},
    "compute": {"threads": 2, "device": "cpu"},
    "tile": {"tile_px": SHARD_PX},
    "store": {"shard_px": SHARD_PX, "chunk_px": min(512, SHARD_PX)},
}
"""A shard is what a job holds: the smallest plane must fill one, else it takes less memory than the others."""


def pattern() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return grey values and a mask of cells (BLOCK, BLOCK), to be repeated."""
    from unet_pipeline.stacks.demo import cells

    grey, ids = cells((BLOCK, BLOCK), np.random.default_rng(0), 90.0)
    ids[:2], ids[-2:], ids[:, :2], ids[:, -2:] = 0, 0, 0, 0
    return (grey * 120).clip(0, 255).astype(np.uint8), ids


def write_tiff(path: Path, edge: int, tile: npt.NDArray, numbered: bool) -> None:
    """Write a tiled BigTIFF of repeated tiles; with `numbered`, instances of each tile get numbers of their own."""
    count = edge // BLOCK
    dtype = np.uint32 if numbered else tile.dtype
    most = int(tile.max())

    def tiles():
        for number in range(count * count):
            yield np.where(tile > 0, tile.astype(np.uint32) + number * most, 0) if numbered else tile

    tifffile.imwrite(
        path, tiles(), shape=(edge, edge), dtype=dtype, tile=(BLOCK, BLOCK), bigtiff=True,
        compression="zlib", photometric="minisblack",
    )  # fmt: skip


def peak(*arguments: str) -> tuple[float, float]:
    """Run a verb; return the peak of its resident memory in MB and its seconds."""
    size, seconds = peak_memory([sys.executable, "-m", "unet_pipeline", *arguments])
    return size / 1e6, seconds


def threshold_network() -> UNet:
    """Return a network that smooths its input and takes what is bright for cells.

    Random weights would give an object every few pixels, and the memory of objects is not what is measured here.
    """
    network = UNet(NETWORK)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for level in (network.contracting[0], network.expanding[-1]):
            for layer in level:
                if isinstance(layer, nn.Conv2d):
                    layer.weight[0, 0] = 1 / 9  # channel 0 is the input, then the skip
        network.head.weight[1, 0], network.head.bias[1] = 20, -20 * BRIGHT
    return network


def stages(folder: Path, edge: int, labelled: bool) -> dict[str, tuple[float, float]]:
    """Run all stages on one plane; without labels, those that need none."""
    grey, ids = pattern()
    files = ["--image", str(folder / "grey.tif")]
    write_tiff(folder / "grey.tif", edge, grey, numbered=False)
    if labelled:
        write_tiff(folder / "ids.tif", edge, ids, numbered=True)
        files += ["--labels", str(folder / "ids.tif")]
    network = threshold_network()
    save_model(folder / "model", network, ModelCard(network.architecture, ("background", "cell")))
    stack, model = folder / "results" / "s", str(folder / "model")
    ingest, tiles, region, stitch, weigh, measured, evaluate = (
        str(stack / f"{name}.json")
        for name in ("ingest", "tiles", "regions/0", "stitch", "weigh", "measure", "metrics")
    )
    verbs = {
        "ingest": ["--stack", "s", *files, "--output", ingest],
        "weigh": ["--ingest", ingest, "--threads", "2", "--output", weigh],
        "tile": ["--ingest", ingest, "--model", model, "--regions", "1", "--output", tiles],
        "predict": ["--tiles", tiles, "--region", "0", "--model", model, "--output", region],
        "stitch": ["--tiles", tiles, "--regions", region, "--model", model, "--output", stitch],
        "measure": ["--stitch", stitch, "--output", measured],
        "evaluate": ["--stitch", stitch, "--output", evaluate],
    }
    found = {}
    for stage in (stage for stage in STAGES if labelled or stage not in LABELLED):
        verb, _, method = stage.partition(" ")
        config = CONFIG | {"stitch": {"method": method or "components"}}
        found[stage] = peak(verb, "--config", json.dumps(config), *verbs[verb])
        step(f"{edge} px, {stage}: {found[stage][0]:.0f} MB, {found[stage][1]:.1f} s")
    check_seams(stack / "segmentation.ome.zarr", edge)
    return found


def check_seams(store: Path, edge: int) -> None:
    """Open the result with zarr alone: cells that lie across shards are one object each, and all levels are there."""
    image = zarr.open_group(store, mode="r")
    classes, instances = image["labels/classes/0"], image["labels/instances/0"]
    across = 0
    for seam in range(SHARD_PX, edge, SHARD_PX * max(1, edge // SHARD_PX // 4)):
        beside = slice(seam - 1, seam + 1)
        cells = np.hstack([classes[0, beside, :], classes[0, :, beside].T])  # either side of both seams
        numbers = np.hstack([instances[0, beside, :], instances[0, :, beside].T])
        both = (cells > 0).all(axis=0)
        if (numbers[0, both] != numbers[1, both]).any():
            raise SystemExit(f"{store}: objects end at a seam of shards, {seam} px")
        across += int(both.sum())
    levels = [image[path["path"]].shape for path in image.attrs["ome"]["multiscales"][0]["datasets"]]
    step(f"{edge} px: {across} px of cells across seams, all in one object; {len(levels)} levels down to {levels[-1]}")


def measure(edges: list[int], unlabelled: list[int], scratch: Path | None) -> Peaks:
    """Measure all edges."""
    peaks: Peaks = {}
    step("once to compile the inner loops, which takes memory of its own")
    for edge in (BLOCK, *edges, *unlabelled):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            peaks[edge] = stages(Path(folder), edge, edge not in unlabelled)
    return {edge: peaks[edge] for edge in (*edges, *unlabelled)}


def summary(peaks: Peaks) -> tuple[list[Figure], str]:
    """Return the figures and a table, and leave a plot."""
    figures, most = [], 0.0
    rows = ["| stage | " + " | ".join(f"{edge} px" for edge in peaks) + " |", "|---" * (len(peaks) + 1) + "|"]
    for verb in STAGES:
        values = {edge: found[verb][0] for edge, found in peaks.items() if verb in found}
        name = f"memory: {verb}, largest over smallest of {', '.join(map(str, values))} px"
        figures.append(Figure(name, max(values.values()) / min(values.values()), None, "", 1.15, at_most=True))
        most = max(most, *values.values())
        cells = ("{:.0f} MB, {:.1f} s".format(*found[verb]) if verb in found else "" for found in peaks.values())
        rows.append(f"| {verb} | {' | '.join(cells)} |")
    figures.append(Figure("memory: most of any stage", most / 1000, None, "GB", LIMIT_GB, at_most=True))
    if not SMALL:
        plot(peaks, TABLES / "memory.svg")
    return figures, "\n".join([*rows, "", "![peak memory over the size of the plane](memory.svg)"])


def plot(peaks: Peaks, path: Path) -> None:
    """Draw the peak of each stage over the pixels of the plane."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(6, 3.5), layout="constrained")
    axes = drawing.subplots()
    for verb in STAGES:
        points = [(edge, found[verb][0] / 1000) for edge, found in peaks.items() if verb in found]
        axes.plot(*zip(*points, strict=True), marker="o", label=verb)
    axes.axhline(LIMIT_GB, color="grey", linestyle="dashed")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(peaks), [f"{edge}²" for edge in peaks])
    axes.set(xlabel="plane, px", ylabel="peak resident memory, GB", ylim=(0, None))
    axes.legend(frameon=False, ncols=2)
    drawing.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--edges", type=int, nargs="+", default=sized([2048, 8192], [512]))
    options.add_argument("--unlabelled", type=int, nargs="*", default=[], help="edges for the stages without labels")
    options.add_argument("--scratch", type=Path, default=None, help="folder with room: 65536 px need 40 GB")
    given = options.parse_args()
    publish("memory", *summary(measure(given.edges, given.unlabelled, given.scratch)))
