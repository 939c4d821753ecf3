"""What a run will take: measured on this machine for the network of the configuration, seconds after the question."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from unet_pipeline.config.sections import Config, Tile
from unet_pipeline.model.card import Architecture, sizes, training_tile
from unet_pipeline.predict.tile_size import automatic_px, automatic_volume

LABELS_BYTES = 5
"""Classes and instances of a pixel, bytes."""
WEIGHTS_BYTES = 5
"""Target and boundary term of a pixel."""
LARGE_PLANES = 4096
"""Planes of a volume in which tiles of volumes fit."""
RUNS, ENOUGH_S = (2, 10), 3.0
"""Fewest and most runs that are timed, and the seconds after which no more are."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a step of training and of a predicted megapixel, on how many threads of what; `device`: its kind."""

    step_s: float
    predict_s_per_mpx: float
    where: str
    device: str = "cpu"


def measure_cost(network: Architecture, config: Config) -> Cost:
    """Time steps of training and tiles of prediction: the fastest of some, which other programs disturbed least.

    Args:
        network: what is trained or used.
        config: sections train, tile and compute are used.

    Raises:
        PipelineError: CUDA asked for and absent.
    """
    import torch

    from unet_pipeline.model.averaging import LAYOUTS, dense
    from unet_pipeline.model.device import choose_device
    from unet_pipeline.model.models import build
    from unet_pipeline.train.losses import Loss

    torch.set_num_threads(config.compute.threads)
    device = choose_device(config.compute)
    channels, loss = network.in_channels, Loss.of(config.train)
    module = build(network).to(device=device, memory_format=LAYOUTS[network.dimensions])  # type: ignore[call-overload]
    learned, kept = training_tile(network, config.train), _kept(network, config.tile)
    axes = sizes(network)

    def step() -> None:
        read = (one.training_px(px) for one, px in zip(axes, learned, strict=True))
        logits = module(dense(torch.rand(config.train.tiles, channels, *read, device=device)))
        target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.int64, device=device)
        torch.autograd.backward(loss(logits, target, torch.ones(target.shape, device=device)))
        module.zero_grad()

    @torch.inference_mode()
    def tile() -> None:
        read = (one.read_px(px) for one, px in zip(axes, kept, strict=True))
        module.eval()(dense(torch.rand(1, channels, *read, device=device)))

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{config.compute.threads} CPU threads"
    return Cost(_second(step), _second(tile) / (prod(kept) / 1e6), where, device.type)


def _kept(network: Architecture, options: Tile) -> tuple[int, ...]:
    """Return the kept size of the tiles of a large stack, (y, x) or (z, y, x)."""
    if network.dimensions == 3:
        planes, side = automatic_volume(network, options.tile_px, options.tile_planes, LARGE_PLANES)
        return planes, side, side
    side = automatic_px(network, sizes(network)[0]) if options.tile_px == "auto" else options.tile_px
    return side, side


def _second(work: Callable[[], None]) -> float:
    """Return the seconds of the fastest of some runs, after one that is not timed."""
    work()
    _synchronise()
    taken: list[float] = []
    while len(taken) < RUNS[0] or (len(taken) < RUNS[1] and sum(taken) < ENOUGH_S):
        began = time.monotonic()
        work()
        _synchronise()
        taken.append(time.monotonic() - began)
    return min(taken)


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stored_bytes(pixels: int, channels: int, itemsize: int, config: Config, labelled: bool, predicted: bool) -> float:
    """Return the bytes of a stack's stores before compression, pyramids included.

    Args:
        pixels: of all planes.
        channels: of the image.
        itemsize: of a grey value, bytes.
        config: sections labels and predict are used.
        labelled: whether it is weighed, too.
        predicted: whether it is predicted.
    """
    image = channels * itemsize + (LABELS_BYTES if labelled else 0)
    weights = WEIGHTS_BYTES if labelled else 0
    stored = len(config.labels.classes) * np.dtype(config.predict.probabilities).itemsize + LABELS_BYTES
    return pixels * (4 / 3 * image + weights + (4 / 3 * stored if predicted else 0))
