"""The boundary weight against the paper's formula, evaluated instance by instance on the whole plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DATA
from scipy import ndimage
from skimage.morphology import disk

from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.weight_map import boundary_term, class_weights, cutoff_px, halo_px, open_gaps, vanished_ids

FORMULAS = ("paper", "release")


def by_definition(labels, w0, sigma_px, formula="paper"):
    """w0·exp(−(d1+d2)²/(2σ²)) or, as released, w0·exp(−(d1+d2)²/σ²), with one distance transform per instance."""
    d1, d2 = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    for label in np.unique(labels[labels > 0]):
        away = ndimage.distance_transform_edt(labels != label)
        d1, d2 = np.minimum(d1, away), np.minimum(d2, np.maximum(d1, away))
    width = {"paper": 2 * sigma_px**2, "release": sigma_px**2}[formula]
    return np.where(labels == 0, w0 * np.exp(-((d1 + d2) ** 2) / width), 0)


def cells(shape, count, seed=0, radius_px=9):
    """Discs, later ones over earlier ones: some touch, some are cut in two."""
    rng = np.random.default_rng(seed)
    labels, grid = np.zeros(shape, np.uint16), np.indices(shape)
    for label in range(1, count + 1):
        centre = rng.uniform(0, shape).reshape(2, 1, 1)
        labels[((grid - centre) ** 2).sum(0) < rng.uniform(1, radius_px) ** 2] = label
    return labels


def walls(gap_px, height=5, side_px=40):
    """Two half planes with a background gap."""
    return np.repeat([[1] * side_px + [0] * gap_px + [2] * side_px], height, axis=0).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.integers(0, 12),
    st.integers(0, 10**6),
    st.floats(0, 100),
    st.floats(0.1, 12),
    st.sampled_from(FORMULAS),
)
def test_equals_the_definition(shape, count, seed, w0, sigma_px, formula):
    labels = cells(shape, count, seed)
    term = boundary_term(labels, w0, sigma_px, formula)
    assert term.dtype == np.float32
    np.testing.assert_allclose(term, by_definition(labels, w0, sigma_px, formula), rtol=1e-6, atol=1.001e-6)


def test_hand_computed():
    # in a gap of 3 px every pixel has d1 + d2 = 4: (1, 3), (2, 2), (3, 1)
    gap = boundary_term(walls(3), 10, 5)[2, 40:43]
    np.testing.assert_allclose(gap, 10 * math.exp(-16 / 50), rtol=1e-6)
    np.testing.assert_allclose(boundary_term(walls(3), 10, 5, "release")[2, 40:43], 10 * math.exp(-16 / 25), rtol=1e-6)


def test_release_is_the_paper_with_a_sigma_smaller_by_root_two():
    labels = cells((90, 90), 12)
    release = boundary_term(labels, 50, 6, "release")
    np.testing.assert_allclose(release, boundary_term(labels, 50, 6 / math.sqrt(2), "paper"), atol=1e-6)
    assert np.abs(release - boundary_term(labels, 50, 6, "paper")).max() > 1


def test_fewer_than_two_instances_have_no_boundary():
    labels = np.zeros((60, 60), np.uint16)
    assert not boundary_term(labels, 10, 5).any()
    labels[20:25, 20:25] = labels[20:25, 30:35] = 3  # one instance in two pieces: d2 is infinite, not the other piece
    assert not boundary_term(labels, 10, 5).any()
    labels[20:25, 30:35] = 4
    assert boundary_term(labels, 10, 5).max() > 1


def test_touching_instances_are_not_merged():
    labels = np.zeros((30, 30), np.uint8)
    labels[10:20, 5:15], labels[10:20, 15:25] = 1, 2
    term = boundary_term(labels, 10, 5)
    assert term[9, 14] == pytest.approx(10 * math.exp(-((1 + math.sqrt(2)) ** 2) / 50), rel=1e-6)


def test_nothing_inside_instances():
    labels = cells((120, 120), 40)
    term = boundary_term(labels, 10, 5)
    assert term.max() > 1
    assert not term[labels > 0].any()


def test_distances_and_ids_do_not_overflow():
    labels = np.zeros((40, 400), np.uint8)
    labels[:, :3], labels[:, 397:] = 254, 255  # distances of 300 px, whose squares pass 2^16
    np.testing.assert_allclose(boundary_term(labels, 10, 150), by_definition(labels, 10, 150), atol=1e-5)
    labels = np.where(labels == 255, 2**32 - 1, labels.astype(np.int64))
    np.testing.assert_allclose(boundary_term(labels, 10, 150), by_definition(labels, 10, 150), atol=1e-5)


def test_many_instances():
    labels = np.zeros((400, 400), np.uint16)
    labels[2::8, 2::8] = np.arange(1, 2501).reshape(50, 50)
    # in the middle of four points, 4 px up and 4 px left of each
    assert boundary_term(labels, 10, 5)[6, 6] == pytest.approx(
        10 * math.exp(-((2 * math.sqrt(32)) ** 2) / 50), rel=1e-5
    )


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize(("w0", "sigma_px"), [(10, 5), (50, 6), (0.3, 2), (1000, 1)])
def test_cut_off(w0, sigma_px, formula):
    cutoff = cutoff_px(w0, sigma_px, formula)
    width = 2 * sigma_px**2 if formula == "paper" else sigma_px**2
    assert w0 * math.exp(-(cutoff**2) / width) == pytest.approx(1e-6)
    widest = math.floor(cutoff) - 1  # the widest gap with a term: d1 + d2 is one more
    assert boundary_term(walls(widest, side_px=2), w0, sigma_px, formula).max() >= 0.999e-6
    assert not boundary_term(walls(widest + 1, side_px=2), w0, sigma_px, formula).any()


def test_the_paper_s_reach():
    assert cutoff_px(10, 5) == pytest.approx(28.39, abs=0.01)
    assert (halo_px(10, 5), halo_px(10, 5, gap_px=1.5)) == (29, 31)


@pytest.mark.parametrize("w0", [0, 1e-6])
def test_no_weight(w0):
    assert cutoff_px(w0, 5) == 0
    assert not boundary_term(walls(1), w0, 5).any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(7, 97), st.integers(7, 83)),
    st.sampled_from([0, 1, 1.5, 3]),
    st.sampled_from([(10, 5), (50, 6), (10, 1.3)]),
    st.sampled_from(FORMULAS),
)
def test_any_block_size_gives_the_same_bits(seed, block_px, gap_px, parameters, formula):
    labels = cells((97, 83), 25, seed)
    whole = boundary_term(open_gaps(labels, gap_px), *parameters, formula)
    halo = halo_px(*parameters, formula, gap_px)
    joined = np.full_like(whole, np.nan)
    for top in range(0, 97, block_px[0]):
        for left in range(0, 83, block_px[1]):
            part = labels[
                max(0, top - halo) : top + block_px[0] + halo, max(0, left - halo) : left + block_px[1] + halo
            ]
            inner = boundary_term(open_gaps(part, gap_px), *parameters, formula)[top - max(0, top - halo) :]
            inner = inner[: block_px[0], left - max(0, left - halo) :][:, : block_px[1]]
            joined[top : top + block_px[0], left : left + block_px[1]] = inner
    assert joined.tobytes() == whole.tobytes()


def test_a_block_needs_its_halo():
    labels = cells((96, 96), 25)
    whole = boundary_term(labels, 10, 5)
    assert np.abs(boundary_term(labels[:, :48], 10, 5) - whole[:, :48]).max() > 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, math.sqrt(2), 2, 3.7]))
def test_open_gaps_by_definition(seed, gap_px):
    labels = cells((50, 60), 20, seed)
    expected = labels.copy()
    for label in np.unique(labels[labels > 0]):
        others = (labels > 0) & (labels != label)
        if others.any():
            expected[(labels == label) & (ndimage.distance_transform_edt(~others) <= gap_px)] = 0
    opened = open_gaps(labels, gap_px)
    assert opened.dtype == labels.dtype
    np.testing.assert_array_equal(opened, expected)


def test_a_gap_of_one_is_the_rule_of_the_release():
    labels = cells((120, 120), 40)
    layers = sum(ndimage.binary_dilation(labels == label, disk(1)).astype(int) for label in range(1, 41))
    np.testing.assert_array_equal(open_gaps(labels, 1), np.where(layers > 1, 0, labels))


def test_gap_widths():
    row = np.array([[1] * 6 + [2] * 6], np.uint8)
    assert open_gaps(row, 1).tolist() == [[1] * 5 + [0] * 2 + [2] * 5]
    assert open_gaps(row, 2).tolist() == [[1] * 4 + [0] * 4 + [2] * 4]
    untouched = open_gaps(row, 0)
    np.testing.assert_array_equal(untouched, row)
    assert untouched is not row


def test_thin_instances_vanish_and_are_counted():
    row = np.array([[1] * 4 + [7] * 2 + [2] * 4 + [0] * 3 + [9]], np.uint16)
    opened = open_gaps(row, 1)
    assert opened.tolist() == [[1] * 3 + [0] * 4 + [2] * 3 + [0] * 3 + [9]]
    assert vanished_ids(row, opened).tolist() == [7]
    assert vanished_ids(row, row).size == 0
    assert vanished_ids(np.array([0, 3, 4]), np.array([4])).tolist() == [3]  # background is no instance


def test_class_weights_by_hand():
    assert class_weights([90, 10]).tolist() == pytest.approx([100 / 180, 5])
    assert class_weights([7, 7, 7]).tolist() == [1, 1, 1]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20))
def test_class_weights_balance(counts):
    weights, pixels = class_weights(counts), np.asarray(counts, float)
    assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1)  # mean weight of a pixel
    np.testing.assert_allclose(weights * pixels, (weights * pixels)[0])  # every class has the same share


@pytest.mark.parametrize("counts", [[100, 0], [0, 0, 5], [100, 0, 7], [], [[1, 2]]])
def test_a_class_without_pixels(counts):
    with pytest.raises(PipelineError, match="labelled pixels of every class"):
        class_weights(counts)


def test_all_background_is_named():
    with pytest.raises(PipelineError, match=r"stacks a, b: .*no pixel of class 1") as error:
        class_weights([500, 0], where="stacks a, b")
    assert "500" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"w0": -1}, "w0"),
        ({"w0": math.nan}, "w0"),
        ({"w0": math.inf}, "w0"),
        ({"sigma_px": 0}, "sigma"),
        ({"sigma_px": math.nan}, "sigma"),
        ({"formula": "papper"}, "formula"),
    ],
)
def test_illegal_parameters(arguments, where):
    with pytest.raises(PipelineError, match=where):
        boundary_term(walls(3), **({"w0": 10, "sigma_px": 5} | arguments))


def test_the_nearest_formula_is_offered():
    with pytest.raises(PipelineError, match="nearest legal value: paper"):
        cutoff_px(10, 5, "papper")


@pytest.mark.parametrize("gap_px", [-1, math.nan, math.inf])
def test_illegal_gap(gap_px):
    with pytest.raises(PipelineError, match="gap"):
        open_gaps(walls(3), gap_px)


@pytest.mark.parametrize("formula", FORMULAS)
def test_real_cells(formula):
    path = DATA / "ctc_dic_hela" / "labels_gold.tif"
    if not path.exists():
        pytest.skip(f"no labels at {path}; set UNET_PIPELINE_DATA to the folder of data sets")
    labels = open_gaps(tifffile.imread(path, key=4)[100:400, 150:450], 1)
    expected = by_definition(labels, 10, 5, formula)
    assert expected.max() > 4  # touching cells
    np.testing.assert_allclose(boundary_term(labels, 10, 5, formula), expected, atol=1e-5)
