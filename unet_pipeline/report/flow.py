"""The flow of a run as a drawing: stages in the order data goes, with what each of them did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unet_pipeline.report.html import Markup, joined, safe, tag

BOX_WIDTH, BOX_HEIGHT = 128.0, 66.0
GAP = 22.0


@dataclass(frozen=True)
class Stage:
    """A stage of the flow.

    Attributes:
        name: its verb.
        lines: what it did, at most two short lines.
        along: place along the flow, from 0.
        across: 0 and 1 are side by side, 0.5 is between them.
        used: whether this run had any use for it.
    """

    name: str
    lines: tuple[str, ...]
    along: int
    across: float
    used: bool = True


EDGES = (
    ("stacks", "ingest"), ("ingest", "weigh"), ("ingest", "tile"), ("weigh", "train"), ("train", "predict"),
    ("tile", "predict"), ("predict", "stitch"), ("stitch", "evaluate"),
)  # fmt: skip


def flow(stages: Sequence[Stage]) -> Markup:
    """Return the drawing twice, for wide windows and for narrow ones; the style shows one of them."""
    return tag("div", joined([_drawn(stages, True, "wide"), _drawn(stages, False, "tall")]), {"class": "flow"})


def _drawn(stages: Sequence[Stage], lying: bool, kind: str) -> Markup:
    boxes = {stage.name: _corner(stage, lying) for stage in stages}
    width, height = (max(corner[axis] for corner in boxes.values()) + (BOX_WIDTH, BOX_HEIGHT)[axis] for axis in (0, 1))
    unused = {stage.name for stage in stages if not stage.used}
    edges = [_edge(boxes[a], boxes[b], lying, bool({a, b} & unused)) for a, b in EDGES if a in boxes and b in boxes]
    said = "; ".join(f"{stage.name}: {', '.join(stage.lines)}" for stage in stages)
    attributes = {
        "class": kind,
        "viewBox": f"-1 -1 {width + 2:g} {height + 2:g}",
        "role": "img",
        "aria-label": f"Flow of the run. {said}",
    }
    return tag("svg", joined(["", *edges, *(_box(stage, *boxes[stage.name]) for stage in stages), ""]), attributes)


def _corner(stage: Stage, lying: bool) -> tuple[float, float]:
    if lying:
        return stage.along * (BOX_WIDTH + GAP), stage.across * (BOX_HEIGHT + GAP)
    return stage.across * (BOX_WIDTH + GAP), stage.along * (BOX_HEIGHT + GAP)


def _box(stage: Stage, x: float, y: float) -> Markup:
    fill, stroke, ink = ("#f6f8fa", "#b8c2cd", "#1b2430") if stage.used else ("#ffffff", "#dde3ea", "#8a94a0")
    frame = {"x": f"{x:g}", "y": f"{y:g}", "width": BOX_WIDTH, "height": BOX_HEIGHT, "rx": 7, "fill": fill}
    parts = [tag("rect", "", frame | {"stroke": stroke})]
    for line, text in enumerate((stage.name, *stage.lines)):
        style = {"font-size": 14, "font-weight": 650} if line == 0 else {"font-size": 12, "font-weight": 400}
        colour = "#5a6675" if line and stage.used else ink
        place = {"x": f"{x + BOX_WIDTH / 2:g}", "y": f"{y + 21 + 17 * line:g}", "text-anchor": "middle"}
        parts.append(tag("text", safe(text), place | style | {"fill": colour}))
    return joined(parts, "")


def _edge(start: tuple[float, float], end: tuple[float, float], lying: bool, faint: bool) -> Markup:
    """Return an arrow that leaves a box on the side of the flow's end and turns half-way."""
    along, across = (0, 1) if lying else (1, 0)
    size = (BOX_WIDTH, BOX_HEIGHT)
    out, into = start[along] + size[along], end[along] - 1
    a, b = start[across] + size[across] / 2, end[across] + size[across] / 2
    turn = into - GAP / 2
    points = [(out, a), (turn, a), (turn, b), (into, b)]
    head = [(into, b), (into - 7, b - 4), (into - 7, b + 4)]
    colour = "#dde3ea" if faint else "#5a6675"
    line = {"d": _path(points, lying), "fill": "none", "stroke": colour, "stroke-width": 1.5}
    return joined([tag("path", "", line), tag("path", "", {"d": _path(head, lying) + "Z", "fill": colour})], "")


def _path(points: Sequence[tuple[float, float]], lying: bool) -> str:
    return "M" + "L".join(f"{a:g} {b:g}" if lying else f"{b:g} {a:g}" for a, b in points)
