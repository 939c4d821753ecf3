"""Objects that touch, divided shard by shard, against one flood of every whole plane or volume."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from chain import make_model, make_plan, make_stack, run, settings
from hypothesis import assume, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed as skimage_watershed
from whole_volume import by_definition, flooded

from unet_pipeline.config.object_settings import ObjectSettings, settled
from unet_pipeline.config.sections import Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.objects.flood import OUTSIDE
from unet_pipeline.stitch import floods, layers
from unet_pipeline.stitch.stitch import write_instances
from unet_pipeline.stitch.watershed import heights_of, seed_height


class Fake:
    """What a plan gives to `write_instances`: arrays of classes, probabilities and instances in shards of any size."""

    def __init__(self, folder: Path, probabilities: np.ndarray, shard_px: int, axis: str = "z") -> None:
        planes, classes, height, width = probabilities.shape
        grid, store = ngff.Grid(planes, height, width, axis, (0.5, 0.5), 0.7), Store(16, shard_px, 0)
        self.grid = grid
        group = zarr.create_group(folder / "plan.zarr", zarr_format=3)
        self.store = self.stack = self
        self.name, self.parent, self.with_name = "made", folder, folder.joinpath
        self._arrays = {
            "probabilities": ngff.create_array(group, "0", grid, classes, probabilities.dtype, store),
            "classes": ngff.create_array(group, "classes", grid, None, np.uint8, store),
            "instances": ngff.create_array(group, "instances", grid, None, np.uint32, store),
        }
        for plane, rows, columns in (shard.at for shard in self._arrays["classes"].shards()):
            part = probabilities[plane, :, rows, columns]
            self._arrays["probabilities"].write(plane, rows, columns, part)
            self._arrays["classes"].write(plane, rows, columns, part.argmax(axis=0).astype(np.uint8))

    def probabilities(self):
        return self._arrays["probabilities"]

    def labels(self, name, *_):
        return self._arrays[name]


def divided(probabilities, shard_px=16, **options):
    """Instances (planes, y, x) of stored probabilities (planes, classes, y, x)."""
    with tempfile.TemporaryDirectory() as folder:
        made = Fake(Path(folder), probabilities, shard_px)
        chosen = settings(stitch={"method": "watershed", "grow_px": 0, "min_area_px": 0, "fill_holes": False} | options)
        write_instances(made, settled(chosen.stitch), chosen.stitch.connect == "volume", block_px=24)
        assert [path.name for path in Path(folder).iterdir()] == ["plan.zarr"], "scratch is left"
        array = made.labels("instances")
        return np.stack(
            [array.read_label(plane, *(slice(0, n) for n in array.shape[2:])) for plane in range(array.shape[0])]
        )


def one_flood(probabilities, seed=0.8, seed_min_area_px=10, connect="planes", min_area_px=0, fill_holes=False):
    """The definition, over everything at once: seeds, flood, sift, fill, number."""
    classes, top = probabilities.argmax(axis=1).astype(np.uint8), probabilities.max(axis=1)
    heights, deep = heights_of(np.ascontiguousarray(top)), connect == "volume"
    sure = np.where(heights <= seed_height(seed, top.dtype), classes, 0).astype(np.uint8)
    seeds = by_definition(sure, across_planes=deep, min_area_px=seed_min_area_px)
    pieces = by_definition(classes, across_planes=deep)
    parts = np.zeros(classes.shape, np.int64)
    if deep:
        for one in range(1, classes.max() + 1):  # classes are flooded apart
            parts += flooded(np.where(classes == one, heights, OUTSIDE), np.where(classes == one, seeds, 0))
    else:
        for plane in range(len(classes)):
            for one in range(1, classes.max() + 1):
                own = classes[plane] == one
                fill = flooded(np.where(own, heights[plane], OUTSIDE)[None], np.where(own, seeds[plane], 0)[None])
                parts[plane] += fill[0]
    parts = np.where((parts == 0) & (pieces > 0), seeds.max() + pieces, parts)
    return by_labels(parts, min_area_px, fill_holes, deep)


def by_labels(parts, min_area_px, fill_holes, deep):
    """Sift, fill and number labels as components are: each part takes the place of a class."""
    small = np.unique(np.append(0, parts), return_inverse=True)[1][1:].reshape(parts.shape)
    assume(small.max() < 255)  # fewer parts than there are classes
    return by_definition(small.astype(np.uint8), 4, deep, min_area_px, fill_holes)


def discs(centres, shape, radius=9.0):
    """Probabilities uint8 of touching discs, sure in their middle: (planes, 2, y, x)."""
    grid = np.indices(shape)
    inside = np.zeros(shape)
    for centre in centres:
        distance = np.sqrt(sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)))
        inside = np.maximum(inside, np.clip(1 - 0.5 * distance / radius, 0, 1))
    return stored(inside)


def stored(inside, dtype=np.uint8):
    probabilities = np.stack([1 - inside, inside], axis=1)
    return np.round(probabilities * 255).astype(np.uint8) if dtype == np.uint8 else probabilities.astype(dtype)


@st.composite
def fields(draw):
    """Smooth probabilities of 1 or 2 classes besides the background, with plateaus: (planes, classes, y, x)."""
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 48)), draw(st.integers(1, 48))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = draw(st.floats(1.0, 4.0))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0.7, 0, wide, wide), mode="wrap")
    logits = np.concatenate([np.zeros((shape[0], 1, *shape[2:])), 2 * smooth / max(smooth.std(), 0.01)], axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if draw(st.booleans()):
        return probabilities.astype(np.float16)
    coarse = draw(st.sampled_from([1, 16]))  # few different values: long plateaus
    return (np.round(probabilities * 255 / coarse) * coarse).clip(0, 255).astype(np.uint8)


@trials(max_examples=8, deadline=None)
@given(
    fields(),
    st.sampled_from([16, 32, 48, 64]),
    st.sampled_from([0.5, 0.65, 0.8, 1.0]),
    st.sampled_from([0, 5]),
    st.sampled_from(["planes", "volume"]),
    st.sampled_from([0, 20]),
    st.booleans(),
    st.sampled_from([2**24, 100]),
)
def test_equals_one_flood_for_any_shards(
    probabilities, shard_px, seed, seed_min_area_px, connect, min_area_px, fill_holes, in_memory_px
):
    options = dict(
        seed=seed, seed_min_area_px=seed_min_area_px, connect=connect, min_area_px=min_area_px, fill_holes=fill_holes
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floods, "IN_MEMORY_PX", in_memory_px)
        patch.setattr(layers, "BLOCK_PX", 24)
        found = divided(probabilities, shard_px, **options)
    np.testing.assert_array_equal(found, one_flood(probabilities, **options))


CROSS = [(0, 32, 24), (0, 32, 40), (0, 18, 32), (0, 46, 32), (0, 10, 70), (0, 26, 70)]
"""Discs around the corner where four shards of 32 px meet, and a pair elsewhere."""


@pytest.mark.parametrize("shard_px", [16, 32, 96])
def test_touching_discs_are_parted_where_components_join_them(shard_px):
    probabilities = discs(CROSS, (1, 64, 80))
    assert ndimage.label(probabilities[0, 1] > 127)[1] == 2
    assert divided(probabilities, shard_px, method="components").max() == 2
    found = divided(probabilities, shard_px)[0]
    assert found.max() == len(CROSS)
    assert len({found[y, x] for _, y, x in CROSS}) == len(CROSS)
    # Scikit-image over the whole plane: the same but where seed pixels are equally high, which is within seeds.
    seeds = ndimage.label(probabilities[0, 1] >= 204)[0]
    inside = probabilities[0].argmax(axis=0) > 0
    other = skimage_watershed(255 - probabilities[0, 1].astype(int), seeds, mask=inside)
    assert (found > 0).sum() == inside.sum()
    pairs = np.stack([found[inside], other[inside]])
    both = {tuple(pair) for pair in pairs.T.tolist()}
    assert sum((pairs == np.array(pair)[:, None]).all(axis=0).sum() > 20 for pair in both) == len(CROSS)


@pytest.mark.slow
def test_an_object_without_a_seed_stays_and_small_seeds_are_none():
    inside = np.zeros((1, 40, 40))
    inside[0, 4:14, 4:24] = 0.6  # no seed
    inside[0, 20:30, 4:24], inside[0, 22:24, 6:8], inside[0, 22:24, 20:22] = 0.6, 0.9, 0.9  # two small ones
    probabilities = stored(inside)
    assert divided(probabilities, seed_min_area_px=4).max() == 3
    assert divided(probabilities, seed_min_area_px=5).max() == 2
    assert divided(probabilities, min_area_px=14).max() == 3, "a third of the least object"
    assert divided(probabilities, min_area_px=15).max() == 2
    assert divided(probabilities, seed_min_area_px=4, min_area_px=101).max() == 1
    assert divided(probabilities, seed=0.95, seed_min_area_px=1).max() == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_the_least_probability_of_a_seed_is_inclusive(dtype):
    inside = np.full((1, 5, 30), 0.6)
    inside[0, :, :5] = inside[0, :, 25:] = 0.8
    for seed, count in ((0.8, 2), (0.81, 1), (0.6, 1)):
        assert divided(stored(inside, dtype), seed=seed).max() == count


@pytest.mark.slow
def test_parts_join_from_plane_to_plane_and_are_flooded_there():
    centres = [(2, 16, 10), (2, 16, 24)]
    probabilities = discs(centres, (5, 32, 40), 8.0)
    found = divided(probabilities, connect="volume")
    assert found.max() == 2
    assert [found[place] for place in centres] == [1, 2]
    assert (found[2] > 0).sum() < (found > 0).sum() == (probabilities[:, 1] > probabilities[:, 0]).sum()
    # planes beyond the seeds: one object each, or parted with a lower threshold
    assert divided(probabilities, connect="planes").max() > 2


@pytest.mark.slow
def test_divided_objects_grow_into_the_background_only():
    probabilities = discs(CROSS, (1, 64, 80))
    small, grown = divided(probabilities), divided(probabilities, grow_px=2)
    np.testing.assert_array_equal(grown[small > 0], small[small > 0])
    assert (grown > 0).sum() > (small > 0).sum() + 100


def test_large_boxes_lie_in_files_and_give_the_same(monkeypatch):
    probabilities = discs(CROSS, (1, 64, 80))
    expected, maps, real = divided(probabilities, 96), [], np.memmap
    monkeypatch.setattr(floods, "IN_MEMORY_PX", 500)
    monkeypatch.setattr(np, "memmap", lambda *a: maps.append(a) or real(*a))
    np.testing.assert_array_equal(divided(probabilities, 96), expected)
    assert len(maps) == 6, "labels, heights and queue of two pieces"


def test_a_full_disk_is_told(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(PipelineError, match=r"MB more[\s\S]*No space left[\s\S]*stitch\.method: components"):
        divided(discs(CROSS, (1, 64, 80)), 16)


@pytest.mark.slow
def test_the_whole_stage_takes_it(tmp_path):
    seeded = {"method": "watershed", "seed": 0.55, "seed_min_area_px": 1}
    config = settings(stitch=seeded | {"min_area_px": 0, "fill_holes": False})
    stack_plan = make_plan(make_stack(tmp_path), config)
    run(stack_plan, make_model(tmp_path / "model"), config)
    parted = stack_plan.labels("instances").read_label(0, slice(0, 100), slice(0, 130))
    write_instances(stack_plan, ObjectSettings(min_area_px=0, fill_holes=False), False)
    joined = stack_plan.labels("instances").read_label(0, slice(0, 100), slice(0, 130))
    np.testing.assert_array_equal(parted > 0, joined > 0)
    assert parted.max() > joined.max()


@trials(max_examples=8, deadline=None)
@given(
    fields(),
    st.sampled_from(["planes", "volume"]),
    st.sampled_from([0, 20]),
    st.booleans(),
    st.sampled_from([0.0, 0.6, 2.5]),
)
def test_necks_are_found_the_same_for_any_shards(probabilities, connect, min_area_px, fill_holes, smooth_px):
    options = dict(method="distance", neck=0.8, connect=connect, min_area_px=min_area_px, fill_holes=fill_holes)
    options |= {"smooth_px": smooth_px}
    whole = divided(probabilities, 64, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floods, "IN_MEMORY_PX", 100)
        patch.setattr(layers, "BLOCK_PX", 24)
        np.testing.assert_array_equal(divided(probabilities, 16, **options), whole)
    joined = divided(probabilities, 64, **options | {"method": "components"})
    assert whole.max() >= joined.max() or min_area_px
    assert not ((whole > 0) & (joined == 0)).any() or min_area_px


@pytest.mark.slow
def test_notches_of_a_rough_outline_are_no_necks_of_averaged_distances():
    y, x = np.indices((40, 130))
    bar = (abs(y - 20) <= 10) & (abs(x - 65) <= 55)
    bar &= ~((x % 20 == 5) & (abs(y - 20) > 7))  # notches of one pixel
    probabilities = stored(np.where(bar, 0.9, 0.05)[None])
    options = dict(method="distance", neck=0.9)
    assert divided(probabilities, **options).max() > 2
    assert divided(probabilities, **options, smooth_px=6.0).max() == 1


@pytest.mark.slow
def test_pieces_part_at_their_necks_whatever_the_network_is_sure_of():
    y, x = np.indices((64, 80))
    pair = ((y - 32) ** 2 + (x - 24) ** 2 < 196) | ((y - 32) ** 2 + (x - 49) ** 2 < 196)
    probabilities = stored(np.where(pair, 0.9, 0.05)[None])
    assert divided(probabilities, method="components").max() == 1
    assert divided(probabilities, method="watershed").max() == 1
    found = divided(probabilities, method="distance", neck=0.7)[0]
    assert found.max() == 2
    assert ((found > 0) == pair).all()
    assert divided(probabilities, method="distance", neck=0.3).max() == 1
    assert divided(probabilities, method="distance", neck=0.7, min_area_px=700).max() == 1, "too small for two"


def test_balls_above_each_other_part_at_the_neck_between_them():
    z, y, x = np.indices((38, 24, 24))
    pair = np.any([((z - at) * 1.4) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 < 100 for at in (13, 25)], axis=0)
    probabilities = stored(np.where(pair, 0.9, 0.05))
    assert ndimage.label(pair)[1] == 1
    found = divided(probabilities, method="distance", neck=0.8, connect="volume", shard_px=32)
    assert found.max() == 2, "planes alone know no neck between planes"
    assert len(np.unique(found[13][pair[13]])) == len(np.unique(found[25][pair[25]])) == 1
    assert found[13, 12, 12] != found[25, 12, 12]
