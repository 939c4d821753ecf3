"""Every preset at small size, from images to a stitched volume and a score: `python benchmarks/presets.py`.

Each preset gets images in the form its users have them (one PNG a section, RGB pictures, VOC's tree of JPEG and palette
PNG, TIFF stacks), cut from the real data sets or, without them, from the demo's drawn cells. The whole workflow runs on
them. Networks are narrow and trainings last seconds, so a score says that everything fits together, not how good a
preset is; that is what `make compare` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
import yaml
from PIL import Image

from unet_pipeline.config.files import load
from unet_pipeline.model.card import read_card
from unet_pipeline.model.models import load_model
from unet_pipeline.model.networks.encoders import ENCODERS
from unet_pipeline.stacks.demo import cells
from unet_pipeline.train.optimisers import peak_rate

ROOT = Path(__file__).parents[1]
PRESETS = ROOT / "workflow" / "presets"
DATA = Path(os.environ.get("UNET_PIPELINE_DATA") or ROOT.parent / "shared" / "data")
PLANES, EDGE = 8, 160
"""Pictures of a preset, and their size, px: the last two are tested, the two before validate, the others train."""
TEST = "6-7"
Pictures = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Inputs:
    """What a preset is run on.

    Attributes:
        source: name of the real data set.
        write: writes the pictures below a folder and returns the rows of the table of stacks.
        labels: what stands in section `labels` of the run.
    """

    source: str
    write: Callable[[Path, Pictures, Pictures], list[Mapping[str, str]]]
    labels: Mapping[str, Any]


def stack(folder: Path, images: Pictures, labels: Pictures) -> list[Mapping[str, str]]:
    """Write TIFF stacks."""
    tifffile.imwrite(folder / "images.tif", np.stack(images), photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", np.stack(labels), photometric="minisblack")
    files = {"image": "images.tif", "labels": "labels.tif", "axes": "zyx"}
    return roles(files)


def sections(folder: Path, images: Pictures, labels: Pictures) -> list[Mapping[str, str]]:
    """Write a folder of images and one of labels, a PNG a section."""
    for name, pictures in (("image", images), ("label", labels)):
        (folder / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{number}.png")
    return roles({"image": "image", "labels": "label"})


def colours(folder: Path, images: Pictures, labels: Pictures) -> list[Mapping[str, str]]:
    """Write RGB pictures and masks of 0 and 255."""
    tinted = [np.stack([picture, picture // 2, 255 - picture], axis=-1) for picture in images]
    return sections(folder, tinted, [255 * (picture > 0) for picture in labels])


def voc(folder: Path, images: Pictures, labels: Pictures) -> list[Mapping[str, str]]:
    """Write VOC's tree: JPEG pictures of different sizes, palette PNGs with a white border, lists of names."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / "VOC" / name).mkdir(parents=True)
    names = [f"2007_{number:06}" for number in range(len(images))]
    for number, name in enumerate(names):
        rows = slice(0, EDGE - 16 * (number % 3))
        grey, inside = images[number][rows], labels[number][rows] > 0
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / "VOC" / "JPEGImages" / f"{name}.jpg", quality=95)
        edge = np.logical_or.reduce([inside != np.roll(inside, 1, axis) for axis in (0, 1)])
        mask = Image.fromarray(np.where(edge, 255, inside).astype(np.uint8), mode="P")
        mask.putpalette([0, 0, 0, 128, 0, 0] + [0] * 756 + [224, 224, 192])
        mask.save(folder / "VOC" / "SegmentationClass" / f"{name}.png")
    places = folder / "VOC" / "ImageSets" / "Segmentation"
    for part, chosen in (("train", names[:6]), ("val", names[6:])):
        (places / f"{part}.txt").write_text("\n".join(chosen) + "\n")
    files = {"image": "VOC/JPEGImages", "labels": "VOC/SegmentationClass"}
    lists = {part: f"VOC/ImageSets/Segmentation/{part}.txt" for part in ("train", "val")}
    return [
        {"stack": "train", "role": "train", "names": lists["train"], **files},
        {"stack": "unseen", "role": "test", "names": lists["val"], **files},
    ]


def roles(files: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Return the rows of one series of pictures: the first train, the last are tested."""
    parts = (("train", "train", "0-3"), ("val", "val", "4-5"), ("unseen", "test", TEST))
    return [{"stack": name, "role": role, "planes": planes, **files} for name, role, planes in parts]


CELLS = {"kind": "instances", "classes": ["background", "cell"], "values": {}}
MEMBRANES = {"kind": "classes", "classes": ["membrane", "cell"], "values": {0: "membrane", 255: "cell"}}
MASKS = {"kind": "classes", "classes": ["background", "object"], "values": {0: "background", 255: "object"}}
VOC = {"kind": "classes", "classes": ["background", "object"], "values": {0: "background", 1: "object"}, "ignore": 255}

INPUTS = {
    "fast": Inputs("ctc_phc_u373", stack, CELLS),
    "paper": Inputs("ctc_dic_hela", stack, CELLS),
    "release2015": Inputs("ctc_phc_u373", stack, CELLS),
    "dic_hela": Inputs("ctc_dic_hela", stack, CELLS),
    "isbi2012": Inputs("isbi2012_em", stack, MEMBRANES),
    "jermainn": Inputs("isbi2012_em", sections, MEMBRANES),
    "kamiyin": Inputs("dsb2018_fluo", colours, MASKS),
    "strided": Inputs("dsb2018_fluo", voc, VOC),
    "tgs": Inputs("dsb2018_fluo", colours, MASKS),
    "vgg16": Inputs("dsb2018_fluo", voc, VOC),
    "resnet50": Inputs("dsb2018_fluo", voc, VOC),
    "cicek2016": Inputs("fibsem_medulla", stack, CELLS),
    "fibsem": Inputs("fibsem_medulla", stack, CELLS),
}
FILES = {
    "ctc_dic_hela": ("images.tif", "labels_silver.tif"),
    "ctc_phc_u373": ("images.tif", "labels.tif"),
    "isbi2012_em": ("images.tif", "labels.tif"),
    "dsb2018_fluo": ("images_256x256.tif", "labels_256x256.tif"),
    "fibsem_medulla": ("volume.tif", "labels.tif"),
}


def pictures(source: str, root: Path) -> tuple[Pictures, Pictures]:
    """Return images (uint8) and labels, (y, x) each: a part of real planes, or drawn cells where there are none."""
    if not (root / source).is_dir():
        drawn = [cells((EDGE, EDGE), np.random.default_rng([11, number])) for number in range(PLANES)]
        grey = [np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8) for image, _ in drawn]
        membranes = source == "isbi2012_em"
        return grey, [np.uint8(255) * (ids > 0) if membranes else ids.astype(np.uint16) for _, ids in drawn]
    whole = [tifffile.imread(root / source / name) for name in FILES[source]]
    # of a volume neighbours
    chosen = np.linspace(0, PLANES - 1 if source == "fibsem_medulla" else len(whole[0]) - 1, PLANES).astype(int)
    part = fullest(whole[1][chosen])
    images, labels = ([planes[number][part] for number in chosen] for planes in whole)
    return images, labels


def fullest(labels: npt.NDArray[Any]) -> tuple[slice, slice]:
    """Return the square of `EDGE` px where the emptiest of the planes (plane, y, x) has most labelled pixels."""

    def labelled(part: tuple[slice, slice]) -> tuple[int, int]:
        counts = np.count_nonzero(labels[:, *part], axis=(1, 2))
        return int(counts.min()), int(counts.sum())

    corners = product(*(range(0, size - EDGE + 1, EDGE // 4) for size in labels.shape[1:]))
    squares = [(slice(top, top + EDGE), slice(left, left + EDGE)) for top, left in corners]
    return max(squares, key=labelled)


def small(name: str, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that make a preset small; all others stay the preset's."""
    preset = load(str(PRESETS / f"{name}.yaml"))
    train, model = preset.train, preset.model
    stride = model.stride
    encoder, volumes = model.network in ENCODERS, model.dimensions == 3
    steps = 16 if encoder or volumes else 80
    return {
        "stacks": "stacks.tsv",
        "labels": dict(labels),
        "store": {"chunk_px": 64, "shard_px": 128 if not model.resize_output else 256},
        "ingest": {"square_px": 128},
        "model": {"base_channels": min(model.base_channels, 8)},
        "train": {
            "steps": steps,
            "batch": min(train.batch, 2),
            "tile_px": 128 if model.resize_output else min(train.tile_px, max(16 if volumes else 64, stride)),
            "tile_planes": "auto",
            "learning_rate": max(peak_rate(train), 0.001),
            "warmup": min(train.warmup, 5),
            "freeze_steps": min(train.freeze_steps, steps // 4),
            "freeze_batch": min(train.freeze_batch, 2),
            "validate_every": steps // 2,
            "validate_tiles": 4,
            "precision": "float32",
        },
        "tile": {"tile_px": "auto"},
        "report": {"panel_px": 128},
    }


def run(name: str, root: Path, work: Path, cores: int) -> str:
    """Run one preset and return its line: name, parameters, score, seconds.

    Raises:
        RuntimeError: the workflow failed; the end of its output is the message.
    """
    inputs, folder = INPUTS[name], work / name
    folder.mkdir(parents=True)
    rows = inputs.write(folder, *pictures(inputs.source, root))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    (folder / "stacks.tsv").write_text("\n".join("\t".join(line) for line in table) + "\n")
    (folder / "small.yaml").write_text(yaml.safe_dump(small(name, inputs.labels), sort_keys=False))
    preset = load(str(PRESETS / f"{name}.yaml"))
    if preset.model.encoder_weights:  # stand-ins for ImageNet's, which are the user's to bring: as many, as large
        place = folder / preset.model.encoder_weights
        place.parent.mkdir()
        torch.manual_seed(0)
        torch.save(ENCODERS[preset.model.network](3).state_dict(), place)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", str(cores), "--configfile", str(PRESETS / f"{name}.yaml"), str(folder / "small.yaml")]
    started = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if ran.returncode:
        raise RuntimeError(f"{name}: " + "\n".join((ran.stdout + ran.stderr).splitlines()[-30:]))
    return line(name, folder / "results", seconds)


def line(name: str, results: Path, seconds: float) -> str:
    """Return name, parameters, score and seconds of a finished run."""
    network, card = load_model(results / "model", torch.device("cpu"))
    assert card == read_card(results / "model")
    metrics = json.loads((results / "unseen" / "metrics.json").read_text())
    score = f"SEG {metrics['instances']['seg']:.3f}, mIoU {metrics['pixels']['mean_iou']:.3f}"
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{name:<12} {count:>12,} parameters  {score}  {seconds:6.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the presets; exit code 1 if one of them failed."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--presets", nargs="+", default=list(INPUTS), choices=list(INPUTS), help="which (default: all)")
    top.add_argument("--root", type=Path, default=DATA, help="folder of the data sets (UNET_PIPELINE_DATA)")
    top.add_argument("--work", type=Path, default=None, help="folder to run in, kept (default: a temporary one)")
    top.add_argument("--cores", type=int, default=2)
    given = top.parse_args(arguments)
    lines, failed = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.presets:
            try:
                lines.append(run(name, given.root, given.work or Path(temporary), given.cores))
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                lines.append(f"{name:<12} failed")
                failed += 1
            print(f"done: {lines[-1]}", flush=True)
    where = "real images" if given.root.is_dir() else "drawn cells: no data sets found, see --root"
    print(f"\nEvery preset at small size, on {where}:", *lines, sep="\n")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
