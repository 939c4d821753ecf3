"""Confusion of classes, and what follows from it, by hand and pixel by pixel."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.scores import average_precision, confusion, dice_iou, seg_score

CLASSES = hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255]))


@given(CLASSES, hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 2)))
@settings(max_examples=50)
def test_confusion_counts_which_class_became_which(reference, result):
    matrix = confusion(reference, result, classes=3, ignore=255)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[int(((reference == r) & (result == c)).sum()) for c in range(3)] for r in range(3)]
    assert np.array_equal(matrix, sum(confusion(reference[y], result[y], 3, 255) for y in range(4)))
    for index, score in enumerate(dice_iou(matrix)):
        expected, found = (reference == index), (result == index) & (reference != 255)
        both, either = int((expected & found).sum()), int((expected | found).sum())
        assert score.iou == (both / either if either else None)
        assert score.dice == (2 * both / (expected.sum() + found.sum()) if either else None)
        assert score.precision == (both / found.sum() if found.any() else None)
        assert score.recall == (both / expected.sum() if expected.any() else None)


def test_dice_and_iou_by_hand():
    background, cell, absent = dice_iou(np.array([[5, 1, 0], [2, 2, 0], [0, 0, 0]]))
    assert (cell.reference_pixels, cell.result_pixels) == (4, 3)
    assert (cell.dice, cell.iou, cell.precision, cell.recall) == (4 / 7, 2 / 5, 2 / 3, 2 / 4)
    assert background.dice == 10 / 13
    assert absent.as_dict() == {
        "index": 2,
        "reference_pixels": 0,
        "result_pixels": 0,
        "dice": None,
        "iou": None,
        "precision": None,
        "recall": None,
    }


def test_values_that_are_no_class_are_refused():
    with pytest.raises(PipelineError, match="reference classes: expected 0 to 1"):
        confusion(np.array([0, 255]), np.array([0, 0]), classes=2)
    with pytest.raises(PipelineError, match="result classes"):
        confusion(np.array([0, 255]), np.array([2, 0]), classes=2, ignore=255)
    with pytest.raises(PipelineError, match="shape"):
        confusion(np.zeros((2, 2), int), np.zeros(4, int), classes=2)


def test_pixel_overlap_cannot_tell_touching_cells_apart_but_object_scores_can():
    reference = np.array([[1] * 20 + [0] + [2] * 20])
    result = np.ones_like(reference)
    pixel = dice_iou(confusion(reference > 0, result > 0, classes=2))[1]
    table = OverlapTable.of(reference, result)
    assert pixel.iou == 40 / 41
    assert seg_score(table).seg == pytest.approx(20 / 41)
    assert average_precision(table)[0.5].true_positives == 0
    assert all(
        low.true_positives >= high.true_positives for low, high in combinations(average_precision(table).values(), 2)
    )
