"""The presets: only what differs from the defaults, the sizes and parameters they are known by, and no seam in any."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from chain import make_stack
from places import ROOT

from unet_pipeline.audit.prove import prove
from unet_pipeline.config.files import load
from unet_pipeline.config.keys import plain
from unet_pipeline.config.sections import Config, Predict
from unet_pipeline.model.card import ModelCard, architecture, geometry
from unet_pipeline.model.models import NETWORKS, build, save_model
from unet_pipeline.objects.decided import decided
from unet_pipeline.predict.forward import Forward

FOLDER = ROOT / "workflow" / "presets"
PATHS = sorted(FOLDER.glob("*.yaml"))
SEEDS = ("paper", "release2015", "kamiyin", "strided", "jermainn", "vgg16", "resnet50", "tgs")

PARAMETERS = {
    ("paper", 1, 2): 31_030_658,
    ("release2015", 1, 2): 31_100_354,
    # the padded U-Net in wide use with three channels and two classes, whose halves are bilinear
    ("jermainn", 3, 2): 17_263_042,
    ("kamiyin", 3, 2): 7_763_074,
    ("strided", 3, 21): 34_174_293,
    ("vgg16", 3, 21): 24_892_437,
    ("resnet50", 3, 21): 43_934_101,
    ("tgs", 3, 2): 117_058,
    ("cicek2016", 3, 3): 19_073_187,
    ("fibsem", 1, 2): 351_986,
}
"""By preset, channels of the image and classes."""

SIZES = {  # stride, px read before, px lost
    "paper": (16, 92, 184),
    "release2015": (16, 92, 184),
    "kamiyin": (16, 112, 0),
    "strided": (16, 128, 0),
    "jermainn": (16, 128, 0),
    "vgg16": (16, 160, 0),
    "resnet50": (32, 352, 0),
    "tgs": (4, 0, 0),
    "cicek2016": (8, 44, 88),
    "fibsem": (8, 48, 0),
}


def preset(name: str) -> Config:
    return load(str(FOLDER / f"{name}.yaml"))


def test_every_seed_system_has_its_preset() -> None:
    assert set(SEEDS) <= {path.stem for path in PATHS}
    assert {name for name, _, _ in PARAMETERS} == set(SIZES) == {*SEEDS, "cicek2016", "fibsem"}


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_preset_states_only_what_differs(path: Path) -> None:
    defaults = {field.name: plain(getattr(Config(), field.name)) for field in fields(Config)}
    for section, keys in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if isinstance(keys, dict):
            same = [key for key, value in keys.items() if defaults[section][key] == value]
            assert not same, f"{section}: {same} are as in config.yaml"


@pytest.mark.parametrize(("name", "channels", "classes"), PARAMETERS)
def test_parameters(name: str, channels: int, classes: int) -> None:
    with torch.device("meta"):
        chosen = architecture(preset(name).model, channels, classes)
        network = NETWORKS[chosen.network](chosen)
    assert sum(part.numel() for part in network.parameters()) == PARAMETERS[name, channels, classes]


def test_parameters_of_a_padded_network_by_hand() -> None:
    """Convolutions without bias, two numbers a channel of batch norm, up-convolutions with bias."""
    widths, count, inputs = [32, 64, 128, 256, 512], 0, 3
    for width in widths:
        count += 9 * (inputs * width + width * width) + 2 * 2 * width
        inputs = width
    for width in widths[-2::-1]:
        count += 4 * 2 * width * width + width  # up
        count += 9 * (2 * width * width + width * width) + 2 * 2 * width
    assert count + 2 * 32 + 2 == PARAMETERS["kamiyin", 3, 2]


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    sizes = geometry(architecture(preset(name).model, 1, 2))
    assert (sizes.stride, sizes.before, sizes.lost) == SIZES[name]
    assert sizes.whole_plane == (name == "tgs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast", *(name for name in SEEDS if name not in ("vgg16", "resnet50"))])
def test_no_seam(name: str, tmp_path: Path) -> None:
    """The presets' own prediction, their networks narrowed; the encoders, which cannot be, are in test_networks."""
    whole = preset(name)
    stack = make_stack(tmp_path)
    model = architecture(replace(whole.model, base_channels=2), 1, 2)
    network = build(model, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    activation: Any = "sigmoid" if "binary" in whole.train.loss else "softmax"
    save_model(tmp_path / "model", network, ModelCard(model, ("background", "cell"), whole.normalise, None, activation))
    config = replace(whole, predict=replace(whole.predict, precision="float32"))
    found = prove(tmp_path / "model", stack, config, None, crop_px=48)
    assert found.seamless, found.rows
    assert len({row.tiling for row in found.rows}) == (1 if name == "tgs" else len(found.rows))
    if name != "tgs":
        assert found.paper_step.largest_difference_std >= 0


def test_threshold_and_sigmoid_decide_the_classes(tmp_path: Path) -> None:
    exact = np.array([[0.9, 0.2, 0.1], [0.3, 0.45, 0.2], [0.1, 0.1, 0.65]])[:, :, None]
    for probabilities in (exact, exact.astype(np.float16), np.rint(exact * 255).astype(np.uint8)):
        assert decided(probabilities, None)[:, 0].tolist() == [0, 1, 2]
        assert decided(probabilities, 0.5)[:, 0].tolist() == [0, 0, 2]
        assert decided(probabilities, 0.3)[:, 0].tolist() == [1, 1, 2], "the threshold is reached"

    stack = make_stack(tmp_path)
    model = architecture(replace(preset("kamiyin").model, base_channels=2), 1, 2)
    card = ModelCard(model, ("background", "cell"), activation="sigmoid")
    save_model(tmp_path / "model", build(model, 1), card)
    forward = Forward.load(tmp_path / "model", stack, Predict(), preset("kamiyin").compute)
    logits = torch.tensor([[[2.0]], [[-1.0]]])
    torch.testing.assert_close(forward.probabilities(logits), logits.sigmoid())


@pytest.mark.slow
def test_a_preset_runs_from_pictures_to_a_score(tmp_path: Path) -> None:
    """Drawn cells as a VOC tree of different sizes; `make presets` runs them all on real images."""
    command = [sys.executable, str(FOLDER.parents[1] / "benchmarks" / "presets.py"), "--presets", "strided"]
    command += ["--root", str(tmp_path / "none"), "--work", str(tmp_path / "work")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.fullmatch(r"strided +[\d,]+ parameters  SEG [\d.]+, mIoU [\d.]+ +[\d.]+ s", ran.stdout.splitlines()[-1])
    assert list((tmp_path / "work" / "strided" / "results" / "model" / "tensorboard").iterdir())
    assert list((tmp_path / "work" / "strided" / "results" / "model" / "samples").glob("*.png"))
