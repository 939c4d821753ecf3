"""Prediction and training with the paper's network on one GPU: `python benchmarks/gpu.py`.

Without a GPU the same code runs with a small network and small sizes, and its figures have no goals: that shows that
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
from figures import Figure, publish, sized, step
from timed_training import options, stack_of_cells, times_of_steps
from torch.utils.flop_counter import FlopCounterMode

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Compute, Config
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.device import autocast
from unet_pipeline.model.models import build, save_model
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
BASE, DEPTH = (64, 4) if GPU else (8, 3)
PLANES, EDGE = (4, 8192) if GPU else (1, 1024)
STEPS, BATCH, KEEP = (400, 8, 384) if GPU else (6, 2, 64)
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


def flops(keep: int, batch: int, learn: bool) -> float:
    """Return the floating-point operations of a pass."""
    architecture = Architecture("unet", DEPTH, BASE, 1, 2, 0.5)
    read = ModelCard(architecture, ("a", "b")).geometry.read_px(keep)
    network = build(architecture)
    with FlopCounterMode(display=False) as counter:
        scores = network(torch.rand(batch, 1, read, read))
        if learn:
            scores.sum().backward()
    return float(counter.get_total_flops())


def prediction(folder: Path, precision: str, compiled: bool, tile_px: int, batch: int) -> float:
    """Return output px per second from store to store."""
    config = from_dict(
        {
            "predict": {"precision": precision, "batch": batch},
            "tile": {"tile_px": tile_px},
            "model": {"depth": DEPTH, "base_channels": BASE},
            "compute": {"device": DEVICE.type, "compile": compiled, "threads": torch.get_num_threads()},
        }
    )
    record = folder / "grey" / "ingest.json"
    if not record.exists():
        _write_stack(folder, record, config)
    output = record.with_name("tiles.json")
    tile(Stack.open(record), config, 1, output)
    plan, model, seconds = StackPlan.open(output), folder / "model", 0.0
    forward = Forward.load(model, plan.stack, config.predict, config.compute)
    for _ in range(2):  # the first warms up, and compiles, the network that the second is timed with
        began = wait()
        predict(plan, 0, model, config, plan.region_record(0), forward)
        seconds = wait() - began
        for left in output.parent.glob("regions/.*"):  # else the second would find all shards made
            left.unlink()
    return PLANES * EDGE**2 / seconds


def _write_stack(folder: Path, record: Path, config: Config) -> None:
    grey = np.random.default_rng(0).normal(120, 30, (PLANES, EDGE, EDGE))
    tifffile.imwrite(folder / "grey.tif", grey.clip(0, 255).astype(np.uint8), photometric="minisblack")
    ingest(Source("grey", str(folder / "grey.tif")), config, record)
    card = ModelCard(Architecture("unet", DEPTH, BASE, 1, 2, 0.5), ("background", "cell"))
    save_model(folder / "model", build(card.architecture), card)


def network_alone(precision: str, keep: int, batch: int) -> float:
    """Return the rate of the network alone, kept px per second."""
    network = build(Architecture("unet", DEPTH, BASE, 1, 2, 0.5)).to(DEVICE).eval()
    network = network.to(memory_format=torch.channels_last)
    read = ModelCard(network.architecture, ("a", "b")).geometry.read_px(keep)
    image = torch.rand(batch, 1, read, read, device=DEVICE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(DEVICE, precision):
        for _ in range(3):
            network(image)
        began = wait()
        for _ in range(10):
            network(image)
    return 10 * batch * keep**2 / (wait() - began)


def training(precision: str) -> float:
    """Return the seconds of a step of the real loop."""
    compute = Compute(device=DEVICE.type, threads=torch.get_num_threads())
    architecture = Architecture("unet", DEPTH, BASE, 1, 2, 0.5)
    marks = times_of_steps(stack_of_cells(30, 512), architecture, options(STEPS, BATCH, KEEP, precision), compute)
    first = len(marks) // 4
    return (marks[-1] - marks[first]) / (len(marks) - 1 - first)


def measure() -> list[Figure]:
    """Measure all; goals hold on a GPU of the H200's kind."""
    rate = matrix_rate(8192 if GPU else 1024)
    figures = [Figure("gpu: bfloat16 matrix product", rate / 1e12, None, "TFLOP/s")]
    keep, batch = (1024, 1) if GPU else (128, 1)
    per_px = flops(keep, 1, learn=False) / keep**2
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            for compiled in sized((False, True), (False,)):
                name = f"{precision}{', compiled' if compiled else ''}"
                step(f"prediction, {name}")
                output = prediction(Path(folder), precision, compiled, keep, batch)
                goal = 250.0 if GPU and precision == "bfloat16" else None
                figures.append(Figure(f"gpu: predict from Zarr to Zarr, {name}", output / 1e6, None, "Mpx/s", goal))
            alone = network_alone(precision, keep, batch)
            goal = 45.0 if GPU and precision == "bfloat16" else None
            what = f"gpu: network alone, {precision}, of the matrix rate"
            figures.append(Figure(what, 100 * alone * per_px / rate, None, "%", goal))
    for precision in ("float32", "bfloat16"):
        step(f"training, {precision}")
        seconds = training(precision)
        minutes, goal = NVIDIA_STEPS * seconds / 60, 3.0 if GPU and precision == "bfloat16" else None
        what = f"gpu: {NVIDIA_STEPS} training steps of batch {BATCH}, {precision}"
        figures.append(Figure(what, minutes, None, "min", goal, at_most=True))
        share, goal = flops(KEEP, BATCH, learn=True) / seconds / rate, 40.0 if goal else None
        figures.append(Figure(f"gpu: training, {precision}, of the matrix rate", 100 * share, None, "%", goal))
    return figures


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    kind = torch.cuda.get_device_name() if GPU else "no GPU: small sizes, no goals"
    publish("gpu", measure(), f"{kind}; depth {DEPTH}, {BASE} channels; torch {torch.__version__}.")
