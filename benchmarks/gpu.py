"""Prediction and training on one GPU, most with the paper's network: `python benchmarks/gpu.py`.

Without a GPU the same code runs with small networks and small sizes, and its figures have no goals: that shows that
the benchmark works, not that it is fast.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from figures import Figure, publish, step
from timed_training import options, stack_of_cells, times_of_steps
from torch.utils.flop_counter import FlopCounterMode

from unet_pipeline.audit.prove import prove
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Compute, Config
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.models import build, save_model
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
PAPER, DEFAULT = "the paper's", "config.yaml's"
NETWORKS = {
    PAPER: Architecture("unet", 4 if GPU else 3, 64 if GPU else 8, 1, 2, 0.5),
    DEFAULT: Architecture("unet", 3, 16 if GPU else 4, 1, 2, 0.0, batch_norm=True),
}
PLANES, EDGE = (6, 8192) if GPU else (1, 512)
SIZES = (1024, 2048) if GPU else (128,)
"""Tiles, px; the first is what `tile.tile_px: auto` takes."""
STEPS, BATCH, KEEP = (100, 8, 384) if GPU else (6, 2, 64)
NVIDIA_STEPS = 6400
"""Of batch 8 at 572 px, NVIDIA's DeepLearningExamples; 8.6 min on an A100 with mixed precision."""


def wait() -> float:
    """Let the device finish and return the time."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(size: int) -> float:
    """Return the rate of a bfloat16 matrix product, FLOP/s."""
    left, right = (torch.rand(size, size, device=DEVICE).bfloat16() for _ in range(2))
    for _ in range(3):
        left @ right
    began = wait()
    for _ in range(10):
        left @ right
    return 10 * 2 * size**3 / (wait() - began)


def flops(keep: int, learn: bool) -> float:
    """Return the floating-point operations of the paper's network for a tile."""
    read = ModelCard(NETWORKS[PAPER], ("a", "b")).geometry.read_px(keep)
    with FlopCounterMode(display=False) as counter:
        scores = build(NETWORKS[PAPER]).to("meta")(torch.empty(1, 1, read, read, device="meta"))
        if learn:
            scores.sum().backward()
    return float(counter.get_total_flops())


def prepare(folder: Path) -> Stack:
    """Make the models and a stack."""
    for name, architecture in NETWORKS.items():
        save_model(folder / name, build(architecture), ModelCard(architecture, ("background", "cell")))
    grey = np.random.default_rng(0).integers(60, 180, (PLANES, EDGE, EDGE), np.uint8)
    tifffile.imwrite(folder / "grey.tif", grey, photometric="minisblack")
    record = folder / "grey" / "ingest.json"
    ingest(Source("grey", str(folder / "grey.tif")), configured("float32", SIZES[0]), record)
    return Stack.open(record)


def configured(precision: str, tile_px: int) -> Config:
    """Return a configuration."""
    device = {"device": DEVICE.type, "threads": torch.get_num_threads()}
    return from_dict({"predict": {"precision": precision}, "tile": {"tile_px": tile_px}, "compute": device})


def prediction(stack: Stack, model: Path, precision: str, tile_px: int) -> float:
    """Return output px per second from store to store, the network being loaded."""
    config, output = configured(precision, tile_px), stack.record.with_name("tiles.json")
    tile(stack, config, 1, output, ModelCard(NETWORKS[model.name], ("background", "cell")))
    plan, seconds = StackPlan.open(output), 0.0
    forward = Forward.load(model, plan.stack, config.predict, config.compute)
    for _ in range(2):  # the first warms up
        began = wait()
        predict(plan, 0, model, config, plan.region_record(0), forward)
        seconds = wait() - began
        for left in output.parent.glob("regions/.*"):  # else the second would find all shards made
            left.unlink()
    return PLANES * EDGE**2 / seconds


def network_alone(stack: Stack, model: Path, precision: str, tile_px: int) -> float:
    """Return the rate of the network alone, kept px per second."""
    config = configured(precision, tile_px)
    forward = Forward.load(model, stack, config.predict, config.compute)
    window = [torch.rand(1, 1, *(forward.card.geometry.read_px(tile_px),) * 2, device=DEVICE)]
    for _ in range(3):
        forward(window)
    began = wait()
    for _ in range(10):
        forward(window)
    return 10 * tile_px**2 / (wait() - began)


def training(name: str, batch: int, keep: int, precision: str) -> float:
    """Return the seconds of a step of the real loop."""
    compute = Compute(device=DEVICE.type, threads=torch.get_num_threads())
    given = options(STEPS, batch, keep, precision)
    marks = times_of_steps(stack_of_cells(30, 512), NETWORKS[name], given, compute)
    first = len(marks) // 4
    return (marks[-1] - marks[first]) / (len(marks) - 1 - first)


def predictions(folder: Path, rate: float) -> list[Figure]:
    """Measure the network alone and the stage; goals hold on a GPU of the H100's kind."""
    stack, figures = prepare(folder), []
    for tile_px in SIZES:
        step(f"{PAPER}, tiles of {tile_px} px")
        alone = network_alone(stack, folder / PAPER, "bfloat16", tile_px)
        share = 100 * alone * flops(tile_px, learn=False) / tile_px**2 / rate
        what = f"tiles of {tile_px} px, bfloat16"
        figures.append(Figure(f"gpu: {PAPER} network alone, {what}", alone / 1e6, None, "Mpx/s"))
        goal = 45.0 if GPU else None
        figures.append(Figure(f"gpu: {PAPER} network alone, {what}, of the matrix rate", share, None, "%", goal))
        output = prediction(stack, folder / PAPER, "bfloat16", tile_px)
        goal = 200.0 if GPU else None
        figures.append(Figure(f"gpu: {PAPER} from Zarr to Zarr, {what}", output / 1e6, None, "Mpx/s", goal))
    output = prediction(stack, folder / DEFAULT, "bfloat16", SIZES[0])
    what = f"gpu: {DEFAULT} from Zarr to Zarr, tiles of {SIZES[0]} px, bfloat16"
    figures.append(Figure(what, output / 1e6, None, "Mpx/s"))
    alone = network_alone(stack, folder / PAPER, "float32", SIZES[0])
    figures.append(Figure(f"gpu: {PAPER} network alone, float32", alone / 1e6, None, "Mpx/s"))
    for precision in ("float32", "bfloat16", "float16") if GPU else ("float32",):
        step(f"proof, {precision}")
        found = prove(folder / PAPER, stack, configured(precision, SIZES[0]), None, 0, 512 if GPU else 64)
        largest, what = max(row.largest_difference_std for row in found.rows), "tiles against one whole pass"
        figures.append(Figure(f"gpu: {what}, {precision}", largest, None, "std", found.tolerance_std, at_most=True))
    return figures


def measure() -> list[Figure]:
    """Measure all."""
    rate = matrix_rate(8192 if GPU else 1024)
    figures = [Figure("gpu: bfloat16 matrix product", rate / 1e12, None, "TFLOP/s")]
    with tempfile.TemporaryDirectory() as folder:
        figures += predictions(Path(folder), rate)
    step("training")
    seconds = training(PAPER, BATCH, KEEP, "bfloat16")
    minutes, goal = NVIDIA_STEPS * seconds / 60, 4.0 if GPU else None
    what = f"gpu: {NVIDIA_STEPS} training steps of {PAPER}, batch {BATCH}, bfloat16"
    figures.append(Figure(what, minutes, None, "min", goal, at_most=True))
    share = 100 * BATCH * flops(KEEP, learn=True) / seconds / rate
    figures.append(Figure(f"gpu: training of {PAPER}, of the matrix rate", share, None, "%"))
    seconds = training(DEFAULT, 4 if GPU else 2, 160 if GPU else 64, "bfloat16")
    figures.append(Figure(f"gpu: training of {DEFAULT}, batch 4 of 160 px", 1 / seconds, None, "steps/s"))
    return figures


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    kind = torch.cuda.get_device_name() if GPU else "no GPU: small sizes, no goals"
    publish("gpu", measure(), f"{kind}; {PLANES} planes of {EDGE} x {EDGE} px; torch {torch.__version__}.")
