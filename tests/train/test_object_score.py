"""The score by which weights are chosen is that of `evaluate`, of what is connected at the best threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from unet_pipeline.config.sections import IGNORE
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.scores import average_precision, seg_score
from unet_pipeline.train.object_score import THRESHOLDS, object_counts, object_score

SHAPE = (2, 9, 11)
PROBABILITIES = arrays.arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.5, 0.55, 0.65, 0.75, 1.0]))
ABOVE = 0.5 + 1e-9
"""An IoU of one half exactly can be that of two results, so here it is no match."""
TARGETS = arrays.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 1, IGNORE]))


@given(PROBABILITIES, TARGETS)
def test_it_is_the_score_of_evaluate(inside, target):
    def expected(threshold):
        tables = []
        for plane, (probability, classes) in enumerate(zip(inside, target, strict=True)):
            seen = classes != IGNORE
            found, reference = (ndimage.label(mask & seen)[0] for mask in (probability >= threshold, classes == 1))
            tables.append(OverlapTable.of(reference[seen], found[seen], plane))
        table = OverlapTable.merge(tables)
        return (seg_score(table).seg, average_precision(table, (ABOVE,))[ABOVE].average_precision)

    counts = object_counts(inside, target)
    parts = sum(object_counts(inside[n : n + 1], target[n : n + 1]) for n in range(2))
    np.testing.assert_array_equal(counts[:, 1:], parts[:, 1:])
    if counts[0, 1] == 0:
        assert object_score(counts) is None
    else:
        best = max((sum(expected(threshold)) / 2 for threshold in THRESHOLDS), default=None)
        assert object_score(counts) == pytest.approx(best)


def test_a_surer_network_scores_by_its_own_threshold():
    """Two cells whose seam is as likely as 0.6: joined at one half, parted at 0.7."""
    target = np.zeros((1, 20, 41), np.uint8)
    target[0, 5:15, 5:20], target[0, 5:15, 21:36] = 1, 1
    inside = np.where(target == 1, 0.9, 0.0)
    inside[0, 5:15, 20] = 0.6
    assert object_score(object_counts(inside, target)) == 1.0
    assert object_score(object_counts(inside, target)[:1]) < 0.3
