"""Optimisers, schedules, freezing: by name, and the same after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from synthetic_training import discs, settings
from test_loop import CARD, Killed, content, run

from unet_pipeline.config.network_section import Model
from unet_pipeline.config.sections import Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, architecture
from unet_pipeline.model.models import build
from unet_pipeline.model.networks.encoders import VGG16, ResNet50
from unet_pipeline.model.networks.pretrained import load_encoder
from unet_pipeline.train.optimisers import learning_rate, optimiser


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_killed_training_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    options = settings(optimiser=name, learning_rate=1e-3, loss="focal+dice")
    with pytest.raises(Killed):
        run(tmp_path / "killed", options, at=13)
    for folder in ("killed", "unbroken"):
        result, _ = run(tmp_path / folder, options)
    assert result.resumed_step == 0
    assert content(tmp_path / "killed") == content(tmp_path / "unbroken")


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("rmsprop", "RMSprop")])
def test_an_optimiser_is_torchs_of_that_name_and_decays_kernels_only(name: str, kind: str) -> None:
    network = build(CARD.architecture)
    made = optimiser(network, Train(optimiser=name, weight_decay=0.1, momentum=0.9))
    assert type(made).__name__ == kind
    for group in made.param_groups:
        assert group.get("momentum", group.get("betas", [0])[0]) == 0.9
        assert all((part.ndim > 1) == (group["weight_decay"] > 0) for part in group["params"])


def test_stairs_are_equal_and_fall_by_the_factor() -> None:
    options = Train(steps=110, warmup=10, schedule="step", stairs=4, stair_factor=0.5, learning_rate=0.8)
    rates = [learning_rate(options, step) for step in range(110)]
    assert rates[10:35] == [0.8] * 25
    assert rates[35:60] == [0.4] * 25
    assert rates[109] == pytest.approx(0.1)


def vgg_card(tmp_path: Path) -> tuple[ModelCard, Path]:
    torch.manual_seed(3)
    weights = {f"features.{n}.{part}": 0.01 * torch.randn(shape) for n, part, shape in
               ((0, "weight", (64, 3, 3, 3)), (0, "bias", (64,)), (2, "weight", (64, 64, 3, 3)))}  # fmt: skip
    path = tmp_path / "vgg16.safetensors"
    safetensors.torch.save_file(weights | {"classifier.6.bias": torch.zeros(1000)}, path)
    model = Model(network="vgg16", up="bilinear", dropout=0.0)
    return ModelCard(architecture(model, 1, 2), ("background", "cell"), CARD.normalise), path


def test_a_frozen_encoder_keeps_its_weights_then_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from unet_pipeline.train.learner import prepare

    card, path = vgg_card(tmp_path)
    options = settings(steps=3, freeze_steps=2, freeze_batch=2, batch=1, tile_px=32, validate_tiles=1)
    options = replace(options, encoder_weights=path)
    learner = prepare([discs(0)], [], card, np.array([1.0, 1.0]), options, tmp_path, "d")
    assert "3 tensors loaded" in capsys.readouterr().err
    sizes = [len(image) for image, _, _ in learner.batches(0)]
    assert sizes == [2, 2, 1]
    assert [len(image) for image, _, _ in learner.batches(1)] == [2, 1]  # as after a resume
    learner.enter(1)
    assert not any(part.requires_grad for part in learner.network.encoder.parameters())
    assert not learner.network.encoder.training
    assert learner.network.expanding.training
    learner.enter(2)
    assert all(part.requires_grad and part.is_leaf for part in learner.network.encoder.parameters())
    assert learner.network.encoder.training


@pytest.mark.parametrize(("ours", "theirs"), [(VGG16, "vgg16"), (ResNet50, "resnet50")])
def test_the_encoders_tensors_are_torchvisions(ours: type[torch.nn.Module], theirs: str) -> None:
    import torchvision

    with torch.device("meta"):
        wanted = {n: t.shape for n, t in getattr(torchvision.models, theirs)(weights=None).state_dict().items()}
        found = {n: t.shape for n, t in ours(3).state_dict().items()}
    assert found.items() <= wanted.items()
    assert {name.split(".")[0] for name in wanted.keys() - found.keys()} <= {"classifier", "fc"}


def test_a_grey_image_gives_what_it_would_give_as_rgb(tmp_path: Path) -> None:
    torch.manual_seed(1)
    colour, grey = VGG16(3), VGG16(1)
    torch.save(colour.state_dict(), tmp_path / "w.pth")
    found = load_encoder(grey, tmp_path / "w.pth")
    assert not found.missing
    assert not found.unused
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(grey(image)[0], colour(image.expand(1, 3, 32, 32))[0])


BIAS = "features.0.bias"


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features.0.weight": torch.zeros(64, 3, 5, 5)}, "features.0.weight (64, 3, 5, 5) instead of (64, 3, 3, 3)"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "none of them, but conv1.weight"),
        ([1, 2], "a state-dict: tensors by name, got list"),
        ({"state_dict": {}, "epoch": 3}, "got dict, in which these are none: state_dict, epoch"),
        ({1: torch.zeros(2), "a": torch.zeros(1)}, "in which these are none: the key 1"),
        (
            {BIAS: torch.zeros(64).to_sparse()},
            f"{BIAS}: expected a dense tensor of finite numbers, got one that is sparse_coo",
        ),
        ({BIAS: torch.zeros(64, device="meta")}, "on meta"),
        ({BIAS: torch.zeros(64, dtype=torch.complex64)}, "got one of complex64"),
        ({BIAS: torch.zeros(64, dtype=torch.int8)}, "got one of int8"),
        ({BIAS: torch.arange(64) / torch.zeros(64)}, "got 64 of 64 values NaN or infinite"),
        ({BIAS: torch.full((64,), 1e200, dtype=torch.float64)}, "got 64 of 64 values NaN or infinite"),
        ({"features.0.weight": Harmful()}, "a readable file of tensors"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, words: str
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PipelineError) as refusal:
        load_encoder(VGG16(3), tmp_path / "w.pth")
    assert words in str(refusal.value)
    assert "code of the file" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage")
def test_quantised_weights_are_named(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.zeros(64), 0.1, 0, torch.qint8)
    torch.save({BIAS: quantised}, tmp_path / "w.pth")
    with pytest.raises(PipelineError, match="got one that is quantised"):
        load_encoder(VGG16(3), tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_numbers_of_any_precision_are_taken(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({BIAS: torch.linspace(-2, 2, 64).to(dtype)}, tmp_path / "w.pth")
    encoder = VGG16(3)
    assert load_encoder(encoder, tmp_path / "w.pth").loaded == (BIAS,)
    torch.testing.assert_close(encoder.state_dict()[BIAS], torch.linspace(-2, 2, 64).to(dtype).float())


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    for name in ("w.safetensors", "absent.pth"):
        with pytest.raises(PipelineError, match=name):
            load_encoder(VGG16(3), tmp_path / name)


def test_processes_on_a_cpu_and_batch_normalisation_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unet_pipeline.train.learner import prepare

    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for norm in (False, True):
        model = Model(depth=2, base_channels=2, padded=True, batch_norm=norm)
        card = ModelCard(architecture(model, 1, 2), ("background", "cell"))
        given = [discs(0)], [], card, np.array([1.0, 1.0]), settings(batch=2), tmp_path, "d"
        if norm:
            with pytest.raises(PipelineError, match=r"compute\.processes.*\n.*nearest legal value: 1"):
                prepare(*given)
        else:
            prepare(*given)
