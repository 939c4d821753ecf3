"""MONAI's UNet as its tutorials have it, with residual units and batch norm, by a user who takes care."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from monai.losses import MaskedDiceLoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandFlipd,
    RandGaussianNoised,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    SpatialPadd,
)
from scipy import ndimage
from torch import nn

from comparison.clock import Clock
from comparison.planes import Found, Plane, large, looked_at
from comparison.scoring import choose, objects_of
from comparison.variants import VALIDATIONS
from unet_pipeline.config.sections import IGNORE, Config
from unet_pipeline.records.calibrate_record import Trial

CHANNELS = (16, 32, 64, 128, 256)
BATCH = 4
RATE = 1e-3
WINDOW, OVERLAP = 256, 0.5
VIEWS = {"inside": (1,), "inside and border": (1, 2)}
"""Which classes are the object, where a border is learned: what grows back, or what is divided."""


class Monai:
    """Classes background, inside and border of objects; of labelled classes those."""

    def __init__(self, config: Config, seed: int, learn: Sequence[Plane]) -> None:
        """Take device, threads and classes of the configuration, and which changes leave an image a likely one."""
        torch.set_num_threads(config.compute.threads)
        cuda = config.compute.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if cuda else "cpu")
        self.config, self.seed = config, seed
        # half of the gap that our networks learn as background lies on either side of where two objects meet
        self.border_px = math.ceil(config.weigh.gap_px / 2)
        self.edge = 192 if large(learn) else 128
        self.step_px = BATCH * self.edge**2
        classes = len(config.labels.classes) + bool(self.border_px)
        torch.manual_seed(seed)
        network = UNet(2, 1, classes, CHANNELS, (2,) * (len(CHANNELS) - 1), num_res_units=2, norm="BATCH")
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.dice = MaskedDiceLoss(batch=True)
        self.choice: Trial | None = None
        self.view: tuple[int, ...] = (1,)

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def train(self, learn: Sequence[Plane], check: Sequence[Plane], clock: Clock) -> None:
        """Train by Adam on cross-entropy and Dice; the weights with the least loss on the validation planes stay."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=RATE)
        planes, change = [self._tensors(plane) for plane in learn], self._changes()
        rng, best, kept, looks = np.random.default_rng(self.seed), math.inf, self.network.state_dict(), 0
        while clock.share < 1:
            clock.begin()
            self.network.train()
            drawn = [change(planes[int(index)]) for index in rng.integers(len(planes), size=BATCH)]
            image, label = (torch.stack([torch.as_tensor(one[name]) for one in drawn]) for name in ("image", "label"))
            for group in optimiser.param_groups:
                group["lr"] = RATE * clock.rate
            optimiser.zero_grad()
            self._loss(image, label).backward()
            optimiser.step()
            clock.end()
            if clock.share * VALIDATIONS < looks + 1:
                continue
            looks, found = looks + 1, self._validation(check)
            if found < best:
                best, kept = found, {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(kept)

    def _tensors(self, plane: Plane) -> dict[str, torch.Tensor]:
        return {"image": torch.as_tensor(plane.image)[None], "label": torch.as_tensor(self._target(plane))[None]}

    def _target(self, plane: Plane) -> npt.NDArray[np.uint8]:
        """Return the classes to learn, (y, x) uint8: pixels near another object or background are 2, the border."""
        if not self.border_px:
            return plane.classes
        near = {"size": 2 * self.border_px + 1, "mode": "nearest"}
        edge = ndimage.maximum_filter(plane.instances, **near) != ndimage.minimum_filter(plane.instances, **near)
        target = np.where(edge, 2, plane.classes).astype(np.uint8)
        return np.where(plane.classes == IGNORE, np.uint8(IGNORE), target)

    def _changes(self) -> Compose:
        names, free = ("image", "label"), self.config.augment
        turns = free.rotate != "none"
        wide = 3 * self.edge // 2  # cut to the edge after it is warped, so that little is mirrored in
        warp = Rand2DElasticd(
            names,
            spacing=(64, 64),
            magnitude_range=(0, 8),
            spatial_size=(self.edge, self.edge),
            prob=0.5,
            rotate_range=math.pi if turns else 0.0,
            scale_range=0.1,
            mode=("bilinear", "nearest"),
            padding_mode="reflection",
        )
        grey = [
            RandScaleIntensityd("image", 0.2, prob=0.5),
            RandShiftIntensityd("image", 0.1, prob=0.5),
            RandGaussianNoised("image", prob=0.5, std=0.03),
        ]
        crop = [
            SpatialPadd(names, (wide, wide), mode="reflect"),
            RandSpatialCropd(names, (wide, wide), random_size=False),
        ]
        flips = [RandFlipd(names, 0.5, axis) for axis in (0, 1)] if free.flip else []
        quarters = [RandRotate90d(names, 0.75)] if turns else []
        return Compose([*crop, warp, *flips, *quarters, *grey]).set_random_state(self.seed)

    def _loss(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return cross-entropy + Dice of (tiles, 1, y, x); pixels that nobody annotated count in neither."""
        label = label.long().to(self.device)
        known = label != IGNORE
        logits = self.network(image.to(self.device, memory_format=torch.channels_last))
        entropy = nn.functional.cross_entropy(logits, label[:, 0], ignore_index=IGNORE)
        truth = nn.functional.one_hot(torch.where(known, label, 0)[:, 0], logits.shape[1]).movedim(-1, 1)
        found: torch.Tensor = entropy + self.dice(logits.softmax(dim=1), truth, known)
        return found

    def _validation(self, check: Sequence[Plane]) -> float:
        """Return the mean loss over the whole planes, cut to what the poolings divide."""
        self.network.eval()
        stride, sums = 2 ** (len(CHANNELS) - 1), 0.0
        with torch.inference_mode():
            for plane in check:
                rows, columns = (size // stride * stride for size in plane.image.shape)
                parts = (one[None, :, :rows, :columns] for one in self._tensors(plane).values())
                sums += float(self._loss(*parts))
        return sums / len(check)

    def _probabilities(self, plane: Plane) -> npt.NDArray[np.float32]:
        """Return (classes, y, x) by MONAI's sliding window."""
        self.network.eval()
        image = torch.as_tensor(plane.image)[None, None].to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            logits = sliding_window_inference(image, WINDOW, 1, self.network, OVERLAP, mode="gaussian")
        found: npt.NDArray[np.float32] = logits.softmax(dim=1)[0].cpu().numpy()
        return found

    def choose(self, check: Sequence[Plane]) -> str:
        """Choose how objects are made, and of which classes: as `calibrate` does, by the same planes and score."""
        planes = looked_at(check, self.config)
        found = [self._probabilities(plane) for plane in planes]
        views = VIEWS if self.border_px else {"cell": (1,)}
        choices = {
            name: choose([_two(one, view) for one in found], planes, self.config) for name, view in views.items()
        }
        name = max(choices, key=lambda one: choices[one].score)
        self.choice, self.view = choices[name], views[name]
        return f"{name}: {self.choice.settings}"

    def objects(self, plane: Plane) -> Found:
        """Find the objects of a plane."""
        assert self.choice is not None
        two = _two(self._probabilities(plane), self.view)
        return Found(objects_of(two, self.choice.settings), two[0])


def _two(probabilities: npt.NDArray[Any], view: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return background and object, (2, y, x) uint8 as `predict` stores them."""
    inside = np.rint(255 * probabilities[list(view)].sum(axis=0)).clip(0, 255).astype(np.uint8)
    return np.stack([255 - inside, inside])


make = Monai
