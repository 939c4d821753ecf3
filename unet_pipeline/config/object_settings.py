"""How objects are made of probabilities: what the keys of section `stitch` come to, calibrated or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from unet_pipeline.config.keys import key
from unet_pipeline.config.result_sections import Stitch

Method = Literal["components", "watershed", "distance"]
BY_HAND = ("seed", "seed_min_area_px", "neck", "smooth_px", "min_area_px", "fill_holes", "grow_px")
"""Keys of section `stitch` that are settings as they stand, unless they are auto."""


@dataclass(frozen=True)
class ObjectSettings:
    """The keys of section `stitch` by which objects are made, none of them open; the defaults are the stated ones.

    Attributes:
        threshold: None takes the likeliest class.
        seed_min_area_px: None is a third of `min_area_px`.
    """

    method: Method = "components"
    threshold: float | None = key(None, "", 0, 1)
    seed: float = key(0.8, "", 0.01, 1)
    seed_min_area_px: int | None = key(None, "", 0, 1_000_000_000)
    neck: float = key(0.7, "", 0.01, 1)
    smooth_px: float = key(0.0, "", 0, 64)
    min_area_px: int = key(30, "", 0, 1_000_000_000)
    fill_holes: bool = True
    grow_px: int = key(1, "", 0, 64)

    @property
    def least_seed_px(self) -> int:
        """The least area of a seed, px."""
        return self.min_area_px // 3 if self.seed_min_area_px is None else self.seed_min_area_px

    def __str__(self) -> str:
        """Name what counts with this method."""
        smoothed = f" smoothed over {self.smooth_px:g} px" if self.smooth_px else ""
        necks = f", necks below {self.neck:g}{smoothed}"
        own = {"components": "", "watershed": f", seeds from {self.seed:g}", "distance": necks}
        threshold = "likeliest class" if self.threshold is None else f"threshold {self.threshold:g}"
        holes = "holes filled" if self.fill_holes else "holes kept"
        rest = f"at least {self.min_area_px} px, {holes}, grown by {self.grow_px} px"
        return f"{self.method}{own[self.method]}, {threshold}, {rest}"


def settled(
    stitch: Stitch,
    calibrated: ObjectSettings | None = None,
    stated: ObjectSettings | None = None,
    by_volume: bool = False,
) -> ObjectSettings:
    """Return the settings that the keys of section `stitch` come to.

    Args:
        stitch: the section; a key that says something goes before all else.
        calibrated: what the calibration of the model chose; None where there is none. It counts with
            `stitch.method: calibrated` only; of planes, its area in px says nothing of voxels, and the reverse.
        stated: what counts where neither says anything; None takes the defaults.
        by_volume: whether the calibration looked at objects of volumes.
    """
    base = stated or ObjectSettings()
    if stitch.method != "calibrated":
        base = replace(base, method=stitch.method)
    elif calibrated is not None:
        alike = by_volume == (stitch.connect == "volume")
        base = calibrated if alike else replace(calibrated, min_area_px=base.min_area_px)
    if stitch.threshold != "auto":
        base = replace(base, threshold=None if stitch.threshold == "likeliest" else stitch.threshold)
    by_hand = {name: value for name in BY_HAND if (value := getattr(stitch, name)) != "auto"}
    return replace(base, **by_hand)
