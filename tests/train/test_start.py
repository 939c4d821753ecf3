"""A training that starts from a finished model: its layers are there at step 0; its card, key and messages say so."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import make_model, settings
from safetensors.torch import load_file, save_file
from same_tree import tree
from synthetic_training import ARCHITECTURE, CARD, discs
from synthetic_training import settings as training
from test_train import weighed

from unet_pipeline.audit.differs import differences
from unet_pipeline.audit.record import trace
from unet_pipeline.config.network_section import Model
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, architecture, read_card, write_card
from unet_pipeline.model.models import build, save_model
from unet_pipeline.model.start import Start, check_start
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import CARD_FILE, WEIGHTS_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.report.results import ModelResult
from unet_pipeline.report.training_section import training_section
from unet_pipeline.train.ensemble import ensemble
from unet_pipeline.train.learner import prepare
from unet_pipeline.train.train import train_model

STANDING = {"learning_rate": 1e-9, "select": "last"}
"""Section train of a training whose last weights are, but for rounding, its first."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weigh.json` of a stack."""
    return weighed(tmp_path_factory.mktemp("stack"))


def further(record: Path, start: Path, folder: Path, **sections: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Train further and return the weights."""
    train_model([record], [], settings(model=started(start, **sections.pop("model", {})), **sections), folder)
    return load_file(folder / WEIGHTS_FILE)


def started(start: Path, **model: Any) -> dict[str, Any]:
    """Section model with a start, and a network as `make_model` makes it."""
    return {"start_from": str(start), "batch_norm": False, **model}


def largest(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], names: set[str]) -> float:
    """The largest difference among tensors of these names."""
    return max(float((one[name] - other[name]).abs().max()) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_all_layers_are_taken(record: Path, tmp_path: Path, norm: bool, capsys: pytest.CaptureFixture[str]) -> None:
    start = make_model(tmp_path / "start", network={"batch_norm": norm})
    found = further(record, start, tmp_path / "model", model={"batch_norm": norm}, train={**STANDING, "batch": 2})
    taken = load_file(start / WEIGHTS_FILE)
    learned = {name for name in taken if "running" not in name and "tracked" not in name}
    assert largest(found, taken, learned) < 1e-6
    card = read_card(tmp_path / "model").training["started_from"]
    assert card["weights_sha256"] == sha256_file(start / WEIGHTS_FILE)
    assert card["new"] == []
    assert {f"{layer}.weight" for layer in card["taken"]} == {name for name in taken if name.endswith(".weight")}
    assert f"{len(card['taken'])} layers taken\n" in capsys.readouterr().err


@pytest.mark.slow
def test_an_open_depth_is_that_of_the_start(record: Path, tmp_path: Path) -> None:
    start = make_model(tmp_path / "start")
    config = settings(model=started(start, depth="auto"), train={"steps": 1})
    check_start(config)
    train_model([record], [], config, tmp_path / "model")
    card = read_card(tmp_path / "model")
    assert card.architecture.depth == 2
    assert card.training["auto"] == {"model.depth": "2: as the model has that training starts from"}


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_package_is_a_start_as_the_folder_is_that_it_was_made_of(record: Path, tmp_path: Path) -> None:
    start = make_model(tmp_path / "start")
    files = {f"cells/{name}": (start / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}
    package = zipped(tmp_path / "start.zip", {"cells/rdf.yaml": b"type: model", **files})
    check_start(settings(model=started(package)))
    found = {place: further(record, place, tmp_path / f"from {place.suffix}") for place in (start, package)}
    assert largest(found[start], found[package], set(found[start])) == 0
    mine, other = (read_card(tmp_path / f"from {suffix}").training for suffix in (".zip", ""))
    assert mine["started_from"] == other["started_from"] | {"model": mine["started_from"]["model"]}
    assert mine["started_from"]["model"].endswith("start.zip")
    (name,) = (one for one in mine["provenance"]["inputs"] if one.endswith("start.zip"))
    assert mine["provenance"]["inputs"][name] == sha256_file(package)
    assert [link.verb for link in trace(tmp_path / "from .zip")] == ["train", "weigh", "ingest"]


def test_what_is_no_package_of_ours_is_no_start(record: Path, tmp_path: Path) -> None:
    start = make_model(tmp_path / "start")
    card, weights = ((start / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE))
    zipped(tmp_path / "foreign.zip", {"rdf.yaml": b"type: model", "weights.pt": b""})
    zipped(tmp_path / "spoilt.zip", {CARD_FILE: card, WEIGHTS_FILE: weights[:-1] + b"?"})
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "unpacked").mkdir()
    for name, words in (
        ("none.zip", r"model\.start_from: expected the zip of a package, got no file .*none\.zip"),
        ("text.zip", r"text\.zip: expected a bioimage\.io package, got File is not a zip file"),
        ("foreign.zip", r"a package of unet_pipeline 0\.2 or later, with model\.json, got only rdf\.yaml, weights\.pt"),
        ("spoilt.zip", rf"spoilt\.zip: {WEIGHTS_FILE}: expected SHA-256"),
        ("unpacked", r"expected a folder with model\.json, got .*unpacked"),
    ):
        with pytest.raises(PipelineError, match=words):
            further(record, tmp_path / name, tmp_path / "model")
        assert not (tmp_path / "model" / CARD_FILE).exists()


def test_other_classes_get_a_new_head(tmp_path: Path) -> None:
    start = make_model(tmp_path / "start")
    config = {"labels": {"classes": ["background", "nucleus"]}}
    record = weighed(tmp_path, settings(**config))
    found = further(record, start, tmp_path / "model", train=STANDING, **config)
    taken = load_file(start / WEIGHTS_FILE)
    head = {"head.weight", "head.bias"}
    fresh = build(read_card(tmp_path / "model").architecture).state_dict()
    assert largest(found, taken, set(taken) - head) < 1e-6
    assert largest(found, fresh, head) < 1e-6
    assert largest(found, taken, head) > 1e-2, "of the same shape, so it could have been taken"
    said = read_card(tmp_path / "model").training["started_from"]
    assert (said["new"], said["classes"]) == (["head"], ["background", "cell"])
    assert "head" not in said["taken"]
    shown = dict(training_section(ModelResult.open(tmp_path / "model")).training)["Started from"]
    assert shown == f"{start} (weights {sha256_file(start / WEIGHTS_FILE)[:12]}), 12 layers taken, new: head"


def test_the_running_statistics_of_batch_normalisation_are_taken(tmp_path: Path) -> None:
    network = replace(ARCHITECTURE, batch_norm=True)
    source = build(network, 1)
    for name, tensor in source.named_buffers():
        if "running" in name:
            tensor.fill_(0.7)
    card = save_model(tmp_path / "start", source, replace(CARD, architecture=network))
    options = replace(training(), start=Start(tmp_path / "start", card, network, False))
    learner = prepare([discs()], [], replace(CARD, architecture=network), torch.ones(2).numpy(), options, tmp_path, "d")
    found = dict(learner.network.named_buffers())
    assert all(bool((found[name] == 0.7).all()) for name in found if "running" in name)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"base_channels": 8},
            (
                "a model with base_channels 8, got one with base_channels 4",
                "contracting.0.0.weight (4, 1, 3, 3) instead of (8, 1, 3, 3)",
                "and 18 more",
                "set model.base_channels: 4, as that model has",
            ),
        ),
        (
            {"depth": 3},
            ("contracting.3.0.weight nothing instead of (32, 16, 3, 3)", "set model.depth: 2, as that model has"),
        ),
        ({"padded": True}, ("a model with padded true, got one with padded false\n", "set model.padded: false")),
        ({"network": "vgg16"}, ("set model.network: unet, model.depth: 2, model.base_channels: 4, model.padded",)),
    ],
)
def test_another_network_is_refused_and_told_by_its_layers(
    record: Path, tmp_path: Path, model: dict[str, Any], words: tuple[str, ...]
) -> None:
    start = make_model(tmp_path / "start")
    with pytest.raises(PipelineError, match=r"model\.start_from") as refusal:
        further(record, start, tmp_path / "model", model=model)
    for part in words:
        assert part in str(refusal.value)
    assert not (tmp_path / "model").exists()
    with pytest.raises(PipelineError) as early:
        check_start(settings(model=started(start, **model)))
    assert str(early.value) == str(refusal.value), "the same before any image is read"


def test_a_model_for_other_channels_or_of_several_networks_is_refused(record: Path, tmp_path: Path) -> None:
    colours = make_model(tmp_path / "colours", channels=3)
    with pytest.raises(PipelineError, match="in_channels 1, got one with in_channels 3") as refusal:
        further(record, colours, tmp_path / "model")
    assert "one that was trained on images with 1 channel(s)" in str(refusal.value)
    assert "contracting.0.0.weight (4, 3, 3, 3) instead of (4, 1, 3, 3)" in str(refusal.value)
    check_start(settings(model=started(colours)))  # nobody knows the images yet
    ensemble([make_model(tmp_path / str(seed), seed=seed) for seed in (1, 2)], tmp_path / "both")
    with pytest.raises(PipelineError, match=r"one network, got an ensemble of 2[\s\S]*folder of one member"):
        further(record, tmp_path / "both", tmp_path / "model")


def test_a_model_that_the_training_replaces_is_no_start(record: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    make_model(tmp_path / "model.previous")
    before = tree(tmp_path)
    for start in (model, model / ".." / "model", tmp_path / "model.previous"):
        with pytest.raises(PipelineError, match="does not replace") as refusal:
            further(record, start, model)
        assert "copy that folder elsewhere" in str(refusal.value)
    with pytest.raises(PipelineError, match=r"a folder with model\.json") as refusal:
        further(record, tmp_path / "none", model)
    assert "the zip, or the folder it was unpacked into" in str(refusal.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(record: Path, tmp_path: Path, value: float) -> None:
    start = make_model(tmp_path / "start")
    tensors = load_file(start / WEIGHTS_FILE)
    tensors["up.0.bias"][1] = value
    save_file(tensors, start / WEIGHTS_FILE)
    with pytest.raises(PipelineError, match="SHA-256"):
        further(record, start, tmp_path / "model")
    write_card(start, replace(read_card(start), weights_sha256=sha256_file(start / WEIGHTS_FILE)))
    with pytest.raises(PipelineError, match=r"up\.0\.bias: expected finite numbers, got 1 of 8 values"):
        further(record, start, tmp_path / "model")


@pytest.mark.slow
def test_another_start_begins_anew(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, model = make_model(tmp_path / "start", seed=1), tmp_path / "model"
    first = further(record, start, model)
    identity = read_card(model).identity
    capsys.readouterr()
    assert all(torch.equal(tensor, first[name]) for name, tensor in further(record, start, model).items())
    assert "resuming after step 4 of 4" in capsys.readouterr().err
    make_model(start, seed=2)
    second = further(record, start, model)
    assert "starting from step 0, the checkpoint belongs to another configuration" in capsys.readouterr().err
    assert not torch.equal(first["contracting.0.0.weight"], second["contracting.0.0.weight"])
    assert read_card(model).identity != identity
    assert read_card(model).training["started_from"]["weights_sha256"] == sha256_file(start / WEIGHTS_FILE)


@pytest.mark.parametrize(("given", "begun", "peak"), [({}, True, 2e-4), ({}, False, 1e-3),
                                                        ({"learning_rate": 0.03}, True, 0.03)])  # fmt: skip
def test_a_start_lowers_the_learning_rate(
    record: Path, tmp_path: Path, given: dict[str, float], begun: bool, peak: float
) -> None:
    model = started(make_model(tmp_path / "start")) if begun else {}
    config = settings(model=model, train={"schedule": "constant", "steps": 1, **given})
    result = train_model([record], [], config, tmp_path / "model")
    assert result.history[0].learning_rate == pytest.approx(peak)
    said = read_card(tmp_path / "model").training
    assert said["settings"]["train"]["learning_rate"] == pytest.approx(peak)
    assert said["provenance"]["config"]["train"]["learning_rate"] == given.get("learning_rate", "auto")


@pytest.mark.slow
def test_doubtful_starts_are_told(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = make_model(tmp_path / "start")
    config = settings(model=started(start), normalise={"method": "zscore"})
    write_card(start, replace(read_card(start), training={"stacks": ["other", "cells"]}))
    train_model([record], [record], config, tmp_path / "model")
    said = capsys.readouterr().err
    assert "grey values scaled by percentile low 1 high 99.8, this training scales them by zscore" in said
    assert said.count("trained on a stack of the name cells") == 1
    config = settings(model=started(start), train={"hold_out": 0.5})
    train_model([record], [], config, tmp_path / "another")
    assert "trained on a stack of the name cells" in capsys.readouterr().err, "planes that are held out validate too"
    assert read_card(tmp_path / "model").normalise.method == "zscore"


@pytest.mark.slow
def test_a_start_is_kept_where_nothing_better_follows(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps far too large make it worse; planes of a stack that it has seen may not judge it."""
    other = weighed(tmp_path / "other", stack="other")
    train_model([record], [], settings(model={"batch_norm": False}, train={"steps": 8}), tmp_path / "first")
    config = settings(
        model=started(tmp_path / "first"),
        train={"learning_rate": 1.0, "steps": 2, "validate_every": 1, "schedule": "constant", "select": "loss"},
    )
    train_model([record], [other], config, tmp_path / "second")
    said = read_card(tmp_path / "second").training
    assert (said["selected"], said["selected_step"], said["train_loss"]) == ("best", 0, None)
    assert "no validation was better than that of the model it started from" in capsys.readouterr().err
    first, second = (load_file(tmp_path / name / WEIGHTS_FILE) for name in ("first", "second"))
    assert largest(first, second, set(first)) == 0
    rows = (tmp_path / "second" / "history.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == ["0", "1", "2"]
    assert rows[0].split("\t")[2] == ""
    losses = [float(row.split("\t")[3]) for row in rows]
    assert losses[0] == pytest.approx(said["validation_loss"])
    assert losses[0] < min(losses[1:])
    assert ModelResult.open(tmp_path / "second").history.column("train_loss")[0][0] == 1
    train_model([record], [record], config, tmp_path / "third")
    assert read_card(tmp_path / "third").training["selected_step"] > 0


def test_the_way_back_leads_to_the_start_and_what_made_it(record: Path, tmp_path: Path) -> None:
    """The start has a configuration of its own, which is no difference of this model."""
    train_model([record], [], settings(train={"seed": 5}), tmp_path / "first")
    config = settings(model={"start_from": str(tmp_path / "first")})
    train_model([record], [], config, tmp_path / "second")
    links = trace(tmp_path / "second")
    assert [(link.verb, link.before) for link in links] == [
        ("train", False), ("weigh", False), ("ingest", False), ("train", True),
    ]  # fmt: skip
    assert links[-1].record == tmp_path / "first" / CARD_FILE
    assert not [one for one in differences(links, config, None) if one.what.startswith("config")]


def test_the_way_back_passes_the_weights_of_an_encoder(record: Path, tmp_path: Path) -> None:
    card = ModelCard(architecture(Model(network="vgg16"), 1, 2), ("background", "cell"))
    weights = tmp_path / "vgg16.safetensors"
    save_file({"features.0.bias": torch.zeros(64)}, weights)
    made = asdict(provenance({}, [record, weights]))
    save_model(tmp_path / "model", torch.nn.Linear(1, 1), replace(card, training={"provenance": made}))
    assert [link.verb for link in trace(tmp_path / "model")] == ["train", "weigh", "ingest"]


def test_a_volumes_levels_along_z_are_taken_from_the_start(tmp_path: Path) -> None:
    start = make_model(tmp_path / "start", depth=2, network={"dimensions": 3, "z_levels": 2})
    check_start(settings(model=started(start, depth=2, dimensions=3)))
    with pytest.raises(PipelineError, match=r"set model\.z_levels: 2, as that model has"):
        check_start(settings(model=started(start, depth=2, dimensions=3, z_levels=3)))
