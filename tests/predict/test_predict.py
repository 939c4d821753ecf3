import json

import numpy as np
import pytest
import tifffile
from chain import make_model, make_plan, make_stack, run, settings
from same_tree import tree

from unet_pipeline.audit.prove import whole_pass
from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.decided import decided
from unet_pipeline.predict.crop import Crop
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict
from unet_pipeline.records.layout import journal_path
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return make_stack(folder), make_model(folder / "model")


def stored(stack_plan):
    planes, height, width = stack_plan.plan.shape
    read = stack_plan.probabilities().read
    return np.stack([read(plane, slice(0, height), slice(0, width)) for plane in range(planes)])


def check_as_one_pass(probabilities, stack, forward):
    """Compare stored probabilities (planes, classes, y, x) with the softmax of one pass over each whole plane."""
    for plane, found in enumerate(probabilities):
        whole = Box.of(plane, *(slice(0, length) for length in found.shape[1:]))
        logits = whole_pass(Crop(stack.image, whole), forward)[:, 0]
        # each logit may move by this much, because kernels are chosen by the shape of a pass
        moved = (1e-4 if forward.precision == "float32" else 0.1) * logits.std()
        # beside what rounding to float16 can turn
        sure = np.abs(logits[1] - logits[0]) > 2 * moved + 0.01
        np.testing.assert_array_equal(decided(found, None)[sure], logits.argmax(axis=0)[sure])
        assert sure.mean() > (0.95 if forward.precision == "float32" else 0.5)
        expected = np.exp(logits) / np.exp(logits).sum(axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-3 + moved)


@pytest.mark.parametrize(
    ("tile_px", "shard_px", "regions", "batch", "precision"),
    [
        (32, 64, 2, 1, "float32"),
        (16, 32, 5, 3, "bfloat16"),
        (64, 128, 1, 2, "float32"),
        (128, 160, 40, 1, "float32"),
        pytest.param(16, 32, 5, 3, "float32", marks=pytest.mark.slow),
        pytest.param(32, 64, 2, 1, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_the_volume_equals_one_whole_pass(made, tile_px, shard_px, regions, batch, precision):
    stack, model = made
    config = settings(
        tile={"tile_px": tile_px},
        store={"chunk_px": 32, "shard_px": shard_px},
        predict={"batch": batch, "precision": precision, "probabilities": "float16"},
    )
    stack_plan = make_plan(stack, config, regions)
    for region in range(regions):
        predict(stack_plan, region, model, config, stack.record.parent / "regions" / f"{region}.json")
    probabilities = stored(stack_plan)
    check_as_one_pass(probabilities, stack, Forward.load(model, stack, Predict(precision=precision), config.compute))
    classes = (decided(plane, None) for plane in probabilities)
    assert all(len(np.unique(plane)) == 2 for plane in classes), "a network that says one class proves nothing"


def test_bytes_are_probabilities_times_255(made):
    stack, model = made
    config = settings()
    stack_plan = make_plan(stack, config, 1)
    predict(stack_plan, 0, model, config, stack.record.parent / "regions" / "0.json")
    probabilities = stored(stack_plan)
    forward = Forward.load(model, stack, Predict(), config.compute)
    logits = whole_pass(Crop(stack.image, Box.of(1, slice(0, 100), slice(0, 130))), forward)[:, 0]
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert np.abs(probabilities[1] - expected * 255).max() < 0.501


def test_writing_a_region_again_gives_the_same_bytes(made):
    stack, model = made
    stack_plan = make_plan(stack, settings(), 2)
    records = []
    for _ in range(2):
        record = stack.record.parent / "regions" / "1.json"
        predict(stack_plan, 1, model, settings(), record)
        records.append(json.loads(record.read_text())["shards"])
    assert records[0] == records[1]
    assert all(entry["probabilities"] for entry in records[0])


def test_a_region_of_no_shards_is_recorded(made):
    stack, model = made
    stack_plan = make_plan(stack, settings(), 40)
    record = predict(stack_plan, 0, model, settings(), stack.record.parent / "regions" / "0.json")
    assert record.shards == ()


@pytest.mark.parametrize(
    ("model_options", "message"),
    [
        ({"channels": 3}, "3 channel"),
        ({"depth": 3}, "geometry"),
        ({"classes": ("background", "cell", "dirt")}, "classes"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(made, tmp_path, model_options, message):
    stack, _ = made
    stack_plan = make_plan(stack)
    model = make_model(tmp_path / "model", **model_options)
    record = tmp_path / "0.json"
    with pytest.raises(PipelineError, match=message):
        predict(stack_plan, 0, model, settings(), record)
    assert not record.exists()


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors"])
@pytest.mark.parametrize("change", ["missing", "altered"])
def test_a_spoilt_model_folder_is_named(made, tmp_path, file, change):
    stack, _ = made
    path = make_model(tmp_path / "model") / file
    if change == "missing":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"model"):
        predict(make_plan(stack), 0, tmp_path / "model", settings(), tmp_path / "0.json")


def test_cuda_asked_for_and_absent(made, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(PipelineError, match=r"compute\.device"):
        predict(make_plan(made[0]), 0, made[1], settings(compute={"device": "cuda"}), tmp_path / "0.json")


def test_a_gpu_out_of_memory_names_the_key(made):
    import torch

    stack, model = made
    forward = Forward.load(model, stack, Predict(), settings().compute)

    def full(batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    broken = Forward(full, forward.card, forward.normaliser, forward.device, "float32")
    with pytest.raises(PipelineError, match=r"lower tile\.tile_px or predict\.batch"):
        broken([torch.zeros(1, 72, 72)])


def test_the_whole_run_on_rgb_like_channels(tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (1, 3, 50, 70), dtype=np.uint16)
    labels = np.zeros((1, 50, 70), np.uint8)
    labels[0, 10:20, 10:20] = 1
    stack = make_stack(tmp_path, image=image, labels=labels, axes="zcyx")
    model = make_model(tmp_path / "model", channels=3)
    assert run(make_plan(stack), model).exists()


@pytest.mark.parametrize(
    ("size", "tile_px"),
    [
        ((1, 1), "auto"),
        pytest.param((1, 300), 32, marks=pytest.mark.slow),
        ((300, 1), "auto"),
        pytest.param((2, 97), 32, marks=pytest.mark.slow),
    ],
)
def test_slivers_of_images_go_all_the_way(tmp_path, size, tile_px):
    """From TIFF to stitched objects, an image of one pixel, one row or one column; mirrored far beyond its size."""
    generator = np.random.default_rng(1)
    image = generator.integers(0, 255, (2, *size), dtype=np.uint8)
    labels = np.stack([np.ones(size, np.uint8), np.zeros(size, np.uint8)])
    for name, values in (("image", image), ("labels", labels)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for plane in values:  # one by one, else tifffile takes a width of 1 for a sample
                file.write(plane, photometric="minisblack", metadata=None)
    record = tmp_path / "results" / "cells" / "ingest.json"
    ingest(Source("cells", str(tmp_path / "image.tif"), str(tmp_path / "labels.tif")), settings(), record)
    stack = Stack.open(record)
    weighed = weigh(stack, settings(), stack.record.with_name("weigh.json"))
    assert sum(weighed.class_counts.values()) + weighed.ignored == image.size
    config = settings(tile={"tile_px": tile_px}, predict={"probabilities": "float16"})
    stack_plan, model = make_plan(stack, config), make_model(tmp_path / "model")
    assert run(stack_plan, model, config).exists()
    probabilities = stored(stack_plan)
    check_as_one_pass(probabilities, stack, Forward.load(model, stack, Predict(), config.compute))


def test_no_record_is_written_where_a_link_leads(made, tmp_path):
    stack, model = made
    regions = tmp_path / "regions"
    regions.symlink_to(tmp_path)
    with pytest.raises(PipelineError, match=f"{regions}: expected a folder of these results, got a symbolic link"):
        predict(make_plan(stack), 0, model, settings(), regions / "0.json")
    assert list(tmp_path.iterdir()) == [regions]


@pytest.mark.parametrize("name", ["", "0", "0/c/0/0"])
def test_nothing_is_written_where_a_link_in_the_store_leads(made, tmp_path, name):
    stack, model = made
    stack_plan = make_plan(stack)
    journal_path(stack.record.parent / "regions" / "0.json").unlink(missing_ok=True)
    place = stack_plan.store / name
    place.mkdir(parents=True, exist_ok=True)
    elsewhere = place.rename(tmp_path / "elsewhere")
    before = tree(elsewhere)
    place.symlink_to(elsewhere)
    with pytest.raises(PipelineError, match=f"{place}: expected a folder of these results, got a symbolic link"):
        predict(stack_plan, 0, model, settings(), stack.record.parent / "regions" / "0.json")
    assert tree(elsewhere) == before
    make_plan(stack)  # the printed remedy: without the link the store is made anew
    assert tree(elsewhere) == before
    if name in ("", "0"):
        assert not place.is_symlink()
    else:
        place.unlink()
    predict(stack_plan, 0, model, settings(), stack.record.parent / "regions" / "0.json")
    assert tree(elsewhere) == before
