"""The section of the configuration that describes the network; `sections` holds all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_pipeline.config.keys import key

Network = Literal["unet", "vgg16", "resnet50"]
Down = Literal["pool", "stride"]
Up = Literal["transposed", "bilinear"]
Stem = Literal["full", "half"]
Widen = Literal["after", "before"]

ENCODER_DEPTH = {"vgg16": 4, "resnet50": 5}
"""Halvings of the resolution in the networks whose encoder is torchvision's."""

AUTO_DEEPEST = 4
"""The most that `model.depth: auto` comes to, the paper's: deeper, the margin of a tile takes more than the tile."""


@dataclass(frozen=True)
class Model:
    """The network; the paper's is depth 4, base_channels 64, dropout 0.5."""

    folder: str | None = key(None, "a finished model folder to use instead of training; null trains one")
    start_from: str | None = key(
        None, "a finished model, its folder or package, whose layers training starts from; null: from random weights"
    )
    network: Network = key("unet", "unet: the paper's; vgg16, resnet50: torchvision's encoder with a U-Net decoder")
    depth: int | Literal["auto"] = key(
        3,
        "number of poolings; the stride is 2^depth px (vgg16: always 4, resnet50: 5); auto: by the size of objects",
        1,
        6,
    )
    base_channels: int = key(16, "channels of the first level; doubled at each pooling (encoders: always 64)", 1, 256)
    dropout: float = key(0.0, "dropout probability at the end of the contracting path", 0, 0.95)
    padded: bool = key(False, "zeros around each convolution, so that the output is as large as the input")
    batch_norm: bool = key(True, "batch normalisation after each 3x3 convolution")
    stem: Stem = key(
        "full",
        "resolution of the first level; half: a 2x2 convolution of stride 2 before it, an up-convolution at the end",
    )
    widest: int | None = key(
        None, "deeper levels have no more channels than this; null: doubled to the bottom", 1, 16384
    )
    residual: bool = key(False, "what enters a level's two convolutions is added to what they give")
    down: Down = key("pool", "halving by 2x2 maximum, or by a learned convolution of stride 2")
    up: Up = key("transposed", "doubling by a learned 2x2 up-convolution, or by bilinear interpolation")
    up_relu: bool = key(False, "ReLU after each up-convolution, as in the authors' release")
    wide_up: bool = key(False, "the last up-convolution keeps its channels, as in the authors' release")
    dimensions: int = key(2, "2: planes are predicted one by one; 3: volumes, by 3x3x3 convolutions", 2, 3)
    z_levels: int | Literal["auto"] = key(
        "auto", "with 3 dimensions: how many levels, from the bottom up, see z; auto: by the size of a voxel", 1, 7
    )
    widen: Widen = key(
        "after", "channels are doubled behind a pooling, or before it, as in the 3D U-Net of Çiçek et al. 2016"
    )
    resize_output: bool = key(False, "stretch the output to the input's size; then a plane has to be one tile")
    encoder_weights: str | None = key(
        None, "file of ImageNet weights for vgg16 or resnet50 (.safetensors or .pth); null: none"
    )

    @property
    def levels_along_z(self) -> int:
        """Levels that see z, all where that is still open; 0 of a network of planes."""
        levels = self.most_poolings + 1
        return 0 if self.dimensions == 2 else levels if self.z_levels == "auto" else min(self.z_levels, levels)

    @property
    def settled_by_training(self) -> bool:
        """Whether a size of the network is still open, that training finds in its stacks: only a model has it."""
        return self.depth == "auto" or (self.dimensions == 3 and self.z_levels == "auto")

    @property
    def stride(self) -> int:
        """The pooling stride, px; of a depth that is still open a multiple of it."""
        return int(2 ** ENCODER_DEPTH.get(self.network, self.most_poolings + (self.stem == "half")))

    @property
    def most_poolings(self) -> int:
        """The depth or, where that is still open, the most that it may come to."""
        return AUTO_DEEPEST if self.depth == "auto" else self.depth
