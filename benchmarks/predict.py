"""Prediction from store to store, against the network alone and MONAI's sliding window: `python benchmarks/predict.py`.

All sides have the same widths and depth and the same number of threads. MONAI's user pads the convolutions, keeps the
image and the result in memory, and leaves every option at its default (overlap 0.25, constant weights).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from figures import Figure, asked, in_turn, publish, step
from torch import nn

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Config
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.models import UNet, build, save_model
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

BASE = 16
DEPTH = 4
PLANES, EDGE = 6, 2048
PLANES_OF_OTHERS = 2
ROI_PX = 512


def prepare(folder: Path, threads: int, precision: str) -> tuple[StackPlan, Path, Config]:
    """Make a stack, a model and a plan."""
    config = from_dict(
        {
            "store": {"shard_px": 2048},
            "predict": {"precision": precision},
            "model": {"depth": DEPTH, "base_channels": BASE},
            "compute": {"threads": threads},
        }
    )
    record = folder / "grey" / "ingest.json"
    if not record.exists():
        grey = np.random.default_rng(0).normal(120, 30, (PLANES, EDGE, EDGE)).clip(0, 255).astype(np.uint8)
        tifffile.imwrite(folder / "grey.tif", grey, photometric="minisblack")
        ingest(Source("grey", str(folder / "grey.tif")), config, record)
        card = ModelCard(Architecture("unet", DEPTH, BASE, 1, 2, 0.5), ("background", "cell"))
        save_model(folder / "model", build(card.architecture), card)
    output = record.with_name("tiles.json")
    tile(Stack.open(record), config, 1, output)
    return StackPlan.open(output), folder / "model", config


def whole_stage(plan: StackPlan, model: Path, config: Config) -> None:
    """Predict the only region from nothing."""
    record = plan.region_record(0)
    for left in record.parent.glob(".*"):
        left.unlink()
    predict(plan, 0, model, config, record)


def network_alone(forward: Forward) -> Callable[[], None]:
    """Return a function that passes as many px as the image has through the network alone, in the best tiles."""
    geometry, rates = forward.card.geometry, {}
    for keep in (256, 384, 512, 768, 1024, 2048):
        window = [torch.rand(1, *(geometry.read_px(keep),) * 2)]
        forward(window)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            forward(window)
            times.append(time.perf_counter() - began)
        rates[keep] = keep**2 / sorted(times)[2]
        step(f"the network alone, {keep} px: {rates[keep] / 1e6:.3g} Mpx/s")
    best = max(rates, key=lambda keep: rates[keep])

    def run() -> None:
        window = [torch.rand(1, *(geometry.read_px(best),) * 2)]
        for _ in range(PLANES * EDGE**2 // best**2):
            forward(window)

    return run


class Padded(UNet):
    """The same network with padded convolutions, as most people write it."""

    def __init__(self) -> None:
        """Pad all 3x3 convolutions."""
        super().__init__(Architecture("unet", DEPTH, BASE, 1, 2, 0.5))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding = (1, 1)

    def _check(self, image: torch.Tensor) -> None:
        """Take any size."""


def monai_side(channels_last: bool = False, precision: str = "float32"):
    """Return a function that predicts the image in memory with MONAI."""
    from monai.inferers import sliding_window_inference

    image = torch.rand(PLANES_OF_OTHERS, 1, EDGE, EDGE)
    network = Padded().eval()
    if channels_last:
        network, image = (
            network.to(memory_format=torch.channels_last),
            image.contiguous(memory_format=torch.channels_last),
        )

    def run() -> None:
        lower = torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32")
        with torch.inference_mode(), lower:
            for plane in image:
                sliding_window_inference(plane[None], (ROI_PX, ROI_PX), 4, network).softmax(dim=1).argmax(dim=1)

    return run


def measure(threads: int, rounds: int) -> list[Figure]:
    """Measure both precisions."""
    torch.set_num_threads(threads)
    figures = []
    peers = {"defaults": monai_side(), "channels_last, bfloat16": monai_side(True, "bfloat16")}
    mpx = PLANES * EDGE**2 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            plan, model, config = prepare(Path(folder), threads, precision)
            alone = network_alone(Forward.load(model, plan.stack, config.predict, config.compute))
            step(f"the stage, {precision}, and MONAI in turn")
            sides = [lambda p=plan, m=model, c=config: whole_stage(p, m, c), alone, *peers.values()]
            mine, network, *others = in_turn(*sides, rounds=rounds)
            what = f"predict {precision}: stage, against"
            figures.append(Figure(f"{what} the network alone", mpx / mine, mpx / network, "Mpx/s", 0.9))
            for name, other in zip(peers, others, strict=True):
                # a processor without bfloat16 units is slower with it than without: no goal there
                goal = 2.0 if (name, precision) == ("defaults", "float32") else None
                rate = mpx * PLANES_OF_OTHERS / PLANES / other
                figures.append(Figure(f"{what} MONAI ({name})", mpx / mine, rate, "Mpx/s", goal))
    return figures


if __name__ == "__main__":
    given = asked(__doc__, torch.get_num_threads())
    notes = (
        f"Network: depth {DEPTH}, {BASE} channels, 2 classes; image {EDGE} x {EDGE} px uint8; {given.threads} threads."
    )
    publish("predict", measure(given.threads, given.rounds), notes)
