import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from unet_pipeline.report.differences import COLOURS, Verdict, as_verdicts, fractions, partners, translated, verdicts

shapes = array_shapes(min_dims=2, max_dims=2, max_side=8)


@st.composite
def pairs(draw):
    shape = draw(shapes)
    ids = arrays(np.uint32, shape, elements=st.integers(0, 4))
    flags = arrays(bool, shape)
    return draw(ids), draw(ids), draw(flags), draw(flags)


def brute_partners(reference, found):
    """For each reference object the result object that covers more than half of it, if it is most its own."""
    result = {}
    for one in set(reference.ravel()) - {0}:
        for other in set(found.ravel()) - {0}:
            shared = {r: int(((reference == r) & (found == other)).sum()) for r in set(reference.ravel()) - {0}}
            main = min(r for r, pixels in shared.items() if pixels == max(shared.values()))
            if 2 * shared[one] > (reference == one).sum() and main == one:
                result[int(one)] = int(other)
    return result


def brute_verdict(r, f, known, same, pairs):
    if not known:
        return Verdict.UNKNOWN
    if not r:
        return Verdict.SPURIOUS if f else Verdict.BACKGROUND
    if not f:
        return Verdict.MISSED
    return Verdict.AGREED if same and pairs.get(int(r)) == int(f) else Verdict.OTHER


@given(pairs())
def test_partners_equal_brute_force(given_):
    reference, found, _, _ = given_
    assert partners(reference, found) == brute_partners(reference, found)


@given(pairs())
def test_verdicts_equal_brute_force(given_):
    reference, found, known, same = given_
    pairs_ = brute_partners(np.where(known, reference, 0), np.where(known, found, 0))
    expected = [brute_verdict(*pixel, pairs_) for pixel in zip(*(part.ravel() for part in given_), strict=True)]
    np.testing.assert_array_equal(verdicts(reference, found, known, same).ravel(), expected)


def test_joined_split_missed_and_spurious():
    reference = np.array([[1, 1, 1, 2, 2, 0, 3, 3, 3, 0, 4]])
    found = np.array([[9, 9, 9, 9, 9, 0, 5, 5, 6, 7, 0]])
    everywhere = np.ones(reference.shape, bool)
    a, m, s, o, b = Verdict.AGREED, Verdict.MISSED, Verdict.SPURIOUS, Verdict.OTHER, Verdict.BACKGROUND
    expected = [[a, a, a, o, o, b, a, a, o, s, m]]
    np.testing.assert_array_equal(verdicts(reference, found, everywhere, everywhere), expected)


def test_large_ids_do_not_overflow():
    ids = np.array([[2**32 - 1, 0]], np.uint32)
    assert partners(ids, ids) == {2**32 - 1: 2**32 - 1}
    assert verdicts(ids, ids, ids >= 0, ids >= 0)[0, 0] == Verdict.AGREED


def test_translated():
    np.testing.assert_array_equal(translated(np.array([[0, 1, 2, 5]]), {5: 1, 1: 7}), [[0, 7, 0, 1]])
    assert not translated(np.array([[3, 4]]), {}).any()


@given(pairs())
def test_fractions_are_of_the_annotated_pixels(given_):
    verdict = verdicts(*given_)
    found = fractions(verdict)
    known = verdict[verdict != Verdict.UNKNOWN]
    assert Verdict.UNKNOWN not in found
    for one, share in found.items():
        assert share == ((known == one).mean() if known.size else 0)
    assert sum(found.values()) == pytest.approx(1 if known.size else 0)


def test_each_verdict_has_its_colour():
    assert set(COLOURS) == set(Verdict)
    assert len(set(COLOURS.values())) == len(Verdict)
    rgb = as_verdicts(np.array([list(Verdict)], np.uint8))
    assert [tuple(pixel) for pixel in rgb[0]] == [COLOURS[one] for one in Verdict]


def test_colours_stay_apart_without_red_and_green():
    """For readers without green cones (Viénot, Brettel, Mollon 1999) strong colours differ in lightness or blue."""
    simulate = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    told = [COLOURS[one] for one in (Verdict.AGREED, Verdict.MISSED, Verdict.SPURIOUS, Verdict.OTHER)]
    seen = (np.array(told) / 255) ** 2.2 @ simulate.T
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert np.abs(one - other).max() > 0.12
