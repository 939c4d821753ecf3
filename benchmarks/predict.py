"""Prediction from store to store, against the network alone and MONAI's sliding window: `python benchmarks/predict.py`.

All sides have the same widths and depth, the same number of threads and the same number format. MONAI's user pads the
convolutions and keeps the image and the result in memory; at its defaults, and at the settings that are best on a CPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
from figures import Figure, asked, has_bfloat16, in_turn, publish, sized, step

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Config
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.models import build, save_model
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

BASE, DEPTH = sized((16, 4), (2, 2))
PLANES, EDGE = sized((6, 2048), (2, 256))
PLANES_OF_OTHERS = sized(2, 1)
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
    for keep in sized((256, 384, 512, 768, 1024, 2048), (256,)):
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


@dataclass(frozen=True)
class Peer:
    """MONAI's sliding window with some options.

    Attributes:
        name: for the table.
        windows: passed at a time; MONAI's example has 4.
        overlap: of neighbouring windows; MONAI's default is 0.25.
        channels_last: whether the layout is that which CPUs are fastest with.
        goal: how much faster we want to be; None where it is not at its best.
    """

    name: str
    windows: int = 4
    overlap: float = 0.25
    channels_last: bool = False
    goal: float | None = None


PEERS = (
    Peer("MONAI, its defaults"),
    Peer("MONAI, channels_last, a window at a time", 1, 0.25, True, 2.0),
    Peer("MONAI, the same without overlap, so with seams", 1, 0.0, True, 1.0),
)


def monai_side(peer: Peer, precision: str) -> Callable[[], None]:
    """Return a function that predicts the image in memory with MONAI."""
    from monai.inferers import sliding_window_inference

    image = torch.rand(PLANES_OF_OTHERS, 1, EDGE, EDGE)
    network = build(Architecture("unet", DEPTH, BASE, 1, 2, 0.5, padded=True)).eval()
    if peer.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = image.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        lower, roi = torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"), (ROI_PX, ROI_PX)
        with torch.inference_mode(), lower:
            for plane in image:
                logits = sliding_window_inference(plane[None], roi, peer.windows, network, peer.overlap)
                logits.softmax(dim=1).argmax(dim=1)

    return run


def measure(threads: int, rounds: int, precisions: Sequence[str]) -> list[Figure]:
    """Measure the stage against the network alone and each peer, in the same number format."""
    torch.set_num_threads(threads)
    figures, mpx = [], PLANES * EDGE**2 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            plan, model, config = prepare(Path(folder), threads, precision)
            alone = network_alone(Forward.load(model, plan.stack, config.predict, config.compute))
            step(f"the stage, {precision}, and MONAI in turn")
            others = [monai_side(peer, precision) for peer in PEERS]
            sides = [lambda p=plan, m=model, c=config: whole_stage(p, m, c), alone, *others]
            mine, network, *theirs = in_turn(*sides, rounds=rounds)
            what, ours = f"predict {precision}: stage, against", mpx / mine.wall_s
            cpu_s = mine.cpu_s / mpx, network.cpu_s / mpx
            rate = mpx / network.wall_s
            figures.append(Figure(f"{what} the network alone", ours, rate, "Mpx/s", 0.9, cpu_s=cpu_s))
            for peer, taken in zip(PEERS, theirs, strict=True):
                seen = mpx * PLANES_OF_OTHERS / PLANES
                cpu_s = mine.cpu_s / mpx, taken.cpu_s / seen
                rate = seen / taken.wall_s
                figures.append(Figure(f"{what} {peer.name}", ours, rate, "Mpx/s", peer.goal, cpu_s=cpu_s))
    return figures


if __name__ == "__main__":
    given = asked(__doc__, torch.get_num_threads())
    notes = (
        f"Network: depth {DEPTH}, {BASE} channels, 2 classes; image {EDGE} x {EDGE} px uint8; {given.threads} threads. "
        "CPU seconds are those of a megapixel. MONAI's network is padded, and its image and result stay in memory."
    )
    formats = ("float32", "bfloat16") if has_bfloat16() else ("float32",)
    if len(formats) == 1:
        notes += " bfloat16 was not measured: this processor has no units for it."
    publish("predict", measure(given.threads, given.rounds, formats), notes)
