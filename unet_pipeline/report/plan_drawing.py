"""The tile plan of a stack as drawings: the plane with shards and tiles, and one tile with its margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.mirrored import mirrored, read_window
from unet_pipeline.images.pictures import as_grey
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.predict.plan import Plan, Tile
from unet_pipeline.report.curves import drawn_png
from unet_pipeline.report.levels import STRIP_PX, fitting_level, read_image
from unet_pipeline.report.panels import Panel, shown_normaliser
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import View
from unet_pipeline.stacks.stack import Stack

if TYPE_CHECKING:  # imported where something is drawn, as in `curves`
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_PX = 480
"""Longest side of the picture behind a drawing, px."""

MOST_LINES = 64
"""More tile lines than this along an axis would run together: then only those of the first shard are drawn."""

SHARD, TILE, KEEP, READ = "#0b2a4a", "#56b4e9", "#0072b2", "#d55e00"
WIDTH_IN = 3.6

PALE, PALER = 178, 68
"""Opacity of the picture, 0..255, so that dark and light lines show on any image; paler beyond the image."""

Extent = tuple[float, float, float, float]
"""(x, y, width, height), px"""

Edges = tuple[list[int], list[int], int, int]
"""Rows and columns where lines lie, and how far they go: (rows, columns, height, width), px"""


@dataclass(frozen=True)
class PlanSection:
    """What `plans.html` shows: the results whose plans it tells in numbers, and drawings of the first plan."""

    results: list[StackResult]
    drawings: list[Panel]

    @classmethod
    def of(cls, results: Sequence[StackResult]) -> PlanSection:
        """Gather the plans of all stacks that are predicted."""
        predicted = [result for result in results if result.plan is not None]
        return cls(predicted, [panel for result in predicted[:1] for panel in _panels(result)])


def _panels(result: StackResult) -> list[Panel]:
    assert result.plan is not None
    stack, plan, plane = result.stack, result.plan.plan, result.stack.grid.planes // 2
    shades, (_, height, width), read = shown_normaliser(stack), plan.shape, " × ".join(map(str, plan.read[1:]))
    tiles = "tiles" if tile_edges(plan)[2:] == plan.shape[1:] else "tiles of the first shard"
    return [
        Panel(
            f"{result.name}, plane {plane}",
            drawn_png(overview(stack, plan, plane, shades), cut=True),
            f"Plan of a plane of {height} × {width} px: shards, tiles, and the margins of the first tile",
            "with its mirrored surroundings, paler.",
            [(SHARD, "image and shards"), (TILE, tiles), (KEEP, "first tile: kept"), (READ, "first tile: read")],
        ),
        Panel(
            "First tile",
            drawn_png(detail(stack, plan, plane, shades), cut=True),
            f"What the network reads for the first tile, {read} px",
            f"as the network reads it, {read} px; paler what is mirrored beyond the image. Lengths in px.",
            [(KEEP, "kept"), (READ, "margins")],
        ),
    ]


def overview(stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> Figure:
    """Return a drawing of a plane: its outline, shards, tiles, what surrounds it by mirroring, and the first tile."""
    _, height, width = plan.shape
    before, after, first = plan.geometry.before, plan.geometry.after, first_tile(plan, plane)
    figure, axes = _canvas((-before, -before, width + before + after, height + before + after))
    _backdrop(axes, stack, plan, plane, normaliser)
    _lines(axes, tile_edges(plan), TILE, 0.6)
    _lines(axes, shard_edges(plan), SHARD, 1.2)
    _rectangle(axes, (0, 0, width, height), SHARD)
    _rectangle(
        axes, (first.x, first.y, first.write.columns.stop - first.x, first.write.rows.stop - first.y), KEEP, filled=True
    )
    _rectangle(axes, (first.x - before, first.y - before, plan.read[2], plan.read[1]), READ, dashed=True)
    return figure


def first_tile(plan: Plan, plane: int) -> Tile:
    """Return the first tile of a plane, in its upper left corner: its margins leave the image."""
    shards = plan.shard_grid[1] * plan.shard_grid[2]
    return next(plan.tiles(plan.shard_at(plane // plan.along_z.shard * shards)))


def detail(stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> Figure:
    """Return a drawing of the first tile of a plane: exactly what the network reads, and what it keeps of it."""
    tile, before, (height, width) = first_tile(plan, plane), plan.geometry.before, plan.read[1:]
    y, x, whole, step = tile.y - before, tile.x - before, (0, 0, width, height), _step(plan.read[1:])
    figure, axes = _canvas(whole)
    inside = _inside(y, height, plan.shape[1])[::step], _inside(x, width, plan.shape[2])[::step]
    _picture(axes, normaliser(sampled(stack, plane, (y, x), plan.read[1:])), inside, whole)
    _rectangle(
        axes, (before, before, tile.write.columns.stop - tile.x, tile.write.rows.stop - tile.y), KEEP, filled=True
    )
    _rectangle(axes, whole, READ, dashed=True)
    for axis, size in enumerate((height, width)):
        edges = (0, before, before + plan.keep[axis], size)
        for start, end, colour in zip(edges, edges[1:], (READ, KEEP, READ), strict=False):
            _length(axes, start, end, -0.03 * max(height, width), colour, down=axis == 0)
    return figure


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
    step = _step(size)
    high = STRIP_PX // step * step or step
    strips = []
    for y in range(0, size[0], high):
        strip = read_window(stack.image, plane, start[0] + y, start[1], (min(high, size[0] - y), size[1]))
        strips.append(strip[:, ::step, ::step])
    return np.concatenate(strips, axis=1)


def _step(size: tuple[int, int]) -> int:
    return -(-max(size) // SHOWN_PX)


def _backdrop(axes: Axes, stack: Stack, plan: Plan, plane: int, normaliser: Normaliser) -> None:
    """Draw the coarse picture of the plane and of its mirrored surroundings, if it can be had cheaply."""
    _, height, width = plan.shape
    level = fitting_level((height, width), SHOWN_PX)
    values = read_image(stack, View(plane, slice(0, height), slice(0, width)), level)
    if values is None:
        return
    factor = 2**level
    before, after = (-(-side // factor) for side in (plan.geometry.before, plan.geometry.after))
    (high, wide), margins = values.shape[1:], before + after
    step = _step((high + margins, wide + margins))
    rows, columns = (mirrored(-before, before + size + after, size)[::step] for size in (high, wide))
    inside = _inside(-before, high + margins, high)[::step], _inside(-before, wide + margins, wide)[::step]
    box = -before * factor, -before * factor, (wide + margins) * factor, (high + margins) * factor
    _picture(axes, normaliser(values[:, rows[:, None], columns[None, :]]), inside, box)


def _inside(start: int, count: int, size: int) -> npt.NDArray[np.bool_]:
    """Return which of `count` places from `start` on lie within 0 .. `size`."""
    places = np.arange(start, start + count)
    return (places >= 0) & (places < size)


def tile_edges(plan: Plan) -> Edges:
    """Return the rows and columns where tiles begin; where they are too many, those of the first shard."""
    _, height, width = plan.shape
    rows, columns = (list(range(0, size, keep)) for size, keep in zip((height, width), plan.keep, strict=True))
    if max(len(rows), len(columns)) > MOST_LINES:
        height, width = min(height, plan.shard[0]), min(width, plan.shard[1])
        rows, columns = list(range(0, height, plan.keep[0])), list(range(0, width, plan.keep[1]))
    return rows, columns, height, width


def shard_edges(plan: Plan) -> Edges:
    """Return the rows and columns where shards begin."""
    _, height, width = plan.shape
    return list(range(0, height, plan.shard[0])), list(range(0, width, plan.shard[1])), height, width


def _canvas(box: Extent) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    x, y, width, height = box
    # Between a band and a square: what is much longer than wide is drawn thin, not as a picture of endless length.
    figure = Figure(figsize=(WIDTH_IN, WIDTH_IN * min(max(height / width, 0.3), 1.5)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(x, x + width), ylim=(y + height, y), aspect="equal")
    axes.set_axis_off()
    return figure, axes


def _picture(axes: Axes, values: npt.NDArray[Any], inside: tuple[npt.NDArray[np.bool_], ...], box: Extent) -> None:
    """Draw normalised values (channels, y, x), paler where they lie beyond the image."""
    x, y, width, height = box
    opacity = np.where(inside[0][:, None] & inside[1][None, :], PALE, PALER).astype(np.uint8)
    picture, extent = np.dstack([as_grey(values), opacity]), (x, x + width, y + height, y)
    # Never smoothed: what is seen is what is stored, in a third of the bytes.
    axes.imshow(picture, extent=extent, interpolation="nearest", zorder=0)


def _lines(axes: Axes, edges: Edges, colour: str, width: float) -> None:
    rows, columns, high, wide = edges
    axes.hlines(rows, 0, wide, colors=colour, linewidths=width)
    axes.vlines(columns, 0, high, colors=colour, linewidths=width)


def _rectangle(axes: Axes, box: Extent, colour: str, dashed: bool = False, filled: bool = False) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    if filled:
        axes.add_patch(Rectangle((x, y), width, height, color=colour, alpha=0.28, linewidth=0))
    style = "--" if dashed else "-"
    axes.add_patch(
        Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2, linestyle=style, clip_on=False)
    )


def _length(axes: Axes, start: int, end: int, beside: float, colour: str, down: bool) -> None:
    """Write a length, in px, above the drawing, or down its left side."""
    along, across, text = [start, end], [beside, beside], ((start + end) / 2, 1.6 * beside)
    place, sides = (text[::-1], ("right", "center")) if down else (text, ("center", "bottom"))
    axes.plot(across if down else along, along if down else across, color=colour, linewidth=1.2, clip_on=False)
    axes.text(place[0], place[1], str(end - start), color=colour, fontsize=8, ha=sides[0], va=sides[1])
