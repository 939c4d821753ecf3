"""Report: one self-contained page of a run, from its records and volumes only.

The same results give the same bytes, apart from how long the jobs of predict took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unet_pipeline import __version__
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import Progress
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import sha256_file, write_text
from unet_pipeline.records.layout import CARD_FILE, PICTURES
from unet_pipeline.records.provenance import provenance
from unet_pipeline.report.flow import Stage, flow
from unet_pipeline.report.html import (
    Markup,
    count,
    details,
    document,
    facts,
    flattened,
    grid,
    joined,
    link,
    number,
    paragraph,
    plural,
    section,
    tag,
)
from unet_pipeline.report.picture_files import write_pictures
from unet_pipeline.report.results import ModelResult, StackResult, open_result
from unet_pipeline.report.score_tables import named, score_tables
from unet_pipeline.report.stack_section import stack_section, versions
from unet_pipeline.report.training_section import training_section

PICTURED = 40
"""Stacks that get pictures; of more the page would be too large to open. The scores of all are shown."""

CARDS = 8
"""Scored stacks whose SEG stands at the head of the page."""


def report(model: Path, stacks: Sequence[Path], config: Config, output: Path) -> None:
    """Write the page and, where `report.pictures` asks for them, pictures as files beside it.

    Args:
        model: model folder.
        stacks: `stitch.json` of each predicted stack, `ingest.json` of each other; what else there is lies beside.
        config: all sections are shown; section report says how much is drawn.
        output: the HTML file; it appears whole or not at all.

    Raises:
        PipelineError: a record is missing, foreign, or of another model; a stack is named twice.
    """
    with claim(output) as mine:
        found = ModelResult.open(model)
        results = [open_result(path, found) for path in stacks]
        _check_names(results)
        page = _drawn(found, results, config)
        write_pictures(found, results, config.report, output.with_name(PICTURES), mine.check)
        write_text(output, page, mine.check)


def _drawn(found: ModelResult, results: Sequence[StackResult], config: Config) -> str:
    with Progress(len(results) + 1, "report") as progress:
        anchors = {result.name: f"stack-{index}" for index, result in enumerate(results, 1)}
        progress.advance()
        sections = []
        for index, result in enumerate(results):
            sections.append(stack_section(result, anchors[result.name], config.report, index < PICTURED))
            progress.advance(note=result.name)
    return _page(found, results, anchors, sections, config)


def _check_names(results: Sequence[StackResult]) -> None:
    twice = [name for name, times in Counter(result.name for result in results).items() if times > 1]
    if twice:
        raise PipelineError("--stacks", "each stack once", f"{twice[0]} twice", fix="name one record of each stack")


def _page(
    model: ModelResult, results: Sequence[StackResult], anchors: dict[str, str], sections: list[Markup], config: Config
) -> str:
    title = "Segmentation report"
    parts = [
        _header(title, results, anchors),
        section(2, "flow", "Flow", flow(stages(model, results))),
        section(2, "training", "Training", training_section(model)),
        section(2, "scores", "Scores", score_tables(results, anchors)),
        section(2, "stacks", "Stacks", *_too_many(results), *sections),
        section(2, "provenance", "Provenance", *_provenance(model, config)),
    ]
    main = tag("main", joined(["", *parts[1:], ""]))
    return document(title, joined([parts[0], main, tag("footer", paragraph(f"unet_pipeline {__version__}"))]))


def _header(title: str, results: Sequence[StackResult], anchors: dict[str, str]) -> Markup:
    planes, mpx = _size(results)
    predicted = sum(result.plan is not None for result in results)
    words = f"{plural(len(results), 'stack')}, {plural(planes, 'plane')}, {mpx}; {predicted} predicted."
    parts = [tag("h1", title), paragraph(words, kind="lead"), *_headline(results, anchors)]
    links = [("training", "Training"), ("scores", "Scores"), *((anchors[one.name], one.name) for one in results)]
    places = joined((link(target, text) for target, text in [*links, ("provenance", "Provenance")]), " ")
    return tag("header", joined(["", *parts, tag("nav", places, {"aria-label": "Parts of the page"}), ""]))


def _headline(results: Sequence[StackResult], anchors: dict[str, str]) -> Iterator[Markup]:
    """Yield the instance score of each scored stack, as much as fits the head of a page."""
    scored = [result for result in results if result.metrics is not None]
    if scored:
        yield grid([_card(result, anchors) for result in scored[:CARDS]], "cards")
    if len(scored) > CARDS:
        values = sorted(result.seg for result in scored if result.seg is not None)
        median = number(values[len(values) // 2]) if values else None
        yield paragraph(f"{len(scored) - CARDS} more in ", link("scores", "the tables"), f"; median SEG {median}.")


def _card(result: StackResult, anchors: dict[str, str]) -> Markup:
    instances = (result.metrics or {})["instances"]
    half = number(instances["ap"]["0.50"]["average_precision"])
    words = f"AP50 {half}; {plural(instances['objects'], 'object')}, {count(instances['found'])} found"
    if len(result.model.card.classes) > 2:
        words += f"; mIoU {number((result.metrics or {})['pixels']['mean_iou'])}"
    parts = [
        paragraph("SEG · ", named(result, anchors[result.name]), kind="what"),
        paragraph(number(result.seg), kind="big"),
        paragraph(words, kind="what"),
    ]
    return tag("div", joined(parts, ""), {"class": "card"})


def _too_many(results: Sequence[StackResult]) -> list[Markup]:
    if len(results) <= PICTURED:
        return []
    return [paragraph(f"Only the first {PICTURED} of {len(results)} stacks have pictures here.", kind="note")]


def _size(results: Sequence[StackResult]) -> tuple[int, str]:
    shapes = [result.stack.grid.shape for result in results]
    pixels = sum(planes * height * width for planes, height, width in shapes)
    size = f"{pixels / 1e9:,.3g} Gpx" if pixels >= 1e9 else f"{pixels / 1e6:,.3g} Mpx"
    return sum(shape[0] for shape in shapes), size


def stages(model: ModelResult, results: Sequence[StackResult]) -> list[Stage]:
    """Return the stages of the run with what each of them did."""
    planes, size = _size(results)
    weighed = [result.weigh for result in results if result.weigh is not None]
    plans = [result.plan.plan for result in results if result.plan is not None]
    tiles = sum(plan.tile_count(range(plan.shard_count)) for plan in plans)
    labelled = sum(result.stack.labelled for result in results)
    objects = sum(result.stitch["objects"] for result in results if result.stitch is not None)
    seg = [result.seg for result in results if result.seg is not None]
    scored = sum(result.metrics is not None for result in results)
    shards = plural(sum(plan.shard_count for plan in plans), "shard")
    return [
        Stage("stacks", (plural(len(results), "stack"), plural(planes, "plane")), 0, 0.5),
        Stage("ingest", (size, f"{labelled} labelled"), 1, 0.5),
        Stage("weigh", _weigh_lines(weighed), 2, 0, bool(weighed)),
        Stage("train", _train_lines(model), 3, 0),
        Stage("tile", (plural(tiles, "tile"), shards), 2, 1, bool(plans)),
        Stage("predict", (plural(sum(plan.regions for plan in plans), "region"), *_took(results)), 4, 0.5, bool(plans)),
        Stage("stitch", (plural(objects, "object"), "each shard once"), 5, 0.5, bool(plans)),
        Stage("evaluate", (_seg(seg), plural(scored, "stack") + " scored"), 6, 0.5, bool(scored)),
    ]


def _weigh_lines(weighed: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    if not weighed:
        return ("not used here",)
    options = weighed[0]["provenance"]["config"]["weigh"]
    return plural(len(weighed), "stack"), f"w0 {options['w0']:g}, σ {options['sigma']:g} {options['unit']}"


def _train_lines(model: ModelResult) -> tuple[str, ...]:
    steps = model.card.training.get("steps")
    first = f"{count(steps)} steps" if isinstance(steps, int) else "finished model"
    parameters = model.parameters
    return (first,) if parameters is None else (first, _short(parameters) + " parameters")


def _short(value: int) -> str:
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k" if value >= 1e3 else str(value)


def _took(results: Sequence[StackResult]) -> tuple[str, ...]:
    known = [result.seconds for result in results if result.plan is not None]
    if not known or None in known:
        return ()
    seconds = sum(one or 0 for one in known)
    return (f"{seconds / 60:,.1f} min" if seconds >= 120 else f"{seconds:.3g} s",)


def _seg(values: Sequence[float]) -> str:
    if not values:
        return "no score"
    mean = number(sum(values) / len(values))
    return f"SEG {mean}" if len(values) == 1 else f"mean SEG {mean}"


def _provenance(model: ModelResult, config: Config) -> Iterator[Markup]:
    everything = sections_of(config, "report")
    yield facts(
        "Model",
        [
            ("Folder", model.folder),
            (f"SHA-256 of {CARD_FILE}", sha256_file(model.folder / CARD_FILE)),
            ("SHA-256 of the weights", model.card.weights_sha256 or None),
        ],
    )
    made = provenance(everything)
    trained = model.card.training.get("provenance")
    yield details(
        "What made this page, and the model",
        versions({"report": made} | ({"train": trained} if isinstance(trained, dict) else {})),
        facts("Configuration", flattened(everything)),
    )
