"""Means of several answers for one window: of its mirrorings, and of the members of an ensemble.

Probabilities are averaged, and logits are returned whose softmax (or sigmoid) is that mean. All that follows a
network, the proof too, therefore works alike on one answer and on the mean of many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import Geometry

Network = Callable[[torch.Tensor], torch.Tensor]
Mirroring = tuple[bool, bool, bool]
"""Three switches: reverse the rows, reverse the columns, and then exchange rows and columns."""

FLIPS: tuple[Mirroring, ...] = tuple((rows, columns, False) for rows in (False, True) for columns in (False, True))
MIRRORINGS: dict[str, tuple[Mirroring, ...]] = {
    "none": FLIPS[:1],
    "flips": FLIPS,
    "all": (*FLIPS, *((rows, columns, True) for rows, columns, _ in FLIPS)),
}
"""The mirrorings of a window by the value of predict.mirror; the first is the window as it is."""

LEAST = 1e-300
"""The smallest probability that has a logarithm here: a class that no answer gives any share stays finite."""


def log_mean(answers: Iterable[torch.Tensor], activation: str = "softmax") -> torch.Tensor:
    """Return the logits of the mean probability; one answer is held in memory at a time.

    With softmax these are log(mean of p), whose softmax is the mean because it sums to 1; with sigmoid they are
    log(mean of p) - log(mean of 1 - p), each class by itself.

    Computed in float64: torch's vectorised exponentials differ in the last bit from those at the end of a row, so that
    float32 would depend on where a tile ends. Rounded from float64 to float32 at the end, no difference is left (one
    would survive in about one of 10^8 such pixels, in its last bit).

    Args:
        answers: logits (n, classes, y, x) of the same image, one or more; any float.
        activation: "softmax" over the classes, or "sigmoid" of each.

    Returns:
        (n, classes, y, x) float32.
    """
    total, rest = torch.zeros(()), torch.zeros(())
    for answer in answers:
        logits = answer.double()
        if activation == "sigmoid":
            total, rest = total.to(logits) + torch.sigmoid(logits), rest.to(logits) + torch.sigmoid(-logits)
        else:
            total = total.to(logits) + torch.softmax(logits, dim=1)
    if activation == "sigmoid":
        return (total.clamp_min(LEAST).log() - rest.clamp_min(LEAST).log()).float()
    return (total / total.sum(dim=1, keepdim=True)).clamp_min(LEAST).log().float()


def mirrored_mean(network: Network, batch: torch.Tensor, mirror: str, activation: str = "softmax") -> torch.Tensor:
    """Return the network's answer to windows or, with mirroring, the mean over all their mirrorings.

    One mirroring after the other is computed, so the activations take the memory of one pass.

    **Why tiles stay seamless.** Write one axis of a window as before + keep + after px, its kept block at t. In the
    image reversed, I'(p) = I(-p), the reversed window starts at -(t + keep + after - 1) = (1 - after) - (t + keep).
    Origins t and kept sizes are multiples of the pooling stride, so all reversed windows start at 1 - after, up to
    multiples of the stride: all see I' in the same pooling phase, whatever the tile, and the whole pass is one of
    them. Each mirroring is thus as independent of the tiling as the network itself, and so is the mean.

    **Why the kept part stays the same.** Output pixel i of a window stands for its input pixel i + lost / 2. Of the
    reversed window (length L, output L - lost) output pixel j stands for input pixel j + lost / 2 of the reversed, that
    is L - 1 - j - lost / 2 of the window; put back, it lies at i = L - lost - 1 - j and so stands for i + lost / 2 as
    without mirroring. The kept part [crop_px, crop_px + keep) therefore is the block itself, if before = crop_px +
    lost / 2: 0 + lost / 2 for unpadded networks; for padded ones (lost 0) the margin that is cropped. Those need
    the margin on the other side too: a kept pixel of the reversed window is at least `after` = crop_px from its
    start, no nearer to the padding than unreversed. Transposing swaps the axes, which are alike but for their sizes.

    Args:
        network: maps (n, channels, y, x) to logits (n, classes, y - lost, x - lost).
        batch: (n, channels, y, x) float.
        mirror: a key of `MIRRORINGS`.
        activation: see `log_mean`.

    Returns:
        (n, classes, y - lost, x - lost), float32 with mirroring, else as the network gives them.
    """
    ways = MIRRORINGS[mirror]
    if len(ways) == 1:
        return network(batch)
    return log_mean((turned_back(network(dense(turned(batch, way))), way) for way in ways), activation)


def turned(values: torch.Tensor, way: Mirroring) -> torch.Tensor:
    """Return (..., y, x) mirrored, or (..., x, y) where rows and columns change places."""
    axes = [axis for axis, reverse in zip((-2, -1), way, strict=False) if reverse]
    values = values.flip(axes) if axes else values
    return values.transpose(-2, -1) if way[2] else values


def turned_back(values: torch.Tensor, way: Mirroring) -> torch.Tensor:
    """Undo `turned`: return (..., y, x)."""
    rows, columns, transposed = way
    return turned(values.transpose(-2, -1) if transposed else values, (rows, columns, False))


LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""How arrays lie in memory, by the dimensions of a network: channels next to each other, as its kernels want them."""


def dense(batch: torch.Tensor) -> torch.Tensor:
    """Return a batch (n, c, y, x) or (n, c, z, y, x) in the layout of its dimensions."""
    return batch.contiguous(memory_format=LAYOUTS[batch.ndim - 2])


def check_mirror(geometry: Geometry, mirror: str) -> None:
    """Refuse mirroring with a network whose kept block would move when its window is reversed.

    Raises:
        PipelineError: see `mirrored_mean`; none of this package's networks is such.
    """
    if len(MIRRORINGS[mirror]) > 1 and 2 * geometry.before != 2 * geometry.crop_px + geometry.lost:
        got = f"{geometry.before} px before, {geometry.crop_px} px cropped, {geometry.lost} px lost"
        raise PipelineError("predict.mirror", "a network that loses as much on each side", got, "none")


class Ensemble(nn.Module):
    """Several networks of one architecture that answer together: the mean of their probabilities.

    The tensors of member k are named `members.k.*`.
    """

    def __init__(self, members: Sequence[nn.Module], activation: str = "softmax") -> None:
        """Take two or more networks of the same sizes."""
        super().__init__()
        self.members, self.activation = nn.ModuleList(members), activation

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes, y - lost, x - lost) float32, whose softmax is the mean of the members'.

        Args:
            image: (n, channels, y, x) float, of a size legal for each member.
        """
        return log_mean((member(image) for member in self.members), self.activation)
