"""The records `ingest.json` and `weigh.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.fields import Count, FileName, Files, Number, Size
from unet_pipeline.records.provenance import Provenance

LEVELS = 1001
"""Quantiles of a channel: one for each tenth of a per cent."""


def _levels(values: tuple[float, ...], where: str) -> None:
    if len(values) != LEVELS:
        raise PipelineError(where, f"a list of {LEVELS} values", f"{len(values)} values")


Quantiles = Annotated[tuple[Number, ...], _levels]
DType = Literal[
    "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]


@dataclass(frozen=True)
class GridSize:
    """Size and scale of a stack; see `ngff.Grid`."""

    planes: Size
    height: Size
    width: Size
    plane_axis: Literal["z", "t"]
    pixel_um: tuple[Number, Number] | None
    step: Number | None


@dataclass(frozen=True)
class ImagePlace:
    """The place of the image of a stack: the store beside the record or, `in_place`, its source."""

    in_place: bool
    source: str
    axes: str
    planes: str


@dataclass(frozen=True)
class FittedPicture:
    """A plane that was brought to the size of the others.

    Attributes:
        name: of its file.
        size: (height, width) in its file, px.
        scale: by which it was made larger.
        place: top, left, height and width of its content, px.
    """

    name: str
    size: tuple[Size, Size]
    scale: Number
    place: tuple[Count, Count, Count, Count]


@dataclass(frozen=True)
class Fit:
    """The fitting of planes of different sizes to one (section `ingest`)."""

    sizes: str
    fill: str
    pictures: tuple[FittedPicture, ...]


@dataclass(frozen=True)
class LabelCounts:
    """The content of a reference: pixels of each class, pixels nobody annotated, the largest id of an object."""

    class_counts: dict[str, Count]
    ignored: Count
    largest_instance: Count


@dataclass(frozen=True)
class Statistics:
    """Statistics of the grey values of each channel.

    Attributes:
        min, max, mean, std: one for each channel.
        pixels: that were counted.
        quantiles: of each channel, the 1001 grey values at the percentiles 0.0, 0.1, ... 100.0.
    """

    min: tuple[Number, ...]
    max: tuple[Number, ...]
    mean: tuple[Number, ...]
    std: tuple[Number, ...]
    pixels: Size
    quantiles: tuple[Quantiles, ...]


@dataclass(frozen=True)
class Fingerprints:
    """Checksums of all bytes of the source files."""

    image: str
    labels: str | None


@dataclass(frozen=True)
class SourceNames:
    """Names of the files of image and reference, one for each plane, where they are folders; else None."""

    image: tuple[str, ...] | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class IngestRecord:
    """`ingest.json`.

    Attributes:
        image_id: names the grey values and their statistics: all of a stack that a prediction depends on.
        id: names image and reference; their store repeats it.
        fit: None where nothing was fitted.
        notes: what is doubtful in the reference, in sentences.
        labels: None where there is no reference.
    """

    step: Literal["ingest"] = "ingest"
    stack: str
    grid: GridSize
    channels: Size
    dtype: DType
    image: ImagePlace
    names: SourceNames
    fit: Fit | None
    notes: tuple[str, ...]
    labels: LabelCounts | None
    statistics: Statistics
    fingerprints: Fingerprints
    image_id: str
    id: str
    files: Files
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class WeighRecord:
    """`weigh.json`.

    Attributes:
        ingest: record of the stack.
        ingest_id: its id.
        class_counts: pixels of each class of the target.
        ignored: pixels nobody annotated.
        largest_boundary_term: of the weight map.
        vanished_objects: objects so thin that the gaps leave nothing of them.
        sigma_px: of the formula, px.
        gap_px: pixels this near to another object became background.
        why: what those two follow from where they are `auto`; empty where both are set by hand.
        step_px: distance of planes over the edge of a pixel, where distances run across planes; null: in each alone.
        id: names the weights; their store repeats it.
    """

    step: Literal["weigh"] = "weigh"
    stack: str
    ingest: FileName
    ingest_id: str
    class_counts: dict[str, Count]
    ignored: Count
    largest_boundary_term: Number
    vanished_objects: Count
    sigma_px: Number
    gap_px: Count
    why: str
    step_px: Number | None
    id: str
    files: Files
    provenance: Provenance
