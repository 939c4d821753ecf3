import json

import numpy as np
import pytest
import tifffile
import zarr
from chain import draw, make_stack, settings
from scipy import ndimage

from unet_pipeline.errors import PipelineError
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
    statistics = stack.facts["statistics"]
    assert statistics["min"] == [image.min()]
    assert statistics["mean"][0] == pytest.approx(image.mean())
    assert stack.facts["labels"]["class_counts"] == {
        "background": int((labels == 0).sum()),
        "cell": int((labels > 0).sum()),
    }


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
    assert stack.facts["labels"]["largest_instance"] == count
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
    assert stack.facts["image"]["in_place"]
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
        assert stack.facts["image"]["in_place"] == (sizes == "pad")
        assert stack.image.shape == shape
        assert stack.grid.pixel_um == pytest.approx((pixel, pixel))
    assert set(np.unique(whole(stack.reference("instances")))) <= set(np.unique(labels))
    picture = stack.facts["fit"]["pictures"][1]
    assert (picture["name"], picture["place"]) == ("mine.zarr, plane 1", [7, 0, 49, 64])


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
    assert Stack.open(record).facts["statistics"]["min"] == [2]
    record.unlink()
    with pytest.raises(PipelineError, match="series"):
        ingest(Source("two", str(tmp_path / "two.ome.tif")), settings(), record)
    assert not record.exists()
