"""Prediction of volumes from store to store, against MONAI, and its memory: `python benchmarks/volumes.py`.

Both sides have the same widths and depth, threads and number format. MONAI's user pads the convolutions and keeps
volume and result in memory; at its defaults, and at the settings that are best on a CPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from figures import Figure, asked, in_turn, peak_memory, publish, sized, step
from predict import whole_stage

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Config
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.models import build, save_model
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

EDGE = sized(160, 32)
ROI_PX = 96
NETWORK = Architecture("unet", 2, sized(8, 2), 1, 2, 0.5, dimensions=3, z_levels=3)
MEMORY_SHAPES = sized(((128, 512, 512), (384, 1024, 1024)), ((32, 64, 64), (48, 96, 96)))
"""The smaller is a shard: what a job holds."""
SMALLEST = Architecture("unet", 1, 1, 1, 2, 0.5, dimensions=3, z_levels=2)
"""For memory: what is measured is what a job holds, not how long a network takes."""
LIMIT_GB = 4


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Write noise as a TIFF, plane by plane."""
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(path) as file:
        for _ in range(shape[0]):
            plane = rng.normal(120, 30, shape[1:]).clip(0, 255).astype(np.uint8)
            file.write(plane, photometric="minisblack", contiguous=True)


def prepare(folder: Path, threads: int) -> tuple[StackPlan, Path, Config]:
    """Make a stack, a model and a plan."""
    record = folder / "grey" / "ingest.json"
    write_volume(folder / "grey.tif", (EDGE,) * 3)
    config = from_dict({"compute": {"threads": threads, "device": "cpu"}})
    ingest(Source("grey", str(folder / "grey.tif"), axes="zyx"), config, record)
    card = ModelCard(NETWORK, ("background", "cell"))
    save_model(folder / "model", build(NETWORK), card)
    output = record.with_name("tiles.json")
    tile(Stack.open(record), config, 1, output, card)
    return StackPlan.open(output), folder / "model", config


@dataclass(frozen=True)
class Peer:
    """MONAI's sliding window: windows passed at a time, overlap of neighbours, and whether channels lie together."""

    name: str
    windows: int
    overlap: float
    channels_last: bool


PEERS = (
    Peer("MONAI, its defaults", 4, 0.25, False),
    Peer("MONAI, channels_last_3d, a window at a time", 1, 0.25, True),
    Peer("MONAI, the same without overlap, so with seams", 1, 0.0, True),
)


def monai_side(peer: Peer) -> Callable[[], None]:
    """Return a function that predicts the volume in memory with MONAI."""
    from monai.inferers import sliding_window_inference

    volume = torch.rand(1, 1, EDGE, EDGE, EDGE)
    network = build(Architecture("unet", 2, NETWORK.base_channels, 1, 2, 0.5, True, dimensions=3, z_levels=3)).eval()
    if peer.channels_last:
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        volume = volume.contiguous(memory_format=torch.channels_last_3d)

    def run() -> None:
        with torch.inference_mode():
            logits = sliding_window_inference(volume, (ROI_PX,) * 3, peer.windows, network, peer.overlap)
            logits.softmax(dim=1).argmax(dim=1)

    return run


def rates(threads: int, rounds: int) -> list[Figure]:
    """Measure the stage against each peer."""
    torch.set_num_threads(threads)
    voxels = EDGE**3 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        plan, model, config = prepare(Path(folder), threads)
        step(f"tiles keep {plan.plan.keeps} of {plan.plan.read} voxels read")
        mine, *theirs = in_turn(
            lambda: whole_stage(plan, model, config), *(monai_side(peer) for peer in PEERS), rounds=rounds
        )
    figures = []
    for peer, taken in zip(PEERS, theirs, strict=True):
        name, cpu_s = f"predict a volume: stage, against {peer.name}", (mine.cpu_s / voxels, taken.cpu_s / voxels)
        figures.append(Figure(name, voxels / mine.wall_s, voxels / taken.wall_s, "Mvoxel/s", cpu_s=cpu_s))
    return figures


def memory() -> list[Figure]:
    """Return the peak of each verb on volumes of several sizes."""
    peaks: dict[str, list[float]] = {}
    for shape in MEMORY_SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_volume(folder / "grey.tif", shape)
            save_model(folder / "model", build(SMALLEST), ModelCard(SMALLEST, ("background", "cell")))
            stack, model = folder / "results" / "s", ["--model", str(folder / "model")]
            ingested, tiles, region = (str(stack / f"{name}.json") for name in ("ingest", "tiles", "regions/0"))
            grey = ["--stack", "s", "--image", str(folder / "grey.tif"), "--axes", "zyx"]
            verbs = {
                "ingest": [*grey, "--output", ingested],
                "tile": ["--ingest", ingested, *model, "--regions", "1", "--output", tiles],
                "predict": ["--tiles", tiles, "--region", "0", *model, "--output", region],
            }
            config = ["--config", json.dumps({"compute": {"threads": 1, "device": "cpu"}})]
            for verb, options in verbs.items():
                size, seconds = peak_memory([sys.executable, "-m", "unet_pipeline", verb, *config, *options])
                peaks.setdefault(verb, []).append(size / 1e9)
                step(f"{shape} voxels, {verb}: {size / 1e6:.0f} MB, {seconds:.1f} s")
    small, *_, large = found = peaks["predict"]
    sizes = " and ".join(" x ".join(map(str, shape)) for shape in MEMORY_SHAPES)
    growth = Figure(f"memory: predict volumes, largest over smallest of {sizes}", large / small, None, "", 1.15, True)
    return [growth, Figure("memory: predict, the most of these", max(found), None, "GB", LIMIT_GB, at_most=True)]


if __name__ == "__main__":
    given = asked(__doc__, torch.get_num_threads())
    notes = (
        f"Network: depth {NETWORK.depth}, {NETWORK.base_channels} channels, 2 classes; volume {EDGE}^3 uint8; "
        f"{given.threads} threads. CPU seconds are those of a megavoxel. MONAI's network is padded, its windows are "
        f"{ROI_PX}^3, and its volume and result stay in memory. Memory: a network of one channel, one reading thread."
    )
    publish("volumes", [*rates(given.threads, given.rounds), *memory()], notes)
