"""Curves of a training, from `history.tsv`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.colours import class_colour
from unet_pipeline.images.pictures import css
from unet_pipeline.records.calibrate_record import CalibrateRecord

if TYPE_CHECKING:  # matplotlib is imported where something is drawn: it takes half of the start of report
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PX, HEIGHT_PX = 1000, 640
"""Twice the size curves are shown at."""

DPI = 250

TRAINING, VALIDATION, SCORE = "#0072b2", "#d55e00", "#cc79a7"
METHODS = {"components": "#0072b2", "watershed": "#d55e00", "distance": "#009e73"}
"""Colours of the ways to make objects."""
INK, SOFT, LINE = "#1b2430", "#5a6675", "#dde3ea"
DICE = "dice_"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class History:
    """The course of a training.

    Attributes:
        columns: the values of each column by its name, as (step, value); steps without a value are left out.
    """

    columns: dict[str, list[tuple[float, float]]]

    @property
    def steps(self) -> int:
        """The last step."""
        return int(max((points[-1][0] for points in self.columns.values() if points), default=0))

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return the points of a column; none where there is no such column."""
        return self.columns.get(name, [])

    @property
    def dice(self) -> dict[str, list[tuple[float, float]]]:
        """Dice of each class on the validation tiles, by class name."""
        return {
            name.removeprefix(DICE): points for name, points in self.columns.items() if name.startswith(DICE) and points
        }

    def kept(self, step: int | None) -> tuple[float, float] | None:
        """Return (step, validation loss) of the weights that were kept; None without validation.

        Args:
            step: the step the training record names; None takes the lowest validation loss, the first of equals.
        """
        points = self.column("validation_loss")
        if step is not None:
            return next((point for point in points if point[0] == step), None)
        return min(points, key=lambda point: (point[1], point[0]), default=None)


def read_history(path: Path) -> History:
    """Read a table with a column `step`; further columns may be there or not, cells may be empty.

    Raises:
        PipelineError: if there is no such column, or a cell is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows, names = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(path, "a readable table", error, fix="train again") from error
    if "step" not in names:
        raise PipelineError(path, "a column step", f"columns {names[:6]}", fix="train again, or remove the file")
    columns: dict[str, list[tuple[float, float]]] = {name: [] for name in names if name != "step"}
    for line, row in enumerate(rows, 2):
        for name in columns:
            if (value := _number(row[name], path, line)) is not None:
                columns[name].append((_number(row["step"], path, line) or 0.0, value))
    return History(columns)


def _number(cell: str | None, path: Path, line: int) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError as error:
        raise PipelineError(f"{path} line {line}", "numbers", repr(cell), fix="train again") from error
    return value if math.isfinite(value) else None


def colour(index: int) -> str:
    """Return the colour of a class's curve, as CSS writes it: the same as in pictures of classes."""
    return css(class_colour(index))


def loss_curve(history: History, kept: tuple[float, float] | None, keyed: bool = False) -> bytes:
    """Return the losses over the steps as PNG.

    Args:
        history: the course of the training.
        kept: (step, loss) of the weights that were kept, which is marked; None marks nothing.
        keyed: whether the picture holds the key of its colours, which on the page stands below it.
    """
    figure, axes = _empty("Loss")
    train, validation = history.column("train_loss"), history.column("validation_loss")
    _line(axes, train, TRAINING, "training")
    _line(axes, validation, VALIDATION, "validation")
    values = [value for _, value in (*train, *validation)]
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    if kept:
        axes.plot([kept[0]], [kept[1]], "o", color=VALIDATION, markersize=8, markerfacecolor="none", markeredgewidth=2)
    return _finished(figure, keyed)


def rate_curve(history: History) -> bytes:
    """Return the learning rate over the steps as PNG."""
    figure, axes = _empty("Learning rate")
    _line(axes, history.column("learning_rate"), TRAINING)
    axes.set_ylim(bottom=0)
    return _finished(figure)


def dice_curve(history: History, keyed: bool = False) -> bytes:
    """Return Dice of each class and score on the validation tiles over the steps as PNG; `keyed` as above."""
    figure, axes = _empty("Dice and score on validation tiles")
    for index, (name, points) in enumerate(history.dice.items()):
        _line(axes, points, colour(index), name)
    score = history.column("validation_score")
    _line(axes, score, SCORE, "score")
    lowest = min((value for points in (*history.dice.values(), score) for _, value in points), default=0.0)
    axes.set_ylim(math.floor(max(0.0, lowest - 0.02) * 10) / 10, 1.0)
    return _finished(figure, keyed)


def calibration_curve(record: CalibrateRecord) -> bytes:
    """Return the best score of each method over the threshold as PNG; the likeliest class stands at one half.

    Args:
        record: with trials.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    assert record.stated_score is not None and record.chosen_score is not None  # as there are trials
    figure, axes = _empty(f"{record.score} on validation planes", "threshold")
    for width, (method, stroke) in zip((5, 3, 1.2), METHODS.items(), strict=True):  # equal ones show side by side
        best: dict[float, float] = {}
        for trial in record.trials:
            if trial.settings.method == method:
                threshold = _threshold(trial.settings)
                best[threshold] = max(best.get(threshold, 0.0), trial.score)
        _line(axes, sorted(best.items()), stroke, width=width)
    axes.axhline(record.stated_score, color=SOFT, linewidth=1, linestyle="--")
    chosen = METHODS[record.chosen.method]
    place = [_threshold(record.chosen)], [record.chosen_score]
    axes.plot(*place, "o", color=chosen, markersize=8, markerfacecolor="none", markeredgewidth=2)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.1f}"))
    return _finished(figure)


def _threshold(settings: ObjectSettings) -> float:
    return 0.5 if settings.threshold is None else settings.threshold


def _empty(title: str, along: str = "step") -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    # 10 points at 250 px an inch are 12 px in a picture shown 350 px wide.
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(along, fontsize=10, color=SOFT)
    axes.tick_params(labelsize=10, labelcolor=SOFT, color=LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure, axes


def _line(axes: Axes, points: Points, stroke: str, label: str = "", width: float = 1.5) -> None:
    steps, values = [step for step, _ in points], [value for _, value in points]
    marker = "o" if len(points) <= 40 else ""
    axes.plot(
        steps, values, color=stroke, linewidth=width, marker=marker, markersize=2.5, label=label.replace("$", r"\$")
    )


def _finished(figure: Figure, keyed: bool = False) -> bytes:
    if keyed:
        figure.axes[0].legend(fontsize=9, labelcolor=SOFT, frameon=False)
    return drawn_png(figure)


def drawn_png(figure: Figure, cut: bool = False) -> bytes:
    """Return a figure as PNG without any metadata; `cut` to what is drawn, which never cuts a word."""
    file = io.BytesIO()
    box = "tight" if cut else None
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches=box, pad_inches=0.02)
    return file.getvalue()
