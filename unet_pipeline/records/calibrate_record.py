"""The record `calibrate.json`, in the folder of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.records.fields import ComputeUsed, Count, Number
from unet_pipeline.records.provenance import Provenance


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their score, 0 to 1."""

    settings: ObjectSettings
    score: Number


LEAST_PLANES = 4
"""Neighbouring planes that show objects as those of a volume."""


@dataclass(frozen=True)
class PlanesUsed:
    """Planes of a stack that validated, and the part of them that was looked at, (height, width) px."""

    stack: str
    id: str
    planes: tuple[Count, ...]
    crop: tuple[Count, Count]

    @property
    def neighbours(self) -> bool:
        """Whether they lie over each other, enough of them to show objects of a volume."""
        return len(self.planes) >= LEAST_PLANES and self.planes[-1] - self.planes[0] == len(self.planes) - 1


@dataclass(frozen=True, kw_only=True)
class CalibrateRecord:
    """`calibrate.json`.

    Attributes:
        model: identity of the model's card.
        score: what was made as large as can be.
        planes: what was looked at; empty where nothing validated, so that the stated defaults count.
        objects: in the reference of these planes.
        pixel_um: (y, x) pixel size of the first stack that says one, micrometres; None where none does.
        chosen: how objects are made.
        chosen_score: the score of it; None where nothing was looked at or there was no object.
        stated_score: that of the stated defaults, which count without a calibration.
        trials: all that was tried, in order.
        compute: what the network ran on; None where it did not.
    """

    step: Literal["calibrate"] = "calibrate"
    model: str
    score: str
    planes: tuple[PlanesUsed, ...]
    objects: Count
    pixel_um: tuple[Number, Number] | None
    chosen: ObjectSettings
    chosen_score: Number | None
    stated_score: Number | None
    trials: tuple[Trial, ...]
    compute: ComputeUsed | None
    provenance: Provenance

    @property
    def in_volume(self) -> bool:
        """Whether objects of volumes were looked at, so that areas count voxels."""
        joined = self.provenance.config.get("stitch", {}).get("connect") == "volume"
        return joined and all(used.neighbours for used in self.planes)
