"""Names, colours and windows in OME-Zarr: valid by the model of OME-NGFF 0.5, and what ome-zarr-py and napari show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from chain import make_plan, make_stack, settings
from ome_zarr_models.common.omero import Omero
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from unet_pipeline.images.colours import class_colour
from unet_pipeline.images.display import image_channels

CONFIG = settings(labels={"kind": "classes", "classes": ["background", "nerve", "glia"],
                          "values": {0: "background", 1: "nerve", 2: "glia"}, "ignore": 9})  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A stack with three classes and one channel: its image, its segmentation, and its record."""
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 2, 9], np.uint8), (2, 64, 70))
    image = rng.integers(100, 4000, (2, 64, 70)).astype(np.uint16)
    stack = make_stack(tmp_path_factory.mktemp("shown"), CONFIG, image=image, labels=labels)
    return stack.store, make_plan(stack, CONFIG, regions=1).store, stack


def shown_by_ome_zarr(store):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader  # here, for it imports dask

    return {node.zarr.basename(): node.metadata for node in Reader(parse_url(str(store), mode="r"))()}


def omero(store):
    return Omero.model_validate(Image.from_zarr(zarr.open_group(store, mode="r")).attributes.ome.omero)


def test_classes_are_channels_with_their_names_and_colours(stores):
    _, segmentation, _ = stores
    found = shown_by_ome_zarr(segmentation)[segmentation.name]
    assert found["channel_names"] == ["background", "nerve", "glia"]
    assert found["visible"] == [False, True, True]
    assert found["contrast_limits"] == [[0, 255]] * 3
    colours = [[255, 255, 255], list(class_colour(1)), list(class_colour(2))]
    assert [np.rint(np.multiply(scale[1], 255)).tolist() for scale in found["colormap"]] == colours
    assert [channel.color for channel in omero(segmentation).channels] == ["FFFFFF", "56B4E9", "E69F00"]


def test_labels_of_classes_have_names_and_colours(stores):
    image, segmentation, _ = stores
    for store, values in ((segmentation, {0, 1, 2}), (image, {0, 1, 2, 255})):
        found = shown_by_ome_zarr(store)["classes"]
        assert set(found["color"]) == set(found["properties"]) == values
        assert found["color"][0][3] == 0 and found["color"][2] == [*(part / 255 for part in class_colour(2)), 1]
        assert found["properties"][2] == {"class": "glia"}
        ImageLabel.from_zarr(zarr.open_group(store / "labels" / "classes", mode="r"))
        ImageLabel.from_zarr(zarr.open_group(store / "labels" / "instances", mode="r"))
    assert found["properties"][255] == {"class": "not annotated"}


def test_an_image_is_shown_without_its_darkest_and_brightest_few_pixels(stores):
    image, _, stack = stores
    found = shown_by_ome_zarr(image)[image.name]
    ((low, high),) = found["contrast_limits"]
    values = np.sort(stack.image.read(0, slice(None), slice(None)).ravel())
    assert values[0] < low < values[len(values) // 20] and values[-len(values) // 20] < high <= values[-1]
    assert found["channel_names"] == ["channel 0"] and found["colormap"] == [[[0, 0, 0], [1, 1, 1]]]
    window = omero(image).channels[0].window
    assert (window.min, window.max) == (0, 65535)


def test_windows_of_other_images(stores):
    """A photograph as it is; one grey value, and floats, with a window that is none of width 0."""
    one = stores[2].ingested.statistics
    three = replace(one, **{name: getattr(one, name) * 3 for name in ("min", "max", "mean", "std", "quantiles")})
    assert [(c.colour, c.window) for c in image_channels(np.dtype(np.uint8), three)] == [
        ((255, 0, 0), (0, 255)), ((0, 255, 0), (0, 255)), ((0, 0, 255), (0, 255))
    ]  # fmt: skip
    flat = replace(one, min=(0.5,), max=(0.5,), quantiles=((0.5,) * 1001,))
    (channel,) = image_channels(np.dtype(np.float32), flat)
    assert channel.window == channel.span == (0.5, 1.5)


@pytest.mark.slow
def test_napari_shows_the_classes_by_name(stores):
    from napari_ome_zarr import napari_get_reader

    layers = napari_get_reader(str(stores[1]))(str(stores[1]))
    names = [layer[1]["name"] for layer in layers if layer[2] == "image"]
    assert names == [["cells: background", "cells: nerve", "cells: glia"]]
