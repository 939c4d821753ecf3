"""A peer under the same budget: MONAI's UNet with its transforms, loss and sliding window, in plain MONAI and torch.

Of this package it takes what is no part of the comparison: the planes of the fold, the classes to learn (touching
objects parted by the same gap) and, after its prediction, objects and scores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import Dataset
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    RandFlipd,
    RandRotate90d,
    RandSpatialCropd,
    ScaleIntensityRangePercentiles,
    SpatialPadd,
)
from torch import nn

from comparison.results import scores_of, timed
from comparison.scoring import metrics_of
from comparison.variants import VALIDATIONS, Budget, merged, steps_for
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import IGNORE
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.records.layout import WEIGHTS
from unet_pipeline.stacks.stack import Stack

BATCH = 4
RATE = 1e-3
Planes = list[dict[str, torch.Tensor]]
"""Of each plane "image", (1, y, x) float32, and "label", (1, y, x) uint8."""


def run_peer(
    config: Mapping[str, Any],
    seed: int,
    budget: Mapping[str, Any],
    step_seconds: float | None,
    prepared: Mapping[str, Path],
) -> dict[str, Any]:
    """Train, predict and score; return what `result_of` returns of a run of this package.

    Args:
        config: sized by the budget.
        seed: of weights and tiles.
        budget: the fields of `Budget`.
        step_seconds: what a step of `BATCH` tiles takes; None where the budget is in pixels.
        prepared: `ingest.json` of the stacks train, val and test; the first two are weighed too.
    """
    torch.set_num_threads(config["compute"]["threads"])
    learn, choose, stack = planes_of(prepared["train"]), planes_of(prepared["val"]), Stack.open(prepared["test"])
    peer = Peer(config, seed)
    steps = steps_for(merged(config, {"train": {"batch": BATCH}}), Budget(**budget), step_seconds)
    trained = timed(lambda: peer.train(learn, choose, steps))
    images = [_grey(stack, plane) for plane in range(stack.grid.planes)]
    began = time.perf_counter()
    probabilities = np.stack([peer.predict(image) for image in images])
    predicted = time.perf_counter() - began
    return {
        "scores": scores_of(metrics_of(probabilities, stack, from_dict(config))),
        "parameters": sum(parameter.numel() for parameter in peer.network.parameters()),
        "steps": steps,
        "seen_px": steps * BATCH * peer.edge**2,
        "seconds": {"train": trained, "predict": predicted},
        "test_px": math.prod(stack.grid.shape),
    }


def _grey(stack: Stack, plane: int) -> torch.Tensor:
    """Return a plane, (1, y, x) float32, 0..1 between two percentiles of its own, as MONAI's user scales an image."""
    _, height, width = stack.grid.shape
    raw = stack.image.read(plane, slice(0, height), slice(0, width))[:1].astype(np.float32)
    return torch.as_tensor(np.asarray(ScaleIntensityRangePercentiles(1, 99.8, 0, 1)(raw)))


def planes_of(record: Path) -> Planes:
    """Return the planes of a weighed stack by its `ingest.json`."""
    stack = Stack.open(record)
    _, height, width = stack.grid.shape
    target = open_array(stack.record.parent / WEIGHTS, "target")
    whole = slice(0, height), slice(0, width)
    return [
        {
            "image": _grey(stack, plane),
            "label": torch.as_tensor(target.read_label(plane, *whole)[None].astype(np.uint8)),
        }
        for plane in range(stack.grid.planes)
    ]


class Peer:
    """MONAI's UNet of the budget's width, its training and its prediction."""

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        """Take width, tile and device of the budget, and the preset's depth."""
        self.seed, self.classes = seed, len(config["labels"]["classes"])
        self.edge, self.width, self.depth = (
            config["train"]["tile_px"], config["model"]["base_channels"], config["model"]["depth"],
        )  # fmt: skip
        free = config["augment"]
        self.turns = free["rotate"] not in (False, "none")
        self.flips = bool(free["flip"])
        chosen = config["compute"]["device"]
        self.device = torch.device(
            "cuda" if chosen == "auto" and torch.cuda.is_available() else chosen.replace("auto", "cpu")
        )
        self.network = self._network()

    def _network(self) -> nn.Module:
        torch.manual_seed(self.seed)
        channels = [self.width * 2**level for level in range(self.depth + 1)]
        return UNet(2, 1, self.classes, channels, [2] * self.depth).to(self.device)

    def train(self, learn: Planes, choose: Planes, steps: int, validations: int = VALIDATIONS) -> None:
        """Train from the beginning by Adam on Dice and cross-entropy; the weights with least validation loss stay."""
        self.network = self._network()
        optimiser = torch.optim.Adam(self.network.parameters(), lr=RATE)
        loss = DiceCELoss(softmax=True, to_onehot_y=True)
        drawn = Dataset(learn, self._transforms())
        rng, best, kept = np.random.default_rng(self.seed), math.inf, self._state()
        for step in range(1, steps + 1):
            self.network.train()
            batch = [drawn[int(index)] for index in rng.integers(len(learn), size=BATCH)]
            image, label = (torch.stack([torch.as_tensor(one[name]) for one in batch]) for name in ("image", "label"))
            optimiser.zero_grad()
            self._loss(loss, image, label).backward()
            optimiser.step()
            if step % -(-steps // validations) == 0 or step == steps:
                found = self._validation(loss, choose)
                best, kept = (found, self._state()) if found < best else (best, kept)
        self.network.load_state_dict(kept)

    def _transforms(self) -> Compose:
        names = ("image", "label")
        size = (self.edge, self.edge)
        crop = [SpatialPadd(names, size, mode="reflect"), RandSpatialCropd(names, size, random_size=False)]
        flips = [RandFlipd(names, 0.5, axis) for axis in (0, 1)] if self.flips else []
        return Compose([*crop, *flips, *([RandRotate90d(names, 0.75)] if self.turns else [])]).set_random_state(
            self.seed
        )

    def _loss(self, loss: nn.Module, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        label = torch.where(label == IGNORE, 0, label).long().to(self.device)
        found: torch.Tensor = loss(self.network(image.to(self.device)), label)
        return found

    def _validation(self, loss: nn.Module, choose: Planes) -> float:
        """Return the mean loss over the whole planes, cut to what the poolings divide."""
        self.network.eval()
        stride, sums = 2**self.depth, 0.0
        with torch.inference_mode():
            for plane in choose:
                rows, columns = (size // stride * stride for size in plane["image"].shape[1:])
                image, label = (plane[name][None, :, :rows, :columns] for name in ("image", "label"))
                sums += float(self._loss(loss, image, label))
        return sums / len(choose)

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def predict(self, image: torch.Tensor) -> npt.NDArray[np.uint8]:
        """Return the probabilities of a plane, (classes, y, x) uint8 0..255, by the sliding window at its defaults."""
        self.network.eval()
        with torch.inference_mode():
            logits = sliding_window_inference(image[None].to(self.device), (self.edge, self.edge), BATCH, self.network)
        return np.asarray(np.rint(logits.softmax(dim=1)[0].cpu().numpy() * 255), np.uint8)
