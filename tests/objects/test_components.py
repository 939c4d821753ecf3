"""Components of blocks against scipy and scikit-image on the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DATA
from scipy import ndimage
from skimage.measure import label as skimage_label
from whole_volume import IGNORE, by_definition

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects import survey
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.components import label_components


def label(classes, block_px=(5, 7), **options):
    """(instances, summary) of a volume (planes, y, x), or of one plane (y, x), in memory."""
    volume = classes.reshape(-1, *classes.shape[-2:])
    instances = np.full(volume.shape, 999_999_999, np.uint32)

    def write(plane, y, x, ids):
        assert ids.dtype == np.uint32
        assert (instances[plane, y, x] == 999_999_999).all()  # every pixel once
        instances[plane, y, x] = ids

    summary = label_components(lambda *at: volume[at], write, volume.shape, block_px, ComponentOptions(**options))
    return instances.reshape(classes.shape), summary


@st.composite
def volumes(draw, classes=(0, 0, 0, 1, 1, 1, 2, IGNORE)):
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 22)), draw(st.integers(1, 22))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return rng.choice(np.array(classes, np.uint8), shape)
    coarse = draw(st.floats(0.5, 2))  # smooth blobs with holes
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (coarse / 2, coarse, coarse))
    volume = (smooth > np.quantile(smooth, draw(st.floats(0.2, 0.7)))).astype(np.uint8)
    volume[rng.random(shape) < 0.02] = IGNORE
    volume[rng.random(shape) < 0.02] = 2
    return volume


@settings(max_examples=100, deadline=None)
@given(
    volumes(),
    st.tuples(st.integers(1, 23), st.integers(1, 23)),
    st.sampled_from([4, 8]),
    st.booleans(),
    st.sampled_from([0, 1, 2, 5, 20]),
    st.booleans(),
)
def test_equals_the_whole_volume_for_any_block(volume, block_px, connectivity, across_planes, min_area_px, fill_holes):
    options = dict(
        connectivity=connectivity, across_planes=across_planes, min_area_px=min_area_px, fill_holes=fill_holes
    )
    instances, summary = label(volume, block_px, **options)
    expected = by_definition(volume, **options)
    np.testing.assert_array_equal(instances, expected)
    check_summary(summary, instances, by_definition(volume, **(options | {"fill_holes": False})))


def check_summary(summary, instances, unfilled):
    count = int(instances.max())
    areas = np.bincount(instances.ravel(), minlength=count + 1)[1:]
    assert summary.count == count
    assert areas_of(summary) == sorted(areas.tolist())
    assert count == 0 or summary.median_area == np.median(areas)
    _, first = np.unique(instances[instances > 0], return_index=True)
    planes = np.argwhere(instances > 0)[first][:, 0]
    assert summary.per_plane.tolist() == np.bincount(planes, minlength=len(instances)).tolist()
    assert summary.filled_px == ((instances > 0) & (unfilled == 0)).sum()


def areas_of(summary):
    return np.repeat(summary.areas, summary.counts).tolist()


def spiral(size):
    """A line of 1 px that winds inwards with 1 px between its turns: one component through every block."""
    plane = np.zeros((size, size), np.uint8)
    y, x, dy, dx, steps = 0, 0, 0, 1, size - 1
    plane[0, 0] = 1
    for turn in range(size):
        for _ in range(steps):
            y, x = y + dy, x + dx
            plane[y, x] = 1
        dy, dx = dx, -dy
        steps -= 2 if turn % 2 == 0 and turn > 0 else 0
        if steps <= 0:
            break
    return plane


@pytest.mark.parametrize(
    "block_px", [pytest.param((1, 1), marks=pytest.mark.slow), (2, 3), (7, 7), (16, 5), (61, 61), (500, 500)]
)
def test_spiral_through_all_blocks(block_px):
    plane = spiral(61)
    assert plane.sum() > 1500
    assert skimage_label(plane, connectivity=1).max() == 1
    instances, summary = label(plane, block_px)
    np.testing.assert_array_equal(instances, plane)
    assert areas_of(summary) == [plane.sum()]
    background, _ = label(1 - plane, block_px)
    np.testing.assert_array_equal(background, skimage_label(1 - plane, connectivity=1))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("block_px", [(64, 64), (37, 100), (150, 9)])
def test_noise_with_scikit_image(connectivity, block_px):
    plane = (np.random.default_rng(0).random((150, 201)) < 0.55).astype(np.uint8)
    instances, _ = label(plane, block_px, connectivity=connectivity)
    np.testing.assert_array_equal(instances, skimage_label(plane, connectivity=connectivity // 4))


def test_corners_at_the_meeting_point_of_four_blocks():
    for plane in (np.eye(2, dtype=np.uint8), np.eye(2, dtype=np.uint8)[::-1]):
        plane = np.pad(plane, 4)
        for block_px in ((5, 5), (5, 10), (10, 5), (1, 1)):
            assert label(plane, block_px)[0].max() == 2
            assert label(plane, block_px, connectivity=8)[0].max() == 1


def test_classes_do_not_join():
    plane = np.array([[1, 1, 2, 2, 1, 255, 1]], np.uint8)
    instances, summary = label(plane, (1, 3))
    assert instances.tolist() == [[1, 1, 2, 2, 3, 0, 4]]
    assert areas_of(summary) == [1, 1, 2, 2]


def ring(size=15, thick=2):
    plane = np.ones((size, size), np.uint8)
    plane[thick:-thick, thick:-thick] = 0
    return np.pad(plane, 3)


@pytest.mark.parametrize("block_px", [pytest.param((1, 1), marks=pytest.mark.slow), (4, 6), (11, 11), (30, 30)])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_holes_across_block_borders_with_scipy(block_px, connectivity):
    plane = np.zeros((64, 64), np.uint8)
    for y, x, size in ((0, 0, 15), (0, 25, 20), (30, 10, 25)):
        plane[y : y + size + 6, x : x + size + 6] |= ring(size)
    instances, summary = label(plane, block_px, connectivity=connectivity, fill_holes=True)
    around = ndimage.generate_binary_structure(2, 2 if connectivity == 4 else 1)
    filled = ndimage.binary_fill_holes(plane, around)
    np.testing.assert_array_equal(instances > 0, filled)
    assert summary.filled_px == filled.sum() - plane.sum() > 300


def test_a_crack_at_a_corner_opens_a_hole_of_4_connected_foreground_only():
    plane = ring(9, 1)
    plane[3, 3] = 0  # the ring's corner: inside and outside now share a corner only
    closed = label(plane, (4, 4), connectivity=8, fill_holes=True)[1]
    assert closed.filled_px == 49
    assert label(plane, (4, 4), connectivity=4, fill_holes=True)[1].filled_px == 0


def test_which_holes_stay_open():
    ignored = ring()
    ignored[9, 9] = IGNORE
    assert label(ignored, fill_holes=True)[1].filled_px == 0
    island = ring()
    island[9:12, 9:12] = 1
    assert label(island, fill_holes=True)[1].filled_px == 0  # the hole touches two instances
    shared = ring()
    shared[8:12, 3:5] = 2  # part of the wall is another class
    assert label(shared, fill_holes=True)[1].filled_px == 0
    cut = ring()[5:]  # the hole reaches the border of the plane
    assert label(cut, fill_holes=True)[1].filled_px == 0
    assert label(ring(), fill_holes=True)[1].filled_px == 121
    assert label(ring())[1].filled_px == 0


def test_area_is_checked_before_holes_are_filled():
    speck = ring()
    speck[9, 9], speck[6, 7] = 1, 2
    instances, summary = label(speck, fill_holes=True, min_area_px=2)
    assert (areas_of(summary), summary.filled_px) == ([225], 121)  # specks do not keep the hole open
    assert (instances[3:-3, 3:-3] == 1).all()
    wall = 225 - 121
    assert areas_of(label(ring(), fill_holes=True, min_area_px=wall)[1]) == [225]
    assert label(ring(), fill_holes=True, min_area_px=wall + 1)[1].count == 0  # by its own pixels


def test_dropped_corner_chains_do_not_open_holes():
    # foreground of 8 neighbours, so background of 4: the dropped diagonal of class 2 is four separate pixels,
    # the first outside of the ring, the last inside
    plane = ring(9, 1)
    for step in range(4):
        plane[2 + step, 2 + step] = 2
    expected = by_definition(plane[None], connectivity=8, min_area_px=5, fill_holes=True)[0]
    instances, summary = label(plane, connectivity=8, min_area_px=5, fill_holes=True)
    np.testing.assert_array_equal(instances, expected)
    assert summary.filled_px == 49


def test_minimum_area_is_inclusive_and_counts_across_blocks_and_planes():
    plane = np.zeros((3, 20), np.uint8)
    plane[1, 2:12], plane[1, 14:19] = 1, 1
    assert areas_of(label(plane, (2, 3), min_area_px=10)[1]) == [10]
    assert areas_of(label(plane, (2, 3), min_area_px=11)[1]) == []
    stack = np.stack([plane, plane])
    assert areas_of(label(stack, (2, 3), min_area_px=11)[1]) == []
    assert areas_of(label(stack, (2, 3), min_area_px=11, across_planes=True)[1]) == [20]


def test_planes_are_separate_unless_joined():
    stack = np.zeros((3, 6, 6), np.uint8)
    stack[:, 1:4, 1:4] = 1
    stack[1, 0, 5] = 1
    instances, summary = label(stack, (4, 4))
    assert summary.per_plane.tolist() == [1, 2, 1]
    assert instances[:, 2, 2].tolist() == [1, 3, 4]
    joined, summary = label(stack, (4, 4), across_planes=True)
    np.testing.assert_array_equal(joined, ndimage.label(stack)[0])
    assert areas_of(summary) == [1, 27]


def test_holes_across_planes_are_three_dimensional():
    ball = ((np.indices((11, 14, 14)) - np.array([5, 6.5, 6.5]).reshape(3, 1, 1, 1)) ** 2).sum(0) < 25
    shell = (ball & ~ndimage.binary_erosion(ball, np.ones((3, 3, 3)))).astype(np.uint8)
    instances, summary = label(shell, across_planes=True, fill_holes=True)
    np.testing.assert_array_equal(instances, ball)
    assert summary.filled_px == ball.sum() - shell.sum() > 50
    # the upper half: in its first plane the hole is a hole of the plane, but open in the volume
    assert label(shell[5:], across_planes=True, fill_holes=True)[1].filled_px == 0
    assert label(shell[5:], fill_holes=True)[1].filled_px > 0


def test_numbers_follow_the_first_pixels_not_the_blocks():
    plane = np.zeros((8, 8), np.uint8)
    plane[3:, 0], plane[0, 7], plane[2:5, 4] = 1, 1, 2
    for block_px in ((8, 8), (4, 4), (8, 1), (1, 8)):
        instances = label(plane, block_px)[0]
        assert [instances[at] for at in ((0, 7), (2, 4), (3, 0))] == [1, 2, 3]


def test_empty_and_full_planes():
    for fill_holes in (False, True):
        instances, summary = label(np.zeros((2, 9, 9), np.uint8), fill_holes=fill_holes)
        assert not instances.any()
        assert (summary.count, summary.areas.shape, summary.filled_px) == (0, (0,), 0)
        assert label(np.full((2, 9, 9), IGNORE, np.uint8), fill_holes=fill_holes)[1].count == 0
        assert areas_of(label(np.full((2, 9, 9), 254, np.uint8), fill_holes=fill_holes)[1]) == [81, 81]


def test_blocks_are_read_twice_and_progress_ends_at_the_total():
    plane, reads, reported = np.ones((1, 10, 10), np.uint8), [], []

    def read(*at):
        reads.append(at)
        return plane[at]

    label_components(
        read, lambda *at: None, plane.shape, (4, 6), ComponentOptions(), lambda *state: reported.append(state)
    )
    assert len(reads) == 12
    assert reported == [(done, 12) for done in range(1, 13)]
    assert all(reads.count(at) == 2 for at in reads)


def test_only_what_reaches_another_block_waits_for_the_whole(tmp_path):
    rings = np.tile(np.pad(ring(9, 2)[2:-2, 2:-2], 1), (1, 8, 8))  # 9 px each, 4 px apart, in 104 px
    options = ComponentOptions(fill_holes=True, min_area_px=3)
    walk = survey.Survey(rings.shape, (56, 56), False, options, tmp_path)
    for block in walk.blocks():
        walk.add(block, np.ascontiguousarray(rings[block.at]))
    assert walk.objects == 64 - 15
    assert walk.count == 14 * 2 + 4 + 15 + 4, "parts of rings on a seam, of the one on both, their holes, background"
    assert walk.filled_px == (64 - 15) * 25


def test_classes_that_change_between_the_passes():
    plane, reads = np.ones((1, 8, 8), np.uint8), []

    def read(*at):
        reads.append(at)
        return plane[at] * (len(reads) < 7)

    with pytest.raises(PipelineError, match="plane 0, rows 4:8, columns 0:4: expected the classes read before"):
        label_components(read, lambda *at: None, plane.shape, (4, 4), ComponentOptions())


@pytest.mark.parametrize("wrong", [np.zeros((4, 3), np.uint8), np.zeros((4, 4), np.uint16), np.zeros((4, 4))])
def test_classes_of_another_shape_or_type(wrong):
    with pytest.raises(PipelineError, match=r"\(4, 4\) uint8 or uint32 classes"):
        label_components(lambda *at: wrong, lambda *at: None, (1, 4, 4), (4, 4), ComponentOptions())


def test_too_many_components(monkeypatch):
    monkeypatch.setattr(survey, "MAX_OBJECTS", 7)
    plane = np.zeros((1, 4, 8), np.uint8)
    plane[0, ::2, ::2] = 1
    with pytest.raises(PipelineError, match="rows 0:4, columns 4:8: expected at most 7 components"):
        label_components(lambda *at: plane[at], lambda *at: None, plane.shape, (4, 4), ComponentOptions())


@pytest.mark.parametrize("options", [{"connectivity": 6}, {"min_area_px": -1}])
def test_illegal_options(options):
    with pytest.raises(PipelineError, match=next(iter(options))):
        ComponentOptions(**options)


@pytest.mark.parametrize(("shape", "block_px"), [((1, 4, 4), (0, 4)), ((0, 4, 4), (4, 4))])
def test_illegal_sizes(shape, block_px):
    with pytest.raises(PipelineError, match="at least 1 px"):
        label_components(lambda *at: None, lambda *at: None, shape, block_px, ComponentOptions())


def test_real_cells():
    path = DATA / "ctc_dic_hela" / "labels_gold.tif"
    if not path.exists():
        pytest.skip(f"no labels at {path}; set UNET_PIPELINE_DATA to the folder of data sets")
    classes = (tifffile.imread(path) > 0).astype(np.uint8)
    options = dict(min_area_px=200, fill_holes=True)
    instances, summary = label(classes, (200, 130), **options)
    np.testing.assert_array_equal(instances, by_definition(classes, **options))
    assert summary.count > 9
    np.testing.assert_array_equal(instances, label(classes, (512, 512), **options)[0])
