import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
import zarr
from chain import assert_reduced, draw, make_stack, settings, volume
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack


def whole(array):
    return np.stack([array.read_label(plane, slice(None), slice(None)) for plane in range(array.shape[0])])


def test_image_reference_and_statistics_are_those_of_the_files(tmp_path):
    image, labels = draw()
    stack = make_stack(tmp_path, image=image, labels=labels)
    found = np.stack([stack.image.read(plane, slice(0, 100), slice(0, 130))[0] for plane in range(2)])
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(whole(stack.reference("instances")), labels)
    np.testing.assert_array_equal(whole(stack.reference("classes")), labels > 0)
    statistics = stack.ingested.statistics
    assert statistics.min == (image.min(),)
    assert statistics.mean[0] == pytest.approx(image.mean())
    assert stack.ingested.labels.class_counts == {
        "background": int((labels == 0).sum()),
        "cell": int((labels > 0).sum()),
    }


def test_coarser_levels_are_means_of_the_image_and_pixels_of_the_labels(tmp_path):
    store = make_stack(tmp_path).record.with_name("image.ome.zarr")
    for name, reduction in (("", "mean"), ("labels/classes/", "nearest"), ("labels/instances/", "nearest")):
        fine, coarse = (volume(open_array(store, f"{name}{level}")) for level in "01")
        assert len(np.unique(coarse)) > 1
        assert_reduced(fine, coarse, reduction)


@pytest.mark.parametrize("in_place", [True, False])
def test_channels_keep_their_order(tmp_path, in_place):
    image = np.random.default_rng(0).integers(0, 255, (2, 3, 50, 70), dtype=np.uint8)
    path = tmp_path / ("image.zarr" if in_place else "image.tif")
    if in_place:
        zarr.create_array(path, data=image, chunks=(1, 3, 50, 50), dimension_names="zcyx")
    else:
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "ZCYX"}, imagej=True)
    record = tmp_path / "results" / "a" / "ingest.json"
    ingest(Source("a", str(path), ""), settings(), record)
    stack = Stack.open(record)
    assert stack.ingested.image.in_place == in_place
    np.testing.assert_array_equal(volume(stack.image), image)
    np.testing.assert_array_equal(stack.image.read(1, slice(7, 20), slice(60, 70)), image[1, :, 7:20, 60:])
    assert stack.ingested.statistics.mean == pytest.approx(tuple(image.mean(axis=(0, 2, 3))))


def test_class_labels_become_components_plane_by_plane(tmp_path):
    _, labels = draw()
    inside = (labels > 0) & (ndimage.minimum_filter(labels, (1, 3, 3)) == ndimage.maximum_filter(labels, (1, 3, 3)))
    config = settings(labels={"kind": "classes", "values": {0: "background", 255: "cell"}})
    stack = make_stack(tmp_path, config, labels=(inside * 255).astype(np.uint8))
    found = whole(stack.reference("instances"))
    count = 0
    for plane in range(2):
        expected, number = ndimage.label(inside[plane])
        pairs = set(zip(expected[inside[plane]].tolist(), found[plane][inside[plane]].tolist(), strict=True))
        assert len(pairs) == number == len({b for _, b in pairs})
        count += number
    assert stack.ingested.labels.largest_instance == count
    assert not found[~inside].any()


def test_a_zarr_image_is_used_in_place(tmp_path):
    image, labels = draw()
    array = zarr.create_array(
        tmp_path / "mine.zarr", shape=image.shape, dtype="u1", chunks=(1, 50, 50), dimension_names="zyx"
    )
    array[:] = image
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    record = tmp_path / "results" / "zarr" / "ingest.json"
    ingest(Source("zarr", str(tmp_path / "mine.zarr"), str(tmp_path / "labels.tif")), settings(), record)
    stack = Stack.open(record)
    assert stack.ingested.image.in_place
    assert not (record.parent / "image.ome.zarr" / "0").exists()
    np.testing.assert_array_equal(stack.image.read(1, slice(0, 100), slice(0, 130))[0], image[1])
    np.testing.assert_array_equal(whole(stack.reference("instances")), labels)


def test_a_zarr_image_is_copied_where_it_is_resized(tmp_path):
    image, labels = draw()
    zarr.create_array(tmp_path / "mine.zarr", data=image, chunks=(1, 50, 50), dimension_names="zyx")
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    record = tmp_path / "results" / "zarr" / "ingest.json"
    source = Source("zarr", str(tmp_path / "mine.zarr"), str(tmp_path / "labels.tif"), pixel_um=0.5)
    for sizes, shape, pixel in (("pad", (2, 1, 100, 130), 0.5), ("square", (2, 1, 64, 64), 0.5 * 130 / 64)):
        ingest(source, settings(ingest={"sizes": sizes, "square_px": 64}), record)
        stack = Stack.open(record)
        assert stack.ingested.image.in_place == (sizes == "pad")
        assert stack.image.shape == shape
        assert stack.grid.pixel_um == pytest.approx((pixel, pixel))
    assert set(np.unique(whole(stack.reference("instances")))) <= set(np.unique(labels))
    picture = stack.ingested.fit.pictures[1]
    assert (picture.name, picture.place) == ("mine.zarr, plane 1", (7, 0, 49, 64))


def test_planes_are_chosen(tmp_path):
    image, labels = draw(4)
    tifffile.imwrite(tmp_path / "gold.tif", labels[[3, 1]], photometric="minisblack")
    record = tmp_path / "results" / "some" / "ingest.json"
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    ingest(
        Source("some", str(tmp_path / "image.tif"), str(tmp_path / "gold.tif"), planes="1,3", label_planes="1,0"),
        settings(),
        record,
    )
    stack = Stack.open(record)
    np.testing.assert_array_equal(stack.image.read(1, slice(0, 100), slice(0, 130))[0], image[3])
    np.testing.assert_array_equal(whole(stack.reference("instances")), labels[[1, 3]])


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (None, np.zeros((2, 100, 130), np.uint8), "all background"),
        (None, draw()[1][:, :90], "image's shape"),
        (None, np.stack([draw()[1]] * 3, axis=-1).astype(np.uint8), "one channel"),
        (np.where(draw()[0] > 250, np.nan, draw()[0]).astype(np.float32) * np.float32(np.nan), None, "NaN"),
    ],
    ids=["background", "shape", "rgb", "nan"],
)
def test_classic_mistakes_leave_no_record(tmp_path, image, labels, message):
    with pytest.raises(PipelineError, match=message):
        make_stack(tmp_path, image=image, labels=labels)
    assert not (tmp_path / "results" / "cells" / "ingest.json").exists()


def test_a_moved_results_folder_still_opens(tmp_path):
    stack = make_stack(tmp_path)
    moved = tmp_path / "elsewhere with space"
    (tmp_path / "results").rename(moved)
    again = Stack.open(moved / "cells" / "ingest.json")
    assert again.image.read(0, slice(0, 5), slice(0, 5)).shape == (1, 5, 5)
    assert json.loads((moved / "cells" / "ingest.json").read_text())["stack"] == stack.name


def test_one_of_several_series_is_chosen(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for value in (1, 2):
            writer.write(np.full((2, 40, 50), value, np.uint8), metadata={"axes": "ZYX"})
    record = tmp_path / "ingest.json"
    ingest(Source("two", str(tmp_path / "two.ome.tif"), series=1), settings(), record)
    assert Stack.open(record).ingested.statistics.min == (2,)
    record.unlink()
    with pytest.raises(PipelineError, match="series"):
        ingest(Source("two", str(tmp_path / "two.ome.tif")), settings(), record)
    assert not record.exists()


def mask(planes=1):
    """Return three cells of one value: two squares that touch at a corner, and one apart; (planes, y, x) uint8."""
    values = np.zeros((planes, 100, 130), np.uint8)
    values[:, 5:30, 5:30] = values[:, 30:60, 30:60] = values[:, 5:30, 70:95] = 1
    return values


@pytest.mark.parametrize("values", [mask() == 1, mask().astype(np.uint16) * 65535, mask(2) * 255])
def test_a_mask_of_one_value_is_no_instances(tmp_path, values):
    """It is refused with two ways out, and each of them works."""
    grey = draw(len(values))[0]
    value = int(values.max())
    with pytest.raises(PipelineError, match=rf"value {value} alone, in 2 pieces") as caught:
        make_stack(tmp_path, image=grey, labels=values)
    assert "labels.kind: pieces" in caught.value.fix
    assert f"{{0: background, {value}: cell}}" in caught.value.fix
    stack = make_stack(tmp_path, settings(labels={"kind": "pieces"}), image=grey, labels=values)
    expected = np.concatenate([ndimage.label(plane)[0][None] + 3 * i * (plane > 0) for i, plane in enumerate(values)])
    np.testing.assert_array_equal(whole(stack.reference("instances")), expected)
    np.testing.assert_array_equal(whole(stack.reference("classes")), values > 0)
    named = {"kind": "classes", "values": {0: "background", value: "cell"}}
    stack = make_stack(tmp_path, settings(labels=named), image=grey, labels=values)
    np.testing.assert_array_equal(whole(stack.reference("instances")), expected)


def test_one_object_a_plane_may_have_one_value(tmp_path):
    values = mask(2)
    values[:, :, 60:] = 0
    stack = make_stack(tmp_path, labels=values)
    np.testing.assert_array_equal(whole(stack.reference("instances")), values)


def test_pieces_of_different_values_stay_apart(tmp_path):
    """Across the borders of shards, too: they are 64 px."""
    values = np.zeros((1, 100, 130), np.uint16)
    values[0, 10:90, 10:60], values[0, 10:90, 60:120], values[0, 40:50, 90:125] = 1, 700, 0
    stack = make_stack(tmp_path, settings(labels={"kind": "pieces"}), image=draw(1)[0], labels=values)
    found = whole(stack.reference("instances"))[0]
    assert set(found[values[0] == 1]) == {1}
    assert set(found[values[0] == 700]) == {2}


def test_ids_of_many_pieces_are_said_aloud(tmp_path, capsys):
    values = mask() + mask()
    values[0, 70:80, 70:80] = values[0, 70:80, 100:110] = values[0, 85:95, 70:80] = 1
    stack = make_stack(tmp_path, settings(store={"shard_px": 256}), image=draw(1)[0], labels=values)
    assert "separate pieces each" in stack.ingested.notes[-1]
    assert stack.ingested.notes[-1] in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["i8", "u8", "i4", "u4", "i1", "f2", "f8"])
def test_every_width_of_number_is_read_exactly(tmp_path, dtype):
    """int64 is what NumPy makes of a list; C, and so tifffile, have two names for it."""
    image = (np.arange(2 * 64 * 64).reshape(2, 64, 64) % 100).astype(dtype)
    stack = make_stack(tmp_path, image=image, labelled=False)
    np.testing.assert_array_equal(stack.image.read(1, slice(0, 64), slice(0, 64))[0], image[1])
    assert stack.ingested.statistics.max == (99,)


def write_pairs(folder, pairs):
    """Write pictures of grey value k, and labels with a square of value k."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (image, labels) in enumerate(pairs, 1):
        square = np.zeros((32, 32), np.uint8)
        square[4:9, 4:9] = number
        for place, pixels in ((image, np.full((32, 32), number, np.uint8)), (labels, square)):
            if place:
                (folder / place).parent.mkdir(exist_ok=True)
                tifffile.imwrite(folder / place, pixels)


def test_two_folders_are_paired_by_name(tmp_path):
    names = ["cell", "cell_2", "cell_3", "cell_10"]
    write_pairs(tmp_path, [(f"images/{name}.tif", f"masks/{name}_mask.tif") for name in names])
    record = tmp_path / "results" / "ingest.json"
    source = Source("pairs", str(tmp_path / "images"), str(tmp_path / "masks"))
    for planes, expected in (("", [1, 2, 3, 4]), ("3,0", [4, 1])):
        ingest(replace(source, planes=planes), settings(), record)
        stack = Stack.open(record)
        assert [int(stack.image.read(i, slice(1), slice(1)).item()) for i in range(len(expected))] == expected
        assert whole(stack.reference("instances"))[:, 5, 5].tolist() == expected
        assert asdict(stack.ingested.names) == {
            "image": tuple(f"{names[i - 1]}.tif" for i in expected),
            "labels": tuple(f"{names[i - 1]}_mask.tif" for i in expected),
        }


def test_folders_that_do_not_pair_are_refused(tmp_path):
    pairs = [("images/a1.tif", "masks/a1.tif"), ("images/a2.tif", ""), ("images/a3.tif", "masks/a3.tif")]
    write_pairs(tmp_path, [*pairs, ("", "masks/a4.tif")])
    source = Source("pairs", str(tmp_path / "images"), str(tmp_path / "masks"))
    with pytest.raises(PipelineError, match=r"without a label: a2\.tif; .*without an image: a4\.tif"):
        ingest(source, settings(), tmp_path / "ingest.json")
