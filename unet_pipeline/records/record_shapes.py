"""What each record holds, and the check that a file is one.

A checksum says that a record is what somebody wrote, not that it was this pipeline. Each record is therefore compared
with its shape when it is opened, and no later code meets a missing key or a value of another kind.

A shape is a type (`float` takes whole numbers too, but nothing infinite), None, an `Either`, `Whole`, `OneOf` or
`FILE`; `[shape]` is a list of any length and `[shape, shape]` one of two; `{str: shape}` has any keys and
`{"key": shape}` at least these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.record import again, read_json

LARGEST = 2**62
"""Whole numbers in records are smaller: they count pixels and bytes, and fit the integers of arrays."""


@dataclass(frozen=True)
class Either:
    """One of two shapes."""

    first: Any
    second: Any


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` on."""

    low: int = 0


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """The name of a file, without a folder: records point to what lies beside them, never out of the results."""


FILE = File()
LEVELS = 1001
"""Quantiles of a channel: one for each tenth of a per cent."""

COUNT, SIZE = Whole(), Whole(1)
PROVENANCE = {"config": {str: dict}, "inputs": {str: str}, "packages": {str: str}}
FILES = {"list": FILE, "sha256": str}
COMPUTE = {"device": str, "precision": str}
STATISTICS = {
    "min": [float],
    "max": [float],
    "mean": [float],
    "std": [float],
    "pixels": SIZE,
    "quantiles": [[float] * LEVELS],
}
PICTURE = {"name": str, "size": [SIZE, SIZE], "scale": float, "place": [COUNT] * 4}
PARTITION = {"value": Either(float, None), "split": Either(float, None), "merge": Either(float, None)}
AREA = {"smallest": COUNT, "median": float, "largest": COUNT}
DIFFERENCE = {"tiling": str, "largest_difference_std": float, "flipped_labels": COUNT, "flipped_per_mpx": float}
BEST = {name: Either(float, None) for name in ("value", "threshold", "split", "merge")}
ISBI = ("v_rand", "v_info", "rand_error", "pixel_error", "warping_error", "splits_mergers_error")
GEOMETRY = {"stride": SIZE, "before": COUNT, "after": COUNT, "lost": COUNT, "crop_px": COUNT, "whole_plane": bool}
PIXEL_SCORES = ("accuracy", "mean_accuracy", "mean_iou", "mean_iou_foreground", "mean_dice")
PRECISION = {"average_precision": Either(float, None)}
DTYPES = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]

SHAPES: dict[str, dict[str, Any]] = {
    "ingest": {
        "stack": str,
        "id": str,
        "grid": {
            "planes": SIZE,
            "height": SIZE,
            "width": SIZE,
            "plane_axis": OneOf(("z", "t")),
            "pixel_um": Either([float, float], None),
            "step": Either(float, None),
        },
        "channels": SIZE,
        "dtype": OneOf(tuple(DTYPES)),
        "image": {"in_place": bool, "source": str, "axes": str, "planes": str},
        "names": {"image": Either([str], None), "labels": Either([str], None)},
        "notes": [str],
        "fit": Either({"sizes": str, "fill": str, "pictures": [PICTURE]}, None),
        "labels": Either({"class_counts": {str: COUNT}}, None),
        "statistics": STATISTICS,
        "fingerprints": {"image": str, "labels": Either(str, None)},
        "files": FILES,
        "provenance": PROVENANCE,
    },
    "weigh": {
        "stack": str,
        "ingest": FILE,
        "image_id": str,
        "id": str,
        "class_counts": {str: COUNT},
        "largest_boundary_term": float,
        "sigma_px": float,
        "files": FILES,
        "provenance": PROVENANCE,
    },
    "tile": {
        "stack": str,
        "ingest": FILE,
        "plan": {
            "shape": [SIZE, SIZE, SIZE],
            "geometry": GEOMETRY,
            "keep": [SIZE, SIZE],
            "shard": [SIZE, SIZE],
            "regions": SIZE,
        },
        "auto": bool,
        "out_of_fold": bool,
        "classes": [str],
        "digest": str,
        "files": FILES,
        "provenance": PROVENANCE,
    },
    "predict": {
        "plan": str,
        "region": COUNT,
        "model": str,
        "made_by": str,
        "shards": [{"shard": COUNT, "probabilities": str, "classes": str}],
        "tiles": COUNT,
        "tiles_skipped": COUNT,
        "compute": COMPUTE,
        "provenance": PROVENANCE,
    },
    "stitch": {
        "stack": str,
        "tiles": FILE,
        "coverage": {"shards": COUNT, "regions": COUNT, "covered_once": bool, "model": Either(str, None)},
        "classes": [{"name": str, "pixels": COUNT, "share": float, "area_um2": Either(float, None)}],
        "objects": COUNT,
        "area_px": Either(AREA, None),
        "filled_px": COUNT,
        "files": FILES,
        "provenance": PROVENANCE | {"config": {"stitch": {"connect": OneOf(("planes", "volume"))}}},
    },
    "evaluate": {
        "stack": str,
        "instances": {
            "seg": Either(float, None),
            "objects": COUNT,
            "matched": COUNT,
            "found": COUNT,
            "v_rand": PARTITION,
            "v_info": PARTITION,
            "ap": {str: PRECISION, "0.50": PRECISION, "0.75": PRECISION},
        },
        "classes": [
            {"name": str, "reference_pixels": COUNT}
            | {score: Either(float, None) for score in ("dice", "iou", "precision", "recall")}
        ],
        "pixels": {"scored": COUNT, "of": COUNT} | {score: Either(float, None) for score in PIXEL_SCORES},
        "confusion": [[COUNT]],
        "confusion_sha256": str,
        "isbi": Either(Either({name: BEST for name in ISBI}, {"skipped": str}), None),
        "provenance": PROVENANCE,
    },
    "prove": {
        "stack": str,
        "crop": [SIZE, SIZE],
        "seamless": bool,
        "tolerance_std": float,
        "rows": [DIFFERENCE],
        "paper_step": DIFFERENCE,
        "compute": COMPUTE,
        "provenance": PROVENANCE,
    },
}
"""By the step that writes the record. The model's is checked by `modelcard`, which also reads cards made elsewhere."""


def open_record(path: Path, step: str) -> dict[str, Any]:
    """Read a record that a step wrote.

    Args:
        path: the record.
        step: a key of `SHAPES`.

    Raises:
        PipelineError: if it is missing, damaged, or not a record of that step.
    """
    facts = read_json(path, fix=again(path))
    if wrong := misfit(facts, SHAPES[step]):
        place, got = wrong
        raise PipelineError(f"{path}: {place or step}", f"what {step} writes", got, fix=again(path))
    return facts


def misfit(value: object, shape: Any, place: str = "") -> tuple[str, object] | None:
    """Return the first place where a value is not of a shape, and what stands there; None where it fits."""
    if isinstance(shape, Either):
        return misfit(value, shape.second, place) and misfit(value, shape.first, place)
    if isinstance(shape, dict):
        return _misfit_keys(value, shape, place)
    if isinstance(shape, list):
        return _misfit_items(value, shape, place)
    return None if _fits(value, shape) else (place, value)


def _fits(value: object, shape: Any) -> bool:
    if isinstance(shape, Whole):
        return type(value) is int and shape.low <= value < LARGEST
    if shape is FILE:
        return isinstance(value, str) and Path(value).name == value and value not in ("", "..")
    if shape is float:
        return type(value) in (int, float) and abs(value) < LARGEST and math.isfinite(value)  # type: ignore[arg-type]
    if isinstance(shape, OneOf):
        return value in shape.words
    return value is None if shape is None else type(value) is shape


def _misfit_keys(value: object, shape: dict[Any, Any], place: str) -> tuple[str, object] | None:
    if not isinstance(value, dict):
        return place, value
    for name, part in shape.items():
        if name is not str and name not in value:
            return f"{place}.{name}".lstrip("."), "nothing"
        for key in value if name is str else [name]:
            if wrong := misfit(value[key], part, f"{place}.{key}".lstrip(".")):
                return wrong
    return None


def _misfit_items(value: object, shape: list[Any], place: str) -> tuple[str, object] | None:
    if not isinstance(value, list):
        return place, value
    if len(shape) > 1 and len(value) != len(shape):
        return place, f"{len(value)} values instead of {len(shape)}"
    parts = shape if len(shape) > 1 else shape * len(value)
    for number, (item, part) in enumerate(zip(value, parts, strict=True)):
        if wrong := misfit(item, part, f"{place}[{number}]"):
            return wrong
    return None
