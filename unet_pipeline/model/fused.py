"""Layers that a GPU computes by one kernel: a convolution, its batch normalisation, its bias and its ReLU.

PyTorch writes what a convolution gives, adds the bias in a second pass over memory and takes the ReLU in a third. At
the first levels, where channels are few and pixels many, those take longer than the convolution.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvolutionReLU(nn.Module):
    """A convolution of planes and the ReLU behind it, by one kernel of cuDNN."""

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        """Take the weights of a convolution, in the number format that the kernel computes in."""
        super().__init__()
        self.convolution, self.dtype = convolution.to(dtype), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, channels, y, x) in `dtype`."""
        one = self.convolution
        padding = (0, 0) if isinstance(one.padding, str) else one.padding  # ours are numbers
        found: torch.Tensor = torch.cudnn_convolution_relu(
            x.to(self.dtype), one.weight, one.bias, one.stride, padding, one.dilation, one.groups
        )
        return found


def fuse(network: nn.Module, dtype: torch.dtype) -> None:
    """Replace, in a network in evaluation mode, layers that follow each other by one that does the same.

    Layers keep their places: those that the one before them now does become identities.

    Args:
        network: on a GPU; it can no longer be trained or saved.
        dtype: number format of the convolutions. float16 is left as it is: what overflows there has to stay seen, and
            whether the ReLU of that kernel keeps what is not a number is not known.
    """
    if dtype == torch.float16:
        return
    for layers in network.modules():
        if isinstance(layers, nn.Sequential):
            for place, layer in enumerate(layers):
                if isinstance(layer, nn.Conv2d):
                    _fuse(layers, place, layer, dtype)


def _fuse(layers: nn.Sequential, place: int, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
    """Let the convolution at a place do what follows it, too."""
    following = [*layers.children()][place + 1 :]
    if following and isinstance(norm := following[0], nn.BatchNorm2d):
        convolution = fuse_conv_bn_eval(convolution, norm)
        following.pop(0)
    fused: nn.Module = convolution
    if following and isinstance(following[0], nn.ReLU):
        fused = ConvolutionReLU(convolution, dtype)
        following.pop(0)
    first = len(layers) - len(following)
    layers[place] = fused
    for done in range(place + 1, first):
        layers[done] = nn.Identity()
