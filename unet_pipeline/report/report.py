"""Report: one self-contained page of a run, from its records and volumes only.

The same results give the same bytes, apart from how long the jobs of predict took.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unet_pipeline import __version__
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import Progress
from unet_pipeline.records.checksums import write_list
from unet_pipeline.records.claim import claim, remove
from unet_pipeline.records.files import Check, sha256_file, write_text
from unet_pipeline.records.layout import CALIBRATE_FILE, CARD_FILE, PICTURES, REPORT_RECORD, TABLES, list_path
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.score_records import ReportRecord
from unet_pipeline.records.tables import join_tables
from unet_pipeline.report.advice import advise
from unet_pipeline.report.answers import Answers
from unet_pipeline.report.flow import size, stages
from unet_pipeline.report.outlined import KEYS
from unet_pipeline.report.picture_files import write_pictures
from unet_pipeline.report.plan_drawing import PlanSection
from unet_pipeline.report.render import render
from unet_pipeline.report.results import ModelResult, StackResult, open_result
from unet_pipeline.report.stack_section import Made, StackSection
from unet_pipeline.report.training_section import training_section

PICTURED = 40
"""Stacks that get pictures; of more the page would be too large to open. The scores of all are shown."""

CARDS = 6
"""Scored stacks whose scores stand at the head of the page."""

NAMED = 12
"""Stacks that the head of the page has links to; of more, only to all of them."""


def report(model: Path, stacks: Sequence[Path], config: Config, output: Path) -> None:
    """Write the page, `report.json`, the objects of all stacks as one table and, where asked for, pictures beside it.

    Args:
        model: model folder.
        stacks: `stitch.json` of each predicted stack, `ingest.json` of each other; what else there is lies beside.
        config: all sections are shown; section report says how much is drawn, measure which tables there are.
        output: the HTML file; it appears whole or not at all.

    Raises:
        PipelineError: a record is missing, foreign, or of another model; a stack is named twice.
    """
    record = output.with_name(REPORT_RECORD)
    with claim(record, output, list_path(record), *map(output.with_name, TABLES.values())) as mine:
        found = ModelResult.open(model)
        results = [open_result(path, found) for path in stacks]
        _check_names(results)
        page = _drawn(found, _results_first(results), config)
        pictures = write_pictures(found, results, config.report, output.with_name(PICTURES), mine.check)
        write_text(output, page, mine.check)
        tables = _joined(results, config.measure.formats, output, mine.check)
        files = write_list(record, [output, *pictures, *tables], check=mine.check)
        calibration = [model / CALIBRATE_FILE] if found.calibration else []
        inputs = [model / CARD_FILE, *calibration, *(path for result in results for path in result.shown)]
        mine.write(ReportRecord(files=files, provenance=provenance(sections_of(config, "report"), inputs)))


def _joined(results: Sequence[StackResult], formats: Sequence[str], output: Path, check: Check) -> list[Path]:
    """Write the objects of all stacks as one table of each format, beside the page; return those that were written."""
    written = []
    for name, file in TABLES.items():
        parts = {result.name: table for result in results if (table := result.table(file))}
        if name in formats and parts:
            join_tables(name, parts, output.with_name(file), check)
            written.append(output.with_name(file))
        else:
            check()
            remove(output.with_name(file))  # of a run that wanted it
    return written


def _check_names(results: Sequence[StackResult]) -> None:
    twice = [name for name, times in Counter(result.name for result in results).items() if times > 1]
    if twice:
        raise PipelineError("--stacks", "each stack once", f"{twice[0]} twice", fix="name one record of each stack")


def _results_first(results: Sequence[StackResult]) -> list[StackResult]:
    """Return what the model had not seen, then what it was chosen by, then what was not predicted."""
    return sorted(results, key=lambda result: (result.plan is None, result.role is not None))


def _drawn(model: ModelResult, results: Sequence[StackResult], config: Config) -> str:
    """Return the page; `page.html` and what it includes say what stands where."""
    anchors = {result.name: f"stack-{index}" for index, result in enumerate(results, 1)}
    sections = []
    with Progress(len(results) + 1, "report") as progress:
        progress.advance()
        for index, result in enumerate(results):
            sections.append(StackSection.of(result, anchors[result.name], config.report, index < PICTURED))
            progress.advance(note=result.name)
    planes, area = size(results)
    scored = [result for result in results if result.metrics is not None]
    values = {
        "advice": advise(model, results),
        "anchors": anchors,
        "answers": Answers.of(results),
        "area": area,
        "card_file": CARD_FILE,
        "card_sha256": sha256_file(model.folder / CARD_FILE),
        "cards": CARDS,
        "made": _made(model, config),
        "median": _median([result.seg for result in scored if result.seg is not None]),
        "fault_keys": KEYS,
        "model": model,
        "named": NAMED,
        "objects": sum(result.stitch.objects for result in results if result.stitch is not None),
        "pictured": PICTURED,
        "plans": PlanSection.of(results),
        "planes": planes,
        "results": results,
        "scored": scored,
        "sections": sections,
        "settings": sections_of(config, "report"),
        "stages": stages(model, results),
        "training": training_section(model),
        "version": __version__,
    }
    return render("page.html", values)


def _median(values: Sequence[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _made(model: ModelResult, config: Config) -> Made:
    """Return what made this page, and the model."""
    trained = model.card.made(model.folder / CARD_FILE)
    made = {"report": provenance(sections_of(config, "report"))}
    return Made.of(made | ({"train": trained} if trained else {}))
