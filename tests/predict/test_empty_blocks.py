"""Empty blocks against their definition, and that skipping them does not depend on how an image is divided."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from chain import draw, make_model, make_plan, make_stack, settings
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from unet_pipeline.config.sections import Predict
from unet_pipeline.images.mirrored import mirrored
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.objects.box import Box
from unet_pipeline.predict import predict as module
from unet_pipeline.predict.empty_blocks import empty_pixels
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.records.record import read_json


class Memory:
    """An image (channels, y, x) as one plane."""

    def __init__(self, image):
        self.image, self.shape = image, (1, *image.shape)

    def read(self, plane, rows, columns):
        return self.image[:, rows, columns]


def by_definition(image, normaliser, skip_below):
    """Empty pixels (y, x) of a whole image (channels, y, x), square by square."""
    _, height, width = image.shape
    empty = np.zeros((height, width), bool)
    for y in range(0, height, 64):
        for x in range(0, width, 64):
            rows, columns = mirrored(y - 64, 192, height), mirrored(x - 64, 192, width)
            seen = normaliser(image[:, rows[:, None], columns]).astype(np.float64)
            means = seen.reshape(len(image), 24, 8, 24, 8).mean(axis=(2, 4))
            empty[y : y + 64, x : x + 64] = (np.ptp(means, axis=(1, 2)) <= skip_below).all()
    return empty


@st.composite
def slides(draw):
    """Noise on a level, and now and then something: (channels, y, x) uint8."""
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 400)), draw(st.integers(1, 400))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = draw(st.sampled_from([10, 200])) + rng.normal(0, 3, shape)
    for _ in range(draw(st.integers(0, 3))):
        y, x = rng.integers(0, shape[1]), rng.integers(0, shape[2])
        image[rng.integers(0, shape[0]), y : y + 20, x : x + 20] += 40
    return image.clip(0, 255).astype(np.uint8)


@trials(max_examples=60, deadline=None)
@given(slides(), st.sampled_from([16, 48, 64, 80, 128, 400]), st.sampled_from([16, 112, 400]))
def test_equals_the_definition_in_every_shard(image, height_px, width_px):
    normaliser = Normaliser((20.0,) * len(image), (0.01,) * len(image))
    expected, found = by_definition(image, normaliser, 0.08), np.zeros(image.shape[1:], bool)
    for y in range(0, image.shape[1], height_px):
        for x in range(0, image.shape[2], width_px):
            rows, columns = slice(y, min(y + height_px, image.shape[1])), slice(x, min(x + width_px, image.shape[2]))
            found[rows, columns] = empty_pixels(Memory(image), Box.of(0, rows, columns), normaliser, 0.08)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_bright_and_dark_ground_is_empty_and_hot_pixels_are_nothing(level):
    image = np.full((1, 256, 320), level, np.float32)
    image[0, 100, 100] += 1
    whole, normaliser = Box.of(0, slice(0, 256), slice(0, 320)), Normaliser((0.0,), (1.0,))
    assert empty_pixels(Memory(image), whole, normaliser, 0.1).all()
    image[0, 96:104, 96:104] += 1
    found = empty_pixels(Memory(image), whole, normaliser, 0.1)
    assert not found[0:192, 0:192].any()  # the block of it and those around
    assert found[192:].all()
    assert found[:, 192:].all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_never_empty(value):
    image = np.zeros((1, 64, 320), np.float32)
    image[0, 5, 5] = value
    found = empty_pixels(Memory(image), Box.of(0, slice(0, 64), slice(0, 320)), Normaliser((0.0,), (1.0,)), 1000.0)
    assert found.any(axis=0).tolist() == [False] * 128 + [True] * 192


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Cells in one corner of an empty plane of 300 x 340 px, and a network."""
    folder = tmp_path_factory.mktemp("slide")
    image = np.full((1, 300, 340), 40, np.uint8)
    image[:, 200:280, 10:90] = draw(1, (80, 80))[0]
    image += np.random.default_rng(0).integers(0, 3, image.shape, dtype=np.uint8)
    return make_stack(folder, labelled=False, image=image), make_model(folder / "model")


def predicted(slide, skip_below, tile_px, shard_px, regions):
    """Probabilities (planes, classes, y, x), the records, and the passes of the network."""
    stack, model = slide
    store = {"chunk_px": shard_px, "shard_px": shard_px}
    config = settings(tile={"tile_px": tile_px}, store=store, predict={"skip_below": skip_below})
    stack_plan, records, passes = make_plan(stack, config, regions), [], []
    with pytest.MonkeyPatch.context() as patch:
        real = Forward.__call__
        patch.setattr(Forward, "__call__", lambda self, windows: passes.append(len(windows)) or real(self, windows))
        for region in range(regions):
            path = stack.record.parent / f"regions_{tile_px}_{shard_px}" / f"{region}.json"
            predict(stack_plan, region, model, config, path)
            records.append(read_json(path))
    every = slice(0, 300), slice(0, 340)
    read = stack_plan.probabilities().read
    return read(0, *every)[None], records, sum(passes)


@pytest.mark.parametrize(
    ("tile_px", "shard_px", "regions"),
    [
        (32, 96, 3),
        pytest.param(80, 80, 1, marks=pytest.mark.slow),
        (64, 352, 2),
        pytest.param(352, 352, 1, marks=pytest.mark.slow),
    ],
)
def test_what_is_skipped_is_background_and_the_rest_as_without(slide, tile_px, shard_px, regions):
    probabilities, records, passes = predicted(slide, 0.3, tile_px, shard_px, regions)
    usual, usual_records, usual_passes = predicted(slide, None, tile_px, shard_px, regions)
    stack, model = slide
    forward = Forward.load(model, stack, Predict(), settings().compute)
    whole = Box.of(0, slice(0, 300), slice(0, 340))
    empty = empty_pixels(stack.image, whole, forward.normaliser, 0.3)
    assert 0.4 < empty.mean() < 0.9
    assert (probabilities[:, 0, empty] == 255).all()
    assert (probabilities[:, 1, empty] == 0).all()
    np.testing.assert_array_equal(probabilities[..., ~empty], usual[..., ~empty])
    assert (usual[:, 1, empty] > 127).any(), "the network would have found something there"
    tiles, skipped = (sum(record[name] for record in records) for name in ("tiles", "tiles_skipped"))
    assert (usual_passes, passes) == (tiles, tiles - skipped)
    assert all(record["tiles_skipped"] == 0 for record in usual_records)
    assert skipped > 0 or tile_px == 352


@pytest.mark.slow
def test_a_region_that_goes_on_counts_what_was_skipped_before(slide, monkeypatch):
    _, records, _ = predicted(slide, 0.3, 32, 96, 1)
    stack, model = slide
    config = settings(tile={"tile_px": 32}, store={"chunk_px": 96, "shard_px": 96}, predict={"skip_below": 0.3})
    path, done = stack.record.parent / "again" / "0.json", []

    def die(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    real = module.predict_shard
    monkeypatch.setattr(module, "predict_shard", die)
    with pytest.raises(KeyboardInterrupt):
        predict(make_plan(stack, config, 1), 0, model, config, path)
    monkeypatch.setattr(module, "predict_shard", real)
    record = predict(make_plan(stack, config, 1), 0, model, config, path)
    assert [asdict(one) for one in record.shards] == records[0]["shards"]
    assert record.tiles_skipped == records[0]["tiles_skipped"] > 0
