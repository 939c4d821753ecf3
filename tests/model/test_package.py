"""Packages of bioimageio: what they say, hold and give, and that they become the model folder again."""

import pickle
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from chain import make_model
from exports import SHAPES, card_of, check_facts
from made_results import COMPUTE

from unet_pipeline.__main__ import main
from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.config.sections import Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture, ModelCard, read_card, write_card
from unet_pipeline.model.export import bioimageio_package
from unet_pipeline.model.export.bioimageio_package import halo, preprocessing, smallest_px, symmetric_halo, whole
from unet_pipeline.model.export.export import export
from unet_pipeline.model.export.exported import Exported
from unet_pipeline.model.geometry import Geometry, unpadded
from unet_pipeline.model.models import load_model
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.model.package import model_folder
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import write_record
from unet_pipeline.records.stack_records import Statistics


@pytest.fixture(scope="module")
def package(model, tmp_path_factory):
    pytest.importorskip("bioimageio.core")
    path = tmp_path_factory.mktemp("package") / "model.zip"
    authors = ("--author", "A. Person", "--author", "B. Person", "--license", "MIT", "--name", "Cells of a kind")
    arguments = ("--model", str(model), "--format", "bioimageio", "--output", str(path))
    assert main(["export", *arguments, *authors]) == 0
    return path


@pytest.mark.slow
def test_a_package_says_the_sizes_of_an_unpadded_network(package, model):
    from bioimageio.spec import load_model_description

    described = load_model_description(package)
    assert [author.name for author in described.authors] == ["A. Person", "B. Person"]
    assert (described.name, str(described.license)) == ("Cells of a kind", "MIT")
    assert described.cite[0].doi == "10.1007/978-3-319-24574-4_28"
    read = {str(axis.id): axis.size for axis in described.inputs[0].axes if axis.type == "space"}
    assert {name: (size.min, size.step) for name, size in read.items()} == {"y": (100, 8), "x": (100, 8)}
    output = [axis for axis in described.outputs[0].axes if axis.type == "space"]
    assert [axis.size.offset for axis in output] == [-92, -92]  # 88 lost, and 2 px a side to a multiple of 8
    assert not any(hasattr(axis, "halo") for axis in output)
    assert described.outputs[0].axes[1].channel_names == ["background", "a", "b"]
    check_facts(described.config.unet_pipeline, read_card(model), "probabilities")


@pytest.mark.slow
def test_a_package_gives_what_the_pipeline_gives_for_raw_grey_values(package, model, network):
    """bioimageio.core normalises, runs and crops by itself; the oracle is numpy's percentiles and the network."""
    from bioimageio.core import predict

    grey = np.random.default_rng(3).integers(10, 200, SHAPES[0]).astype(np.float32)
    result = predict(model=package, inputs={"image": grey}).members["segmentation"].data.values
    low, high = np.percentile(grey, [1.0, 99.8], axis=(2, 3), keepdims=True)
    normalised = torch.from_numpy(((grey - low) / (high - low)).astype(np.float32))
    expected = torch.softmax(network(normalised), 1)[:, :, 2:-2, 2:-2].detach().numpy()
    assert result.shape == expected.shape == (1, 3, 16, 32)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.slow
def test_a_package_that_mirrors_within_gives_the_whole_image_also_in_blocks(tmp_path):
    """bioimageio.core cuts the image into blocks by the halo; the oracle is one pass over the mirrored image."""
    pytest.importorskip("bioimageio.core")
    from bioimageio.core import predict

    folder = make_model(tmp_path / "model", depth=1, base_channels=2)
    card = replace(read_card(folder), normalise=Normalise(scope="model"), normaliser=Normaliser((20.0,), (0.01,)))
    write_card(folder, card)
    export(folder, "bioimageio", tmp_path / "model.zip", same_size=True)
    grey = np.random.default_rng(3).integers(10, 200, (1, 1, 60, 52)).astype(np.float32)
    mirrored = np.pad((grey - 20) * np.float32(0.01), ((0, 0), (0, 0), (8, 8), (8, 8)), mode="reflect")
    network = load_model(folder, torch.device("cpu"))[0]
    expected = torch.softmax(network(torch.from_numpy(mirrored)), 1).detach().numpy()
    for how in ({}, {"blocksize_parameter": 5}):
        found = predict(model=tmp_path / "model.zip", inputs={"image": grey}, **how).members["segmentation"]
        np.testing.assert_allclose(found.data.values, expected, atol=1e-4)


@pytest.mark.slow
def test_a_package_holds_no_more_than_it_says(package):
    with zipfile.ZipFile(package) as archive:
        names = sorted(archive.namelist())
    assert [name for name in names if not name.endswith(("yaml", ".md"))] == [
        "input.npy", "model.json", "output.npy", "weights.onnx", "weights.pt", "weights.safetensors",
    ]  # fmt: skip
    assert [file.name for file in package.parent.iterdir()] == [package.name]


@pytest.mark.slow
def test_a_package_becomes_the_model_folder_again(package, model, tmp_path):
    assert main(["import", str(package), "--output", str(tmp_path / "again")]) == 0
    assert content(tmp_path / "again") == content(model)
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert main(["import", str(tmp_path / "unpacked"), "--output", str(tmp_path / "once more")]) == 0
    assert content(tmp_path / "once more") == content(model)
    with model_folder(package) as folder:  # as `model.start_from` takes it
        assert content(folder) == content(model)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packed(path, files, folder=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return path


@pytest.mark.parametrize("around", ["", "cells/"])
def test_a_zip_with_a_folder_around_all_is_read_too(model, tmp_path, around, capsys):
    path = packed(tmp_path / "model.zip", {"rdf.yaml": "type: model", **content(model)}, around)
    assert main(["import", str(path), "--output", str(tmp_path / "models" / "again")]) == 0
    assert content(tmp_path / "models" / "again") == content(model)
    assert "background, a, b; weights" in capsys.readouterr().out


class Harmful:
    """Of which a reader of pickles would make a call."""

    def __reduce__(self):
        return (print, ("code of the package was run",))


def test_what_is_no_package_of_ours_makes_no_folder(model, tmp_path, capsys):
    whole = content(model)
    spoilt = bytearray(packed(tmp_path / "crc.zip", whole).read_bytes())
    spoilt[500] ^= 1
    (tmp_path / "crc.zip").write_bytes(spoilt)
    (tmp_path / "text.zip").write_text("no zip")
    packed(tmp_path / "foreign.zip", {"rdf.yaml": "type: model", "weights.pt": pickle.dumps(Harmful())})
    packed(tmp_path / "pickle.zip", whole | {"weights.safetensors": pickle.dumps(Harmful())})
    packed(tmp_path / "card.zip", whole | {"model.json": "{}"})
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("none.zip", "a bioimage.io package, got [Errno 2]"),
        ("text.zip", "a bioimage.io package, got File is not a zip file"),
        ("crc.zip", "a bioimage.io package, got Bad CRC-32"),
        ("foreign.zip", "a package of unet_pipeline 0.2 or later, with model.json, got only rdf.yaml, weights.pt"),
        ("empty", "with model.json, got only nothing"),
        ("pickle.zip", "pickle.zip: weights.safetensors: expected SHA-256"),
        ("card.zip", "card.zip: model.json: expected a record with its checksum"),
    ):
        assert main(["import", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 1, name
        said = capsys.readouterr()
        assert words in said.err, name
        assert "code of the package" not in said.out + said.err
        assert not [*tmp_path.glob("out*"), *tmp_path.glob(".out*")], name


def calibrated(folder, model):
    """A calibration of some model."""
    record = CalibrateRecord(
        model=read_card(model).identity, score="seg", planes=(), objects=1, pixel_um=None, chosen=ObjectSettings(),
        chosen_score=0.5, stated_score=0.5, trials=(), compute=COMPUTE, provenance=provenance({}),
    )  # fmt: skip
    write_record(folder / "calibrate.json", record)


def test_a_calibration_goes_with_its_model_and_with_no_other(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "model")
    calibrated(tmp_path / "model", model)
    assert [file.name for file in whole(tmp_path / "model")] == ["model.json", "weights.safetensors", "calibrate.json"]
    path = packed(tmp_path / "model.zip", content(tmp_path / "model"))
    assert main(["import", str(path), "--output", str(tmp_path / "again")]) == 0
    assert content(tmp_path / "again") == content(tmp_path / "model")
    calibrated(tmp_path / "model", make_model(tmp_path / "other"))
    with pytest.raises(PipelineError, match="the calibration of this model, got that of another"):
        whole(tmp_path / "model")
    path = packed(tmp_path / "other.zip", content(tmp_path / "model"))
    assert main(["import", str(path), "--output", str(tmp_path / "third")]) == 1
    assert "other.zip: calibrate.json: expected the calibration of this model" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_import_replaces_no_model(model, tmp_path, capsys):
    path, before = packed(tmp_path / "model.zip", content(model)), content(model)
    assert main(["import", str(path), "--output", str(model)]) == 1
    assert "a folder that does not exist yet" in capsys.readouterr().err
    assert content(model) == before


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_what_a_package_drops_makes_tiles_step_by_the_stride(depth):
    geometry = unpadded(depth)
    module = Exported(torch.nn.Identity(), card_of(architecture=Architecture("unet", depth, 2)), True)
    module.trim_px = symmetric_halo(geometry)
    assert (module.smallest_px - module.lost_px) % geometry.stride == 0
    assert module.smallest_px - module.lost_px >= geometry.stride
    assert halo(module) == 0
    assert smallest_px(module) == geometry.read_px(geometry.stride)
    geometry.check_read(smallest_px(module), "test")


@pytest.mark.parametrize(("before", "after", "expected"), [(16, 16, 16), (12, 20, 24), (10, 10, 16)])
def test_a_padded_network_has_a_halo_that_keeps_sizes_legal(before, after, expected, monkeypatch):
    padded = Geometry(8, before, after, 0, before)
    monkeypatch.setattr(ModelCard, "geometry", padded)
    module = Exported(torch.nn.Identity(), card_of(), True)
    assert halo(module) == expected
    assert smallest_px(module) - 2 * halo(module) >= 8
    assert smallest_px(module) % 8 == module.smallest_px % 8


def test_a_network_that_mirrors_within_has_a_halo_as_wide_as_it_reads():
    module = Exported(torch.nn.Identity(), card_of(architecture=Architecture("unet", 3, 2)), True, same_size=True)
    assert (module.lost_px, halo(module), smallest_px(module)) == (0, 48, 104)


GREY = np.random.default_rng(5).normal(120, 30, (1, 2, 30, 40)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("normalise", "normaliser"),
    [
        (Normalise("percentile", 2.0, 98.0), None),
        (Normalise("zscore"), None),
        (Normalise("none"), None),
        (Normalise("percentile", scope="model"), Normaliser((10.0, 20.0), (0.5, 0.25))),
    ],
)
def test_grey_values_are_normalised_as_by_the_pipeline(normalise, normaliser):
    pytest.importorskip("bioimageio.core")
    card = card_of(architecture=Architecture("unet", 1, 2, 2), normalise=normalise, normaliser=normaliser)
    steps = preprocessing(card)
    low, high, mean, std = (getattr(GREY[0], name)((1, 2)) for name in ("min", "max", "mean", "std"))
    quantiles = np.percentile(GREY[0], np.linspace(0, 100, 1001), axis=(1, 2)).T
    statistics = Statistics(low, high, mean, std, GREY[0][0].size, quantiles)
    expected = card.normaliser_of(statistics, np.float32)(GREY[0])
    np.testing.assert_allclose(by_definition(steps, GREY), expected[None], atol=1e-4)


def by_definition(steps, grey):
    """The steps as the specification of bioimage.io defines them."""
    for step in steps:
        said = step.kwargs
        if step.id == "scale_linear":
            grey = grey * np.reshape(said.gain, (1, -1, 1, 1)) + np.reshape(said.offset, (1, -1, 1, 1))
        elif step.id == "scale_range":
            assert said.axes == ("y", "x")
            low, high = np.percentile(grey, [said.min_percentile, said.max_percentile], axis=(2, 3), keepdims=True)
            grey = (grey - low) / (high - low + said.eps)
        else:
            assert (step.id, tuple(said.axes)) == ("zero_mean_unit_variance", ("y", "x"))
            grey = (grey - grey.mean((2, 3), keepdims=True)) / (grey.std((2, 3), keepdims=True) + said.eps)
    return grey


@pytest.mark.slow
def test_a_package_that_fails_the_test_of_bioimageio_is_not_published(model, package, tmp_path, monkeypatch):
    """The weights are those of a package that was right, the example is wrong by 0.1."""

    def unzipped(name):
        def write(module, path):
            with zipfile.ZipFile(package) as archive:
                path.write_bytes(archive.read(name))
            return 0.0

        return write

    right = bioimageio_package.sample
    monkeypatch.setattr(bioimageio_package, "write_torchscript", unzipped("weights.pt"))
    monkeypatch.setattr(bioimageio_package, "write_onnx", unzipped("weights.onnx"))
    monkeypatch.setattr(bioimageio_package, "sample", lambda *given: (right(*given)[0], right(*given)[1] + 0.1))
    with pytest.raises(PipelineError, match=r"passes bioimageio\.core's test.*Reproduce test outputs"):
        export(model, "bioimageio", tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_license_that_does_not_exist_is_one_message(model, tmp_path, capsys):
    pytest.importorskip("bioimageio.core")
    arguments = ("--model", str(model), "--format", "bioimageio", "--output", str(tmp_path / "model.zip"))
    assert main(["export", *arguments, "--license", "MINE"]) == 1
    assert "--license: expected the SPDX identifier of a license, got MINE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
