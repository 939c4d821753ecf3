"""The tile plan of a stack as drawings: the plane with shards and tiles, and one tile with its margins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.mirrored import mirrored, read_window
from unet_pipeline.images.pictures import as_grey, css, png
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.predict.plan import Plan, Tile
from unet_pipeline.report.html import Markup, data_uri, joined, tag
from unet_pipeline.report.views import coarse_level
from unet_pipeline.stacks.stack import Stack

SHOWN_PX = 480
"""Longest side of the picture behind a drawing, px."""

LARGEST_SOURCE_PX = 4096
"""Planes of an image without pyramid are drawn without a picture when they are longer."""

MOST_LINES = 64
"""More tile lines than this along an axis would run together: then only those of the first shard are drawn."""

SHARD, TILE, KEEP, READ = "#0b2a4a", "#56b4e9", "#0072b2", "#d55e00"
STRIP_PX = 256

Box = tuple[float, float, float, float]
"""(x, y, width, height)"""


def overview(stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> Markup:
    """Return a drawing of a plane: its outline, shards, tiles, what surrounds it by mirroring, and the first tile."""
    _, height, width = plan.shape
    before, after = plan.geometry.before, plan.geometry.after
    outer = (-before, -before, width + before + after, height + before + after)
    first = first_tile(plan, plane)
    shapes = [
        *_backdrop(stack, plan, plane, normaliser),
        _veil(outer, (0, 0, width, height)),
        *_lines(_tile_edges(plan), TILE, 1),
        *_lines(_shard_edges(plan), SHARD, 2),
        _rectangle((0, 0, width, height), SHARD, 2),
        _rectangle((first.x, first.y, first.width, first.height), KEEP, 2, fill=KEEP),
        _rectangle(read_box(plan, first), READ, 2, dashes="6 4"),
    ]
    label = f"Plan of a plane of {height} × {width} px: shards, tiles, and the margins of the first tile"
    rim = 0.006 * max(outer[2:])
    around = (outer[0] - rim, outer[1] - rim, outer[2] + 2 * rim, outer[3] + 2 * rim)
    return _drawing(around, shapes, label)


def first_tile(plan: Plan, plane: int) -> Tile:
    """Return the first tile of a plane, in its upper left corner: its margins leave the image."""
    shards = plan.shard_grid[1] * plan.shard_grid[2]
    return next(plan.tiles(plan.shard_at(plane * shards)))


def read_box(plan: Plan, tile: Tile) -> Box:
    """Return the window a tile reads, px of the image; it may leave the image."""
    before = plan.geometry.before
    return tile.x - before, tile.y - before, plan.read[1], plan.read[0]


def detail(stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> Markup:
    """Return a drawing of the first tile of a plane: exactly what the network reads, and what it keeps of it."""
    tile, (height, width) = first_tile(plan, plane), plan.read
    x, y = read_box(plan, tile)[:2]
    unit = max(height, width) / 400
    around = (-44 * unit, -44 * unit, width + 46 * unit, height + 46 * unit)
    left, top = max(0.0, -x), max(0.0, -y)
    inside = (left, top, min(width, plan.shape[2] - x) - left, min(height, plan.shape[1] - y) - top)
    kept = (plan.geometry.before, plan.geometry.before, tile.width, tile.height)
    grey = normaliser(sampled(stack, plane, (round(y), round(x)), plan.read))
    shapes = [
        _image(grey, (0, 0, width, height)),
        _veil((0, 0, width, height), inside),
        _rectangle(inside, SHARD, 2),
        _rectangle(kept, KEEP, 2, fill=KEEP),
        _rectangle((0, 0, width, height), READ, 2, dashes="6 4"),
        *_measures(plan, 1, unit, across=False),
        *_measures(plan, 0, unit, across=True),
    ]
    return _drawing(around, shapes, f"What the network reads for the first tile, {height} × {width} px")


def sampled(stack: Stack, plane: int, start: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Return a window, mirrored where it leaves the image, of which every n-th row and column is kept.

    It is read in strips, so that memory does not grow with the window.

    Args:
        stack: the stack.
        plane: its plane.
        start: (row, column), may be negative.
        size: (height, width), px.

    Returns:
        (channels, y, x), at most `SHOWN_PX` long.
    """
    step = -(-max(size) // SHOWN_PX)
    high = STRIP_PX // step * step or step
    strips = []
    for y in range(0, size[0], high):
        strip = read_window(stack.image, plane, start[0] + y, start[1], (min(high, size[0] - y), size[1]))
        strips.append(strip[:, ::step, ::step])
    return np.concatenate(strips, axis=1)


def _backdrop(stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> Iterable[Markup]:
    """Yield the coarse picture of the plane and of its mirrored surroundings, if it can be had cheaply."""
    _, height, width = plan.shape
    if not stack.facts["image"]["in_place"]:
        level = coarse_level(stack.store)
        values, factor = level.read(plane), level.factor
    elif max(height, width) <= LARGEST_SOURCE_PX:
        values, factor = sampled(stack, plane, (0, 0), (height, width)), -(-max(height, width) // SHOWN_PX)
    else:
        return
    before, after = (-(-side // factor) for side in (plan.geometry.before, plan.geometry.after))
    rows, columns = (mirrored(-before, before + size + after, size) for size in values.shape[1:])
    step = -(-max(len(rows), len(columns)) // SHOWN_PX)
    picture = values[:, rows[::step][:, None], columns[::step][None, :]]
    box = -before * factor, -before * factor, len(columns) * factor, len(rows) * factor
    yield _image(normaliser(picture), box)


def _tile_edges(plan: Plan) -> tuple[list[float], list[float], float, float]:
    """Return the rows and columns where tiles begin, and how far the lines go: (rows, columns, height, width)."""
    _, height, width = plan.shape
    rows, columns = (
        [first for start in range(0, size, shard) for first in range(start, min(start + shard, size), keep)]
        for size, shard, keep in zip((height, width), plan.shard, plan.keep, strict=True)
    )
    if max(len(rows), len(columns)) > MOST_LINES:
        height, width = min(height, plan.shard[0]), min(width, plan.shard[1])
        rows, columns = list(range(0, height, plan.keep[0])), list(range(0, width, plan.keep[1]))
    return [float(y) for y in rows], [float(x) for x in columns], height, width


def _shard_edges(plan: Plan) -> tuple[list[float], list[float], float, float]:
    _, height, width = plan.shape
    rows, columns = range(0, height, plan.shard[0]), range(0, width, plan.shard[1])
    return [float(y) for y in rows], [float(x) for x in columns], height, width


def all_tiles_drawn(plan: Plan) -> bool:
    """Whether the overview shows all tiles, not those of the first shard alone."""
    edges = _tile_edges(plan)
    return edges[2:] == plan.shape[1:]


def _lines(edges: tuple[list[float], list[float], float, float], colour: str, width: float) -> list[Markup]:
    rows, columns, high, wide = edges
    path = "".join([*(f"M0 {y:.9g}H{wide:.9g}" for y in rows if y), *(f"M{x:.9g} 0V{high:.9g}" for x in columns if x)])
    return [_path(path, colour, width)] if path else []


def _measures(plan: Plan, axis: int, unit: float, across: bool) -> list[Markup]:
    """Return the lengths before, kept and after, in px, beside the drawing of a tile."""
    geometry, keep = plan.geometry, plan.keep[axis]
    edges = (0, geometry.before, geometry.before + keep, geometry.before + keep + geometry.after)
    shapes = []
    for start, end, colour in zip(edges, edges[1:], (READ, KEEP, READ), strict=False):
        middle, inset = (start + end) / 2, min(2 * unit, (end - start) / 4)
        ends = start + inset, end - inset
        line = (
            f"M{-8 * unit:.9g} {ends[0]:.9g}V{ends[1]:.9g}"
            if across
            else f"M{ends[0]:.9g} {-8 * unit:.9g}H{ends[1]:.9g}"
        )
        place = (
            {"x": f"{-14 * unit:.9g}", "y": f"{middle:.9g}"}
            if across
            else {"x": f"{middle:.9g}", "y": f"{-20 * unit:.9g}"}
        )
        style = {"font-size": f"{14 * unit:.9g}", "fill": colour, "dominant-baseline": "middle"}
        anchor = {"text-anchor": "end" if across else "middle"}
        shapes += [_path(line, colour, 2), tag("text", str(end - start), place | style | anchor)]
    return shapes


def _drawing(around: Box, shapes: Iterable[Markup], label: str) -> Markup:
    view = " ".join(f"{value:.9g}" for value in around)
    return tag("svg", joined(["", *shapes, ""]), {"viewBox": view, "role": "img", "aria-label": label})


def _image(grey: npt.NDArray[Any], box: Box) -> Markup:
    place = _place(box) | {"preserveAspectRatio": "none", "href": data_uri(png(as_grey(grey)))}
    # Pale, so that dark and light lines show on any image.
    return tag("image", "", place | {"opacity": 0.7})


def _veil(outer: Box, inner: Box) -> Markup:
    """Return a bright veil over what lies outside of the image."""
    rings = "".join(
        f"M{x:.9g} {y:.9g}h{width:.9g}v{height:.9g}h{-width:.9g}Z" for x, y, width, height in (outer, inner)
    )
    return tag("path", "", {"d": rings, "fill": css((255, 255, 255)), "fill-opacity": 0.62, "fill-rule": "evenodd"})


def _rectangle(box: Box, colour: str, width: float, dashes: str | None = None, fill: str = "none") -> Markup:
    style = {"fill": fill, "fill-opacity": 0.28, "stroke": colour, "stroke-width": width, "stroke-dasharray": dashes}
    return tag("rect", "", _place(box) | style | {"vector-effect": "non-scaling-stroke"})


def _path(path: str, colour: str, width: float) -> Markup:
    style = {"d": path, "fill": "none", "stroke": colour, "stroke-width": width}
    return tag("path", "", style | {"vector-effect": "non-scaling-stroke"})


def _place(box: Box) -> dict[str, object]:
    return dict(zip(("x", "y", "width", "height"), (f"{value:.9g}" for value in box), strict=True))
