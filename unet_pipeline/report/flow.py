"""The flow of a run: its stages and their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Weigh
from unet_pipeline.records.stack_records import WeighRecord
from unet_pipeline.report.render import count, number, plural
from unet_pipeline.report.results import ModelResult, StackResult


@dataclass(frozen=True)
class Stage:
    """A stage of the flow.

    Attributes:
        name: its verb; the style knows its place.
        lines: what it did, at most two short lines.
        used: whether this run had any use for it.
    """

    name: str
    lines: tuple[str, ...]
    used: bool = True


def stages(model: ModelResult, results: Sequence[StackResult]) -> list[Stage]:
    """Return the stages of the run with what each of them did."""
    planes, area = size(results)
    weighed = [result.weigh for result in results if result.weigh is not None]
    plans = [result.plan.plan for result in results if result.plan is not None]
    tiles = sum(plan.tile_count(range(plan.shard_count)) for plan in plans)
    labelled = sum(result.stack.labelled for result in results)
    objects = sum(result.stitch.objects for result in results if result.stitch is not None)
    seg = [result.seg for result in results if result.seg is not None]
    scored = sum(result.metrics is not None for result in results)
    measured = [result.measure for result in results if result.measure is not None]
    rows = sum(one.objects for one in measured)
    shards = plural(sum(plan.shard_count for plan in plans), "shard")
    return [
        Stage("stacks", (plural(len(results), "stack"), plural(planes, "plane"))),
        Stage("ingest", (area, f"{labelled} labelled")),
        Stage("weigh", _weigh_lines(weighed), bool(weighed)),
        Stage("train", _train_lines(model)),
        Stage("tile", (plural(tiles, "tile"), shards), bool(plans)),
        Stage("predict", (plural(sum(plan.regions for plan in plans), "region"), *_took(results)), bool(plans)),
        Stage("stitch", (plural(objects, "object"), _made(model)), bool(plans)),
        Stage("evaluate", (_seg(seg), plural(scored, "stack") + " scored"), bool(scored)),
        Stage("measure", (plural(rows, "row"),) if measured else ("not used here",), bool(measured)),
    ]


def size(results: Sequence[StackResult]) -> tuple[int, str]:
    """Return the planes of all stacks, and their pixels in words."""
    shapes = [result.stack.grid.shape for result in results]
    pixels = sum(planes * height * width for planes, height, width in shapes)
    words = f"{pixels / 1e9:,.3g} Gpx" if pixels >= 1e9 else f"{pixels / 1e6:,.3g} Mpx"
    return sum(shape[0] for shape in shapes), words


def _weigh_lines(weighed: Sequence[WeighRecord]) -> tuple[str, ...]:
    if not weighed:
        return ("not used here",)
    options = build(Weigh, weighed[0].provenance.config.get("weigh", {}), "weigh")
    widths = sorted({one.sigma_px for one in weighed})
    sigma = f"{options.sigma:g} {options.unit}" if options.sigma != "auto" else f"{_between(widths)} px"
    return plural(len(weighed), "stack"), f"w0 {options.w0:g}, σ {sigma}"


def _between(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"


def _train_lines(model: ModelResult) -> tuple[str, ...]:
    steps = model.card.training.get("steps")
    first = f"{count(steps)} steps" if isinstance(steps, int) else "finished model"
    parameters = model.parameters
    return (first,) if parameters is None else (first, _short(parameters) + " parameters")


def _made(model: ModelResult) -> str:
    """Say whether objects are made as validation chose, which the keys of section stitch may still overrule."""
    calibrated = model.calibration is not None and model.calibration.chosen_score is not None
    return "calibrated" if calibrated else "not calibrated"


def _short(value: int) -> str:
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k" if value >= 1e3 else str(value)


def _took(results: Sequence[StackResult]) -> tuple[str, ...]:
    taken = [result.seconds for result in results if result.plan is not None]
    if not taken or None in taken:
        return ()
    seconds = sum(one or 0 for one in taken)
    return (f"{seconds / 60:,.1f} min" if seconds >= 120 else f"{seconds:.3g} s",)


def _seg(values: Sequence[float]) -> str:
    if not values:
        return "no score"
    mean = number(sum(values) / len(values))
    return f"SEG {mean}" if len(values) == 1 else f"mean SEG {mean}"
