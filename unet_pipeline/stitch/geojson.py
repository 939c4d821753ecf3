"""Outlines of objects as GeoJSON, as QuPath reads it: a detection for each, with its class and its measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unet_pipeline.images.colours import class_colour
from unet_pipeline.objects.outlines import Edges, Ring
from unet_pipeline.records.files import Check, atomic_path
from unet_pipeline.stitch.object_columns import Columns
from unet_pipeline.stitch.sums import Sums

NAMING = ("id", "plane", "class")
"""Columns that are no measures."""


@contextmanager
def geojson_file(path: Path, check: Check) -> Iterator[Callable[[Any], None]]:
    """Write a collection of features, which appears whole or not at all, by the function that is given."""
    with atomic_path(path, check) as partial, partial.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        before = "\n"

        def put(feature: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(feature, allow_nan=False))
            before = ",\n"

        yield put
        file.write("\n]}\n")


def features(edges: Edges, plane: int, sums: Sums, columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield a feature for each of some objects; of a volume for each connected part in each plane, without measures.

    An object of a volume may have parts far from each other in a plane, which are whole at different times.

    Args:
        edges: all of these objects in this plane.
        plane: its number.
        sums: of all objects; of these all is known.
        columns: the measures.
    """
    polygons_of = edges.polygons()
    ids = np.array(list(polygons_of), np.uint32)
    rows = columns.rows(ids, sums.of(ids))
    measures = {} if columns.deep else {name: values for name, values in rows.items() if name not in NAMING}
    at = {"c": -1, "z": plane, "t": 0} if columns.grid.plane_axis == "z" else {"c": -1, "z": 0, "t": plane}
    for index, (one, polygons) in enumerate(polygons_of.items()):
        name = str(rows["class"][index])
        colour = class_colour(1 + columns.classes.index(name))
        for together in [[polygon] for polygon in polygons] if columns.deep else [polygons]:
            yield {
                "type": "Feature",
                "geometry": _geometry(together) | {"plane": at},
                "properties": {
                    "objectType": "detection",
                    "name": str(one),
                    "classification": {"name": name, "color": list(colour)},
                    "measurements": _known({key: values[index] for key, values in measures.items()}),
                },
            }


def _known(values: dict[str, np.generic]) -> dict[str, float]:
    """Return measures as numbers; those without a value are left out."""
    return {key: value.item() + 0 for key, value in values.items() if value == value}


def _geometry(polygons: list[list[Ring]]) -> dict[str, Any]:
    """Return polygons of corners (column, row); in GeoJSON a ring ends where it begins."""
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}
