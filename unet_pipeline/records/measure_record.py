"""The record `measure.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unet_pipeline.records.fields import Count, FileName, Files
from unet_pipeline.records.provenance import Provenance


@dataclass(frozen=True)
class SizeBin:
    """Objects of at least so many pixels, and fewer than the next bin has."""

    from_px: Count
    objects: Count


@dataclass(frozen=True, kw_only=True)
class MeasureRecord:
    """`measure.json`.

    Attributes:
        stitch: record of the volume.
        connect: whether objects are of planes or of the volume.
        objects: their number.
        touching: of these, those that reach the border of their plane, or of the volume.
        sizes: the objects by their size, grown parts included; empty where there is none.
        columns: of the table.
        tables: names of its files beside the record.
    """

    step: Literal["measure"] = "measure"
    stack: str
    stitch: FileName
    connect: Literal["planes", "volume"]
    objects: Count
    touching: Count
    sizes: tuple[SizeBin, ...]
    columns: tuple[str, ...]
    tables: tuple[FileName, ...]
    files: Files
    provenance: Provenance
