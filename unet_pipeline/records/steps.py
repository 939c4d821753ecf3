"""The record of each step, and how it is opened: one frozen dataclass each, built and checked by `config.keys`.

A checksum says that a record is what somebody wrote, not that it was this pipeline. Each record is therefore built
anew when it is opened, and no later code meets a missing key or a value of another kind. Cards of models, which may be
made elsewhere, are read by `model.card`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from unet_pipeline.config.keys import build
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.measure_record import MeasureRecord
from unet_pipeline.records.record import how_to_remake, read_json
from unet_pipeline.records.score_records import EvaluateRecord, ProveRecord, ReportRecord
from unet_pipeline.records.stack_records import IngestRecord, WeighRecord
from unet_pipeline.records.volume_records import Finished, PredictRecord, StitchRecord, TileRecord

StackRecord = (
    IngestRecord
    | WeighRecord
    | TileRecord
    | PredictRecord
    | StitchRecord
    | MeasureRecord
    | EvaluateRecord
    | ProveRecord
)
Record = StackRecord | CalibrateRecord | ReportRecord

RECORDS: dict[str, type[Record]] = {
    "ingest": IngestRecord,
    "weigh": WeighRecord,
    "calibrate": CalibrateRecord,
    "tile": TileRecord,
    "predict": PredictRecord,
    "stitch": StitchRecord,
    "measure": MeasureRecord,
    "evaluate": EvaluateRecord,
    "prove": ProveRecord,
    "report": ReportRecord,
}
"""By the step that writes them, which each names under its first key."""

T = TypeVar("T", bound=Record | Finished)


class EarlierVersion(PipelineError):
    """A record that an earlier version wrote: it does not name its step."""

    def __init__(self, path: Path, version: object) -> None:
        """Take the record; all others of its results are as old."""
        fix = (
            "run the workflow again: it makes all of these results anew, the model too (to keep that, copy its folder "
            "elsewhere and name the copy in model.folder: models of earlier versions are still read)"
        )
        super().__init__(path, "a record that names its step", f"one of an earlier version, {version}", fix=fix)


def open_record(path: Path, kind: type[T]) -> T:
    """Read a record that a step wrote.

    Args:
        path: the record.
        kind: the expected record: one of `RECORDS`, or `Finished`.

    Raises:
        PipelineError: if it is missing, damaged, or not a record of that step.
        EarlierVersion: if it does not name its step.
    """
    facts = read_json(path, fix=how_to_remake(path))
    _check_step(path, facts)
    if facts["step"] != kind.step:
        raise PipelineError(f"{path}: step", f"what {kind.step} writes", facts["step"], fix=how_to_remake(path))
    return _built(path, facts, kind)


def open_any(path: Path) -> Record:
    """Read a record of any step but those that make a model; raises as `any_record`, or if it is missing or damaged."""
    return any_record(path, read_json(path, fix=how_to_remake(path)))


def any_record(path: Path, facts: Mapping[str, Any]) -> Record:
    """Build the record of the step that it names.

    Args:
        path: where it lies.
        facts: what was read there.

    Raises:
        PipelineError: if it is no record of a step.
        EarlierVersion: if it does not name its step.
    """
    _check_step(path, facts)
    kind = RECORDS.get(str(facts["step"]))
    if kind is None:
        raise PipelineError(f"{path}: step", f"one of {', '.join(RECORDS)}", facts["step"], fix="name another file")
    return _built(path, facts, kind)


def _check_step(path: Path, facts: Mapping[str, Any]) -> None:
    if "step" in facts:
        return
    if isinstance(made := facts.get("provenance"), dict):
        raise EarlierVersion(path, made.get("unet_pipeline", "unknown"))
    got = f"keys {sorted(facts)[:6]}"
    raise PipelineError(f"{path}: step", f"one of {', '.join(RECORDS)}", got, fix="name another file")


def _built(path: Path, facts: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return build(kind, facts, "")
    except PipelineError as error:
        raise PipelineError(f"{path}: {error.where}", error.expected, error.got, fix=how_to_remake(path)) from None
