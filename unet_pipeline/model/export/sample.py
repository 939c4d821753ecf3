"""A drawn image with which a package shows what the network makes of grey values, normalised as the pipeline does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.export.exported import Exported
from unet_pipeline.records.stack_records import Statistics
from unet_pipeline.stacks.demo import cells
from unet_pipeline.stacks.statistics import QUANTILES


def sample(module: Exported, size_px: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return grey values (1, channels, y, x) float32 and what the network makes of them, (1, classes, y', x') float32.

    Args:
        module: the network.
        size_px: height and width of the grey values, legal for it.
    """
    card = module.card
    raw = _grey(card, size_px)
    normalised = card.normaliser_of(_statistics(raw), raw.dtype)(raw)
    with torch.inference_mode():
        output = module(torch.from_numpy(normalised)[None])
    return raw[None], output.numpy()


def _grey(card: ModelCard, size: int) -> npt.NDArray[np.float32]:
    """Draw cells in the grey values that the model expects: its own where it has constants, else 0 to 255 or 0 to 1."""
    channels = card.architecture.in_channels
    drawn = np.stack([cells((size, size), np.random.default_rng([7, channel]))[0] for channel in range(channels)])
    unit = np.clip(drawn, 0, 1).astype(np.float32)
    if card.normaliser is not None:
        offset, scale = (np.asarray(part)[:, None, None] for part in (card.normaliser.offset, card.normaliser.scale))
        unit = (unit / scale + offset).astype(np.float32)
    elif card.normalise.method not in ("range", "fixed", "none"):
        unit = (unit * 255).round()
    return unit


def _statistics(raw: npt.NDArray[np.float32]) -> Statistics:
    """Return what ingest would measure of an image (channels, y, x); quantiles as numpy defines them."""
    flat = raw.reshape(len(raw), -1).astype(np.float64)
    quantiles = np.percentile(flat, QUANTILES, axis=1).T
    low, high, mean, std = (tuple(getattr(flat, name)(1).tolist()) for name in ("min", "max", "mean", "std"))
    return Statistics(low, high, mean, std, flat.shape[1], tuple(map(tuple, quantiles.tolist())))
