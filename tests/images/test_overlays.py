"""Pictures of classes with the image, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage.segmentation import find_boundaries

from unet_pipeline.images.overlays import GAP_PX, STRENGTH, beside, cut_out, mask_png, overlay, rgb_png
from unet_pipeline.images.pictures import PAPER, UNKNOWN, class_colour


@pytest.fixture
def drawn():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    ids = np.zeros((20, 30), np.uint32)
    ids[2:12, 3:14], ids[4:15, 14:25] = 1, 2  # they touch
    return image, (ids > 0).astype(np.uint8) * (1 + (ids == 2)), ids


def test_an_overlay_tints_classes_and_outlines_objects(drawn):
    image, classes, ids = drawn
    found = overlay(image, classes, ids)
    lines = find_boundaries(ids, mode="inner", connectivity=1)
    assert (found[lines] == PAPER).all()
    assert (found[classes == 0] == image[classes == 0]).all()
    for index in (1, 2):
        inside = (classes == index) & ~lines
        wanted = (1 - STRENGTH) * image[inside] + STRENGTH * np.array(class_colour(index))
        assert abs(found[inside] - wanted).max() <= 0.5


def test_a_cut_out_keeps_the_image_and_blackens_the_background(drawn):
    image, classes, _ = drawn
    found = cut_out(image, classes)
    assert (found[classes > 0] == image[classes > 0]).all()
    assert not found[classes == 0].any()


def test_a_mask_holds_class_indices_and_their_colours(drawn):
    _, classes, _ = drawn
    classes = classes.copy()
    classes[0, 0], classes[1, 1] = 255, 31
    with Image.open(io.BytesIO(mask_png(classes, 255))) as image:
        assert np.array_equal(np.asarray(image), classes)
        rgb = np.asarray(image.convert("RGB"))
    assert tuple(rgb[0, 0]) == UNKNOWN
    for index in (0, 1, 2, 31):
        assert (rgb[classes == index] == class_colour(index)).all()


def test_pictures_stand_side_by_side(drawn):
    image, _, _ = drawn
    found = beside([image, image[:, :7]])
    assert found.shape == (20, 30 + GAP_PX + 7, 3)
    assert (found[:, :30] == image).all()
    assert (found[:, 30 : 30 + GAP_PX] == PAPER).all()
    assert (found[:, 30 + GAP_PX :] == image[:, :7]).all()
    with Image.open(io.BytesIO(rgb_png(found))) as written:
        assert np.array_equal(np.asarray(written), found)
