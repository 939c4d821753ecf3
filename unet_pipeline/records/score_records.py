"""The records `metrics.json`, `prove.json` and `report.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.fields import ComputeUsed, Count, Files, Number, Size
from unet_pipeline.records.provenance import Provenance

FaultKind = Literal["missed", "joined", "split", "spurious", "rough"]


@dataclass(frozen=True)
class Partition:
    """A score of a partition, its split and its merge part; None where the reference has no object."""

    value: Number | None
    split: Number | None
    merge: Number | None


@dataclass(frozen=True)
class Matches:
    """Objects that match at a threshold of the IoU."""

    threshold: Number
    true_positives: Count
    false_positives: Count
    false_negatives: Count
    average_precision: Number | None
    precision: Number | None
    recall: Number | None
    f1: Number | None


def _both(ap: dict[str, Matches], where: str) -> None:
    if missing := {"0.50", "0.75"} - set(ap):
        raise PipelineError(f"{where}.{min(missing)}", "this key", "nothing")


@dataclass(frozen=True)
class InstanceScores:
    """Scores of the objects; `ap` by the threshold of the IoU, "0.50" to "0.95"; information in bits."""

    seg: Number | None
    objects: Count
    matched: Count
    found: Count
    v_rand: Partition
    v_info: Partition
    variation_of_information: Partition
    adapted_rand_error: Number | None
    ap: Annotated[dict[str, Matches], _both]


@dataclass(frozen=True)
class Fault:
    """A fault of the result; see `evaluate.faults`.

    Attributes:
        object: id of a joined or spurious object of the result, else of an object of the reference.
        parts: reference objects that it joins, or objects that it was split into; 0 of other kinds.
        pixels: what it costs: that nothing, or a wrong object, was found for.
        start, stop: planes, rows and columns of the object, px, stop excluded.
    """

    kind: FaultKind
    object: Count
    parts: Count
    pixels: Count
    start: tuple[Count, Count, Count]
    stop: tuple[Size, Size, Size]


@dataclass(frozen=True)
class Faults:
    """The number of faults of each kind, and the worst of each kind, first those that cost most."""

    missed: Count
    joined: Count
    split: Count
    spurious: Count
    rough: Count
    worst: tuple[Fault, ...]


@dataclass(frozen=True)
class ClassScores:
    """Scores of the pixels of a class."""

    name: str
    index: Count
    reference_pixels: Count
    result_pixels: Count
    dice: Number | None
    iou: Number | None
    precision: Number | None
    recall: Number | None


@dataclass(frozen=True)
class AllPixels:
    """Scores of the pixels of all classes; `scored` of them are annotated, of `of`."""

    scored: Count
    of: Count
    accuracy: Number | None
    mean_accuracy: Number | None
    mean_iou: Number | None
    mean_iou_foreground: Number | None
    mean_dice: Number | None
    classes_present: Count


@dataclass(frozen=True)
class BestScore:
    """A score at the best threshold of the probability."""

    value: Number | None
    threshold: Number | None
    split: Number | None
    merge: Number | None


@dataclass(frozen=True)
class Isbi:
    """The scores of the ISBI 2012 challenge, and each at every threshold."""

    v_rand: BestScore
    v_info: BestScore
    rand_error: BestScore
    pixel_error: BestScore
    warping_error: BestScore
    splits_mergers_error: BestScore
    planes: Count
    curves: dict[str, tuple[Number | None, ...]]


@dataclass(frozen=True)
class IsbiSkipped:
    """The reason why there are no scores of ISBI 2012."""

    skipped: str


@dataclass(frozen=True, kw_only=True)
class EvaluateRecord:
    """`metrics.json`.

    Attributes:
        confusion: px, class of the reference by row, of the result by column.
        isbi: None where it was not asked for.
        confusion_sha256: SHA-256 of `confusion.csv`.
    """

    step: Literal["evaluate"] = "evaluate"
    stack: str
    instances: InstanceScores
    faults: Faults
    classes: tuple[ClassScores, ...]
    pixels: AllPixels
    confusion: tuple[tuple[Count, ...], ...]
    isbi: Isbi | IsbiSkipped | None
    provenance: Provenance
    confusion_sha256: str


@dataclass(frozen=True)
class Difference:
    """How far a tiling is from one pass over the whole image.

    Attributes:
        tiling: its name.
        largest_difference_std: of the logits, in standard deviations.
        flipped_labels, flipped_per_mpx: labels of the logits that differ.
        stored_changed: stored probabilities that differ.
        stored_difference: largest difference of stored probabilities, 0 to 1.
        stored_flipped: stored classes that differ.
        splits: other splits of this tiling into shards and regions that were compared with the first.
        split_differences: stored values that differ between splits.
    """

    tiling: str
    largest_difference_std: Number
    flipped_labels: Count
    flipped_per_mpx: Number
    stored_changed: Count = 0
    stored_difference: Number = 0.0
    stored_flipped: Count = 0
    splits: Count = 0
    split_differences: Count = 0


@dataclass(frozen=True, kw_only=True)
class ProveRecord:
    """`prove.json`.

    Attributes:
        crop: (height, width) of the part that was used, px, or (planes, height, width).
        seamless: whether every tiling of `rows` is within the tolerance, and its splits store the same values.
        tolerance_std: in standard deviations of the logits.
        paper_step: the paper's own tiling, for comparison.
    """

    step: Literal["prove"] = "prove"
    stack: str
    crop: tuple[Size, ...]
    seamless: bool
    tolerance_std: Number
    rows: tuple[Difference, ...]
    paper_step: Difference
    compute: ComputeUsed
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class ReportRecord:
    """`report.json`, of the page and its pictures."""

    step: Literal["report"] = "report"
    files: Files
    provenance: Provenance
