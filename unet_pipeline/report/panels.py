"""The pictures of a stack: image, reference and result, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.result_sections import Report as ReportOptions
from unet_pipeline.config.sections import IGNORE, Normalise
from unet_pipeline.images import colours, pictures
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.model.normalise import Normaliser, from_statistics
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.checksums import Vouched
from unet_pipeline.records.layout import CLASSES, INSTANCES, WEIGH_FILE, WEIGHTS
from unet_pipeline.records.stack_records import WeighRecord
from unet_pipeline.report import differences
from unet_pipeline.report.differences import Verdict
from unet_pipeline.report.render import number
from unet_pipeline.report.results import StackResult
from unet_pipeline.report.views import COARSE_PX, View, choose_views, coarse_level, interest
from unet_pipeline.stacks.stack import Stack

SHOWN_GREY = Normalise(method="percentile", low=0.3, high=99.8)
"""Black and white of a stack's pictures, whatever the network sees: the same for all its planes."""

PROBABILITY, WEIGHT = "viridis", "magma"

MEANINGS = {
    Verdict.AGREED: "agreed",
    Verdict.MISSED: "missed",
    Verdict.SPURIOUS: "spurious",
    Verdict.OTHER: "joined or split",
}


@dataclass(frozen=True)
class Scale:
    """The key of a colour scale: CSS colours at even steps, and the values at its ends."""

    colours: list[str]
    low: str
    high: str


@dataclass(frozen=True)
class Panel:
    """A picture with its caption.

    Attributes:
        title: its name; empty where the picture shows it.
        png: the picture.
        alt: what it shows, for those who cannot see it.
        words, more: of the caption, before and after the keys.
        keys: of its colours, as (CSS colour, meaning).
        scale: of its colours, where they are a scale.
    """

    title: str
    png: bytes
    alt: str
    words: str = ""
    keys: Sequence[tuple[str, str]] = ()
    scale: Scale | None = None
    more: str = ""


def is_rgb(stack: Stack) -> bool:
    """Whether an image has the colours of a camera or a scanner, which are shown as they are."""
    return stack.channels == 3 and stack.dtype == np.uint8


def shown_normaliser(stack: Stack) -> Normaliser:
    """Return the map from grey values to 0 (black) .. 1 (white), from the statistics of the whole stack."""
    if is_rgb(stack):
        return Normaliser((0.0,) * 3, (1 / 255,) * 3)
    return from_statistics(SHOWN_GREY, stack.ingested.statistics, stack.dtype)


def views(result: StackResult, options: ReportOptions) -> list[View]:
    """Return the windows to show of a stack: where objects meet, and where result and reference differ."""
    stack, plan = result.stack, result.plan
    found = None if plan is None else coarse_level(plan.store, f"labels/{INSTANCES}", plan.vouch)
    reference, classes = (
        coarse_level(stack.store, f"labels/{name}", stack.vouch) if stack.labelled else None
        for name in (INSTANCES, CLASSES)
    )
    levels = [level for level in (found, reference) if level is not None]
    if not levels:
        # Neither labels nor a result: the middle of each plane is as good as any other window.
        factor = -(-max(stack.grid.shape[1:]) // COARSE_PX)
        nothing = np.zeros([-(-size // factor) for size in stack.grid.shape[1:]], bool)
        return choose_views(stack.grid.shape, options.planes, options.panel_px, factor, lambda plane: nothing)

    def interesting(plane: int) -> npt.NDArray[np.bool_]:
        read = [None if level is None else level.read(plane)[0] for level in (found, reference, classes)]
        return interest(*read)

    return choose_views(stack.grid.shape, options.planes, options.panel_px, levels[0].factor, interesting)


@dataclass(frozen=True)
class Panels:
    """The panels of one window of a stack, read once.

    Attributes:
        result: the stack.
        view: the window.
    """

    result: StackResult
    view: View

    def __iter__(self) -> Iterator[Panel]:
        """Yield the panels there are, in the order of the data."""
        yield self._raw()
        if self.result.weigh is not None:
            yield self._weight(self.result.weigh)
        if self.result.plan is not None:
            yield self._probability(self.result.plan)
            if len(self.result.plan.classes) > 2:
                yield self._classes("Classes", self._label(self.result.plan.labels(CLASSES)))
            yield self._found()
        if self.result.stack.labelled:
            if len(self.result.model.card.classes) > 2:
                yield self._classes("Reference classes", self.reference_classes)
            yield self._reference()
        if self.result.plan is not None and self.result.stack.labelled:
            yield self._difference()

    @cached_property
    def found(self) -> npt.NDArray[Any]:
        """Ids of the result (y, x); all 0 where the stack is not predicted."""
        plan = self.result.plan
        return np.zeros(self.view.shape, np.uint32) if plan is None else self._label(plan.labels(INSTANCES))

    @cached_property
    def reference(self) -> npt.NDArray[Any]:
        """Ids of the reference (y, x)."""
        return self._label(self.result.stack.reference(INSTANCES))

    @cached_property
    def reference_classes(self) -> npt.NDArray[Any]:
        """Classes of the reference (y, x), `IGNORE` where nobody annotated."""
        return self._label(self.result.stack.reference(CLASSES))

    @cached_property
    def verdict(self) -> npt.NDArray[np.uint8]:
        """The verdict on each pixel (y, x)."""
        plan, reference = self.result.plan, self.reference_classes
        # Objects grow, and holes are filled, into pixels the network calls background: those are of any class.
        given = reference if plan is None else self._label(plan.labels(CLASSES))
        same = (given == reference) | (given == 0)
        return differences.verdicts(self.reference, self.found, reference != IGNORE, same)

    def _label(self, array: PlaneArray) -> npt.NDArray[Any]:
        return array.read_label(self.view.plane, self.view.rows, self.view.columns)

    def _panel(
        self, title: str, rgb: pictures.Rgb, words: str = "", keys: Sequence[tuple[str, str]] = (),
        scale: Scale | None = None, more: str = "", ids: npt.NDArray[Any] | None = None,
    ) -> Panel:  # fmt: skip
        large, factor = pictures.enlarged(rgb, ids)
        pixel = self.result.stack.grid.pixel_um
        bar = pictures.scale_bar(rgb.shape[1], pixel[1] if pixel else None)
        shown = pictures.with_scale_bar(large, bar, factor)
        alt = f"{title} of stack {self.result.name}, plane {self.view.plane}; the scale bar is {bar.label}"
        return Panel(title, pictures.png(shown), alt, words, keys, scale, more)

    def _raw(self) -> Panel:
        stack = self.result.stack
        values = stack.image.read(self.view.plane, self.view.rows, self.view.columns)
        rgb = pictures.as_grey(shown_normaliser(stack)(values))
        names = {1: "", 2: "The two channels in magenta and green. ", 3: "The three channels as red, green and blue. "}
        words = names.get(stack.channels, f"The {stack.channels} channels in different colours, added up. ")
        limits = f"Black and white: {SHOWN_GREY.low:g} % and {SHOWN_GREY.high:g} % of the stack's pixels are darker."
        caption = "Red, green and blue as they are." if is_rgb(stack) else words + limits
        return self._panel("Raw", rgb, caption)

    def _weight(self, weigh: WeighRecord) -> Panel:
        vouched = Vouched(self.result.folder / WEIGH_FILE, weigh.files)
        term = self._label(open_array(self.result.folder / WEIGHTS, "boundary", vouch=vouched.check))
        height = weigh.largest_boundary_term or 1.0
        scale = Scale(pictures.scale_colours(WEIGHT), "0", number(height, 1))
        rgb = pictures.as_scale(term / height, WEIGHT)
        words = f"added where objects nearly touch; sigma {weigh.sigma_px:g} px, gap {weigh.gap_px} px."
        more = f"Of {weigh.why}." if weigh.why else ""
        return self._panel("Boundary weight", rgb, words, scale=scale, more=more)

    def _probability(self, plan: StackPlan) -> Panel:
        array = plan.probabilities()
        background = array.read(self.view.plane, self.view.rows, self.view.columns)[0].astype(np.float32)
        whole = 255 if array.dtype == np.uint8 else 1
        rgb = pictures.as_scale(1 - background / whole, PROBABILITY)
        scale = Scale(pictures.scale_colours(PROBABILITY), "0", "1")
        return self._panel("Probability", rgb, f"of {' or '.join(plan.classes[1:])}", scale=scale)

    def _classes(self, title: str, classes: npt.NDArray[Any]) -> Panel:
        names = self.result.model.card.classes
        keys = [(pictures.css(colours.class_colour(index)), name) for index, name in enumerate(names)]
        if (classes == IGNORE).any():
            keys.append((pictures.css(colours.UNKNOWN), "not annotated"))
        return self._panel(title, pictures.as_classes(classes, IGNORE), keys=keys)

    def _found(self) -> Panel:
        words = f"{_objects(self.found)} found in view."
        return self._panel("Labels", pictures.as_instances(self.found), words, ids=self.found)

    def _reference(self) -> Panel:
        ids, words = self.reference, f"{_objects(self.reference)} objects in view."
        if self.result.plan is None:
            return self._panel("Reference labels", pictures.as_instances(ids), words, ids=ids)
        annotated = self.reference_classes != IGNORE
        names = differences.partners(np.where(annotated, ids, 0), np.where(annotated, self.found, 0))
        partner = differences.translated(ids, names)
        rgb = pictures.as_instances(partner)
        rgb[(ids > 0) & (partner == 0)] = pictures.UNMATCHED
        keys = [(pictures.css(pictures.UNMATCHED), "no match")]
        return self._panel("Reference", rgb, f"{words} Colour of the object found for it;", keys, ids=ids)

    def _difference(self) -> Panel:
        parts = differences.fractions(self.verdict)
        keys = [(pictures.css(differences.COLOURS[one]), f"{text} {parts[one]:.1%}") for one, text in MEANINGS.items()]
        more = "" if len(self.result.model.card.classes) == 2 else "Another class counts as joined or split."
        if (self.verdict == Verdict.UNKNOWN).any():
            keys.append((pictures.css(differences.COLOURS[Verdict.UNKNOWN]), "not annotated"))
        return self._panel("Difference", differences.as_verdicts(self.verdict), "to the reference:", keys, more=more)


def _objects(ids: npt.NDArray[Any]) -> int:
    return int((np.unique(ids) > 0).sum())
