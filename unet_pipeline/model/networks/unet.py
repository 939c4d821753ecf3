"""The paper's network, and its departures that change a layer but not the figure."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate

from unet_pipeline.model.card import Architecture, geometry, sizes
from unet_pipeline.model.networks.blocks import (
    Residual,
    Space,
    centre_crop,
    check_input,
    convolutions,
    doubling,
    halving,
)


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015, figure 1 (sizes for depth 4 without padding, one 572 px tile).

    ```
    572 > 568 ----------------- crop ------------------ > 392 > 388 > 1x1    1 x base
      284 > 280 --------------- crop --------------- > 200 > 196             2 x base
        140 > 136 ------------- crop ------------ > 104 > 100                4 x base
           68 >  64 dropout --- crop --------- > 56 >  52                    8 x base
              32 >  28 dropout  --------- up                                16 x base
    ```
    A level is two 3x3 convolutions, each with ReLU; down is a 2x2 max pooling; up is a 2x2 up-convolution that halves
    the channels, without ReLU, as in the figure. Dropout acts on the outputs of the last two contracting levels: on the
    last but one before its pooling, so that the skip carries it too (as the authors' release does), and on the bottom
    before the first up-convolution. Skips come first in the concatenation.

    The departures are named in `Architecture`. Bilinear up-sampling has no weights that could halve the channels: the
    levels' own convolutions do, the bottom included.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Build the network; weights are torch's own until `models.initialise`."""
        super().__init__()
        self.architecture = given = architecture
        self.geometry, self.sizes = geometry(given), sizes(given)
        padded, norm, bilinear = given.padded, given.batch_norm, given.up == "bilinear"
        most = given.widest or given.base_channels * 2**given.depth
        widths = [min(given.base_channels * 2**level, most) for level in range(given.depth + 1)]
        spaces = [Space(given.dimensions, level >= given.planar_levels) for level in range(given.depth + 1)]
        block = Residual if given.residual else convolutions
        # Çiçek et al. 2016: doubled by the second convolution of a level, and kept by the way up
        early = given.widen == "before"
        entering = given.in_channels
        if given.stem == "half":
            # patches of 2x2 px: tiles that begin at even pixels then see the same patches as the whole plane
            self.stem = halving("stride", given.in_channels, widths[0], False, norm, spaces[0])
            entering = widths[0]
        inputs, outputs = [entering, *widths], [*widths[:-1], widths[-1] // (1 + bilinear)]
        self.contracting = nn.ModuleList(
            block((a, b // 2 if early else b, b), padded, norm, space)
            for a, b, space in zip(inputs, outputs, spaces, strict=False)
        )
        self.down = nn.ModuleList(
            halving(given.down, width, width, padded, norm, space)
            for width, space in zip(widths[:-1], spaces, strict=False)
        )
        self.up, self.expanding, deeper = nn.ModuleList(), nn.ModuleList(), outputs[-1]
        for level in reversed(range(given.depth)):
            width, last, space = widths[level], level == 0, spaces[level]
            risen = deeper if early else 2 * width if last and given.wide_up else width
            self.up.append(doubling(given.up, deeper, risen, padded, given.up_relu, space))
            leaving = width // 2 if bilinear and not last else width
            self.expanding.append(block((width + (deeper if bilinear else risen), width, leaving), padded, norm, space))
            deeper = leaving
        self.head: nn.Module = spaces[0].convolution(widths[0], given.classes, 1)
        if given.stem == "half":
            self.head = spaces[0].up_convolution(widths[0], given.classes)
        self.dropout = nn.Dropout(given.dropout)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the class scores before the softmax or sigmoid.

        Args:
            image: (n, in_channels, y, x) float, normalised; y and x legal for `card.sizes`, e.g. 572. With three
                dimensions (n, in_channels, z, y, x).

        Returns:
            (n, classes, y - lost, x - lost), e.g. 388; with z, of which its own number of planes is lost.

        Raises:
            PipelineError: if the channels or the size are not the network's; the nearest legal size is named.
        """
        check_input(image, self.architecture.in_channels, *self.sizes)
        skips = []
        x = self.stem(image) if self.architecture.stem == "half" else image
        for level, contract in enumerate(self.contracting):
            x = contract(x)
            if level >= self.architecture.depth - 1:
                x = self.dropout(x)
            if level < self.architecture.depth:
                skips.append(x)
                x = self.down[level](x)
        for up, expand in zip(self.up, self.expanding, strict=True):
            x = up(x)
            x = expand(torch.cat([centre_crop(skips.pop(), x), x], dim=1))
        scores: torch.Tensor = self.head(x)
        if self.architecture.resize_output:
            scores = interpolate(scores, image.shape[2:])
        return scores
