"""Exported networks, run by the programs they are for, against the network they come from."""

import sys

import numpy as np
import pytest
import torch
from chain import make_model
from exports import SHAPES, card_of, check_facts

from unet_pipeline.__main__ import main
from unet_pipeline.config.network_section import Model
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, architecture, read_card
from unet_pipeline.model.export import exported
from unet_pipeline.model.export.export import export
from unet_pipeline.model.export.exported import Exported, compare, facts, import_all
from unet_pipeline.model.models import build, load_model, save_model


def images():
    return [torch.rand(shape, generator=torch.Generator().manual_seed(1)) for shape in SHAPES]


@pytest.mark.slow
def test_onnx(model, network, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    assert main(["export", "--model", str(model), "--format", "onnx", "--output", str(path)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["n", 2, "y", "x"]
    assert session.get_outputs()[0].shape == ["n", 3, "y - 88", "x - 88"]
    for image in images():
        (found,) = session.run(["logits"], {"image": image.numpy()})
        np.testing.assert_allclose(found, network(image).detach(), atol=1e-4)
    check_facts({each.key: each.value for each in onnx.load(path).metadata_props}, read_card(model))


def test_torchscript_with_probabilities(model, network, tmp_path, capsys):
    path = tmp_path / "model.pt"
    arguments = ("--model", str(model), "--format", "torchscript", "--output", str(path))
    assert main(["export", *arguments, "--probabilities"]) == 0
    assert "probabilities of background, a, b" in capsys.readouterr().out
    extra = dict.fromkeys(("classes", "normalise", "geometry", "size", "output", "weights_sha256"), "")
    again = torch.jit.load(str(path), _extra_files=extra)
    for image in images():
        torch.testing.assert_close(again(image), torch.softmax(network(image), 1))
    check_facts({name: text.decode() for name, text in extra.items()}, read_card(model), "probabilities")


@pytest.mark.parametrize(
    "options",
    [
        Model(depth=2, base_channels=2, padded=True, batch_norm=True, up="bilinear"),
        Model(depth=2, base_channels=2, batch_norm=False, padded=True, down="stride", stem="half", residual=True),
        Model(depth=2, base_channels=2, batch_norm=False, resize_output=True),
    ],
)
def test_other_networks_and_a_sigmoid(options, tmp_path):
    """The export compares with the network itself; here its probabilities are looked at."""
    card = ModelCard(architecture(options, 1, 2), ("background", "cell"), activation="sigmoid")
    save_model(tmp_path / "model", build(card.architecture), card)
    export(tmp_path / "model", "torchscript", tmp_path / "model.pt", probabilities=True)
    image = torch.rand(1, 1, 64, 72)
    expected = torch.sigmoid(load_model(tmp_path / "model", torch.device("cpu"))[0](image))
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.pt"))(image), expected)


@pytest.mark.slow
def test_torch_export(model, network, tmp_path):
    path = tmp_path / "model.pt2"
    export(model, "torch-export", path)
    extra = dict.fromkeys(("classes", "normalise", "geometry", "size", "output", "weights_sha256"), "")
    with path.open("rb") as file:
        again = torch.export.load(file, extra_files=extra).module()
    for image in images():
        torch.testing.assert_close(again(image), network(image))
    check_facts(extra, read_card(model))


def test_the_same_size_is_the_whole_mirrored_image(model, network, tmp_path):
    """What the pipeline computes for a plane: before and after are mirrored, the network's output is kept."""
    export(model, "torchscript", tmp_path / "model.pt", same_size=True)
    again = torch.jit.load(str(tmp_path / "model.pt"))
    for shape in ((1, 2, 56, 72), (2, 2, 64, 56)):
        image = torch.rand(shape)
        mirrored = np.pad(image.numpy(), ((0, 0), (0, 0), (44, 48), (44, 48)), mode="reflect")
        expected = network(torch.from_numpy(mirrored))[:, :, : shape[2], : shape[3]]
        torch.testing.assert_close(again(image), expected)


def test_sigmoid_where_the_card_says_so(network, model):
    card = read_card(model)
    object.__setattr__(card, "activation", "sigmoid")
    image = images()[0]
    torch.testing.assert_close(Exported(network, card, True)(image), torch.sigmoid(network(image)))
    assert facts(Exported(network, card, True))["activation"] == '"sigmoid"'


# what must not be published


@pytest.mark.parametrize("kind", ["onnx", "bioimageio"])
def test_a_missing_package_names_the_extra(kind, model, tmp_path, monkeypatch, capsys):
    missing = {"onnx": "onnxruntime", "bioimageio": "bioimageio.core"}[kind]
    monkeypatch.setitem(sys.modules, missing, None)
    output = tmp_path / "model"
    assert main(["export", "--model", str(model), "--format", kind, "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert f"--format {kind}" in said
    assert "pip install 'unet-pipeline[export]'" in said
    assert not list(tmp_path.iterdir())


def test_a_network_that_computes_something_else_is_not_published(model, tmp_path, monkeypatch):
    """TorchScript drops what Python does besides: here, a network whose answer changes after it was traced."""
    calls = []

    def drifting(logits):
        calls.append(1)
        return logits + (0.5 if len(calls) > 1 else 0)

    monkeypatch.setattr(exported, "ACTIVATIONS", {"softmax": drifting})
    with pytest.raises(PipelineError, match=r"torchscript: .*got a difference of"):
        export(model, "torchscript", tmp_path / "model.pt", probabilities=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spoil", [lambda found: found * 1.001, lambda found: found[..., 1:], lambda found: found * np.nan]
)
def test_the_comparison_notices(spoil):
    card = card_of()
    module = Exported(build(card.architecture, 1), card, False)
    assert compare("same", module, module) == 0
    assert 0 < compare("rounded", module, lambda image: module(image) * (1 + 1e-6)) < 1e-5
    with pytest.raises(PipelineError, match="nothing was written"):
        compare("spoilt", module, lambda image: spoil(module(image)))


def test_import_all_lets_what_is_there_pass():
    import_all("onnx", "json", "torch")


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch-export", "bioimageio"])
def test_a_network_of_volumes_is_refused(kind, tmp_path):
    deep = make_model(tmp_path / "deep", depth=1, network={"dimensions": 3, "z_levels": 1})
    with pytest.raises(PipelineError, match="a network of planes: those of volumes are not exported yet"):
        export(deep, kind, tmp_path / "file")
    assert not (tmp_path / "file").exists()
