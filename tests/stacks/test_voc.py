"""A data set as Pascal VOC has it, drawn by Pillow, through the chain; and what is wrong with one, one message each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chain import make_plan, run, settings
from PIL import Image, ImageDraw

from unet_pipeline.audit.differs import differences
from unet_pipeline.audit.record import trace
from unet_pipeline.config.sections import IGNORE
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.records.stack_records import FittedPicture
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.statistics import QUANTILES

CAT, PERSON, BORDER = 8, 15, 255
VALUES = {0: "background", CAT: "cat", PERSON: "person"}
LABELS = {"kind": "classes", "classes": ["background", "cat", "person"], "values": VALUES, "ignore": BORDER}
COLOURS = {0: (40, 60, 30), CAT: (210, 60, 40), PERSON: (50, 70, 220)}
SIZES = {"2007_000032": (60, 100), "2007_000039": (90, 70), "2007_000063": (64, 64), "2007_000068": (40, 101)}
SQUARE = {"sizes": "square", "square_px": 64}


@dataclass(frozen=True)
class Voc:
    """A tree of JPEGImages, SegmentationClass and ImageSets/Segmentation."""

    root: Path

    def image(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def labels(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def list(self, content: str) -> Path:
        path = self.root / "ImageSets" / "Segmentation" / "train.txt"
        path.write_bytes(content.encode())
        return path

    def indices(self, name: str) -> np.ndarray:
        with Image.open(self.labels(name)) as picture:
            assert picture.mode == "P"
            return np.asarray(picture)

    def source(self, **cells: Any) -> Source:
        row = {
            "stack": "voc",
            "image": str(self.root / "JPEGImages"),
            "labels": str(self.root / "SegmentationClass"),
            "names": str(self.root / "ImageSets" / "Segmentation" / "train.txt"),
        }
        return Source(**(row | cells))

    def ingest(self, labels: dict[str, Any] | None = None, fit: dict[str, Any] | None = None, **cells: Any) -> Stack:
        config = settings(labels=LABELS | (labels or {}), ingest=SQUARE if fit is None else fit)
        record = self.root / "results" / "voc" / "ingest.json"
        ingest(self.source(**cells), config, record)
        return Stack.open(record)


def save_labels(path: Path, indices: np.ndarray) -> None:
    """Save as VOC does: one byte a pixel, which the palette colours."""
    picture = Image.fromarray(indices.astype(np.uint8)).convert("P")
    picture.putpalette(np.random.default_rng(5).integers(0, 255, 768).tolist())
    picture.putdata(indices.ravel().tolist())
    picture.save(path)


def draw(size: tuple[int, int], seed: int) -> tuple[Image.Image, np.ndarray]:
    """Return a photograph and its labels (y, x): a cat and a person, each with a white border 2 px wide."""
    height, width = size
    indices = Image.new("L", (width, height), 0)
    pen, rng = ImageDraw.Draw(indices), np.random.default_rng(seed)
    for value, left in ((CAT, 0.1), (PERSON, 0.55)):
        box = [width * left, height * 0.2, width * (left + 0.33), height * rng.uniform(0.6, 0.9)]
        pen.ellipse(box, fill=value, outline=BORDER, width=2)
    values = np.asarray(indices)
    colours = np.zeros((*size, 3))
    for value, colour in COLOURS.items():
        colours[(values == value) | ((values == BORDER) & (value == CAT))] = colour
    noisy = np.clip(colours + rng.normal(0, 8, colours.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8)), values


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    voc = Voc(tmp_path_factory.mktemp("drawn") / "VOC2012")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc.root / folder).mkdir(parents=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        photograph, values = draw(size, seed)
        photograph.save(voc.image(name), quality=95)
        save_labels(voc.labels(name), values)
    photograph.save(voc.root / "JPEGImages" / "2009_000001.jpg")  # not segmented, as most of VOC
    voc.list("\r\n".join(SIZES) + "\r\n\r\n")
    return voc.root


@pytest.fixture
def voc(drawn: Path, tmp_path: Path) -> Voc:
    return Voc(Path(shutil.copytree(drawn, tmp_path / "VOC2012")))


def read(array: Any, plane: int) -> np.ndarray:
    return np.asarray(array.read(plane, slice(0, array.shape[2]), slice(0, array.shape[3])))


def test_photographs_and_indices_are_those_that_pillow_reads(voc: Voc) -> None:
    stack = voc.ingest(fit={"sizes": "pad"})
    assert stack.image.shape == (4, 3, 90, 101)
    counted, ignored, pixels = dict.fromkeys(LABELS["classes"], 0), 0, []
    for plane, (name, (height, width)) in enumerate(SIZES.items()):
        top, left = (90 - height) // 2, (101 - width) // 2
        inside = slice(top, top + height), slice(left, left + width)
        with Image.open(voc.image(name)) as picture:
            photograph = np.moveaxis(np.asarray(picture), -1, 0)
        found = read(stack.image, plane)
        np.testing.assert_array_equal(found[:, *inside], photograph)
        pixels.append(photograph.reshape(3, -1))
        indices = voc.indices(name)
        expected = np.full((90, 101), IGNORE)
        expected[inside] = np.select([indices == value for value in (0, CAT, PERSON)], (0, 1, 2), IGNORE)
        np.testing.assert_array_equal(read(stack.reference("classes"), plane)[0], expected)
        assert not read(stack.reference("instances"), plane)[0][expected == IGNORE].any()
        outside = expected == IGNORE
        outside[inside] = False
        assert (found[:, outside] == 128).all()
        ignored += int((expected == IGNORE).sum())
        for value, word in VALUES.items():
            counted[word] += int((indices == value).sum())
    assert stack.ingested.labels.class_counts == counted
    assert stack.ingested.labels.ignored == ignored
    content = np.concatenate(pixels, axis=1)  # the bars are no part of the photographs, nor of their statistics
    statistics = stack.ingested.statistics
    np.testing.assert_allclose(statistics.mean, content.mean(axis=1))
    assert statistics.pixels == content.shape[1]
    median = np.array(statistics.quantiles)[:, list(QUANTILES).index(50)]
    np.testing.assert_allclose(median, np.median(content, axis=1), atol=1)


def test_squares_keep_the_values_of_the_labels(voc: Voc) -> None:
    stack = voc.ingest()
    assert stack.image.shape == (4, 3, 64, 64)
    pictures = stack.ingested.fit.pictures
    assert [one.name for one in pictures] == [f"{name}.jpg" for name in SIZES]
    assert pictures[0] == FittedPicture("2007_000032.jpg", (60, 100), 0.64, (13, 0, 38, 64))
    for plane, name in enumerate(SIZES):
        top, left, height, width = pictures[plane].place
        values = voc.indices(name)
        rows, columns = (
            [int(Fraction(2 * i + 1, 2) * there / wanted) for i in range(wanted)]
            for wanted, there in zip((height, width), values.shape, strict=True)
        )
        values = values[np.ix_(rows, columns)]
        expected = np.full((64, 64), IGNORE)
        expected[top : top + height, left : left + width] = np.select(
            [values == value for value in (0, CAT, PERSON)], (0, 1, 2), IGNORE
        )
        np.testing.assert_array_equal(read(stack.reference("classes"), plane)[0], expected)


@pytest.mark.slow
def test_rgb_from_ingest_to_scores_and_the_border_weighs_nothing(voc: Voc) -> None:
    """Ignored pixels, the white border and the bars, carry weight 0 in training and count in no score."""
    torch = pytest.importorskip("torch")
    from unet_pipeline.model.card import read_card
    from unet_pipeline.stacks.weigh import weigh
    from unet_pipeline.train.losses import pixel_weight
    from unet_pipeline.train.train import Weighed, train_model

    config = settings(labels=LABELS, ingest=SQUARE, weigh={"gap_px": 0})
    stack = voc.ingest()
    record = stack.record.with_name("weigh.json")
    weigh(stack, config, record)
    annotated = np.stack([read(stack.reference("classes"), plane)[0] != IGNORE for plane in range(4)])
    assert 0.4 < annotated.mean() < 0.95
    train_model([record], [], config, voc.root / "model")
    card = read_card(voc.root / "model")
    assert (card.architecture.in_channels, card.classes) == (3, ("background", "cat", "person"))
    normaliser = card.normaliser_of(stack.ingested.statistics, stack.dtype)
    training = Weighed.open(record).training_stack(normaliser)
    for plane in range(4):
        target = torch.from_numpy(read(training.target, plane)).long()
        boundary = torch.from_numpy(read(training.boundary, plane)).float()
        weight = pixel_weight(target, boundary, torch.ones(3))[0].numpy()
        np.testing.assert_array_equal(weight > 0, annotated[plane])
    grey = normaliser(read(stack.image, 0))
    assert len({round(float(channel.std()), 6) for channel in grey}) == 3  # each channel by its own statistics
    scores = evaluate(run(make_plan(stack, config), voc.root / "model", config), config, record.with_name("m.json"))
    assert (scores.pixels.scored, scores.pixels.of) == (int(annotated.sum()), annotated.size)
    assert sum(one.reference_pixels for one in scores.classes) == annotated.sum()


def spoil_class(voc: Voc) -> None:
    values = voc.indices("2007_000063").copy()
    values[:2, :3], values[5, 5] = 12, 20
    save_labels(voc.labels("2007_000063"), values)


def colour_labels(voc: Voc) -> None:
    for name in SIZES:
        with Image.open(voc.labels(name)) as picture:
            colours = picture.convert("RGB")
        colours.save(voc.labels(name))


def crop_labels(voc: Voc) -> None:
    save_labels(voc.labels("2007_000039"), voc.indices("2007_000039")[:-1])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("spoil", "cells", "where", "words"),
    [
        (lambda voc: voc.labels("2007_000039").unlink(), {}, "SegmentationClass", ["'2007_000039'", "1 of 4 names"]),
        (lambda voc: voc.image("2007_000039").unlink(), {}, "JPEGImages", ["'2007_000039'", "1 of 4 names"]),
        (lambda voc: voc.list(""), {}, "train.txt", ["an empty list"]),
        (lambda voc: voc.list("2007_000032\n2007_000032"), {}, "train.txt line 2", ["a second time"]),
        (lambda voc: voc.list("../SegmentationClass/2007_000032"), {}, "train.txt line 1", ["without folder"]),
        (lambda voc: voc.list("2007_000032.jpg"), {}, "JPEGImages", ["without folder and suffix", "2007_000032"]),
        (lambda voc: None, {"names": "nowhere.txt"}, "nowhere.txt", ["readable list"]),
        (spoil_class, {}, "2007_000063.png", ["12 (6 px), 20 (1 px)", "labels.values", "12: NAME, 20: NAME"]),
        (colour_labels, {}, "SegmentationClass", ["3 channels", "colours are not classes"]),
        (crop_labels, {}, "2007_000039.png", ["(90, 70)", "(89, 70)", "2007_000039.jpg"]),
        (lambda voc: truncate(voc.image("2007_000063")), {}, "2007_000063.jpg", ["decoded"]),
        (lambda voc: truncate(voc.labels("2007_000063")), {}, "2007_000063.png", ["truncated"]),
        (lambda voc: voc.labels("2007_000063").write_text("no picture"), {}, "2007_000063.png", ["a PNG"]),
    ],
)
def test_what_is_wrong_is_said_once_and_leaves_no_record(
    voc: Voc, spoil: Callable[[Voc], None], cells: dict[str, str], where: str, words: list[str]
) -> None:
    spoil(voc)
    with pytest.raises(PipelineError) as caught:
        voc.ingest(fit={"sizes": "pad"}, **cells)
    assert where in caught.value.where
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)
    assert not (voc.root / "results" / "voc" / "ingest.json").exists()


def test_a_border_that_is_not_declared_names_the_key(voc: Voc) -> None:
    with pytest.raises(PipelineError, match=r"labels\.ignore: 255") as caught:
        voc.ingest({"ignore": None})
    count = int((voc.indices("2007_000032") == BORDER).sum())
    assert "2007_000032.png resized to 38 × 64" in caught.value.where
    assert f"255 ({count} px)" not in caught.value.got
    with pytest.raises(PipelineError) as caught:
        voc.ingest({"ignore": None}, fit={"sizes": "pad"})
    assert f"255 ({count} px)" in caught.value.got


def test_different_sizes_need_the_key(voc: Voc) -> None:
    with pytest.raises(PipelineError, match=r"ingest\.sizes: pad or square"):
        voc.ingest(fit={})
    voc.list("2007_000063")
    assert voc.ingest(fit={}).ingested.fit is None


def test_objects_of_segmentation_object_and_pictures_to_predict(voc: Voc) -> None:
    objects = voc.root / "SegmentationObject"
    objects.mkdir()
    for name in SIZES:
        values = voc.indices(name)
        save_labels(objects / f"{name}.png", np.where(values == CAT, 1, np.where(values == PERSON, 2, values)))
    config = settings(labels={"ignore": 255}, ingest=SQUARE)
    record = voc.root / "results" / "voc" / "ingest.json"
    ingest(voc.source(labels=str(objects)), config, record)
    stack = Stack.open(record)
    assert {int(value) for value in np.unique(read(stack.reference("instances"), 0))} == {0, 1, 2}
    ingest(voc.source(labels="", names="", planes="4,0"), config, record)
    assert json.loads(record.read_text())["fit"]["pictures"][0]["name"] == "2009_000001.jpg"


def test_an_edited_list_is_a_difference(voc: Voc) -> None:
    record = voc.ingest().record
    config = settings(labels=LABELS, ingest=SQUARE)

    def now() -> dict[str, str]:
        found = differences(trace(record), config, None)
        return {one.what.split("/")[-1]: one.now for one in found if one.what.startswith(("image", "labels"))}

    assert now() == {}
    voc.list("\n".join(reversed(SIZES)))
    assert set(now()) == {"JPEGImages", "SegmentationClass"}
    voc.list("\n".join(SIZES))
    assert now() == {}
    (voc.root / "ImageSets/Segmentation/train.txt").unlink()
    assert set(now().values()) == {"not there"}


def test_one_picture_per_section_counts_naturally(tmp_path: Path) -> None:
    """As ISBI 2012 in PNG: 1.png, 2.png, 10.png, with labels of 0 and 255."""
    for folder in ("train", "label"):
        (tmp_path / folder).mkdir()
    for number in (10, 2, 1):
        indices = np.zeros((40, 50), np.uint8)
        indices[: 10 + number] = 255
        Image.fromarray(np.full((40, 50), number, np.uint8)).save(tmp_path / "train" / f"{number}.png")
        Image.fromarray(indices).save(tmp_path / "label" / f"{number}.png")
    config = settings(labels={"kind": "classes", "values": {255: "background", 0: "cell"}})
    record = tmp_path / "results" / "isbi" / "ingest.json"
    ingest(Source("isbi", str(tmp_path / "train"), str(tmp_path / "label" / "*.png")), config, record)
    stack = Stack.open(record)
    assert [int(read(stack.image, plane).max()) for plane in range(3)] == [1, 2, 10]
    heights = [int((read(stack.reference("classes"), plane)[0] == 0).any(1).sum()) for plane in range(3)]
    assert heights == [11, 12, 20]


def test_a_palette_image_is_read_as_its_colours_and_grey_palettes_as_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, palette in (("c", rng.integers(0, 255, (256, 3))), ("g", np.repeat(np.arange(256)[::-1, None], 3, 1))):
        picture = Image.fromarray(rng.integers(0, 255, (40, 50), dtype=np.uint8)).convert("P")
        picture.putpalette(palette.ravel().tolist())
        picture.save(tmp_path / f"{name}.png")
        record = tmp_path / "results" / name / "ingest.json"
        ingest(Source(name, str(tmp_path / f"{name}.png")), settings(), record)
        with Image.open(tmp_path / f"{name}.png") as saved:
            expected = np.moveaxis(np.asarray(saved.convert("RGB")), -1, 0)
        found = read(Stack.open(record).image, 0)
        np.testing.assert_array_equal(found, expected if name == "c" else expected[:1])
