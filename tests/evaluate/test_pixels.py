"""Scores over all classes against counting pixel by pixel."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_pipeline.evaluate.pixels import confusion_csv, pixel_scores
from unet_pipeline.evaluate.scores import confusion

CLASSES = hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))
RESULTS = hnp.arrays(np.uint8, (4, 5), elements=st.integers(0, 3))


def mean(values):
    return sum(values) / len(values) if values else None


def brute_force(reference, result, classes):
    """By sets of pixel numbers."""
    annotated = [i for i, value in enumerate(reference.flat) if value != 255]
    expected, found = (
        [{i for i in annotated if array.flat[i] == one} for one in range(classes)] for array in (reference, result)
    )
    pairs = [(t, f) for t, f in zip(expected, found, strict=True)]
    return {
        "accuracy": sum(len(t & f) for t, f in pairs) / len(annotated) if annotated else None,
        "mean_accuracy": mean([len(t & f) / len(t) for t, f in pairs if t]),
        "mean_iou": mean([len(t & f) / len(t | f) for t, f in pairs if t | f]),
        "mean_iou_foreground": mean([len(t & f) / len(t | f) for t, f in pairs[1:] if t | f]),
        "mean_dice": mean([2 * len(t & f) / (len(t) + len(f)) for t, f in pairs if t | f]),
        "classes_present": sum(bool(t | f) for t, f in pairs),
    }


@given(CLASSES, RESULTS)
def test_scores_are_those_of_counting(reference, result):
    found = pixel_scores(confusion(reference, result, 4, ignore=255)).as_dict()
    wanted = brute_force(reference, result, 4)
    assert {name: pytest.approx(value) for name, value in wanted.items()} == found


def test_absent_classes_are_left_out_and_spurious_ones_count_zero():
    absent = pixel_scores(np.array([[6, 0, 0], [0, 2, 0], [0, 0, 0]]))
    assert (absent.mean_iou, absent.mean_iou_foreground, absent.classes_present) == (1, 1, 2)
    spurious = pixel_scores(np.array([[6, 0, 1], [0, 2, 0], [0, 0, 0]]))
    assert spurious.mean_iou == pytest.approx((6 / 7 + 1 + 0) / 3)
    assert spurious.mean_accuracy == pytest.approx((6 / 7 + 1) / 2), (
        "recall has a meaning for classes of the reference only"
    )
    assert pixel_scores(np.zeros((2, 2), np.int64)).mean_iou is None


def test_the_table_can_be_read_back_whatever_the_names():
    names, counts = ['a, "b"', "c\nd"], np.array([[2**40, 1], [0, 3]])
    head, *rows = csv.reader(io.StringIO(confusion_csv(counts, names)))
    assert head == ["reference", *names]
    assert [row[0] for row in rows] == names
    assert [[int(cell) for cell in row[1:]] for row in rows] == counts.tolist()
