from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from skimage import metrics

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.partitions import (
    adapted_rand_error,
    pair_sums,
    v_info,
    v_rand,
    variation_of_information,
)
from unet_pipeline.evaluate.scores import AP_THRESHOLDS, average_precision, seg_score

LABELS = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 4))


@st.composite
def label_pairs(draw):
    """Two label images; the result often resembles the reference, as results do."""
    reference = draw(LABELS)
    noise = draw(hnp.arrays(np.uint16, reference.shape, elements=st.integers(0, 5)))
    changed = draw(hnp.arrays(bool, reference.shape))
    return reference, np.where(changed, noise, reference)


def cells(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A reference of square cells with background between, and a shifted, partly cut and partly joined result."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    reference = ((y // 8) * (size // 8) + x // 8 + 1) * ((y % 8 > 0) & (x % 8 > 0))
    reference[np.isin(reference, rng.choice(reference.max(), 10))] = 0
    result = np.roll(reference, tuple(rng.integers(-1, 2, 2)), axis=(0, 1))
    result = np.where(rng.random(reference.max() + 1)[result] < 0.3, result // 2, result)
    return reference.astype(np.uint16), result.astype(np.uint16)


def permuted(labels: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids = np.concatenate([[0], 1 + rng.choice(2**32 - 1, int(labels.max(initial=0)), replace=False)])
    return ids[labels].astype(np.uint32)


# --- SEG


def test_seg_by_hand():
    reference = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3]])
    result = np.array([[7, 7, 7, 0, 7, 8, 8, 9, 9, 9, 0, 4]])
    # 1: covered by 7 in 3 of 4, union 5 -> 0.6. 2: halves by 8 and by 9, no match. 3: exactly half, no match.
    score = seg_score(OverlapTable.of(reference, result))
    assert score.seg == pytest.approx(0.6 / 3)
    assert (score.objects, score.matched) == (3, 1)


def test_seg_counts_the_result_outside_reference_objects_but_not_false_positives():
    reference, result = np.array([1, 1, 0, 0, 0, 0]), np.array([5, 5, 5, 5, 0, 6])
    assert seg_score(OverlapTable.of(reference, result)).seg == 0.5


def test_one_result_object_may_match_two_reference_objects():
    assert seg_score(OverlapTable.of(np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3]))).as_dict() == {
        "seg": 0.5,
        "objects": 2,
        "matched": 2,
    }


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_seg_is_that_of_py_ctcmetrics_over_several_frames(seed, tmp_path):
    from ctc_metrics.metrics.technical.seg import seg as ctc_seg  # here, for it imports scikit-learn and pandas
    from ctc_metrics.utils.representations import match as ctc_match

    references, overlaps, tables = [], [], []
    for frame in range(3):
        pair = cells(10 * seed + frame)
        paths = [str(tmp_path / f"{name}{frame:03}.tif") for name in ("man_seg", "mask")]
        for path, labels in zip(paths, pair, strict=True):
            tifffile.imwrite(path, labels)
        ids, _, _, _, iou = ctc_match(*paths)
        references.append(ids)
        overlaps.append(iou)
        tables.append(OverlapTable.of(*pair, plane=frame))
    score = seg_score(OverlapTable.merge(tables))
    assert score.seg == pytest.approx(ctc_seg(references, overlaps), abs=1e-12)
    assert 0.05 < score.seg < 0.95
    assert score.objects == sum(map(len, references))


# --- average precision


def brute_matches(reference, result, threshold) -> int:
    """The largest number of one-to-one pairs with IoU at or above the threshold, from dense matrices."""
    sets = [[labels == label for label in np.unique(labels) if label] for labels in (reference, result)]
    good = np.array([[(r & s).sum() / (r | s).sum() >= threshold for s in sets[1]] for r in sets[0]])
    if not good.size:
        return 0
    return int(good[linear_sum_assignment(good, maximize=True)].sum())


@given(label_pairs())
def test_average_precision_is_that_of_dense_matching(labels):
    table = OverlapTable.of(*labels)
    references, results = (len(set(np.unique(image)) - {0}) for image in labels)
    for threshold, score in average_precision(table, (0.2, *AP_THRESHOLDS, 1.0)).items():
        found = brute_matches(*labels, threshold)
        assert (score.true_positives, score.false_positives, score.false_negatives) == (
            found,
            results - found,
            references - found,
        )
        total = references + results - found
        assert score.average_precision == (found / total if total else None)
        assert score.precision == (found / results if results else None)
        assert score.recall == (found / references if references else None)


def test_average_precision_by_hand():
    reference = np.array([[1] * 10 + [2] * 10 + [3] * 10])
    result = np.array([[1] * 10 + [2] * 7 + [0] * 3 + [4] * 5 + [5] * 5])
    scores = average_precision(OverlapTable.of(reference, result))
    # 1 is perfect, 2 has IoU 0.7 exactly, 3 is two halves of IoU 0.5, of which one counts at threshold 0.5.
    assert [score.true_positives for score in scores.values()] == [3, 2, 2, 2, 2, 1, 1, 1, 1, 1]
    assert scores[0.5].average_precision == 3 / 4
    assert scores[0.5].f1 == pytest.approx(2 * 3 / (3 + 4))
    assert scores[0.95].average_precision == 1 / 6
    assert scores[0.95].precision == 1 / 4
    assert scores[0.95].recall == 1 / 3


def test_each_object_is_matched_once_even_where_the_greedy_choice_blocks():
    # At 0.2, A overlaps X and Y, B only X: the best pairing is A-Y, B-X, though A and X overlap most.
    reference = np.array([1] * 6 + [2] * 2)
    result = np.array([8] * 2 + [7] * 6)
    assert average_precision(OverlapTable.of(reference, result), (0.2,))[0.2].true_positives == 2


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(PipelineError, match="IoU threshold"):
        average_precision(OverlapTable.merge([]), (threshold,))


# --- V_rand and V_info


def brute_v_rand(reference, result, alpha) -> float:
    """Eq. 3 counted pixel pair by pixel pair, each pixel with itself included."""
    inside = reference.ravel() > 0
    t, s = reference.ravel()[inside], result.ravel()[inside]
    same_t, same_s = t[:, None] == t, s[:, None] == s
    return (same_t & same_s).sum() / (alpha * same_s.sum() + (1 - alpha) * same_t.sum())


def with_singletons(reference, result) -> np.ndarray:
    own = 1000 + np.arange(result.size).reshape(result.shape)
    return np.where((reference > 0) & (result == 0), own, result)


@given(label_pairs(), st.floats(0, 1))
def test_v_rand_is_the_share_of_pixel_pairs(labels, alpha):
    reference, result = labels
    table = OverlapTable.of(*labels)
    if not reference.any():
        assert v_rand(table).as_dict() == {"value": None, "split": None, "merge": None}
        return
    score = v_rand(table, alpha)
    assert score.value == pytest.approx(brute_v_rand(reference, result, alpha))
    assert score.split == pytest.approx(brute_v_rand(reference, result, 0))
    assert score.merge == pytest.approx(brute_v_rand(reference, result, 1))


@given(label_pairs(), st.floats(0, 1))
def test_singletons_are_segments_of_one_pixel(labels, alpha):
    reference, result = labels
    table, explicit = OverlapTable.of(reference, result), OverlapTable.of(reference, with_singletons(reference, result))
    for score in (v_rand, v_info):
        counted, expected = score(table, alpha, "singletons"), score(explicit, alpha)
        assert counted.as_dict() == pytest.approx(expected.as_dict(), abs=1e-9)


def test_singletons_are_how_cremi_and_the_challenge_count():
    reference, result = cells(3)
    inside = reference > 0
    t, s = reference[inside].astype(int), result[inside].astype(int)
    n = len(t)
    table = np.zeros((t.max() + 1, s.max() + 1))
    np.add.at(table, (t, s), 1)
    unassigned = table[:, 0].sum()
    joint = (table[:, 1:] ** 2).sum() / n**2 + unassigned / n**2
    size_t = (table.sum(axis=1) ** 2).sum() / n**2
    size_s = (table[:, 1:].sum(axis=0) ** 2).sum() / n**2 + unassigned / n**2
    precision, recall = joint / size_s, joint / size_t
    expected = 2 * precision * recall / (precision + recall)
    counted = v_rand(OverlapTable.of(reference, result), background="singletons")
    assert counted.value == pytest.approx(expected)
    assert (counted.merge, counted.split) == pytest.approx((precision, recall))
    assert adapted_rand_error(OverlapTable.of(reference, result)) == pytest.approx(1 - expected)


@given(label_pairs(), st.integers(0, 8))
def test_variation_of_information_is_that_of_skimage_in_blocks_too(labels, cut):
    if not labels[0].any():
        return
    parts = OverlapTable.of(*(x[:cut] for x in labels)) + OverlapTable.of(*(x[cut:] for x in labels))
    counted = variation_of_information(parts)
    split, merge = metrics.variation_of_information(*labels, ignore_labels=(0,))
    assert counted.as_dict() == pytest.approx({"value": split + merge, "split": split, "merge": merge}, abs=1e-9)


@given(label_pairs())
def test_adapted_rand_error_is_that_of_skimage_but_for_background_and_pairs_of_a_pixel_with_itself(labels):
    reference, result = np.kron(labels[0], np.ones((64, 64), int)), np.kron(labels[1], np.ones((64, 64), int)) + 1
    if not reference.any():
        return
    error, _, _ = metrics.adapted_rand_error(reference, result, ignore_labels=(0,))
    assert adapted_rand_error(OverlapTable.of(reference, result)) == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_unthinned_v_rand_is_skimage_but_for_the_pairs_of_a_pixel_with_itself(seed, alpha):
    reference, result = cells(seed)
    table = OverlapTable.of(reference, result)
    # Its alpha weighs the reference's sizes, the paper's the result's.
    error, _, _ = metrics.adapted_rand_error(reference, result, ignore_labels=(0,), alpha=1 - alpha)
    sums, n = pair_sums(table), int((reference > 0).sum())
    weighted = alpha * sums.result + (1 - alpha) * sums.reference
    assert 1 - error == pytest.approx((sums.joint - n) / (weighted - n), abs=1e-12)
    assert 1 - error == pytest.approx(v_rand(table, alpha).value, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_v_info_follows_from_the_conditional_entropies_of_skimage(seed):
    from scipy.stats import entropy

    reference, result = cells(seed)
    split, merge = metrics.variation_of_information(reference, result, ignore_labels=(0,))
    inside = reference > 0
    h_reference, h_result = (entropy(np.unique(x[inside], return_counts=True)[1], base=2) for x in (reference, result))
    score = v_info(OverlapTable.of(reference, result))
    assert score.split == pytest.approx((h_result - split) / h_result)
    assert score.merge == pytest.approx((h_reference - merge) / h_reference)
    assert score.value == pytest.approx((h_result - split) / (0.5 * h_result + 0.5 * h_reference))


def test_v_scores_by_hand():
    # Reference: two cells of 4. Result: one of them whole, the other in two halves.
    halves = OverlapTable.of(np.array([1] * 4 + [2] * 4), np.array([1] * 4 + [2] * 2 + [3] * 2))
    assert v_rand(halves).as_dict() == pytest.approx(
        {"value": 24 / (0.5 * 24 + 0.5 * 32), "split": 24 / 32, "merge": 1.0}
    )
    # H(T) = 1 bit, H(S) = 1.5 bit, I = 1 bit.
    assert v_info(halves).as_dict() == pytest.approx({"value": 1 / 1.25, "split": 1 / 1.5, "merge": 1.0})
    joined = OverlapTable.of(np.array([0, 1, 1, 2, 2]), np.array([5, 5, 5, 5, 5]))
    assert v_rand(joined).as_dict() == pytest.approx({"value": 8 / 12, "split": 1.0, "merge": 0.5})
    assert v_info(joined).as_dict() == {"value": 0.0, "split": 1.0, "merge": 0.0}
    alone = OverlapTable.of(np.array([0, 1, 1]), np.array([0, 4, 4]))
    assert v_info(alone).as_dict() == {"value": 1.0, "split": 1.0, "merge": 1.0}


@pytest.mark.parametrize("score", [v_rand, v_info])
@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range_is_refused(score, alpha):
    with pytest.raises(PipelineError, match="alpha"):
        score(OverlapTable.merge([]), alpha)


# --- of all object scores


@given(label_pairs(), st.integers(0, 100))
def test_ids_do_not_matter(labels, seed):
    table = OverlapTable.of(*labels)
    renamed = OverlapTable.of(permuted(labels[0], seed), permuted(labels[1], seed + 1))
    assert seg_score(renamed).as_dict() == pytest.approx(seg_score(table).as_dict())
    assert average_precision(renamed) == average_precision(table)
    for score in (v_rand, v_info):
        assert score(renamed).as_dict() == pytest.approx(score(table).as_dict(), abs=1e-9)


@given(LABELS.filter(np.any), st.integers(0, 100))
def test_a_perfect_result_scores_one_whatever_its_ids(reference, seed):
    table = OverlapTable.of(reference, permuted(reference, seed))
    assert seg_score(table).seg == 1
    assert all(score.average_precision == score.f1 == 1 for score in average_precision(table).values())
    for score in (v_rand, v_info):
        assert score(table).as_dict() == pytest.approx({"value": 1, "split": 1, "merge": 1})
    assert variation_of_information(table).as_dict() == pytest.approx({"value": 0, "split": 0, "merge": 0}, abs=1e-9)
    assert adapted_rand_error(table) == pytest.approx(0)


@given(label_pairs(), st.integers(0, 8))
def test_scores_do_not_depend_on_the_blocks(labels, cut):
    whole = OverlapTable.of(*labels)
    parts = OverlapTable.of(*(x[:cut] for x in labels)) + OverlapTable.of(*(x[cut:] for x in labels))
    assert seg_score(parts) == seg_score(whole)
    assert average_precision(parts) == average_precision(whole)
    assert (v_rand(parts), v_info(parts)) == (v_rand(whole), v_info(whole))


@pytest.mark.parametrize("pixels", [0, 5])
def test_without_objects_nothing_is_scored(pixels):
    table = OverlapTable.of(np.zeros(pixels, int), np.zeros(pixels, int))
    assert seg_score(table).as_dict() == {"seg": None, "objects": 0, "matched": 0}
    assert average_precision(table)[0.5].average_precision is None
    assert v_rand(table).value is v_info(table).value is None
    assert adapted_rand_error(table) is variation_of_information(table).value is None
    only_result = OverlapTable.of(np.zeros(3, int), np.array([0, 1, 2]))
    assert average_precision(only_result)[0.5].average_precision == 0
    assert average_precision(only_result)[0.5].recall is None
    only_reference = OverlapTable.of(np.array([0, 1, 2]), np.zeros(3, int))
    assert seg_score(only_reference).seg == 0
    assert average_precision(only_reference)[0.5].precision is None


def test_scores_are_json_without_nan():
    for table in (OverlapTable.of(*cells(0)), OverlapTable.merge([])):
        values = [score(table).as_dict() for score in (seg_score, v_rand, v_info, variation_of_information)]
        values += [score.as_dict() for score in average_precision(table).values()]
        assert json.loads(json.dumps(values, allow_nan=False)) == values


# --- classes
