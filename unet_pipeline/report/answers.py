"""The first two questions of the page: is it good, and where is it wrong; in words, from the records of `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from unet_pipeline.records.score_records import Fault, Faults
from unet_pipeline.report.outlined import Marked, crop, crop_view, overview
from unet_pipeline.report.panels import Panel
from unet_pipeline.report.render import count, plural
from unet_pipeline.report.results import CROSS, StackResult
from unet_pipeline.report.views import View

WORST = 6
"""Faults that are shown."""

OVERVIEW_PX = 1024
"""Longest side of the first picture of the page, px."""

SHARES = ((0.95, "nearly all"), (0.8, "most"), (0.5, "more than half"), (0.2, "less than half"), (0.0, "few"))
"""Words for a share, from the least share they are used for."""

MEANT = {
    "missed": "no object covers more than half of this one that is drawn",
    "spurious": "most of it lies where no object is drawn",
    "rough": "found, but half of its pixels or more differ",
}


@dataclass(frozen=True)
class Counts:
    """Objects of some stacks: those drawn, those found, and the pairs of both whose IoU is 1/2 or more."""

    drawn: int
    found: int
    pairs: int

    @classmethod
    def of(cls, results: Sequence[StackResult]) -> Counts:
        """Add up the objects of stacks that are scored."""
        scored = [result.metrics.instances for result in results if result.metrics]
        pairs = sum(one.ap["0.50"].true_positives for one in scored)
        return cls(sum(one.objects for one in scored), sum(one.found for one in scored), pairs)

    @property
    def headline(self) -> str:
        """How good that is, in one sentence."""
        if not self.drawn:
            return f"No object is drawn in the reference, and {count(self.found)} {_were(self.found)} found."
        if not self.found:
            return "No object was found."
        recall, precision = self.pairs / self.drawn, self.pairs / self.found
        if not self.pairs:
            return "No object that is drawn was found."
        found = f"{_share(recall).capitalize()} of the drawn objects are found"
        if recall >= 0.8 > precision:
            return f"{found}, but {'many' if precision >= 0.5 else 'most'} of those found are wrong."
        but = "but" if precision >= 0.8 > recall else "and"
        return f"{found}, {but} {_share(precision)} of those found are right."

    @property
    def detail(self) -> str:
        """The numbers behind that."""
        parts = []
        if self.drawn:
            parts.append(f"Of {plural(self.drawn, 'object')} drawn, {count(self.pairs)} {_were(self.pairs)} found "
                         f"({self.pairs / self.drawn:.1%}, the recall)")  # fmt: skip
        if self.found:
            right = f"{count(self.pairs)} {'is' if self.pairs == 1 else 'are'} right"
            parts.append(f"of {count(self.found)} found, {right} ({self.pairs / self.found:.1%}, the precision)")
        return "; ".join(parts) + "." if parts else ""


@dataclass(frozen=True)
class Answers:
    """What the head of the page says.

    Attributes:
        judged: the stacks that the sentences are about: those that the model has not seen, else all that are scored.
        seen: whether the model has seen them.
        counts: their objects.
        faults: their faults in words, kind by kind.
        overview: the first of them whole, or the first predicted stack; None where nothing is predicted.
        crops: their worst faults.
    """

    judged: list[StackResult]
    seen: bool
    counts: Counts
    faults: list[str]
    overview: Panel | None
    crops: list[Panel]

    @classmethod
    def of(cls, results: Sequence[StackResult]) -> Answers:
        """Answer for a run; results in the order of the page."""
        scored = [result for result in results if result.metrics is not None]
        unseen = [result for result in scored if result.role in (None, CROSS)]
        judged = unseen or scored
        marks = [Marked(number, *one) for number, one in enumerate(worst(judged, WORST), 1)]
        views = [crop_view(one) for one in marks]
        first = next((result for result in [*judged, *results] if result.plan is not None), None)
        return cls(
            judged, bool(scored) and not unseen, Counts.of(judged), fault_words(judged),
            _overview(first, list(zip(marks, views, strict=True))) if first else None,
            [crop(one, view, words_of(one, view.plane)) for one, view in zip(marks, views, strict=True)],
        )  # fmt: skip


def _overview(result: StackResult, marks: Sequence[tuple[Marked, View]]) -> Panel | None:
    """Return the plane with the worst fault of a stack, or the middle one."""
    own = [(view.plane, one) for one, view in marks if one.result is result]
    plane = own[0][0] if own else result.stack.grid.planes // 2
    return overview(result, plane, OVERVIEW_PX, [one for at, one in own if at == plane])


def worst(results: Sequence[StackResult], most: int) -> list[tuple[StackResult, Fault]]:
    """Return the faults to show, first those that cost most pixels: the worst of each kind, then others."""
    known = [(result, fault) for result in results if result.metrics for fault in result.metrics.faults.worst]
    known.sort(key=lambda one: -one[1].pixels)  # stable: of equals in the order of the page
    kinds = {one[1].kind: one for one in reversed(known)}
    firsts = [one for one in known if kinds[one[1].kind] is one]
    others = [one for one in known if kinds[one[1].kind] is not one]
    return sorted((firsts + others)[:most], key=lambda one: -one[1].pixels)


def fault_words(results: Sequence[StackResult]) -> list[str]:
    """Return the faults of some stacks in words; none where there is none."""
    known = [result.metrics.faults for result in results if result.metrics]
    kinds = [one.name for one in fields(Faults) if one.name != "worst"]
    total = {kind: sum(getattr(faults, kind) for faults in known) for kind in kinds}
    texts = {
        "missed": "drawn {objects} missed",
        "split": "drawn {objects} split into several",
        "joined": "found {objects} that join several drawn ones",
        "spurious": "found {objects} where nothing is drawn",
        "rough": "{objects} found with an outline that is far off",
    }
    return [
        f"{count(total[kind])} " + text.format(objects="object" if total[kind] == 1 else "objects")
        for kind, text in texts.items()
        if total[kind]
    ]


def words_of(marked: Marked, plane: int) -> str:
    """Say what is wrong at a place, and where it is; `plane` is the one that is shown."""
    fault = marked.fault
    row, column = (str((a + b) // 2) for a, b in zip(fault.start[1:], fault.stop[1:], strict=True))
    meant = {
        "joined": f"one object where {count(fault.parts)} are drawn",
        "split": f"{count(fault.parts)} objects where one is drawn",
    } | MEANT
    return f"{meant[fault.kind]}; {marked.result.name}, plane {plane}, row {row}, column {column}."


def _share(value: float) -> str:
    return next(words for least, words in SHARES if value >= least)


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
