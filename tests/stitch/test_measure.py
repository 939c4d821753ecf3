"""The table of objects, summed block by block, against scikit-image on whole planes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from measured import table
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels
from whole_volume import by_definition

from unet_pipeline.config.result_sections import Measure
from unet_pipeline.images.array_planes import ArrayPlanes
from unet_pipeline.images.ngff import Grid
from unet_pipeline.objects.box import plane_boxes
from unet_pipeline.records.files import unclaimed
from unet_pipeline.stitch.measure import Source
from unet_pipeline.stitch.object_columns import Columns

ALL = Measure().measures
CHANNEL = ("mean", "min", "max", "std")


class Sharded(ArrayPlanes):
    """An array in memory whose shards are smaller than its planes."""

    edge = 1

    def shards(self):
        planes, _, height, width = self.shape
        for plane in plane_boxes((planes, height, width)):
            yield from plane.divided(self.edge, self.edge)


@st.composite
def stacks(draw, planes=(1, 3)):
    """Classes (planes, y, x) of cells with holes, tails and single pixels, and a seed."""
    shape = draw(st.integers(*planes)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0.5, *(draw(st.floats(0, 3)),) * 2))
    classes = (smooth > np.quantile(smooth, draw(st.floats(0.1, 0.8)))).astype(np.uint8)
    classes[(rng.random(shape) < 0.3) & (classes > 0)] += draw(st.integers(0, 1))
    return classes, rng


def source(classes, instances, rng, dtype, stored, deep=False, pixel_um=(0.5, 0.5), growth_px=0, shard_px=64):
    """(what is measured, its grey values (planes, channels, y, x), its probabilities likewise)."""
    grey = rng.integers(0, 60000 if dtype == np.uint16 else 256, (len(classes), 2, *classes.shape[1:])).astype(dtype)
    if dtype == np.float32:
        grey = grey + np.float32(1e5)
    names = ("cell", "debris") if classes.max() > 1 else ("cell",)
    shares = rng.random((len(classes), 1 + len(names), *classes.shape[1:]))
    probabilities = (shares * 255).astype(np.uint8) if stored == np.uint8 else shares.astype(np.float16)
    grid = Grid(*classes.shape, pixel_um=pixel_um, step=2.0)
    shifts = tuple(float(round(grey[:, channel].mean())) for channel in range(2))
    columns = Columns(ALL, grid, deep, names, shifts, 255.0 if stored == np.uint8 else 1.0)
    arrays = [Sharded(values[:, None]) for values in (instances.astype(np.uint32), classes)]
    arrays += [ArrayPlanes(values) for values in (probabilities, grey)]
    for one in arrays:
        one.edge = shard_px
    return Source("cells", *arrays, np.dtype(dtype), columns, growth_px), grey, probabilities


def by_scikit_image(instances, grey, spacing, deep=False):
    """Measures of all objects, by the names that they have in our table, in the order of their ids."""
    names = ("label", "area", "centroid", "bbox")
    names += () if deep else ("perimeter", "eccentricity", "solidity")
    intensities = tuple(f"intensity_{name}" for name in CHANNEL)
    parts, volumes = [], [(instances, grey, 0)] if deep else zip(instances, grey, range(len(instances)), strict=True)
    for labels, values, plane in volumes:
        channels = np.moveaxis(values, 1 if deep else 0, -1)
        here = regionprops_table(labels.astype(int), channels, properties=names + intensities, spacing=1)
        scaled = (
            regionprops_table(labels.astype(int), properties=("eccentricity",), spacing=spacing) if not deep else {}
        )
        parts.append(here | scaled | {"plane": np.full(len(here["label"]), plane)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@examples(max_examples=25)
@given(
    stacks(),
    st.integers(5, 41),
    st.integers(3, 41),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([np.uint8, np.float16]),
    st.sampled_from([(0.5, 0.5), (0.3, 0.7)]),
    st.integers(0, 3),
)
def test_equals_scikit_image_for_any_blocks_and_shards(
    tmp_path_factory, drawn, shard_px, block_px, dtype, stored, pixel_um, growth_px
):
    classes, rng = drawn
    instances = by_definition(classes)
    instances = np.stack([expand_labels(plane, growth_px) for plane in instances])
    count = int(instances.max())
    found, grey, probabilities = source(
        classes, instances, rng, dtype, stored, pixel_um=pixel_um, growth_px=growth_px, shard_px=shard_px
    )
    rows = table(found, count, tmp_path_factory.getbasetemp(), block_px)
    assert rows["id"].tolist() == list(range(1, count + 1))
    if not count:
        return
    expected = by_scikit_image(instances, grey, pixel_um)
    for name in ("plane", "area_px", "box_top", "box_left", "box_bottom", "box_right"):
        theirs = dict(zip(("box_top", "box_left", "box_bottom", "box_right"), range(4), strict=True))
        other = f"bbox-{theirs[name]}" if name in theirs else name.removesuffix("_px")
        np.testing.assert_array_equal(rows[name], expected[other], name)
    np.testing.assert_allclose(rows["centroid_y_px"], expected["centroid-0"])
    np.testing.assert_allclose(rows["centroid_x_um"], expected["centroid-1"] * pixel_um[1])
    np.testing.assert_allclose(rows["perimeter_px"], expected["perimeter"])
    np.testing.assert_allclose(rows["solidity"], expected["solidity"])
    np.testing.assert_allclose(rows["eccentricity"], expected["eccentricity"], atol=1e-6)
    for name in CHANNEL:
        for channel in range(2):
            ours, theirs = rows[f"intensity_{name}_{channel}"], expected[f"intensity_{name}-{channel}"]
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-3 if dtype == np.float32 else 1e-9)
    np.testing.assert_allclose(rows["area_um2"], rows["area_px"] * pixel_um[0] * pixel_um[1])
    assert np.isnan(rows["perimeter_um"]).all() == (pixel_um[0] != pixel_um[1])
    _check_classes_and_border(rows, classes, instances, probabilities)


def _check_classes_and_border(rows, classes, instances, probabilities):
    names, most = ("background", "cell", "debris"), 255 if probabilities.dtype == np.uint8 else 1
    for one, name in enumerate(rows["class"], 1):
        plane, y, x = np.nonzero(instances == one)
        votes = np.bincount(classes[plane, y, x], minlength=3)[1:]
        assert votes[names.index(name) - 1] == votes.max()
        mean = probabilities[plane, names.index(name), y, x].astype(float).mean() / most
        assert rows["probability"][one - 1] == pytest.approx(mean)
        at_border = min(y.min(), x.min()) == 0 or y.max() == classes.shape[1] - 1 or x.max() == classes.shape[2] - 1
        assert rows["touches_border"][one - 1] == at_border


@examples(max_examples=10)
@given(stacks((2, 5)), st.integers(4, 41))
def test_objects_of_a_volume_have_volumes(tmp_path_factory, drawn, block_px):
    classes, rng = drawn
    instances = by_definition(classes, across_planes=True)
    count = int(instances.max())
    found, grey, _ = source(classes, instances, rng, np.uint8, np.uint8, deep=True, shard_px=16)
    rows = table(found, count, tmp_path_factory.getbasetemp(), block_px)
    assert not {"perimeter_px", "eccentricity", "solidity", "area_px"} & set(rows)
    if not count:
        return
    expected = by_scikit_image(instances, grey, 1, deep=True)
    np.testing.assert_array_equal(rows["volume_px"], expected["area"])
    np.testing.assert_allclose(rows["volume_um3"], expected["area"] * 0.5)
    for index, name in enumerate(("box_front", "box_top", "box_left", "box_back", "box_bottom", "box_right")):
        np.testing.assert_array_equal(rows[name], expected[f"bbox-{index}"])
    for index, name in enumerate(("z", "y", "x")):
        np.testing.assert_allclose(rows[f"centroid_{name}_px"], expected[f"centroid-{index}"])
    np.testing.assert_allclose(rows["centroid_z_um"], expected["centroid-0"] * 2)
    np.testing.assert_allclose(rows["intensity_std_1"], expected["intensity_std-1"], atol=1e-9)
    ends = (rows["box_front"] == 0) | (rows["box_back"] == len(classes))
    assert rows["touches_border"][ends].all()


def test_far_from_the_origin_no_digit_is_lost(tmp_path):
    """A disk at 60 000 px, whose second moments there are 100 million times its own."""
    disk = np.hypot(*np.mgrid[-9:10, -9:10]) <= 9.2
    classes = np.zeros((1, 20, 60_000), np.uint8)
    classes[0, 1:20, -19:] = disk
    found, _, _ = source(classes, classes.astype(int), np.random.default_rng(0), np.uint16, np.uint8, shard_px=4096)
    rows = table(found, 1, tmp_path, 1024)
    near = regionprops_table(disk.astype(int), properties=("eccentricity", "solidity", "perimeter"))
    assert rows["eccentricity"][0] == pytest.approx(near["eccentricity"][0], abs=1e-9)
    assert rows["solidity"][0] == near["solidity"][0]
    assert rows["perimeter_px"][0] == pytest.approx(near["perimeter"][0])


@examples(max_examples=20)
@given(stacks(planes=(1, 3)), st.booleans(), st.integers(3, 41), st.integers(5, 41))
def test_outlines_do_not_depend_on_blocks(tmp_path_factory, drawn, deep, block_px, shard_px):
    """Objects of a volume have parts far from each other in a plane, which blocks must not join or part."""
    classes, _ = drawn
    planes = [ndimage.label(plane)[0] for plane in classes]
    before = np.cumsum([0, *(plane.max() for plane in planes)])[:-1]
    apart = np.stack([np.where(plane > 0, plane + first, 0) for plane, first in zip(planes, before, strict=True)])
    ids = ndimage.label(classes)[0] if deep else apart
    folder = tmp_path_factory.mktemp("outlines")

    def found(block_px, shard_px):
        features = []
        about, _, _ = source(classes, ids, np.random.default_rng(0), np.uint8, np.uint8, deep, shard_px=shard_px)
        about.summed(folder / "sums", int(ids.max()), unclaimed, block_px, features.append)
        (folder / "sums").unlink()
        corners = [sorted(map(tuple, _corners(one["geometry"]))) for one in features]
        names = [(one["properties"]["name"], one["geometry"]["plane"]["z"]) for one in features]
        return sorted(zip(names, corners, strict=True))

    assert found(block_px, shard_px) == found(64, 64)


def _corners(shape):
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    return (corner for polygon in polygons for ring in polygon for corner in ring[:-1])


def test_in_one_plane_not_all_objects_of_a_volume_reach_its_border(tmp_path):
    ids = np.zeros((1, 9, 9), np.uint32)
    ids[0, 4, 4], ids[0, 0, 0] = 1, 2
    about, _, _ = source((ids > 0).astype(np.uint8), ids, np.random.default_rng(0), np.uint8, np.uint8, deep=True)
    assert table(about, 2, tmp_path, None)["touches_border"].tolist() == [False, True]
