"""Consistency: whether the records of a results folder belong together, each made from the others as they lie there.

A record's seal and its list show that nothing was changed since it was written. They do not show that it lies where it
was written, nor that what it was made from is still the same: those are read here from what each record says of its
stack and of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unet_pipeline.audit.record import Link
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import CALIBRATE_FILE, CARD_FILE, FOLDS, MODEL, PLAIN, REGIONS, STORES
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.score_records import ProveRecord, ReportRecord


@dataclass(frozen=True)
class Mismatch:
    """A record that does not belong to what lies around it.

    Attributes:
        error: for people.
        file: the file it is about: the record or, where that is missing, one that it was made from.
        source: what the record should have been made from.
        older: whether it is but older than the model, or the model than it: true of a stack that left the table.
    """

    error: PipelineError
    file: Path
    source: Path | None = None
    older: bool = False


def stack_mismatch(link: Link, stack: str) -> Mismatch | None:
    """Return what is wrong with a record that lies in the folder of `stack` and may be another's."""
    if isinstance(link.content, ModelCard | CalibrateRecord | ReportRecord) or link.content.stack == stack:
        return None
    expected, fix = f"a record of stack {stack}", how_to_remake(link.record)
    return Mismatch(PipelineError(link.record, expected, f"one of stack {link.content.stack}", fix=fix), link.record)


def input_mismatches(link: Link) -> Iterator[Mismatch]:
    """Yield the inputs of a record that are missing, or are not what it was made from.

    Inputs outside the results, such as the weights of an encoder or a finished model, are not looked at; nor are those
    of a proof, which no run brings up to date and the page leaves out when it is old.
    """
    if isinstance(link.content, ProveRecord):
        return
    for one in link.inputs:
        name = Path(one.name)
        if link.verb == "train" and name.name == CARD_FILE:
            continue  # the model that a training started from lies elsewhere
        file = _place(name, link.record)
        if file is None or not (file.parents[file.parent.name == REGIONS].is_dir() or _own_model(name, file)):
            continue  # a stack that was removed, or a model from elsewhere
        if not file.is_file():
            expected, fix = f"the record that {link.record} was made from", how_to_remake(file)
            yield Mismatch(PipelineError(file, expected, "no file", fix=fix), file)
        elif sha256_file(file) != one.sha256:
            expected, fix = f"a record made from {file} as it lies there", how_to_remake(link.record)
            between = isinstance(link.content, ModelCard) != (file.name in (CARD_FILE, CALIBRATE_FILE))
            error = PipelineError(link.record, expected, "one made from another", fix=fix)
            yield Mismatch(error, link.record, file, between)


def _own_model(name: Path, file: Path) -> bool:
    """Return whether an input is the model that the workflow made in these results, also if its folder is gone."""
    return name == Path(file.parents[1].name, MODEL, CARD_FILE)


def _place(name: Path, record: Path) -> Path | None:
    """Return where an input of a record lies in the same results; None for a file that is no record.

    Args:
        name: as the record says it, relative to some former working directory.
        record: in the folder of a stack, in its folder of regions, in that of a model or of a fold, or above them.
    """
    folder = record.parent.parent if record.parent.name == REGIONS else record.parent
    of_stack = record.name in (*STORES, *PLAIN) or record.parent.name == REGIONS
    results = folder.parent if of_stack else _results(record)
    if name.name in (CARD_FILE, CALIBRATE_FILE):
        return results.joinpath(*name.parts[-3 if name.parts[-3:-2] == (FOLDS,) else -2 :])
    if name.parent.name == REGIONS:
        return folder / REGIONS / name.name
    if name.name in (*STORES, *PLAIN):
        return folder / name.name if of_stack else results / name.parent.name / name.name
    return None


def _results(record: Path) -> Path:
    """Return the folder of all results, of a record in the folder of a model or of the record of the page."""
    if record.name not in (CARD_FILE, CALIBRATE_FILE):
        return record.parent
    folder = record.parent.parent
    return folder.parent if folder.name == FOLDS else folder
