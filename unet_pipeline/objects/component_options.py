"""What counts as one component: which pixels touch, how small it may be, and what of its holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.fragments import Keys


@dataclass(frozen=True)
class ComponentOptions:
    """What counts as one instance.

    Attributes:
        connectivity: neighbours of a pixel in its plane, 4 or 8. Background, for holes, has the other one.
        across_planes: whether pixels of one class that lie over each other in neighbouring planes are connected.
        min_area_px: components of fewer pixels (voxels, across planes) become background.
        fill_holes: whether background (dropped components included) that does not reach the border of the plane, and
            touches exactly one instance, becomes part of it. Across planes, holes are 3D, and the first and last
            plane are border too. A hole with an ignored pixel stays open.
    """

    connectivity: Literal[4, 8] = 4
    across_planes: bool = False
    min_area_px: int = 0
    fill_holes: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.connectivity not in (4, 8):
            raise PipelineError("connectivity", "4 or 8", self.connectivity, nearest=4 if self.connectivity < 6 else 8)
        if self.min_area_px < 0:
            raise PipelineError("min_area_px", "an area of at least 0 px", self.min_area_px, nearest=0)

    @property
    def corners_join(self) -> bool:
        """Whether pixels that share a corner are connected; those of the background then are not."""
        return self.connectivity == 8

    def contacts(self, straight: Keys, diagonal: Keys) -> tuple[Keys, Keys]:
        """Return the contacts (n,) that join foreground, and those that join background."""
        both = np.concatenate([straight, diagonal])
        return (both, straight) if self.corners_join else (straight, both)
