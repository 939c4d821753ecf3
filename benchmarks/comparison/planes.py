"""The planes of a fold, as peers take them, and what they make of them."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import Config
from unet_pipeline.evaluate.examples import chosen_planes
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack

LOW, HIGH = 1.0, 99.8
"""Percentiles of a plane that become 0 and 1, as users of both peers scale an image."""


LARGE_PX = 50
"""Objects of this diameter and more want larger tiles."""


@dataclass(frozen=True)
class Plane:
    """A plane with its reference.

    Attributes:
        image: (y, x) float32, 0..1 between two percentiles of its own.
        classes: (y, x) uint8, 255 where nobody annotated.
        instances: (y, x) uint32, 0 background.
    """

    image: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Found:
    """What a peer makes of a plane.

    Attributes:
        instances: (y, x) uint32.
        background: its probability, (y, x) uint8 0..255; None from a peer that has none.
    """

    instances: npt.NDArray[np.uint32]
    background: npt.NDArray[np.uint8] | None


def read_planes(table: Path, config: Config) -> dict[str, list[Plane]]:
    """Return the planes of each stack of a table, by its name."""
    with tempfile.TemporaryDirectory() as place, table.open(encoding="utf-8", newline="") as file:
        found = {}
        for row in csv.DictReader(file, delimiter="\t"):
            record = Path(place, row["stack"], "ingest.json")
            columns = ("stack", "image", "labels", "axes", "label_axes", "planes")
            ingest(Source(**{name: row[name] for name in columns}), config, record)
            found[row["stack"]] = planes_of(record)
    return found


def planes_of(record: Path) -> list[Plane]:
    """Return the planes of an ingested stack with labels."""
    stack = Stack.open(record)
    _, height, width = stack.grid.shape
    whole = slice(0, height), slice(0, width)
    classes, instances = stack.reference(CLASSES), stack.reference(INSTANCES)
    return [
        Plane(
            scaled(stack.image.read(plane, *whole)[0]),
            classes.read_label(plane, *whole),
            instances.read_label(plane, *whole),
        )
        for plane in range(stack.grid.planes)
    ]


def scaled(raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return grey values that are 0 and 1 at two percentiles of the plane."""
    low, high = np.percentile(raw, (LOW, HIGH))
    return ((raw - low) / max(high - low, 1e-6)).astype(np.float32)


def looked_at(check: Sequence[Plane], config: Config) -> list[Plane]:
    """Return the planes that `calibrate` would look at."""
    places = [(0, number) for number in range(len(check))]
    chosen = chosen_planes(places, [plane.image.size for plane in check], config.calibrate.mpx * 1e6)
    return [check[number] for _, number in chosen]


def areas_of(planes: Sequence[Plane]) -> npt.NDArray[np.int64]:
    """Return the areas of the reference's objects, px."""
    each = [np.unique(plane.instances[plane.instances > 0], return_counts=True)[1] for plane in planes]
    return np.concatenate(each)


def large(planes: Sequence[Plane]) -> bool:
    """Return whether half of the objects are wider than `LARGE_PX`."""
    return bool(2 * np.sqrt(np.median(areas_of(planes)) / np.pi) >= LARGE_PX)
