"""The score of a network on the validation tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.model.device import autocast
from unet_pipeline.model.geometry import ALONE, Geometry
from unet_pipeline.train.dataset import Deep, ValidationTile, stack_tiles
from unet_pipeline.train.feed import prefetch
from unet_pipeline.train.losses import Loss, pixel_weight, probabilities, total
from unet_pipeline.train.object_score import THRESHOLDS, object_counts, object_score
from unet_pipeline.train.processes import Group


@dataclass(frozen=True)
class Score:
    """Loss and overlap over all validation tiles together.

    Attributes:
        loss: the training loss, sums of all tiles divided once, so that pixels count alike whatever their tile.
        dice: per class 2 |P and T| / (|P| + |T|) over annotated pixels; None if the class is in neither.
        value: what weights are chosen by, 0 to 1: `object_score`, or the mean Dice; None without objects or classes.
    """

    loss: float
    dice: tuple[float | None, ...]
    value: float | None


@dataclass(frozen=True)
class Sample:
    """The kept block of one validation tile.

    Attributes:
        image: (channels, y, x) float32, normalised.
        target: (y, x) uint8 class index, or `IGNORE`.
        predicted: (y, x) uint8 class index.
    """

    image: npt.NDArray[np.float32]
    target: npt.NDArray[np.uint8]
    predicted: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Validation:
    """The validation tiles and how they are seen.

    Attributes:
        tiles: this process's share of those from `dataset.validation_tiles`.
        geometry: size arithmetic of the network, or what is read of it; see `Geometry.validating`.
        tile_px: kept output of a tile, px.
        batch: tiles per pass.
        precision: number format of the convolutions.
        workers: threads that read ahead.
        group: the processes that share the tiles.
        loss: what is minimised.
        objects: whether the labels are objects.
        deep: sizes along z, of a network of volumes.
    """

    tiles: Sequence[ValidationTile]
    geometry: Geometry
    tile_px: int
    batch: int
    precision: str
    workers: int
    group: Group = Group()
    loss: Loss = Loss()
    objects: bool = True
    deep: Deep | None = None

    @torch.inference_mode()
    def score(self, network: nn.Module, class_weights: torch.Tensor) -> Score:
        """Run the network in evaluation mode, without dropout, and leave it in training mode.

        Args:
            network: on the device of `class_weights`.
            class_weights: (classes,) float32.
        """
        network.eval()
        device, classes = class_weights.device, len(class_weights)
        loss = torch.zeros((2, len(self.loss.terms)), dtype=torch.float64, device=device)
        overlap = torch.zeros((3, classes), dtype=torch.float64, device=device)
        objects = torch.zeros((len(THRESHOLDS), 4), dtype=torch.float64, device=device)
        for image, target, boundary in self._batches(device):
            with autocast(device, self.precision):
                logits = network(image)
            logits = logits[:, :, *self._kept(self.geometry.crop_px, self.deep.geometry.crop_px if self.deep else 0)]
            weight = pixel_weight(target, boundary, class_weights)
            loss += torch.stack(self.loss.sums(logits, target, weight)).double()
            overlap += _overlap(logits.argmax(dim=1), target, classes)
            if self.objects:
                inside = probabilities(logits.float(), self.loss.activation)[:, 1]
                objects += torch.from_numpy(object_counts(inside.cpu().numpy(), target.cpu().numpy())).to(device)
        network.train()
        dice, found = _dice(self.group.sum(overlap)), self.group.sum(objects)
        known = [one for one in dice if one is not None]
        mean_dice = sum(known) / len(known) if known else None
        value = object_score(found.cpu().numpy()) if self.objects else mean_dice
        return Score(float(total(*self.group.sum(loss))), dice, value)

    @torch.inference_mode()
    def sample(self, network: nn.Module, device: torch.device) -> Sample | None:
        """Predict this process's first tile as `score` does; None where it has none.

        Args:
            network: on `device`; it is left in training mode.
            device: where it runs.
        """
        if not self.tiles:
            return None
        tile = self.tiles[0].read(self.geometry, self.tile_px, self.deep)
        network.eval()
        with autocast(device, self.precision):
            logits = network(tile.image[None].to(device))
        network.train()
        along_z = self.deep.geometry if self.deep else ALONE
        predicted = logits[0, :, *self._kept(self.geometry.crop_px, along_z.crop_px)].argmax(dim=0)
        image = tile.image[:, *self._kept(self.geometry.before, along_z.before)]
        shown = image, tile.target, predicted.to("cpu", torch.uint8)
        if self.deep:  # the plane in the middle of those that somebody annotated
            annotated = (tile.target != IGNORE).flatten(1).any(dim=1).nonzero()[:, 0].tolist() or [0]
            middle = annotated[len(annotated) // 2]
            shown = image[:, middle], tile.target[middle], shown[2][middle]
        return Sample(*(part.numpy() for part in shown))

    def _kept(self, first_px: int, first_plane: int) -> tuple[slice, ...]:
        """Return where the kept block lies, counted from its first pixel and plane."""
        side = slice(first_px, first_px + self.tile_px)
        return (slice(first_plane, first_plane + self.deep.planes), side, side) if self.deep else (side, side)

    def _batches(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        with closing(
            prefetch(lambda tile: tile.read(self.geometry, self.tile_px, self.deep), self.tiles, self.workers)
        ) as tiles:
            waiting = []
            for number, tile in enumerate(tiles, start=1):
                waiting.append(tile)
                if len(waiting) == self.batch or number == len(self.tiles):
                    batch, waiting = stack_tiles(waiting), []
                    yield batch.image.to(device), batch.target.to(device).long(), batch.boundary.to(device)


def _overlap(predicted: torch.Tensor, target: torch.Tensor, classes: int) -> torch.Tensor:
    """Return (3, classes): annotated pixels in both, in the prediction, in the target."""
    annotated = target != IGNORE
    rows = [
        torch.stack(
            [
                ((predicted == one) & (target == one)).sum(),
                ((predicted == one) & annotated).sum(),
                (target == one).sum(),
            ]
        )
        for one in range(classes)
    ]
    return torch.stack(rows, dim=1)


def _dice(overlap: torch.Tensor) -> tuple[float | None, ...]:
    both, predicted, target = overlap.tolist()
    sizes = [p + t for p, t in zip(predicted, target, strict=True)]
    return tuple(2 * b / size if size else None for b, size in zip(both, sizes, strict=True))
