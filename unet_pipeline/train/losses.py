"""Losses: the paper's weighted cross-entropy, and the others that `train.loss` names.

Every loss is a sum of terms, each the quotient of two sums over the batch, so that tiles, and processes that share a
batch, can be added up before dividing. A pixel-wise term is sum(w l) / sum(w) with the pixel's weight w of the paper's
eq. 2; the Dice term is the mean over the tiles of a batch and knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import one_hot, softplus

from unet_pipeline.config.sections import IGNORE, Train
from unet_pipeline.model.card import Activation

SMOOTH_PX = 1.0
"""Added to both sides of the Dice quotient: a class that is nowhere, and predicted nowhere, has Dice 1, not 0 / 0."""


def pixel_weight(target: torch.Tensor, boundary: torch.Tensor, class_weights: torch.Tensor) -> torch.Tensor:
    """Return w(x) = w_c(x) + boundary(x), Ronneberger et al. 2015 eq. 2; 0 where nobody annotated.

    Args:
        target: (n, y, x) int64 class index, `IGNORE` (255) where nobody annotated.
        boundary: (n, y, x) float32 >= 0, the boundary term.
        class_weights: (classes,) float32 >= 0, w_c of each class.

    Returns:
        (n, y, x) float32.
    """
    annotated = target != IGNORE
    balance = class_weights[torch.where(annotated, target, 0)]
    return torch.where(annotated, balance + boundary, 0.0)


@dataclass(frozen=True)
class Loss:
    """A loss by its name in `train.loss`.

    Attributes:
        name: its terms, joined by "+".
        gamma, alpha: of the focal term; see `focal`.
    """

    name: str = "cross_entropy"
    gamma: float = 2.0
    alpha: float | None = None

    @classmethod
    def of(cls, options: Train) -> Loss:
        """Return the loss of section `train`."""
        return cls(options.loss, options.focal_gamma, options.focal_alpha)

    @property
    def activation(self) -> Activation:
        """The function that makes probabilities of the logits that this loss trains."""
        return "sigmoid" if "binary_cross_entropy" in self.name else "softmax"

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms, in the order of `sums`."""
        return tuple(self.name.split("+"))

    def sums(
        self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return numerators and denominators of the terms, to add up over tiles before dividing.

        Args:
            logits: (n, classes, y, x) float; what follows is computed in float32.
            target: (n, y, x) int64 class index, `IGNORE` (255) where nobody annotated.
            weight: (n, y, x) float32 >= 0, of `pixel_weight`; not used where nobody annotated.

        Returns:
            Two tensors (terms,) float32.
        """
        logits, annotated = logits.float(), target != IGNORE
        # any legal class will do where nobody annotated: those pixels count 0 in every term
        classes = torch.where(annotated, target, 0)
        weight = torch.where(annotated, weight, 0.0)
        parts = []
        for term in self.terms:
            if term == "dice":
                parts.append(_dice_sums(probabilities(logits, self.activation), classes, annotated))
            else:
                values = self._of_pixels(term, logits, classes)
                parts.append((torch.where(annotated, weight * values, 0.0).sum(), weight.sum()))
        numerators, denominators = zip(*parts, strict=True)
        return torch.stack(numerators), torch.stack(denominators)

    def _of_pixels(self, term: str, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if term == "focal":
            return focal(logits, classes, self.gamma, self.alpha)
        return PIXELWISE[term](logits, classes)

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch, a scalar; the arguments are those of `sums`: (n, classes, y, x) and (n, y, x)."""
        return total(*self.sums(logits, target, weight))


def total(numerators: torch.Tensor, denominators: torch.Tensor) -> torch.Tensor:
    """Return the sum of the quotients of two tensors of one shape, (terms,); where nothing was annotated a term is 0.

    The paper gives sums alone; dividing by the weights makes the learning rate independent of tile size, batch and
    weights.
    """
    return (numerators / torch.where(denominators > 0, denominators, 1.0)).sum()


def probabilities(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return the softmax over the classes, or the sigmoid, of logits (n, classes, y, x); the same shape."""
    return logits.softmax(dim=1) if activation == "softmax" else logits.sigmoid()


def cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return -log p of the target class, Ronneberger et al. 2015 eq. 1; (n, classes, y, x), (n, y, x) to (n, y, x)."""
    return -_of_target(logits.log_softmax(dim=1), classes)


def focal(logits: torch.Tensor, classes: torch.Tensor, gamma: float, alpha: float | None) -> torch.Tensor:
    """Return -alpha_t (1 - p)^gamma log p of the target class, Lin et al. 2017 eq. 5.

    Args:
        logits: (n, classes, y, x).
        classes: (n, y, x) int64 class index of the target.
        gamma: how much pixels that are nearly right count less; 0 gives the cross-entropy.
        alpha: weight of the objects' classes, background (class 0) has 1 - alpha; None weighs both 1.

    Returns:
        (n, y, x).
    """
    log_p = _of_target(logits.log_softmax(dim=1), classes)
    # 1 - p is 0 where the network is sure: the power's gradient would be infinite there with gamma < 1
    values = -((-torch.expm1(log_p)).clamp(min=1e-6) ** gamma) * log_p
    return values if alpha is None else values * torch.where(classes > 0, alpha, 1 - alpha)


def binary_cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the mean over the classes of the cross-entropy of a sigmoid each, (n, y, x); shapes of `cross_entropy`."""
    # log(1 + e^z) summed, less z of the target: what -t log s(z) - (1 - t) log(1 - s(z)) is, without overflow
    return (softplus(logits).sum(dim=1) - _of_target(logits, classes)) / logits.shape[1]


PIXELWISE: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def _of_target(values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the values (n, classes, y, x) of the target class, (n, y, x)."""
    # not nll_loss, whose gradient on CUDA is not deterministic; gather's is so there only by sorting, which is slow
    return picked(values, classes) if values.is_cuda else values.gather(1, classes[:, None])[:, 0]


def picked(values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return what gather gives, (n, y, x) of (n, classes, y, x), by comparison alone: the same bits, gradient included.

    On a CPU gather is faster, the more the more classes.
    """
    found = values[:, 0]
    for one in range(1, values.shape[1]):
        found = torch.where(classes == one, values[:, one], found)
    return found


def _dice_sums(
    predicted: torch.Tensor, classes: torch.Tensor, annotated: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of 1 - Dice over the tiles of a batch with annotated pixels, and their number.

    The Dice coefficient of a tile is the mean over the classes of 2 sum(p t) / (sum(p) + sum(t)) over annotated pixels
    (Milletari et al. 2016, with the sums of the first power).
    """
    mask = annotated[:, None].float()
    wanted = one_hot(classes, predicted.shape[1]).movedim(-1, 1) * mask
    predicted = predicted * mask
    space = tuple(range(2, predicted.ndim))
    both, sizes = (predicted * wanted).sum(dim=space), (predicted + wanted).sum(dim=space)
    missed = 1 - ((2 * both + SMOOTH_PX) / (sizes + SMOOTH_PX)).mean(dim=1)
    some = annotated.flatten(1).any(dim=1).float()
    return (missed * some).sum(), some.sum()
