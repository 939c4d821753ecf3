"""What the page says of one stack: pictures, result, proof and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from unet_pipeline.config.result_sections import Report as ReportOptions
from unet_pipeline.records.provenance import Provenance
from unet_pipeline.report.outlined import overview
from unet_pipeline.report.panels import Panel, Panels, views
from unet_pipeline.report.render import count, flattened
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import View
from unet_pipeline.report.volume_panels import volume_panels

OVERVIEW_PX = 512
"""Longest side of the picture of a plane as a whole, px."""


@dataclass(frozen=True)
class Made:
    """What made some products.

    Attributes:
        steps: each step with version, commit, configuration, Python and machine.
        packages: names and versions.
    """

    steps: list[tuple[str, list[Any]]]
    packages: list[tuple[str, str]]

    @classmethod
    def of(cls, provenances: Mapping[str, Provenance]) -> Made:
        """Return what the provenance of each step says; a model trained elsewhere may say less."""
        keys = ("unet_pipeline", "commit", "config_digest", "python", "machine")
        packages = {item for one in provenances.values() for item in one.packages.items()}
        return cls([(step, [getattr(one, key) for key in keys]) for step, one in provenances.items()], sorted(packages))


@dataclass(frozen=True)
class StackSection:
    """What `stack.html` shows.

    Attributes:
        result: the records.
        anchor: where it is on the page.
        whole: a plane as a whole; None where it is not predicted, and where it is in `windows`.
        windows: planes or parts of them, with their panels.
    """

    result: StackResult
    anchor: str
    whole: Panel | None
    windows: Sequence[tuple[View, list[Panel]]]

    @classmethod
    def of(cls, result: StackResult, anchor: str, options: ReportOptions, pictured: bool = True) -> StackSection:
        """Gather all of a stack; `pictured` says whether there shall be pictures."""
        shown = views(result, options) if pictured else []
        larger = bool(shown) and shown[0].shape != result.stack.grid.shape[1:]
        whole = overview(result, shown[0].plane, OVERVIEW_PX) if larger else None
        windows = [(view, [*Panels(result, view), *volume_panels(result, view)]) for view in shown]
        return cls(result, anchor, whole, windows)

    @property
    def pixels(self) -> int:
        """Pixels of all planes."""
        planes, height, width = self.result.stack.grid.shape
        return planes * height * width

    @property
    def compute(self) -> str:
        """Where predict ran, and how fast."""
        computes = [region.compute for region in self.result.regions]
        devices, precisions = sorted({one.device for one in computes}), sorted({one.precision for one in computes})
        words = f"on {', '.join(devices) or '?'} in {', '.join(precisions) or '?'}"
        if not self.result.seconds:
            return words
        speed = self.pixels / 1e6 / self.result.seconds
        return f"{words}; jobs took {self.result.seconds:,.1f} s, {speed:.3g} Mpx/s"

    @property
    def sizes(self) -> list[tuple[str, int, int]]:
        """The objects by their size: "12 to 16 px", their number, and that in per cent of the largest number."""
        measured = self.result.measure
        bins = measured.sizes if measured else ()
        if not measured or not bins:
            return []
        unit, most = ("px", "voxels")[measured.connect == "volume"], max(one.objects for one in bins)
        ends = [f"{count(one.from_px)} to {count(after.from_px - 1)}" for one, after in pairwise(bins)]
        texts = [*ends, f"{count(bins[-1].from_px)} and more"]
        return [
            (f"{text} {unit}", one.objects, 100 * one.objects // most) for text, one in zip(texts, bins, strict=True)
        ]

    @property
    def source(self) -> list[tuple[str, object]]:
        """What was ingested."""
        ingested = self.result.stack.ingested
        given, prints = ingested.provenance.config.get("source", {}), ingested.fingerprints
        rows = [
            ("Image", given.get("image", ingested.image.source)),
            ("Fingerprint of the image", prints.image),
        ]
        if self.result.stack.labelled:
            rows += [("Labels", given.get("labels")), ("Fingerprint of the labels", prints.labels)]
        return rows

    @property
    def provenances(self) -> dict[str, Provenance]:
        """What made each record, by step."""
        result = self.result
        region = result.regions[0] if result.regions else None
        records = (
            result.stack.ingested,
            result.weigh,
            region,
            result.stitch,
            result.measure,
            result.metrics,
            result.prove,
        )
        return {record.step: record.provenance for record in records if record is not None}

    @property
    def made(self) -> Made:
        """What made the records."""
        return Made.of(self.provenances)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The configuration of each step, flat."""
        known = self.provenances.items()
        return [(f"{step}.{name}", text) for step, one in known for name, text in flattened(one.config)]
