"""What a training shows while it runs: every row once, wherever it was cut off, and the model none the wiser."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import torch
from google_crc32c import value as crc32c
from PIL import Image
from synthetic_training import ARCHITECTURE, CARD, discs, settings

from unet_pipeline.config.sections import IGNORE, Watch
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.overlays import GAP_PX
from unet_pipeline.images.pictures import UNKNOWN, class_colour
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.models import build
from unet_pipeline.train.dataset import validation_tiles
from unet_pipeline.train.history import Row
from unet_pipeline.train.loop import train
from unet_pipeline.train.observer import Observer, draw, scalars
from unet_pipeline.train.validation import Sample, Validation

FILES = ("model.json", "weights.safetensors", "history.tsv")
STACKS, HELD_OUT = [discs(0)], [discs(5, (1, 30, 34))]
NEEDED = "the extra tensorboard is not installed"


class Killed(Exception):
    """Ends a training as a power cut would."""


class Stops(Progress):
    """A progress that ends the training after a step."""

    def __init__(self, at):
        super().__init__(0, "train", io.StringIO())
        self.at = at

    def advance(self, units=1, note=""):
        super().advance(units, note)
        if self.done == self.at:
            raise Killed


def run(folder, watch, at=None, digest="d", **changed):
    options = settings(watch, **changed)
    return train(STACKS, HELD_OUT, CARD, np.ones(2), options, folder, digest, Stops(at))


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def masked(data):
    """The checksum of an event file's parts, as TensorFlow writes it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """[(step, tag, value)] of the one event file, read by the format's definition; pictures as arrays."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason=NEEDED)
    (path,) = (folder / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            shown = value.image.encoded_image_string
            found.append((event.step, value.tag, picture(io.BytesIO(shown)) if shown else value.simple_value))
    return found


def picture(source):
    with Image.open(source) as image:
        return np.asarray(image.convert("RGB"))


def shown(folder):
    return {(step, tag): value for step, tag, value in events(folder) if tag != "sample"}


def expected(result):
    rows = {row.step: scalars(row, CARD.classes) for row in result.history}
    return {(step, tag): pytest.approx(value, rel=1e-6) for step, row in rows.items() for tag, value in row.items()}


def test_scalars_are_those_of_the_history(tmp_path):
    pytest.importorskip("tensorboardX", reason=NEEDED)
    result = run(tmp_path, Watch(tensorboard=True))
    assert shown(tmp_path) == expected(result)
    row = result.history[-1]
    both, sizes = row.dice[1], 2 - row.dice[1]
    assert scalars(row, CARD.classes)["mean_iou"] == pytest.approx((row.dice[0] / (2 - row.dice[0]) + both / sizes) / 2)
    assert scalars(Row(3, 0.1, 0.5), CARD.classes) == {"loss/train": 0.5, "learning_rate": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("tensorboard", [False, True])
def test_watching_changes_no_byte_of_the_model(tmp_path, tensorboard):
    if tensorboard:
        pytest.importorskip("tensorboardX", reason=NEEDED)
    run(tmp_path / "unseen", Watch())
    run(tmp_path / "watched", Watch(tensorboard=tensorboard, samples=True))
    assert (tmp_path / "watched" / "samples" / "24.png").exists()
    assert content(tmp_path / "watched") == content(tmp_path / "unseen")
    assert not {"tensorboard", "samples"} & {path.name for path in (tmp_path / "unseen").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 13, 23])
def test_a_training_that_goes_on_doubles_no_step(tmp_path, at):
    pytest.importorskip("tensorboardX", reason=NEEDED)
    watch = Watch(tensorboard=True, samples=True)
    with pytest.raises(Killed):
        run(tmp_path, watch, at)
    result = run(tmp_path, watch)
    found = events(tmp_path)
    places = [(step, tag) for step, tag, _ in found]
    assert len(places) == len(set(places))
    assert [step for step, tag in places if tag == "loss/train"] == [row.step for row in result.history]
    assert shown(tmp_path) == expected(result)
    validated = [row.step for row in result.history if row.validation_loss is not None]
    assert [step for step, tag in places if tag == "sample"] == validated == [7, 14, 21, 24]
    for step, tag, value in found:
        if tag == "sample":
            assert np.array_equal(value, picture(tmp_path / "samples" / f"{step}.png"))


def test_scalars_of_a_finished_training_cost_no_step(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason=NEEDED)
    run(tmp_path, Watch())
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    result = run(tmp_path, Watch(tensorboard=True))
    assert result.resumed_step == 24
    assert shown(tmp_path) == expected(result)


def test_what_another_training_left_is_removed_and_nothing_else(tmp_path):
    run(tmp_path, Watch(samples=True), steps=8, digest="before")
    (tmp_path / "samples" / "notes.txt").write_text("mine")
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"7.png", "8.png", "notes.txt"}
    with pytest.raises(Killed):
        run(tmp_path, Watch(samples=True), at=8)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"7.png", "notes.txt"}
    run(tmp_path, Watch(), steps=5, digest="later")
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"notes.txt"}


def test_a_training_that_was_taken_over_writes_and_removes_nothing(tmp_path):
    def taken():
        raise PipelineError("model.json", "no other job", "one")

    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "7.png").write_bytes(b"of the other job")
    observer = Observer(Watch(samples=True), tmp_path, CARD.classes)
    with pytest.raises(PipelineError, match="no other job"):
        observer.begin([], taken)
    assert (tmp_path / "samples" / "7.png").read_bytes() == b"of the other job"


def test_processes_but_the_first_neither_write_nor_remove(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "7.png").write_bytes(b"of the first process")
    observer = Observer(None, tmp_path, CARD.classes)
    observer.begin([], lambda: None)
    observer.add(Row(7, 0.1, 0.5, 0.4, (0.9, 0.8)), lambda: pytest.fail("no sample is asked for"))
    observer.close()
    assert [path.read_bytes() for path in tmp_path.rglob("*.png")] == [b"of the first process"]


def test_a_missing_package_is_named_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PipelineError, match=r"(?s)watch\.tensorboard: .*not installed.*unet-pipeline\[tensorboard\]"):
        run(tmp_path, Watch(tensorboard=True))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    run(tmp_path, Watch(), steps=2)  # without it nothing is missed


def test_the_sample_is_what_the_network_says_of_the_first_tile():
    network = build(ARCHITECTURE, seed=2)
    with torch.no_grad():
        list(network.parameters())[-1].add_(torch.tensor([0.0, 0.05]))
    (stack,) = HELD_OUT
    tiles, _ = validation_tiles(HELD_OUT, 16, 100)
    found = Validation(tiles[-1:], network.geometry, 16, 2, "float32", 2).sample(network, torch.device("cpu"))
    assert network.training
    rows, columns = tiles[-1].inside(16)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert height < 16 > width, "the last tile reaches beyond the plane"
    image = stack.normaliser(stack.image.planes[0])[0]
    np.testing.assert_allclose(found.image[0, :height, :width], image[rows, columns], rtol=1e-6)
    assert np.array_equal(found.target[:height, :width], stack.target.planes[0][0][rows, columns])
    assert (found.target[height:] == IGNORE).all()
    geometry = network.geometry
    pads = [(geometry.before, geometry.round_up(size) - size + geometry.after) for size in stack.size]
    with torch.inference_mode():
        whole = network.eval()(torch.from_numpy(np.pad(image, pads, mode="reflect"))[None, None])[0].argmax(0).numpy()
    assert np.array_equal(found.predicted[:height, :width], whole[rows, columns])
    assert len(np.unique(whole)) == 2


def test_no_tile_gives_no_sample():
    network = build(ARCHITECTURE, seed=2)
    assert Validation([], network.geometry, 16, 1, "float32", 1).sample(network, torch.device("cpu")) is None


def test_a_sample_is_drawn_in_the_colours_of_the_page():
    image = np.linspace(-2, 5, 12, dtype=np.float32).reshape(1, 3, 4)
    target = np.array([[0, 1, 2, IGNORE]] * 3, np.uint8)
    drawn = draw(Sample(image, target, target[:, ::-1] % 3))
    assert drawn.shape == (3, 3 * 4 + 2 * GAP_PX, 3)
    assert (drawn[0, 0].tolist(), drawn[2, 3].tolist()) == ([0] * 3, [255] * 3)
    labels, predicted = drawn[:, 4 + GAP_PX : 8 + GAP_PX], drawn[:, 8 + 2 * GAP_PX :]
    assert [tuple(pixel) for pixel in labels[1]] == [class_colour(0), class_colour(1), class_colour(2), UNKNOWN]
    assert [tuple(pixel) for pixel in predicted[1]] == [class_colour(i) for i in (0, 2, 1, 0)]
