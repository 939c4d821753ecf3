from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import LARGEST_ID, OverlapTable

IDS = st.sampled_from([0, 1, 2, 3, 70_000, LARGEST_ID])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7)


@st.composite
def label_pairs(draw):
    shape = draw(SHAPES)
    return tuple(draw(hnp.arrays(np.uint32, shape, elements=IDS)) for _ in range(2))


def rows(table: OverlapTable) -> dict[tuple[int, int], int]:
    keys = list(zip(table.reference.tolist(), table.result.tolist(), strict=True))
    assert keys == sorted(set(keys)), "rows are unique and sorted"
    return dict(zip(keys, table.pixels.tolist(), strict=True))


def counted(reference, result) -> dict[tuple[int, int], int]:
    return dict(Counter(zip(reference.ravel().tolist(), result.ravel().tolist(), strict=True)))


@given(label_pairs())
def test_counts_every_pair_of_labels(labels):
    assert rows(OverlapTable.of(*labels)) == counted(*labels)


@given(label_pairs(), st.lists(st.integers(0, 7), max_size=3), st.randoms(use_true_random=False))
def test_tables_of_blocks_add_up_to_the_table_of_the_whole(labels, cuts, random):
    reference, result = labels
    bounds = sorted({0, reference.shape[0], *(min(cut, reference.shape[0]) for cut in cuts)})
    blocks = [slice(low, high) for low, high in pairwise(bounds)]
    random.shuffle(blocks)
    tables = [OverlapTable.of(reference[block], result[block]) for block in blocks]
    assert rows(OverlapTable.merge(tables)) == counted(reference, result)
    assert rows(sum(tables, OverlapTable.merge([]))) == counted(reference, result)


@given(label_pairs())
def test_areas_count_everything_an_object_covers(labels):
    table = OverlapTable.of(*labels)
    for values, (ids, areas) in zip(labels, (table.reference_areas(), table.result_areas()), strict=True):
        expected = Counter(values.ravel().tolist())
        expected.pop(0, None)
        assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == dict(expected)
        assert ids.tolist() == sorted(expected)


def test_planes_keep_equal_ids_apart_but_share_the_background():
    reference, result = np.array([0, 1, LARGEST_ID]), np.array([0, 0, 5])
    table = OverlapTable.of(reference, result) + OverlapTable.of(reference, result, plane=3)
    shift = 3 * 2**32
    assert rows(table) == {
        (0, 0): 2,
        (1, 0): 1,
        (LARGEST_ID, 5): 1,
        (1 + shift, 0): 1,
        (LARGEST_ID + shift, 5 + shift): 1,
    }


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type_will_do(dtype):
    labels = np.array([[0, 1, 1], [0, 0, 1]], dtype)
    assert rows(OverlapTable.of(labels, labels[::-1])) == {(0, 0): 2, (0, 1): 1, (1, 0): 1, (1, 1): 2}


def test_views_that_are_not_contiguous_are_counted_in_place_order():
    reference, result = np.arange(24).reshape(4, 6) // 3, np.arange(24).reshape(6, 4).T % 5
    assert rows(OverlapTable.of(reference[::2, ::-1], result[::2, ::-1])) == counted(
        reference[::2, ::-1], result[::2, ::-1]
    )


@pytest.mark.parametrize(
    ("reference", "result", "where"),
    [
        (np.zeros(3, int), np.zeros(4, int), "result"),
        (np.array([-1, 0]), np.zeros(2, int), "reference labels"),
        (np.zeros(2, int), np.array([0, LARGEST_ID + 1]), "result labels"),
        (np.zeros(2, int), np.array([0.0, 1.0]), "result labels"),
    ],
)
def test_labels_that_cannot_be_counted_are_refused(reference, result, where):
    with pytest.raises(PipelineError) as caught:
        OverlapTable.of(reference, result)
    assert caught.value.where == where
