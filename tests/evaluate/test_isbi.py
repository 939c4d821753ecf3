from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from places import DATA
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.isbi import THRESHOLDS, combine_planes, isbi_scores, segments, thin_borders
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.partitions import v_info, v_rand


def filled_by_maximum_filter(labels, foreground) -> np.ndarray:
    """The rule of `thin_borders` with a filter over the whole plane in each round."""
    labels = labels.astype(np.int64)
    while labels.any() and (labels[foreground] == 0).any():
        labels = np.where(labels == 0, ndimage.maximum_filter(labels, 3), labels)
    return labels


@st.composite
def sparse_labels(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(1, 6, shape) * (rng.random(shape) < draw(st.sampled_from([0.0, 0.03, 0.3])))
    return labels.astype(np.uint32), rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 1.0]))


@given(sparse_labels())
@settings(deadline=None)
def test_thinning_is_the_repeated_maximum_filter(plane):
    labels, foreground = plane
    thinned = thin_borders(labels, foreground)
    assert np.array_equal(thinned, filled_by_maximum_filter(labels, foreground))
    assert np.array_equal(thinned[labels > 0], labels[labels > 0])
    assert not labels.any() or (thinned[foreground] > 0).all()


def test_segments_are_4_connected_and_numbered_in_reading_order():
    assert segments(np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0]])).tolist() == [[1, 0, 2], [0, 2, 2], [3, 0, 0]]


# --- one plane


def two_cells(rows=3) -> np.ndarray:
    """Cells of 3 columns each with a membrane of one column between."""
    return np.tile(np.array([1, 1, 1, 0, 2, 2, 2]), (rows, 1))


def test_scores_of_a_plane_by_hand():
    reference = two_cells()
    probability = np.where(reference > 0, 0.95, 0.35)
    scores = isbi_scores(probability, reference)
    assert [plane.threshold for plane in scores] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for plane in scores[:4]:  # the membrane counts as interior, so the cells are one
        assert plane.v_rand.as_dict() == pytest.approx({"value": 2 / 3, "split": 1, "merge": 1 / 2})
        assert plane.v_info.as_dict() == {"value": 0, "split": 1, "merge": 0}
        assert (plane.true_positives, plane.false_positives, plane.false_negatives) == (18, 3, 0)
        assert plane.warping.as_dict() == {"mismatches": 3, "splits": 0, "mergers": 3}
        assert (plane.pairs.joint, plane.pairs.result, plane.pairs.reference) == (2 * 81, 18**2, 2 * 81)
    for plane in scores[4:]:
        assert plane.v_rand.value == pytest.approx(1)
        assert plane.v_info.value == pytest.approx(1)
        assert (plane.true_positives, plane.false_positives, plane.false_negatives) == (18, 0, 0)
        assert plane.warping.mismatches == 0
    best = combine_planes([scores])
    assert best.v_rand.as_dict() == pytest.approx({"value": 1, "threshold": 0.4, "split": 1, "merge": 1})
    assert best.pixel_error.as_dict() == {"value": 0, "threshold": 0.4, "split": None, "merge": None}
    assert best.rand_error.value == pytest.approx(0)
    assert best.warping_error.value == best.splits_mergers_error.value == 0
    assert best.curves["pixel_error"][0] == 3 / 39
    assert best.curves["rand_error"][0] == pytest.approx(1 / 3)
    assert best.curves["warping_error"][0] == best.curves["splits_mergers_error"][0] == 3 / 21


def test_the_threshold_itself_is_membrane():
    reference = two_cells()
    at_grid = isbi_scores(np.where(reference > 0, 0.5, 0.0).astype(np.float32), reference)
    assert [plane.true_positives for plane in at_grid] == [18] * 5 + [0] * 5


def test_thinning_forgives_wide_membranes_and_the_unthinned_rand_error_does_not():
    reference = np.kron(two_cells(4), np.ones((5, 5), int))
    eroded = ndimage.binary_erosion(reference > 0, iterations=3).astype(float)
    best = combine_planes([isbi_scores(eroded, reference)])
    assert best.v_rand.value == pytest.approx(1)
    assert best.v_info.value == pytest.approx(1)
    assert best.rand_error.value > 0.3
    assert best.pixel_error.value > 0.2
    assert best.warping_error.value == 0


def test_a_result_without_interior_leaves_one_segment():
    reference = two_cells()
    plane = isbi_scores(np.zeros(reference.shape), reference, (0.5,))[0]
    assert plane.v_rand.as_dict() == pytest.approx({"value": 2 / 3, "split": 1, "merge": 1 / 2})
    assert plane.false_negatives == 18
    # Without thinning each of its membrane pixels is a segment: 18 singletons against cells of 9.
    assert (plane.pairs.joint, plane.pairs.result, plane.pairs.reference) == (18, 18, 162)


# --- a stack


def test_planes_are_joined_at_each_threshold_before_the_best_is_taken():
    reference = two_cells()
    low, high = (np.where(reference > 0, interior, membrane) for interior, membrane in ((0.5, 0.1), (0.9, 0.6)))
    planes = [isbi_scores(probability, reference, (0.2, 0.7)) for probability in (low, high)]
    alone = [combine_planes([plane]).v_rand for plane in planes]
    assert [(score.value, score.threshold) for score in alone] == [(pytest.approx(1), 0.2), (pytest.approx(1), 0.7)]
    together = combine_planes(planes)
    # At either threshold one plane is perfect and the other scores 2/3, whether joined or empty.
    assert together.v_rand.value == pytest.approx((1 + 2 / 3) / 2)
    assert together.v_rand.threshold == 0.2
    assert together.planes == 2
    assert together.curves["v_rand"] == pytest.approx([5 / 6, 5 / 6])
    # Pairs and pixels are summed: at 0.2 joint 162 + 162, result 162 + 324; at 0.7 joint 18 + 162, result 18 + 162.
    assert together.curves["rand_error"] == pytest.approx([1 - 648 / (486 + 324), 1 - 360 / (180 + 324)])
    assert together.curves["pixel_error"] == pytest.approx([3 / (2 * 36 + 3), 18 / (2 * 18 + 18)])
    assert (together.rand_error.threshold, together.pixel_error.threshold) == (0.2, 0.2)
    assert together.curves["warping_error"][0] == 3 / 42


@given(st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_planes_does_not_matter(order):
    rng = np.random.default_rng(0)
    planes = [isbi_scores(rng.random((3, 7)), two_cells()) for _ in range(4)]
    shuffled, ordered = (json.dumps(combine_planes(list(x)).as_dict()) for x in ([planes[i] for i in order], planes))
    assert json.loads(shuffled, parse_float=lambda x: round(float(x), 9)) == json.loads(
        ordered, parse_float=lambda x: round(float(x), 9)
    )


def test_planes_without_interior_are_left_out_of_the_means_but_their_pixels_count():
    reference, empty = two_cells(), np.zeros((3, 7), int)
    probability = np.where(reference > 0, 0.9, 0.0)
    alone = isbi_scores(np.ones((3, 7)), empty)
    assert alone[0].v_rand.value is None
    both = combine_planes([isbi_scores(probability, reference), alone])
    assert both.v_rand.value == pytest.approx(1)
    assert both.pixel_error.value == 21 / (2 * 18 + 21)
    nothing = combine_planes([alone])
    assert nothing.v_rand.as_dict() == {"value": None, "threshold": None, "split": None, "merge": None}
    assert nothing.rand_error.value is None
    assert nothing.pixel_error.value == 1
    assert combine_planes([isbi_scores(np.zeros((3, 7)), empty)]).pixel_error.value is None


def test_results_are_json_without_nan():
    planes = [
        isbi_scores(np.random.default_rng(0).random((9, 9)), np.eye(9, dtype=int)),
        isbi_scores(np.eye(9), np.zeros((9, 9), int)),
    ]
    for value in (combine_planes(planes).as_dict(), planes[0][3].as_dict()):
        json.dumps(value, allow_nan=False)


# --- wrong input


@pytest.mark.parametrize(
    ("probability", "reference", "thresholds", "where"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), int), THRESHOLDS, "result"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int), THRESHOLDS, "reference labels"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), int), THRESHOLDS, "probability of interior"),
        (np.full((2, 2), 1.01), np.zeros((2, 2), int), THRESHOLDS, "probability of interior"),
        (np.full((2, 2), 255, np.uint8), np.zeros((2, 2), int), THRESHOLDS, "probability of interior"),
        (np.zeros((2, 2)), np.zeros((2, 2)), THRESHOLDS, "reference labels"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), (0.5, 0.4), "thresholds"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), (0.5, 1.0), "thresholds"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), (-0.1, 0.5), "thresholds"),
    ],
)
def test_wrong_input_is_refused(probability, reference, thresholds, where):
    with pytest.raises(PipelineError) as caught:
        isbi_scores(probability, reference, thresholds)
    assert caught.value.where == where


def test_planes_that_do_not_belong_together_are_refused():
    one = isbi_scores(np.zeros((2, 2)), np.zeros((2, 2), int))
    other = tuple(replace(plane, threshold=plane.threshold / 2) for plane in one)
    for planes in ([], [one, other], [one, one[:3]]):
        with pytest.raises(PipelineError, match="planes"):
            combine_planes(planes)


# --- real labels


@pytest.fixture(scope="module")
def sections() -> np.ndarray:
    path = DATA / "isbi2012_em" / "labels.tif"
    if not path.exists():
        pytest.skip(f"no ISBI 2012 labels at {path}; set UNET_PIPELINE_DATA to the folder of data sets")
    return tifffile.imread(path, key=(0, 12)) > 0


def test_real_labels_against_themselves_are_perfect(sections):
    best = combine_planes([isbi_scores(interior.astype(np.float32), segments(interior)) for interior in sections])
    assert best.v_rand.value == pytest.approx(1)
    assert best.v_info.value == pytest.approx(1)
    assert best.warping_error.value == best.pixel_error.value == 0
    assert best.rand_error.value == pytest.approx(0)


def test_real_labels_with_wider_or_broken_membranes_rank_as_a_reader_would(sections):
    def scored(change):
        return combine_planes(
            [isbi_scores(change(interior).astype(np.float32), segments(interior), (0.5,)) for interior in sections]
        )

    wider = scored(lambda interior: ndimage.binary_erosion(interior, iterations=1))
    # Openings of 9 x 9 px at random places, some of them across membranes.
    places = np.random.default_rng(0).random(sections[0].shape) < 0.0005
    broken = scored(lambda interior: interior | ndimage.binary_dilation(places, np.ones((9, 9), bool)))
    assert wider.v_rand.value > 0.98 > broken.v_rand.value
    assert wider.v_info.value > 0.98 > broken.v_info.value
    assert wider.v_rand.value > 1 - wider.rand_error.value, "thinning forgives what the Rand error counts"
    assert wider.pixel_error.value > broken.pixel_error.value, "pixels see the harmless change as the worse one"
    assert broken.v_rand.split > broken.v_rand.merge, "openings join cells and cut none"
    assert broken.splits_mergers_error.value > wider.splits_mergers_error.value


def test_scores_of_a_real_plane_agree_with_the_formulas_step_by_step(sections):
    interior = sections[0]
    probability = np.clip(ndimage.gaussian_filter(interior.astype(float), 2), 0, 1)
    reference = segments(interior)
    plane = isbi_scores(probability, reference, (0.6,))[0]
    found = filled_by_maximum_filter(ndimage.label(probability > 0.6)[0], interior)
    table = OverlapTable.of(reference[interior], found[interior])
    assert plane.v_rand == v_rand(table)
    assert plane.v_info == v_info(table)
    assert 0.5 < plane.v_rand.value < 1
