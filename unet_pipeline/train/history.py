"""The course of a training: one row now and then, a table in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The training up to a step.

    Attributes:
        step: weight updates done.
        learning_rate: of the last update.
        train_loss: mean of the loss over the updates since the row before; None before the first.
        validation_loss: None where no validation was due.
        validation_score: of the objects, or of the pixels of kind classes, 0 to 1; None also without any of them.
        dice: Dice coefficient of each class on the validation tiles; None for a class that is absent both from
            prediction and target; empty where no validation was due.
    """

    step: int
    learning_rate: float
    train_loss: float | None
    validation_loss: float | None = None
    dice: tuple[float | None, ...] = ()
    validation_score: float | None = None


def history_text(rows: Sequence[Row], classes: Sequence[str]) -> str:
    """Return the content of `history.tsv`; a cell is empty where nothing is known.

    Columns: step, learning_rate, train_loss, validation_loss, validation_score, dice_{class} ...
    """
    head = ["step", "learning_rate", "train_loss", "validation_loss", "validation_score"]
    head += [f"dice_{name}" for name in classes]
    lines = ["\t".join(head)]
    for row in rows:
        dice = row.dice or (None,) * len(classes)
        numbers = (row.learning_rate, row.train_loss, row.validation_loss, row.validation_score, *dice)
        lines.append("\t".join([str(row.step), *("" if number is None else f"{number:.8g}" for number in numbers)]))
    return "\n".join(lines) + "\n"
