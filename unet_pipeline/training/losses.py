"""The paper's loss: cross-entropy of the pixel-wise softmax, weighted pixel by pixel."""

from __future__ import annotations

import torch

from unet_pipeline.config import IGNORE


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


def weighted_cross_entropy(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return -sum(w log p_target) / sum(w) over the annotated pixels, Ronneberger et al. 2015 eq. 1.

    The paper gives the sum alone; dividing by the sum of the weights makes the learning rate independent of tile size,
    batch and weights. Weights that sum to 0 give a loss of 0, with zero gradients.

    Args:
        logits: (n, classes, y, x) float, scores before the softmax; the softmax is taken in float32.
        target: (n, y, x) int64 class index, `IGNORE` (255) where nobody annotated.
        weight: (n, y, x) float32 >= 0; not used where nobody annotated.

    Returns:
        Scalar float32.
    """
    return weighted_mean(*weighted_sums(logits, target, weight))


def weighted_mean(total: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Divide the scalars of `weighted_sums`, shape () each, or sums of several; weights that sum to 0 give 0."""
    return total / torch.where(weights > 0, weights, 1.0)


def weighted_sums(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return numerator and denominator of `weighted_cross_entropy`, to add up over tiles before dividing.

    Args:
        logits: (n, classes, y, x) float.
        target: (n, y, x) int64.
        weight: (n, y, x) float32.
    """
    annotated = target != IGNORE
    # gather, not nll_loss: on CUDA only gather has a deterministic gradient
    log_p = logits.float().log_softmax(dim=1)
    chosen = log_p.gather(1, torch.where(annotated, target, 0)[:, None])[:, 0]
    weight = torch.where(annotated, weight, 0.0)
    return -(weight * chosen).sum(), weight.sum()
