"""Size arithmetic of the networks along one axis: what a tile must read so that what it keeps equals one whole pass.

An unpadded U-Net of depth 4 maps 16k + 60 to 16k - 124 px (Ronneberger 2015, fig. 1). Its output changes phase
unless tile origins are multiples of the pooling stride 16, so the paper's own step of 388 = 16 * 24 + 4 px is not
seamless; a kept block of 384 px is. Every number of this module follows from depth and kernel
size; `receptive_field` has the radius of padded networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from unet_pipeline.errors import PipelineError

CONVOLUTIONS = 2
"""Convolutions per level."""

LOST_PX = 2
"""Pixels an axis loses in one unpadded 3x3 convolution."""


@dataclass(frozen=True)
class Geometry:
    """The sizes of one network along one axis; those of y and x are alike.

    ```
            |<------------------- read_px = before + keep + after ------------------>|
            |   before   |<--------------- keep: n * stride --------------->| after  |
    image   rrrrrrrrrrrrrrKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKrrrrrrrrrr
                         ^ tile origin, a multiple of stride
    output  [crop_px:crop_px + keep) of what the network returns; the rest is dropped
    ```

    Attributes:
        stride: the pooling stride 2^depth, px; tile origins and kept sizes are multiples of it.
        before: px read before the kept block; 92 for depth 4.
        after: px read after it; before + rest, where the rest makes the input size legal (96 for depth 4).
        lost: px by which the output is smaller than the input (184 for depth 4; 0 for padded networks).
        crop_px: first output pixel that is kept.
        whole_plane: whether only a tile that holds the whole plane gives the result of one pass.
    """

    stride: int
    before: int
    after: int
    lost: int
    crop_px: int = 0
    whole_plane: bool = False

    @property
    def is_padded(self) -> bool:
        """Whether the output is as large as the input."""
        return self.lost == 0

    def training_px(self, tile_px: int) -> int:
        """Return the input size of a training tile; a padded network learns from all it returns, at the edge too."""
        if not self.is_padded:
            return self.read_px(tile_px)
        self.check_keep(tile_px, "train.tile_px")
        return tile_px + (self.after if self.whole_plane else 0)

    def read_px(self, keep_px: int) -> int:
        """Return the input size of a tile that keeps `keep_px` px; 572 for 384 px at depth 4.

        Raises:
            PipelineError: if `keep_px` is not a positive multiple of the stride.
        """
        self.check_keep(keep_px, "tile.tile_px")
        return self.before + keep_px + self.after

    def output_px(self, read_px: int) -> int:
        """Return the network's output size for a legal input size."""
        self.check_read(read_px, "network input")
        return read_px - self.lost

    def validating(self, tile_px: int) -> Geometry:
        """Return the sizes by which training validates: of a padded network with at most half a tile read around each.

        A margin of 224 px around tiles of 128 px would cost twenty times the pixels. What lies farther away than half a
        tile hardly counts, no training tile shows it, and a validation does no more than choose between weights.
        """
        if not self.is_padded or self.whole_plane:
            return self
        margin = min(self.before, self.round_up(tile_px // 2))
        return replace(self, before=margin, after=margin, crop_px=margin)

    def doubled(self) -> Geometry:
        """Return the geometry of a network that runs at half the resolution.

        Every second boundary between pixels is one between its pixels, so all sizes double: a tile keeps whole pixels
        of the half resolution, and each depends on no others than those of this geometry.
        """
        return Geometry(2 * self.stride, 2 * self.before, 2 * self.after, 2 * self.lost, 2 * self.crop_px)

    @property
    def smallest_px(self) -> int:
        """The smallest input size at which the network returns anything; legal sizes go on in steps of the stride."""
        # stretched or not, the levels lose the same
        lost = unpadded(self.stride.bit_length() - 1).lost if self.whole_plane else self.lost
        return lost + ((self.before + self.after - lost) % self.stride or self.stride)

    def round_up(self, size_px: int) -> int:
        """Return the smallest kept size that covers `size_px` px."""
        return -(-size_px // self.stride) * self.stride

    def check_keep(self, keep_px: int, where: str) -> None:
        """Refuse a kept size that would shift the pooling phase."""
        if keep_px < self.stride or keep_px % self.stride:
            nearest = max(self.stride, round(keep_px / self.stride) * self.stride)
            raise PipelineError(where, f"a multiple of the pooling stride {self.stride}", f"{keep_px} px", nearest)

    def check_read(self, read_px: int, where: str) -> None:
        """Refuse an input size at which some level would be odd or empty."""
        smallest = self.smallest_px
        excess = (read_px - smallest) % self.stride
        if read_px < smallest or excess:
            nearest = max(smallest, read_px - excess if 2 * excess < self.stride else read_px - excess + self.stride)
            legal = f"{smallest} px or more in steps of {self.stride}"
            raise PipelineError(where, legal, f"{read_px} px", nearest)


ALONE = Geometry(1, 0, 0, 0)
"""Along z, of a network that sees one plane at a time."""


def unpadded(depth: int, lost_up_px: int = 0) -> Geometry:
    """Return the geometry of the paper's network with `depth` poolings.

    Going down, a level of size s gives (s - 4) / 2; the bottom loses 4; going up, s gives 2 s - 4. Summed over the
    levels the output is smaller by lost = 4 * (3 * 2^depth - 2), half on each side, and the input is legal
    when all the halves are whole.

    Args:
        depth: number of poolings; 0 is two convolutions.
        lost_up_px: pixels each side loses in addition at each up-sampling: 1 with bilinear interpolation, whose
            outermost pixels would depend on where the tile ends.

    Raises:
        PipelineError: if the depth is less than 0.
    """
    if depth < 0:
        raise PipelineError("model.depth", "0 or more", depth, nearest=0)
    stride = 2**depth
    loss = CONVOLUTIONS * LOST_PX
    lost = loss * (3 * stride - 2) + 2 * lost_up_px * (stride - 1)
    before = lost // 2
    # going down, the size must be divisible at every pooling: s_0 = loss * (1 + 2 + ... + 2^(depth-1)) mod 2^depth
    residue = loss * (stride - 1) % stride
    rest = (residue - lost) % stride
    return Geometry(stride, before, before + rest, lost)


def padded(radius_px: int, stride: int) -> Geometry:
    """Return the geometry of a network that sees `radius_px` px on each side; its output is as large as its input.

    Zeros that pad the tile, and interpolation at its edge, spoil all outputs that see the edge: a margin of
    `radius_px`, rounded up to the stride, is read around the kept block and cropped away.
    """
    margin = -(-radius_px // stride) * stride
    return Geometry(stride, margin, margin, 0, margin)


def resized(depth: int) -> Geometry:
    """Return the geometry of the paper's network whose output is stretched to the size of its input.

    The scale of the output then depends on the size of the tile: only a tile that holds the whole plane gives the
    result of one pass, so other tiles are refused (see `plan`).
    """
    stride = 2**depth
    rest = CONVOLUTIONS * LOST_PX * (stride - 1) % stride
    return Geometry(stride, 0, rest, 0, whole_plane=True)
