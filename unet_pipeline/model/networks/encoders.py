"""U-Nets whose contracting path is a torchvision network, so that weights learned on ImageNet can be used.

Their convolutions are padded. The decoders are those of the PyTorch U-Nets on VGG16 and ResNet50 in wide use: a level
is an up-sampling, the concatenation with the skip, and two 3x3 convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from unet_pipeline.model.card import Architecture, geometry
from unet_pipeline.model.networks.blocks import check_input, convolutions, doubling

WIDTHS = (64, 128, 256, 512)
"""Channels that leave the levels of the decoder, from the finest on."""


class VGG16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2015, configuration D), without its last pooling."""

    skips = (64, 128, 256, 512, 512)
    starts = (0, 4, 9, 16, 23)

    def __init__(self, in_channels: int) -> None:
        """Build it; names of tensors are torchvision's."""
        from torchvision.models.vgg import cfgs, make_layers  # here: most networks do without it, and start sooner

        super().__init__()
        self.features = make_layers(cfgs["D"])[:-1]
        if in_channels != 3:
            self.features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return what each level gives, (n, skips[level], y / 2^level, x / 2^level)."""
        outputs = []
        for first, end in zip(self.starts, (*self.starts[1:], None), strict=True):
            x = self.features[first:end](x)
            outputs.append(x)
        return outputs


class ResNet50(nn.Module):
    """ResNet50 (He et al. 2016) without its classifier; a stage halves in its first 3x3 convolution, as torchvision."""

    skips = (0, 64, 256, 512, 1024, 2048)

    def __init__(self, in_channels: int) -> None:
        """Build it; names of tensors are torchvision's."""
        import torchvision

        super().__init__()
        whole = torchvision.models.resnet50(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return what each level gives, (n, skips[level], y / 2^level, x / 2^level); nothing at full size."""
        stem = self.relu(self.bn1(self.conv1(x)))
        outputs = [x[:, :0], stem, self.layer1(self.maxpool(stem))]
        for layer in (self.layer2, self.layer3, self.layer4):
            outputs.append(layer(outputs[-1]))
        return outputs


ENCODERS: Mapping[str, Callable[[int], VGG16 | ResNet50]] = {"vgg16": VGG16, "resnet50": ResNet50}
"""By name of the network."""


class EncoderUNet(nn.Module):
    """A U-Net on a torchvision encoder: its levels' outputs are the skips."""

    def __init__(self, architecture: Architecture) -> None:
        """Build the network; weights are torch's own until `models.initialise`."""
        super().__init__()
        self.architecture = architecture
        self.geometry = geometry(architecture)
        self.encoder = ENCODERS[architecture.network](architecture.in_channels)
        *skips, deepest = self.encoder.skips
        widths = WIDTHS if len(skips) == len(WIDTHS) else (WIDTHS[0], *WIDTHS)
        self.up, self.expanding = nn.ModuleList(), nn.ModuleList()
        for skip, width in zip(reversed(skips), reversed(widths), strict=True):
            risen = deepest if architecture.up == "bilinear" else width
            self.up.append(doubling(architecture.up, deepest, risen, True, architecture.up_relu))
            self.expanding.append(convolutions((skip + risen, width, width), True, architecture.batch_norm))
            deepest = width
        self.head = nn.Conv2d(WIDTHS[0], architecture.classes, 1)
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the class scores before the softmax or sigmoid.

        Args:
            image: (n, in_channels, y, x) float, normalised; y and x multiples of the stride.

        Returns:
            (n, classes, y, x).

        Raises:
            PipelineError: if the channels or the size are not the network's; the nearest legal size is named.
        """
        check_input(image, self.architecture.in_channels, self.geometry, self.geometry)
        *skips, x = self.encoder(image)
        x = self.dropout(x)
        for up, expand in zip(self.up, self.expanding, strict=True):
            x = expand(torch.cat([skips.pop(), up(x)], dim=1))
        scores: torch.Tensor = self.head(x)
        return scores
