"""Small real results for the tests of the page: every stage but the network, whose output is drawn from the truth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy import ndimage

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.config.sections import Config
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.model.card import Architecture, ModelCard, read_card, write_card
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.records.calibrate_record import CalibrateRecord, PlanesUsed, Trial
from unet_pipeline.records.fields import ComputeUsed
from unet_pipeline.records.files import write_text
from unet_pipeline.records.layout import CALIBRATE_FILE, CLASSES
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import write_record
from unet_pipeline.records.score_records import Difference, ProveRecord
from unet_pipeline.records.volume_records import PredictRecord, ShardWritten
from unet_pipeline.report.results import ModelResult, StackResult, open_result
from unet_pipeline.stacks.demo import cells
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.stitch.stitch import stitch

SETTINGS: dict[str, Any] = {
    "store": {"chunk_px": 64, "shard_px": 128},
    "model": {"depth": 2},
    "tile": {"tile_px": 48},
    "report": {"panel_px": 96},
}
COMPUTE = ComputeUsed("cpu", 1, "float32", "2.11.0", "AVX2")


def settings(**changed: dict[str, Any]) -> Config:
    """The configuration of the tests, with sections changed."""
    return from_dict({name: SETTINGS.get(name, {}) | changed.get(name, {}) for name in {*SETTINGS, *changed}})


def make_model(folder: Path, config: Config, channels: int = 1, history: str | None = None, **training: Any) -> Path:
    """A model folder without weights."""
    classes = config.labels.classes
    card = ModelCard(
        Architecture("unet", config.model.depth, 4, channels, len(classes), 0.5), classes, training=training
    )
    write_card(folder, card)
    if history is not None:
        (folder / "history.tsv").write_text(history)
    return folder


def make_calibration(model: Path, ingested: Path) -> Path:
    """A calibration as `calibrate` writes it; returns its record."""
    stack, stated = Stack.open(ingested), ObjectSettings()
    better = replace(stated, method="distance", threshold=0.6, min_area_px=20)
    record = CalibrateRecord(
        model=read_card(model).identity, score="seg+ap50", planes=(PlanesUsed("a", stack.ingested.id, (0,), (64, 70)),),
        objects=12, pixel_um=stack.grid.pixel_um, chosen=better, chosen_score=0.8, stated_score=0.6,
        trials=(Trial(stated, 0.6), Trial(better, 0.8)), compute=COMPUTE,
        provenance=provenance({}, [model / "model.json"]),
    )  # fmt: skip
    write_record(model / CALIBRATE_FILE, record)
    return model / CALIBRATE_FILE


def make_history(steps: int, classes: tuple[str, ...] = ("background", "cell")) -> str:
    """A history of a training that goes well, validated every fifth row."""
    lines = ["\t".join(["step", "learning_rate", "train_loss", "validation_loss", *(f"dice_{c}" for c in classes)])]
    for row in range(1, 41):
        share = row / 40
        rate, loss = (
            0.005 * math.cos(share * math.pi / 2),
            0.9 * math.exp(-4 * share) + 0.05 + 0.02 * math.sin(40 * share),
        )
        cells_ = [
            f"{loss * 1.1 + max(0, share - 0.7) * 0.2:.8g}",
            *(f"{1 - loss / (2 + i):.8g}" for i, _ in enumerate(classes)),
        ]
        checked = cells_ if row % 5 == 0 else [""] * len(cells_)
        lines.append("\t".join([str(steps * row // 40), f"{rate:.8g}", f"{loss:.8g}", *checked]))
    return "\n".join(lines) + "\n"


def make_image(folder: Path, name: str, shape: tuple[int, int, int], seed: int, channels: int = 1) -> tuple[Path, Path]:
    """An image of touching cells as TIFF, and its labels."""
    folder.mkdir(parents=True, exist_ok=True)
    planes = [cells(shape[1:], np.random.default_rng([seed, plane])) for plane in range(shape[0])]
    grey = np.stack([np.clip(np.rint(40 + 150 * image), 0, 255).astype(np.uint8) for image, _ in planes])
    if channels > 1:
        grey = np.stack([np.roll(grey, 3 * channel, axis=-1) for channel in range(channels)], axis=1)
    axes = "ZYX" if channels == 1 else "ZCYX"
    paths = folder / f"{name}.tif", folder / f"{name}_labels.tif"
    tifffile.imwrite(paths[0], grey, metadata={"axes": axes}, photometric="minisblack")
    tifffile.imwrite(paths[1], np.stack([ids for _, ids in planes]), metadata={"axes": "ZYX"})
    return paths


def make_ingested(
    folder: Path, name: str, shape: tuple[int, int, int], config: Config, seed: int = 1, labelled: bool = True,
    pixel_um: float | None = 0.5, channels: int = 1, unknown: int = 0,
) -> Path:  # fmt: skip
    """An ingested stack; where classes are asked for, 1 is on the left and 2 on the right. Returns its record."""
    image, labels = make_image(folder / "images", name, shape, seed, channels)
    record = folder / "results" / name / "ingest.json"
    axes = "zyx" if channels == 1 else "zcyx"
    source = Source(name, str(image), str(labels) if labelled else "", axes, "zyx", pixel_um)
    if config.labels.kind == "classes":
        sides = 1 + (np.arange(shape[2]) > shape[2] // 2)
        values = ((tifffile.imread(labels) > 0) * sides).astype(np.uint8).reshape(shape)
        values[:, :20, :20] = unknown
        tifffile.imwrite(labels, values, metadata={"axes": "ZYX"})
    ingest(source, config, record)
    return record


def make_weighed(record: Path, config: Config) -> Path:
    """Weights of an ingested stack."""
    weigh(Stack.open(record), config, record.with_name("weigh.json"))
    return record


def _card(stack, config):
    """The card of a network that fits the stack and the configuration."""
    classes = config.labels.classes
    return ModelCard(Architecture("unet", config.model.depth, 4, stack.channels, len(classes)), classes)


def make_predicted(record: Path, config: Config, regions: int = 2, truth: bool = True) -> Path:
    """Shards like those of a network that errs here and there, stitched; returns `stitch.json`."""
    stack = Stack.open(record)
    tile(stack, config, regions, record.with_name("tiles.json"), _card(stack, config))
    plan = StackPlan.open(record.with_name("tiles.json"))
    paths = []
    for region in range(regions):
        path = record.parent / "regions" / f"{region}.json"
        write_record(path, _region(plan, region, config, truth))
        took = path.parents[2] / "benchmarks" / "predict" / plan.stack.name / f"{region}.tsv"
        write_text(took, "s\th:m:s\n1.25\t0:00:01\n")
        paths.append(path)
    stitch(plan, paths, config, record.with_name("stitch.json"))
    return record.with_name("stitch.json")


def _region(plan: StackPlan, region: int, config: Config, truth: bool) -> PredictRecord:
    probabilities = plan.probabilities(writable=True)
    shards, outputs = [], {}
    for number in plan.plan.region(region):
        shard = plan.plan.shard_at(number)
        if shard.plane not in outputs:
            outputs[shard.plane] = _output(plan, shard.plane, truth)
        values = outputs[shard.plane][:, shard.rows, shard.columns]
        probabilities.write(shard.plane, shard.rows, shard.columns, np.rint(values * 255).astype(np.uint8))
        place = shard.plane, shard.rows.start, shard.columns.start
        shards.append(ShardWritten(number, probabilities.shard_sha256(*place)))
    return PredictRecord(
        stack=plan.stack.name, plan=plan.digest, region=region, model="", made_by="", shards=tuple(shards),
        tiles=plan.plan.tile_count(plan.plan.region(region)), tiles_skipped=0, compute=COMPUTE,
        provenance=provenance(config.section("predict"), [plan.record]),
    )  # fmt: skip


def _output(plan: StackPlan, plane: int, truth: bool) -> np.ndarray:
    """Probabilities (classes, y, x): the truth without its touching borders, blurred, with a few errors."""
    _, height, width = plan.plan.shape
    every = slice(0, height), slice(0, width)
    if truth and plan.stack.labelled:
        ids = plan.stack.reference("instances").read_label(plane, *every).astype(int)
        classes = plan.stack.reference(CLASSES).read_label(plane, *every)
    else:
        image = plan.stack.image.read(plane, *every)[0].astype(float)
        ids = ndimage.label(ndimage.gaussian_filter(image, 2) > image.mean())[0]
        classes = (ids > 0).astype(np.uint8)
    random = np.random.default_rng([7, plane])
    lost = random.random(ids.max() + 1) < 0.06
    shown = (ids > 0) & ~lost[ids]
    seams = (ndimage.maximum_filter(ids, 3) != ndimage.minimum_filter(ids, 3)) & shown
    joined = ndimage.gaussian_filter(random.normal(size=ids.shape), 12) > 0.035
    spots = ndimage.gaussian_filter(random.normal(size=ids.shape), 5) > 0.21
    solid = ((shown & ~(seams & ~joined)) | spots).astype(float)
    inside = ndimage.gaussian_filter(solid, 0.8) * 0.96 + 0.02
    beside = np.roll(classes, 6, axis=1)
    classes = np.where((classes > 0) & (beside > 0) & (beside < len(plan.classes)), beside, classes)
    shares = [1 - inside] + [np.where(classes == index, inside, 0.0) for index in range(1, len(plan.classes))]
    shares[1] = np.where(classes == 0, inside, shares[1])
    return np.stack(shares)


def make_scored(stitched: Path, config: Config) -> Path:
    """Scores of a stitched stack."""
    evaluate(stitched, config, stitched.with_name("metrics.json"))
    return stitched


def make_proof(stitched: Path, model: Path, config: Config) -> None:
    """A proof as `prove` writes it."""
    plan = StackPlan.open(stitched.with_name("tiles.json"))
    rows = tuple(Difference(f"tiles of {px} px", 1e-6, 0, 0.0, 0, 0.0, 0, splits=1) for px in (32, 48, 96))
    paper = "the paper's step: full outputs of 388 px (stride 4 px)"
    record = ProveRecord(
        stack=plan.stack.name, crop=(96, 128), seamless=True, tolerance_std=1e-4, rows=rows,
        paper_step=Difference(paper, 1.72, 93, 9021.4, 24000, 0.71, 93),
        compute=COMPUTE, provenance=provenance(config.section("predict"), [plan.stack.record, model / "model.json"]),
    )  # fmt: skip
    write_record(stitched.with_name("prove.json"), record)


def make_run(folder: Path, config: Config | None = None, scale: int = 1) -> tuple[Path, list[Path], Config]:
    """A whole run: (model folder, records of the stacks, configuration); `scale` makes the images larger."""
    config = config or settings(evaluate={"isbi": True})
    history = make_history(900, config.labels.classes)
    sections = config.section("train", "augment")
    model = make_model(
        folder / "results" / "model", config, history=history, steps=900, selected="best", selected_step=675,
        train_loss=0.1234, validation_loss=0.1456, validation_dice=[0.97] + [0.95] * (len(config.labels.classes) - 1),
        device="cpu", threads=2, settings=sections, stacks=["train_a"], validation_stacks=["val"],
    )  # fmt: skip
    one = make_weighed(make_ingested(folder, "train_a", (2, 128 * scale, 144 * scale), config, 1), config)
    two = make_ingested(folder, "unseen", (2, 150 * scale, 213 * scale), config, 4)
    unseen = make_scored(make_predicted(two, config), config)
    make_proof(unseen, model, config)
    small = make_scored(make_predicted(make_ingested(folder, "small", (1, 40, 57), config, 5), config), config)
    new = make_ingested(folder, "new", (1, 190 * scale, 130 * scale), config, 6, labelled=False, pixel_um=None)
    return model, [one, unseen, small, make_predicted(new, config)], config


def opened_run(folder: Path) -> dict[str, StackResult]:
    """The stacks of a whole run without the scores of ISBI 2012, as the page opens them, by name."""
    model, stacks, _ = make_run(folder, settings())
    found = ModelResult.open(model)
    return {path.parent.name: open_result(path, found) for path in stacks}


def with_report(config: Config, **changed: int) -> Config:
    """The configuration with keys of section `report` changed."""
    return replace(config, report=replace(config.report, **changed))
