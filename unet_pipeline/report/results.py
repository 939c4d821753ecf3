"""What lies on disk for the page: the model and the records of each stack, checked to belong together.

A record that was made from another state of its inputs is left out and named: the page never mixes two runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, read_card
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.checksums import Vouched
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import (
    CARD_FILE,
    HISTORY_FILE,
    MEASURE_FILE,
    METRICS_FILE,
    PROVE_FILE,
    STITCH_FILE,
    WEIGH_FILE,
    WEIGHTS_FILE,
    calibration_in,
    measured_path,
)
from unet_pipeline.records.measure_record import MeasureRecord
from unet_pipeline.records.score_records import EvaluateRecord, ProveRecord
from unet_pipeline.records.stack_records import IngestRecord, WeighRecord
from unet_pipeline.records.steps import Record, open_any, open_record
from unet_pipeline.records.volume_records import PredictRecord, StitchRecord
from unet_pipeline.report.curves import History, read_history
from unet_pipeline.stacks.stack import Stack

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit. A safetensors file begins with the length of its header, then the header as JSON."""

CROSS = "cross-validation"
"""The role of a training stack whose planes were predicted out of fold."""

Optional = TypeVar("Optional", MeasureRecord, EvaluateRecord, WeighRecord, ProveRecord)


@dataclass(frozen=True)
class ModelResult:
    """A model folder.

    Attributes:
        folder: where it lies.
        card: its `model.json`.
        history: its `history.tsv`; None where there is none, as of a model trained elsewhere.
        calibration: its `calibrate.json`; None where there is none, or only that of a former model.
    """

    folder: Path
    card: ModelCard
    history: History | None
    calibration: CalibrateRecord | None = None

    @classmethod
    def open(cls, folder: Path) -> ModelResult:
        """Read a model folder; the weights are not looked at."""
        path, card, file = folder / HISTORY_FILE, read_card(folder), calibration_in(folder)
        record = open_record(file, CalibrateRecord) if file else None
        own = record if record and record.model == card.identity else None
        return cls(folder, card, read_history(path) if path.exists() else None, own)

    @cached_property
    def parameters(self) -> int | None:
        """Number of weights, from the header of the weights file; None where it cannot be read."""
        try:
            with (self.folder / WEIGHTS_FILE).open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, LARGEST_HEADER)))
            return int(sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class StackResult:
    """The records of one stack.

    Attributes:
        stack: what ingest wrote.
        model: the model of the run.
        plan: what tile wrote; None for a stack that is not predicted.
        stitch: the record of stitch; None likewise.
        regions: the records of predict.
        measure, metrics, weigh, prove: records of those stages, where there are any.
        notes: what was left out, and why.
    """

    stack: Stack
    model: ModelResult
    plan: StackPlan | None = None
    stitch: StitchRecord | None = None
    regions: tuple[PredictRecord, ...] = ()
    measure: MeasureRecord | None = None
    metrics: EvaluateRecord | None = None
    weigh: WeighRecord | None = None
    prove: ProveRecord | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.stack.name

    @property
    def folder(self) -> Path:
        """Where its records lie."""
        return self.stack.record.parent

    @property
    def shown(self) -> list[Path]:
        """The records of the stack that the page was made from."""
        plan = [] if self.plan is None else [self.plan.record, self.folder / STITCH_FILE]
        beside = {
            MEASURE_FILE: self.measure,
            METRICS_FILE: self.metrics,
            WEIGH_FILE: self.weigh,
            PROVE_FILE: self.prove,
        }
        return [self.stack.record, *plan, *(self.folder / name for name, record in beside.items() if record)]

    @property
    def role(self) -> str | None:
        """What training took the stack for, "training" or "validation": then its scores are no test. None otherwise.

        "cross-validation": each plane was predicted by a model that had not seen it.
        """
        if self.plan is not None and self.plan.out_of_fold:
            return CROSS
        # A model trained elsewhere may name stacks of its own; those of this run have weights.
        taken = self.model.card.training if self.weigh is not None else {}
        roles = (("stacks", "training"), ("validation_stacks", "validation"))
        return next((role for key, role in roles if self.name in (taken.get(key) or ())), None)

    @cached_property
    def seconds(self) -> float | None:
        """Seconds the jobs of predict took, as Snakemake measured them; None where they were run without it.

        Times are in no record: the same work gives the same bytes.
        """
        paths = [measured_path(self.folder.parent, self.name, one.region) for one in self.regions]
        try:
            return sum(float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0]) for path in paths)
        except (OSError, ValueError, IndexError):
            return None

    def table(self, name: str) -> Path | None:
        """Return a table of its objects as it was measured, by the name of its file; None where there is none.

        Raises:
            PipelineError: if it is not what its record vouches for.
        """
        if self.measure is None or name not in self.measure.tables:
            return None
        Vouched(self.folder / MEASURE_FILE, self.measure.files).check(self.folder / name)
        return self.folder / name

    @property
    def seg(self) -> float | None:
        """CTC SEG; None where the stack is not scored, or the reference has no object."""
        return None if self.metrics is None else self.metrics.instances.seg


@dataclass
class _Beside:
    """Optional records beside a stack's, each shown only if it was made from what lies there now."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def read(self, name: str, kind: type[Optional], sources: Sequence[Path]) -> Optional | None:
        """Return a record, or None where it is missing, or was made from other files than `sources`."""
        path = self.folder / name
        if not path.exists():
            return None
        record = open_record(path, kind)
        stale = [source.name for source in sources if not _made_from(record, source)]
        if stale:
            self.notes.append(f"{name} was made from another {stale[0]} and is left out: run {record.step} again.")
        return None if stale else record


def _made_from(record: Record, source: Path) -> bool:
    made_from = record.provenance.inputs.items()
    return sha256_file(source) in {checksum for name, checksum in made_from if Path(name).name == source.name}


def open_result(path: Path, model: ModelResult) -> StackResult:
    """Read all records of a stack.

    Args:
        path: its `stitch.json`, or `ingest.json` of a stack that is not predicted.
        model: the model of the run.

    Raises:
        PipelineError: if a record is missing or foreign, or the volume was predicted by another model.
    """
    record = open_any(path)
    if isinstance(record, StitchRecord):
        return _predicted(path, record, model)
    if isinstance(record, IngestRecord):
        return _ingested(path, record, model)
    raise PipelineError(path, "stitch.json or ingest.json of a stack", f"what {record.step} wrote", fix="name another")


def _ingested(path: Path, record: IngestRecord, model: ModelResult) -> StackResult:
    stack, beside = Stack(path, record), _Beside(path.parent)
    weigh = beside.read(WEIGH_FILE, WeighRecord, [path])
    return StackResult(stack, model, weigh=weigh, notes=tuple(beside.notes))


def _predicted(path: Path, stitched: StitchRecord, model: ModelResult) -> StackResult:
    plan = StackPlan.of_stitched(path, stitched)
    if not _made_from(stitched, plan.record):
        raise PipelineError(path, f"a record made from {plan.record}", "one of an older plan", fix="run stitch again")
    _check_model(path, stitched, plan, model)
    ingested, card = plan.stack.record, model.folder / CARD_FILE
    beside = _Beside(path.parent)
    return StackResult(
        Stack.open(ingested),
        model,
        plan,
        stitched,
        _regions(plan),
        beside.read(MEASURE_FILE, MeasureRecord, [path]),
        beside.read(METRICS_FILE, EvaluateRecord, [path]),
        beside.read(WEIGH_FILE, WeighRecord, [ingested]),
        beside.read(PROVE_FILE, ProveRecord, [ingested, card]),
        tuple(beside.notes),
    )


def _check_model(path: Path, stitched: StitchRecord, plan: StackPlan, model: ModelResult) -> None:
    used, given = stitched.coverage.model, model.card.weights_sha256
    if used is not None and used != given:
        fix = "give the model folder that predicted it, or predict again"
        raise PipelineError(path, f"a volume predicted by {model.folder} ({given[:12]})", used[:12], fix=fix)
    if plan.classes != model.card.classes:
        raise PipelineError(plan.record, f"the model's classes {list(model.card.classes)}", list(plan.classes))


def _regions(plan: StackPlan) -> tuple[PredictRecord, ...]:
    """Return the region records of this plan; stitch has proved that they cover it."""
    paths = [plan.region_record(region) for region in range(plan.plan.regions)]
    found = [open_record(path, PredictRecord) for path in paths if path.exists()]
    return tuple(record for record in found if record.plan == plan.digest)
