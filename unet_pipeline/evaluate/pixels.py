"""Scores over all classes of pixels, from the confusion of classes alone, and that confusion as a table.

A class is present where the reference or the result has a pixel of it. The means of IoU and Dice are over the classes
that are present: a class of neither has no value and counts neither as 0 nor as 1, and one that only the result
has counts 0. Other programs count absent classes as 0 or as 1; their means differ from these where a class is absent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.evaluate.scores import Score, dice_iou


@dataclass(frozen=True)
class PixelScores(Score):
    """Scores over all classes, 0..1; None where there is no pixel, or no class, to take them over.

    Attributes:
        accuracy: share of the annotated pixels whose class is right.
        mean_accuracy: mean of recall over the classes of the reference; the "mean class accuracy" of Long et al. 2015
            (CVPR, 3431-3440).
        mean_iou: mean of IoU over the classes present, the background included; Long et al.'s "mean IU", mIoU.
        mean_iou_foreground: the same without the background, class 0.
        mean_dice: mean of Dice, the F-score of pixels, over the classes present, the background included.
        classes_present: number of classes in the reference or the result.
    """

    accuracy: float | None
    mean_accuracy: float | None
    mean_iou: float | None
    mean_iou_foreground: float | None
    mean_dice: float | None
    classes_present: int


def pixel_scores(confusion: NDArray[np.int64]) -> PixelScores:
    """Return the scores over all classes.

    Args:
        confusion: (classes, classes) int64 of `scores.confusion`: reference class by row, result class by column.
    """
    classes, pixels = dice_iou(confusion), int(confusion.sum())
    return PixelScores(
        accuracy=int(np.trace(confusion)) / pixels if pixels else None,
        mean_accuracy=_mean(one.recall for one in classes),
        mean_iou=_mean(one.iou for one in classes),
        mean_iou_foreground=_mean(one.iou for one in classes[1:]),
        mean_dice=_mean(one.dice for one in classes),
        classes_present=sum(one.iou is not None for one in classes),
    )


def confusion_csv(confusion: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return the confusion as CSV: a row for each reference class, a column for each result class, in px.

    Args:
        confusion: (classes, classes) int64 of `scores.confusion`.
        names: of the classes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["reference", *names])
    writer.writerows([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    return text.getvalue()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
