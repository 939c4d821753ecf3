"""What the page says of one stack: pictures, plan, proof and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from unet_pipeline.config.sections import Report as ReportOptions
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.report.html import (
    Markup,
    count,
    details,
    facts,
    figure,
    flattened,
    grid,
    joined,
    legend,
    number,
    paragraph,
    plural,
    section,
    table,
)
from unet_pipeline.report.panels import Panels, shown_normaliser, views
from unet_pipeline.report.plan_drawing import KEEP, READ, SHARD, TILE, all_tiles_drawn, detail, overview
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import View


def stack_section(result: StackResult, anchor: str, options: ReportOptions, pictured: bool = True) -> Markup:
    """Return all of a stack.

    Args:
        result: its records.
        anchor: where it is on the page.
        options: section `report`.
        pictured: whether there shall be pictures and drawings.
    """
    parts: list[object] = [paragraph(summary(result), kind="lead")]
    parts += [paragraph(note, kind="note") for note in result.notes]
    shown = views(result, options) if pictured else []
    for view in shown:
        parts += [
            section(4, f"{anchor}-plane-{view.plane}", _window(result, view), grid(Panels(result, view), "panels"))
        ]
    if result.plan is not None:
        parts.append(section(4, f"{anchor}-tiles", "Tile plan", *_plan(result, result.plan, shown)))
    if result.prove is not None:
        parts.append(section(4, f"{anchor}-proof", "Proof of seamlessness", *_proof(result.prove)))
    parts.append(details("Provenance", *_provenance(result)))
    return section(3, anchor, result.name, *parts)


def summary(result: StackResult) -> str:
    """Return the stack in one sentence."""
    grid_, stack = result.stack.grid, result.stack
    words = [
        f"{plural(grid_.planes, 'plane')} ({grid_.plane_axis}) of {count(grid_.height)} × {count(grid_.width)} px",
        f"{plural(stack.channels, 'channel')}, {stack.dtype}",
        _pixel_size(grid_.pixel_um),
        "labelled" if stack.labelled else "not labelled",
    ]
    if result.role is not None:
        words.append(f"used in {result.role}")
    if result.stitch is None:
        words.append("not predicted")
    else:
        words.append(f"{plural(result.stitch['objects'], 'object')} found")
    if result.metrics is not None:
        words.append(f"SEG {number(result.seg)}")
    return "; ".join(words) + "."


def _pixel_size(pixel_um: tuple[float, float] | None) -> str:
    if pixel_um is None:
        return "pixel size unknown"
    same = pixel_um[0] == pixel_um[1]
    return f"pixels of {pixel_um[1]:.4g} µm" if same else f"pixels of {pixel_um[0]:.4g} × {pixel_um[1]:.4g} µm"


def _window(result: StackResult, view: View) -> str:
    where = f"Plane {view.plane}"
    if view.shape == result.stack.grid.shape[1:]:
        return f"{where}, whole"
    rows, columns = (f"{part.start}–{part.stop - 1}" for part in (view.rows, view.columns))
    return f"{where}, rows {rows}, columns {columns}: where there is most to see"


def _plan(result: StackResult, plan: StackPlan, shown: list[View]) -> Iterator[Markup]:
    yield from _numbers(result, plan)
    yield _classes(result)
    if not shown:
        return
    planned, plane, shades = plan.plan, shown[0].plane, shown_normaliser(result.stack)
    keys = [(SHARD, "image and shards"), (TILE, "tiles"), (KEEP, "first tile: kept"), (READ, "first tile: read")]
    if not all_tiles_drawn(planned):
        keys[1] = (TILE, "tiles of the first shard")
    height, width = planned.read
    yield grid(
        [
            figure(
                overview(result.stack, planned, plane, shades), f"Plane {plane}",
                "with its mirrored surroundings, paler.", legend(keys),
            ),
            figure(
                detail(result.stack, planned, plane, shades), "First tile",
                f"as the network reads it, {height} × {width} px; paler what is mirrored beyond the image. "
                "Lengths in px.", legend([(KEEP, "kept"), (READ, "margins")]),
            ),
        ],
        "plans",
    )  # fmt: skip


def _numbers(result: StackResult, plan: StackPlan) -> Iterator[Markup]:
    planned = plan.plan
    tiles, pixels = planned.tile_count(range(planned.shard_count)), _pixels(result)
    read, kept = planned.read[0] * planned.read[1], planned.keep[0] * planned.keep[1]
    devices = sorted({str(region["compute"]["device"]) for region in result.regions})
    precisions = sorted({str(region["compute"]["precision"]) for region in result.regions})
    rows: list[tuple[object, object]] = [
        ("Tiles", f"{count(tiles)}, each keeps {planned.keep[0]} × {planned.keep[1]} px"),
        ("Margins", f"{planned.geometry.before} px before, {planned.geometry.after} px after, as the network sees"),
        ("Reads", f"{tiles * read / pixels:.2f} px and computes {tiles * kept / pixels:.2f} px per image px"),
        ("Shards", f"{count(planned.shard_count)} of at most {planned.shard[0]} × {planned.shard[1]} px"),
        ("Regions", f"{count(planned.regions)}, the jobs of predict"),
        ("Predicted", f"on {', '.join(devices) or '?'} in {', '.join(precisions) or '?'}{_speed(result)}"),
        ("Coverage", _coverage(result)),
        ("Objects", _objects(result)),
    ]
    yield facts("Plan and result in numbers", rows)


def _classes(result: StackResult) -> Markup:
    rows = [
        [one["name"], count(one["pixels"]), f"{100 * one['share']:.2f}", _micrometres(one["area_um2"])]
        for one in (result.stitch or {}).get("classes", [])
    ]
    return table("What the network gave to each class", ["Class", "pixels", "share, %", "area, µm²"], rows)


def _micrometres(area: float | None) -> str | None:
    return None if area is None else f"{area:,.0f}" if area >= 1000 else f"{area:.4g}"


def _speed(result: StackResult) -> str:
    if not result.seconds:
        return ""
    return f"; jobs took {result.seconds:,.1f} s, {_pixels(result) / 1e6 / result.seconds:.3g} Mpx/s"


def _coverage(result: StackResult) -> str:
    coverage = {} if result.stitch is None else result.stitch["coverage"]
    if not coverage.get("covered_once"):
        return "not proved"
    return f"proved: each of {plural(coverage['shards'], 'shard')} written once, its checksum unchanged at stitch"


def _objects(result: StackResult) -> str:
    stitched = result.stitch or {}
    area, pixel = stitched.get("area_px"), result.stack.grid.pixel_um
    if not area:
        return count(stitched.get("objects"))
    physical = f" ({area['median'] * pixel[0] * pixel[1]:.3g} µm²)" if pixel else ""
    span = f"{count(area['smallest'])} to {count(area['largest'])} px"
    return f"{count(stitched['objects'])}; area {count(area['median'])} px{physical} in the median, {span}"


def _proof(prove: dict[str, Any]) -> Iterator[Markup]:
    words = "every tiling gives the result of one pass over the whole image" if prove["seamless"] else "NOT seamless"
    limit = f"tolerance {prove['tolerance_std']:g} standard deviations of the logits, {prove['compute']['device']}"
    height, width = prove["crop"]
    yield paragraph(
        f"On {height} × {width} px of this stack, {words} ({limit}).", kind="good" if prove["seamless"] else "note"
    )
    rows = [
        [
            row["tiling"],
            f"{row['largest_difference_std']:.3g}",
            count(row["flipped_labels"]),
            f"{row['flipped_per_mpx']:,}",
        ]
        for row in (*prove["rows"], prove["paper_step"])
    ]
    head = ["Tiling", "largest difference (std)", "flipped labels", "flipped per Mpx"]
    yield table("Against one pass over the whole image", head, rows)


def _provenance(result: StackResult) -> Iterator[Markup]:
    records = {
        "ingest": result.stack.facts,
        "weigh": result.weigh,
        "predict": result.regions[0] if result.regions else None,
        "stitch": result.stitch,
        "evaluate": result.metrics,
        "prove": result.prove,
    }
    known = {step: record["provenance"] for step, record in records.items() if record is not None}
    yield facts("Source", _source(result))
    yield versions(known)
    inputs = [
        [f"{step}: {name}", checksum] for step, one in known.items() for name, checksum in one.get("inputs", {}).items()
    ]
    if inputs:
        yield table("Input records of each step, SHA-256", ["File", "checksum"], inputs, numbers=False)
    settings = [(f"{step}.{name}", text) for step, one in known.items() for name, text in flattened(one["config"])]
    yield facts("Configuration of each step", settings)


def versions(provenances: dict[str, dict[str, Any]]) -> Markup:
    """Return a table of what made each step: code, configuration and machine."""
    keys = ("unet_pipeline", "commit", "config_digest", "python", "machine")
    rows = [[step, *(one.get(key) for key in keys)] for step, one in provenances.items()]
    head = ["Step", "version", "commit", "configuration", "Python", "machine"]
    tables = [table("What made each step", head, rows, numbers=False)]
    packages = Counter(item for one in provenances.values() for item in one.get("packages", {}).items())
    if packages:
        tables.append(facts("Packages", [(name, version) for name, version in sorted(packages)]))
    return joined(tables)


def _source(result: StackResult) -> list[tuple[object, object]]:
    stack = result.stack.facts
    given = stack["provenance"]["config"].get("source", {})
    prints = stack["fingerprints"]
    rows: list[tuple[object, object]] = [
        ("Image", given.get("image", stack["image"].get("source"))),
        ("Fingerprint of the image", prints.get("image")),
    ]
    if result.stack.labelled:
        rows += [("Labels", given.get("labels")), ("Fingerprint of the labels", prints.get("labels"))]
    return rows


def _pixels(result: StackResult) -> int:
    planes, height, width = result.stack.grid.shape
    return planes * height * width
