"""The records `tiles.json`, `regions/N.json` and `stitch.json`, and the notes of predict beside its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.records.fields import ComputeUsed, Count, FileName, Files, Number, Size
from unet_pipeline.records.provenance import Provenance


@dataclass(frozen=True)
class GeometryPlanned:
    """The window and the kept part of a tile, px; see `model.geometry.Geometry`."""

    stride: Size
    before: Count
    after: Count
    lost: Count
    crop_px: Count
    whole_plane: bool


@dataclass(frozen=True)
class AlongZPlanned:
    """The division of a stack along z; see `predict.plan.AlongZ`."""

    geometry: GeometryPlanned
    keep: Size
    shard: Size


@dataclass(frozen=True)
class PlanNumbers:
    """The division of a stack; see `predict.plan.Plan`. `along_z` is None where each plane is alone."""

    shape: tuple[Size, Size, Size]
    geometry: GeometryPlanned
    keep: tuple[Size, Size]
    shard: tuple[Size, Size]
    regions: Size
    along_z: AlongZPlanned | None = None


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """`tiles.json`.

    Attributes:
        ingest: record of the stack.
        out_of_fold: whether each plane is predicted by the member of a cross-validation that has not seen it.
        digest: names the plan; the store and every region record repeat it.
        tiles: number of tiles of the plan.
    """

    step: Literal["tile"] = "tile"
    stack: str
    ingest: FileName
    plan: PlanNumbers
    out_of_fold: bool
    classes: tuple[str, ...]
    digest: str
    tiles: Count
    files: Files
    provenance: Provenance


@dataclass(frozen=True)
class ShardWritten:
    """A shard of the probabilities, with the SHA-256 of its file, and its tiles that were empty and skipped."""

    shard: Count
    probabilities: str
    tiles_skipped: Count = 0


@dataclass(frozen=True, kw_only=True)
class PredictRecord:
    """`regions/N.json`.

    Attributes:
        plan: digest of the plan.
        model: SHA-256 of the weights.
        made_by: names plan, weights and section `predict`; see `StackPlan.work`.
    """

    step: Literal["predict"] = "predict"
    stack: str
    plan: str
    region: Count
    model: str
    made_by: str
    shards: tuple[ShardWritten, ...]
    tiles: Count
    tiles_skipped: Count
    compute: ComputeUsed
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The journal of a region: the shards that are finished, as long as the work `key` names stays the same."""

    step: Literal["predict"] = "predict"
    key: str
    shards: tuple[ShardWritten, ...]


@dataclass(frozen=True)
class Coverage:
    """The proof that each shard was written once: their number, that of the region records, SHA-256 of the weights."""

    shards: Count
    regions: Count
    covered_once: bool
    model: str | None


@dataclass(frozen=True)
class ClassArea:
    """The part of a stack given to a class: px, share 0..1, µm² (None where the pixel size is unknown)."""

    name: str
    pixels: Count
    share: Number
    area_um2: Number | None


@dataclass(frozen=True)
class AreaSummary:
    """Areas of the objects, px."""

    median: Number
    smallest: Count
    largest: Count


@dataclass(frozen=True, kw_only=True)
class StitchRecord:
    """`stitch.json`.

    Attributes:
        tiles: record of the plan.
        connect: whether objects are of planes or of the volume.
        made: how they were made.
        calibrated: whether the calibration of the model had a part in that.
        objects: their number.
        area_px: None where there is no object.
        filled_px: holes that were filled, px.
        tiffs: names of the files of labels beside it.
    """

    step: Literal["stitch"] = "stitch"
    stack: str
    tiles: FileName
    connect: Literal["planes", "volume"]
    made: ObjectSettings
    calibrated: bool
    coverage: Coverage
    classes: tuple[ClassArea, ...]
    objects: Count
    area_px: AreaSummary | None
    filled_px: Count
    files: Files
    tiffs: tuple[FileName, ...]
    provenance: Provenance
