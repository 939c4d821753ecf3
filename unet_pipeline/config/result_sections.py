"""The sections of the configuration that say what is made of probabilities; `sections` holds all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_pipeline.config.keys import key

ObjectMeasure = Literal[
    "area", "centroid", "box", "perimeter", "eccentricity", "solidity",
    "intensity_mean", "intensity_min", "intensity_max", "intensity_std", "probability", "touches_border",
]  # fmt: skip


@dataclass(frozen=True)
class Stitch:
    """The way from probabilities to objects and files. A change here never runs the network again."""

    method: Literal["calibrated", "components", "watershed", "distance"] = key(
        "calibrated", "calibrated: what made the best objects of the validation planes; or one of the three by hand"
    )
    threshold: float | Literal["auto", "likeliest"] = key(
        "auto", "objects where their probability reaches this, else background; likeliest: the likeliest class", 0, 1
    )
    seed: float | Literal["auto"] = key("auto", "for watershed: pixels at least this probable are seeds", 0.01, 1)
    seed_min_area_px: int | Literal["auto"] = key(
        "auto", "for watershed: smaller seeds are none, px or voxels; auto: a third of min_area_px", 0, 1_000_000_000
    )
    neck: float | Literal["auto"] = key(
        "auto", "for distance: parts are two where their neck is narrower than this share of the smaller one", 0.01, 1
    )
    smooth_px: float | Literal["auto"] = key(
        "auto", "for distance: distances are averaged by a Gaussian of this standard deviation, px", 0, 64
    )
    min_area_px: int | Literal["auto"] = key(
        "auto", "smaller objects are removed, px (voxels with connect: volume)", 0, 1_000_000_000
    )
    fill_holes: bool | Literal["auto"] = key("auto", "background enclosed by one object becomes that object")
    grow_px: int | Literal["auto"] = key("auto", "objects grow into the background by this much, px", 0, 64)
    connect: Literal["planes", "volume"] = key("planes", "objects within a plane, or also from plane to plane")
    tiff: bool = key(False, "also write classes.tif and instances.tif")


@dataclass(frozen=True)
class Measure:
    """The table of objects."""

    measures: tuple[ObjectMeasure, ...] = key(
        (
            "area", "centroid", "box", "perimeter", "eccentricity", "solidity",
            "intensity_mean", "intensity_min", "intensity_max", "intensity_std", "probability", "touches_border",
        ),
        "columns beside id, plane and class: any of area, centroid, box, perimeter, eccentricity, solidity, "
        "intensity_mean, intensity_min, intensity_max, intensity_std, probability and touches_border",
    )  # fmt: skip
    formats: tuple[Literal["parquet", "csv", "geojson"], ...] = key(
        ("parquet",),
        "files: any of parquet and csv, for the table, and geojson, for outlines; none leaves the step out",
    )


@dataclass(frozen=True)
class Evaluate:
    """The scores that are computed where a reference exists."""

    isbi: bool = key(False, "ISBI 2012 scores (thinned V_rand, V_info; warping, Rand, pixel error), planes <= 16 Mpx")


@dataclass(frozen=True)
class Report:
    """The report page and its pictures."""

    panel_px: int = key(384, "largest side of a shown crop, px of the image", 64, 4096)
    planes: int = key(1, "planes shown of each stack", 1, 16)
    pictures: tuple[Literal["overlay", "mask", "cutout", "panels", "curves"], ...] = key(
        (), "PNG files in results/pictures: any of overlay, mask, cutout, panels (of the planes shown) and curves"
    )
