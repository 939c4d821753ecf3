"""The weight map of a volume, its planes further apart than its pixels, against one distance transform per object."""

import numpy as np
import pytest
from chain import make_stack, settings
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.stacks import weigh as module
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.stacks.weight_map import boundary_term, open_gaps, open_volume_gaps, volume_boundary_term

SHAPE = (14, 50, 70)
KNOWN = {"pixel_um": 0.5, "step": 0.75}
STEP_PX = 1.5
OPTIONS = {"sigma": 3.0, "gap_px": 2, "across_planes": True}


def balls(shape=SHAPE, step_px=STEP_PX, count=40, seed=0):
    """Balls of round voxels, later ones over earlier ones: most touch, some over each other."""
    rng = np.random.default_rng(seed)
    labels, places = np.zeros(shape, np.uint16), np.indices(shape) * np.array([step_px, 1, 1]).reshape(3, 1, 1, 1)
    for label in range(1, count + 1):
        centre = rng.uniform(0, 1, 3) * shape * np.array([step_px, 1, 1])
        labels[((places - centre.reshape(3, 1, 1, 1)) ** 2).sum(0) < rng.uniform(3, 11) ** 2] = label
    return labels


def brute_force(labels, w0, sigma, gap, step_px=STEP_PX):
    """The parted objects and the paper's formula by one transform per object over the whole volume."""

    def away(mask):
        return ndimage.distance_transform_edt(~mask, sampling=(step_px, 1, 1))

    parted = labels.copy()
    for one in np.unique(labels[labels > 0]):
        parted[(labels == one) & (away((labels > 0) & (labels != one)) <= gap)] = 0
    d1, d2 = np.sort([away(parted == one) for one in np.unique(parted[parted > 0])], axis=0)[:2]
    return parted, np.where(parted == 0, w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), 0)


def arrays(stack, config, block_px=1024, threads=1):
    record = weigh(stack, config, stack.record.with_name("weigh.json"), threads, block_px)
    assert record.step_px == (STEP_PX if config.weigh.across_planes else None)
    found = [open_array(stack.record.parent / "weights.zarr", name) for name in ("target", "boundary")]
    every = slice(None), slice(None)
    return [np.stack([array.read_label(plane, *every) for plane in range(stack.grid.planes)]) for array in found]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return volume(tmp_path_factory.mktemp("volume"), balls())


@pytest.fixture(scope="module")
def whole(stack):
    return arrays(stack, settings(weigh=OPTIONS))


def volume(folder, labels, config=None, **source):
    image = np.random.default_rng(0).integers(0, 255, labels.shape, np.uint8)
    return make_stack(folder, config, image=image, labels=labels, **{"axes": "zyx", **KNOWN, **source})


def test_equals_the_definition(stack, whole):
    target, boundary = whole
    parted, expected = brute_force(balls(), 10, 3, 2)
    np.testing.assert_array_equal(target, parted > 0)
    np.testing.assert_allclose(boundary, expected, atol=2e-6)
    planar = np.stack([boundary_term(open_gaps(plane, 2), 10, 3) for plane in balls()])
    assert np.abs(planar - expected).max() > 3, "objects over each other make the difference"
    np.testing.assert_array_equal(arrays(stack, settings(weigh=OPTIONS | {"across_planes": False}))[1], planar)


@pytest.mark.parametrize(("block_px", "threads", "planes"), [(27, 2, 5), (64, 1, 9)])
def test_bit_equal_for_any_block_shard_and_number_of_threads(stack, whole, monkeypatch, block_px, threads, planes):
    monkeypatch.setattr(ngff, "VOLUME_SHARD_PX", 32)
    monkeypatch.setattr(module, "VOLUME_SHARD_PLANES", planes)
    for found, expected in zip(arrays(stack, settings(weigh=OPTIONS), block_px, threads), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    stored = open_array(stack.record.parent / "weights.zarr", "boundary")
    assert (stored.shard_planes, stored.shard_px) == (planes, (32, 32))


def test_planes_nobody_annotated_add_nothing_and_have_none(tmp_path, monkeypatch):
    """Annotated are two neighbours, and one plane beyond the cut-off of them, which then is as if it were alone."""
    monkeypatch.setattr(module, "VOLUME_SHARD_PLANES", 2)
    known, labels = [0, 1, 13], balls(seed=2)
    sparse = np.full_like(labels, 999)
    sparse[known] = labels[known]
    config = settings(weigh=OPTIONS, labels={"ignore": 999})
    target, boundary = arrays(volume(tmp_path, sparse, config), config)
    alone = [plane for plane in range(14) if plane not in known]
    assert (target[alone] == 255).all() and not boundary[alone].any()
    parted, expected = brute_force(np.where(sparse == 999, 0, labels), 10, 3, 2)
    np.testing.assert_array_equal(target[known], parted[known] > 0)
    np.testing.assert_allclose(boundary[known], expected[known], atol=2e-6)
    np.testing.assert_array_equal(boundary[13], boundary_term(open_gaps(labels[13], 2), 10, 3))


def test_thin_objects_of_the_volume_are_counted_once(tmp_path):
    labels = np.zeros((6, 40, 70), np.uint16)
    labels[:, 10:30, 10:30], labels[:, 10:30, 30], labels[:3, 10:30, 31:60] = 1, 2, 3
    record = weigh(volume(tmp_path, labels), settings(weigh=OPTIONS), tmp_path / "results" / "cells" / "weigh.json")
    assert record.vanished_objects == 1, "object 2 vanishes from each of its six planes"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"axes": "tyx"}, "planes along z with weigh.across_planes, got a time series"),
        ({"pixel_um": None}, "a pixel size, the same in y and x, for weigh.across_planes"),
        ({"step": None}, "a known distance of planes for weigh.across_planes, got no step"),
    ],
)
def test_what_has_no_distance_of_planes(tmp_path, source, expected):
    labelled = volume(tmp_path, balls()[:3], **source)
    with pytest.raises(PipelineError, match=expected) as error:
        weigh(labelled, settings(weigh=OPTIONS), labelled.record.with_name("weigh.json"))
    assert "weigh.across_planes: false" in str(error.value)
    assert not labelled.record.with_name("weights.zarr").exists()


@pytest.mark.parametrize("kind", ["classes", "pieces"])
def test_objects_numbered_plane_by_plane_are_refused(kind):
    values = {0: "background", 1: "cell"} if kind == "classes" else {}
    with pytest.raises(PipelineError, match=r"weigh\.across_planes: expected false with labels\.kind"):
        settings(labels={"kind": kind, "values": values}, weigh={"across_planes": True})


def test_one_plane_alone_needs_no_step(tmp_path):
    single = make_stack(tmp_path, image=np.zeros((1, 50, 70), np.uint8), labels=balls()[:1])
    record = weigh(single, settings(weigh=OPTIONS), single.record.with_name("weigh.json"))
    assert (record.step_px, record.largest_boundary_term > 1) == (None, True)


def test_gaps_open_across_planes_that_are_near_enough():
    labels = np.repeat(np.uint8([1] * 4 + [2] * 4), 9).reshape(8, 3, 3)
    for step_px, gap_px, opened in ((1, 1, 1), (2.5, 2, 0), (2.5, 3, 1), (1, 2, 2), (0.5, 1, 2), (0.5, 0.6, 1)):
        expected = labels.copy()
        expected[4 - opened : 4 + opened] = 0
        np.testing.assert_array_equal(open_volume_gaps(labels, gap_px, step_px), expected)


def test_two_walls_over_each_other_by_hand():
    labels = np.repeat(np.uint8([1, 0, 0, 2]), 25).reshape(4, 5, 5)
    term = volume_boundary_term(labels, 3.0, 10, 5)
    np.testing.assert_allclose(term[1:3], 10 * np.exp(-81 / 50), rtol=1e-6)
    assert not term[[0, 3]].any()
