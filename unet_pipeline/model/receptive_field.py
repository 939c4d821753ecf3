"""The receptive field of a network, from its layers alone: the inputs that can change one of its outputs.

An output interval is followed backwards through the layers to the inputs it needs: a convolution of kernel k, stride s
and padding p needs [a s - p, b s - p + k - 1] for its outputs [a, b]. Both axes are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[int, int]
"""First and last position along an axis."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a pooling along one axis."""

    kernel: int
    stride: int = 1
    padding: int = 0

    def needs(self, outputs: Interval) -> Interval:
        """Return the inputs that some outputs depend on."""
        first, last = outputs
        return first * self.stride - self.padding, last * self.stride - self.padding + self.kernel - 1


CONVOLUTION = Layer(3, 1, 1)
POOL = Layer(2, 2)


@dataclass(frozen=True)
class Level:
    """One resolution of an encoder and decoder.

    Attributes:
        enter: the layers from the level above (finer) to this one; the last of them halves the resolution.
        contract: the layers behind them, whose output is the skip.
        expand: the layers after the concatenation on the way up.
        skip: whether the way up takes this level's skip.
    """

    enter: tuple[Layer, ...]
    contract: tuple[Layer, ...]
    expand: tuple[Layer, ...]
    skip: bool = True


def radius_px(levels: Sequence[Level], bilinear: bool) -> int:
    """Return the radius of the receptive field: px a network sees beyond an output pixel, on the side where it is more.

    Args:
        levels: from full resolution to the bottom, which is not expanded.
        bilinear: whether up-sampling interpolates bilinearly, else it is a transposed 2 x 2 convolution of stride 2.
    """
    stride = 2 ** (len(levels) - 1)
    needs = [(_needs(levels, (phase, phase), bilinear), phase) for phase in range(stride)]
    return max(max(phase - first, last - phase) for (first, last), phase in needs)


def _needs(levels: Sequence[Level], outputs: Interval, bilinear: bool) -> Interval:
    """Return the inputs of a level, at the resolution above its `enter`, that its outputs on the way up depend on."""
    level, *deeper = levels
    if not deeper:
        return _through((*level.enter, *level.contract), outputs)
    merged = _through(level.expand, outputs)
    needed = _needs(deeper, _up_needs(merged, bilinear), bilinear)
    if level.skip:
        needed = min(needed[0], merged[0]), max(needed[1], merged[1])
    return _through((*level.enter, *level.contract), needed)


def _through(layers: Sequence[Layer], outputs: Interval) -> Interval:
    for layer in reversed(layers):
        outputs = layer.needs(outputs)
    return outputs


def _up_needs(outputs: Interval, bilinear: bool) -> Interval:
    first, last = outputs
    # bilinear, pixel centres kept: output i lies at (i + 1/2) / 2 - 1/2, between two inputs
    return ((first - 1) // 2, (last + 1) // 2) if bilinear else (first // 2, last // 2)


def unet(depth: int, strided: bool) -> list[Level]:
    """Return the levels of the padded U-Net; `strided`: 3 x 3 convolutions of stride 2 instead of poolings."""
    down = (Layer(3, 2, 1),) if strided else (POOL,)
    two = (CONVOLUTION,) * 2
    return [Level(down if level else (), two, two) for level in range(depth + 1)]


def vgg16() -> list[Level]:
    """Return the levels of the U-Net on VGG16: five groups of convolutions, four poolings."""
    two = (CONVOLUTION,) * 2
    return [Level((POOL,) if level else (), (CONVOLUTION,) * count, two) for level, count in enumerate((2, 2, 3, 3, 3))]


def resnet50() -> list[Level]:
    """Return the levels of the U-Net on ResNet50.

    Of a bottleneck block only the 3 x 3 convolution sees beyond its pixel; the first of a stage has stride 2, but in
    stage 1, which has a pooling before it.
    """
    two = (CONVOLUTION,) * 2
    stages = [(Layer(3, 2, 1), 3), (Layer(3, 2, 1), 3), (Layer(3, 2, 1), 5), (Layer(3, 2, 1), 2)]
    deeper = [Level((down,), (CONVOLUTION,) * count, two) for down, count in stages]
    return [Level((), (), two, skip=False), Level((Layer(7, 2, 3),), (), two), *deeper]
