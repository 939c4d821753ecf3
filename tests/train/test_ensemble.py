"""Several models as one: the mean of what each says, whatever stage asks; members that differ are refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from chain import draw, make_model, make_stack, run, settings
from safetensors.torch import load_file
from scipy.special import softmax

from unet_pipeline.audit.prove import prove, whole_pass
from unet_pipeline.audit.record import trace
from unet_pipeline.audit.verify import verify
from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.model.models import load_model, save_model
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.crop import Crop
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.report.render import render
from unet_pipeline.report.results import ModelResult
from unet_pipeline.report.training_section import training_section
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.ensemble import ensemble, mean, members, spread
from unet_pipeline.train.train import train_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / str(seed), seed=seed) for seed in (3, 4, 5)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"))


def training_page(folder):
    model = ModelResult.open(folder)
    return render("training.html", {"training": training_section(model), "model": model})


def logits(model, stack, plane=0, mirror="none"):
    forward = Forward.load(model, stack, Predict(mirror=mirror), settings().compute)
    crop = Crop(stack.image, Box.of(plane, *(slice(0, length) for length in stack.grid.shape[1:])))
    return whole_pass(crop, forward)[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("mirror", ["none", "flips"])
def test_it_answers_with_the_mean_of_its_members(models, stack, tmp_path, mirror):
    card = ensemble(models, tmp_path / "all")
    assert card.architecture.members == 3
    expected = np.mean([softmax(logits(model, stack, 0, mirror), axis=0) for model in models], axis=0)
    np.testing.assert_allclose(softmax(logits(tmp_path / "all", stack, 0, mirror), axis=0), expected, atol=2e-6)


@pytest.mark.slow
def test_it_is_seamless_and_goes_through_all_stages(models, stack, tmp_path):
    ensemble(models[:2], tmp_path / "all")
    assert prove(tmp_path / "all", stack, settings(predict={"mirror": "flips"}), None).seamless
    record = stack.record.with_name("tiles.json")
    tile(stack, settings(), 2, record, read_card(tmp_path / "all"))
    assert run(StackPlan.open(record), tmp_path / "all").exists()


def test_its_file_holds_the_tensors_of_each_member_and_the_same_models_give_the_same_bytes(models, tmp_path):
    for name in "ab":
        ensemble(models, tmp_path / name)
    tensors = load_file(tmp_path / "a" / "weights.safetensors")
    for index, model in enumerate(models):
        for name, tensor in load_file(model / "weights.safetensors").items():
            assert torch.equal(tensors[f"members.{index}.{name}"], tensor)
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert ModelResult.open(tmp_path / "a").parameters == 3 * ModelResult.open(models[0]).parameters


def test_an_ensemble_among_the_models_counts_as_its_members(models, stack, tmp_path):
    ensemble(models[:2], tmp_path / "two")
    ensemble([tmp_path / "two", models[2]], tmp_path / "three")
    ensemble(models, tmp_path / "at once")
    np.testing.assert_array_equal(logits(tmp_path / "three", stack), logits(tmp_path / "at once", stack))


def changed(model, folder, **parts):
    network, card = load_model(model, CPU)
    save_model(folder, network, replace(card, **parts))
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, f: make_model(f, depth=1), "architecture"),
        (lambda m, f: make_model(f, base_channels=2), "architecture"),
        (lambda m, f: make_model(f, channels=3), "architecture"),
        (lambda m, f: changed(m, f, classes=("background", "nucleus")), "classes"),
        (lambda m, f: changed(m, f, normalise=replace(read_card(m).normalise, high=99.0)), "normalise"),
    ],
)
def test_members_that_differ_are_refused(models, tmp_path, make, message):
    odd = make(models[1], tmp_path / "the odd one")
    with pytest.raises(PipelineError, match=f"the odd one/model.json: {message}"):
        ensemble([*models, odd], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_what_is_no_ensemble_is_refused(models, tmp_path):
    with pytest.raises(PipelineError, match="two model folders or more"):
        ensemble(models[:1], tmp_path / "all")
    with pytest.raises(PipelineError, match="each model once"):
        ensemble([models[0], models[0]], tmp_path / "all")
    with pytest.raises(PipelineError, match="another folder"):
        ensemble(models, models[1])
    with pytest.raises(PipelineError, match=r"nothing here/model.json"):
        ensemble([models[0], tmp_path / "nothing here"], tmp_path / "all")
    assert read_card(models[1]).architecture.members == 1


def test_a_member_that_is_missing_from_the_file_is_noticed(models, tmp_path):
    ensemble(models, tmp_path / "all")
    network, card = load_model(tmp_path / "all", CPU)
    two = replace(card, architecture=replace(card.architecture, members=2))
    save_model(tmp_path / "all", network, two)
    with pytest.raises(PipelineError, match=r"members\.2\."):
        load_model(tmp_path / "all", CPU)
    assert len(members(network)) == 3


def test_cards_of_earlier_versions_are_single_networks(models, tmp_path):
    from unet_pipeline.records.record import read_json, write_json

    old = tmp_path / "old"
    changed(models[0], old)
    value = read_json(old / "model.json")
    del value["step"], value["architecture"]["members"]
    write_json(old / "model.json", value)
    assert load_model(old, CPU)[1].architecture.members == 1


def test_mean_and_spread_are_those_of_numpy():
    values = [0.9, 0.8, 0.85]
    assert mean(values) == pytest.approx(np.mean(values))
    assert spread(values) == pytest.approx(np.std(values, ddof=1))
    assert (mean([None]), spread([0.5, None]), mean([0.5, None])) == (None, None, 0.5)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """A stack of three planes, the models of its three folds, and their ensemble."""
    folder = tmp_path_factory.mktemp("crossed")
    image, labels = draw(3, (64, 64))
    made = make_stack(folder, image=image, labels=labels)
    record = made.record.with_name("weigh.json")
    weigh(made, settings(), record)
    config = settings(train={"folds": 3, "steps": 12, "learning_rate": 0.05})
    folds = [folder / "results" / "folds" / str(fold) for fold in range(3)]
    for fold, place in enumerate(folds):
        train_model([record], [], config, place, fold)
    ensemble(folds, folder / "results" / "model")
    return made, folds, folder / "results" / "model"


@pytest.mark.slow
def test_its_record_tells_of_each_fold_and_of_all(crossed):
    _, folds, model = crossed
    training, each = read_card(model).training, [read_card(fold).training for fold in folds]
    for fold, (member, record) in enumerate(zip(training["members"], each, strict=True)):
        assert member["fold"] == fold
        for key in ("selected_step", "validation_loss", "validation_dice", "held_out"):
            assert member[key] == record[key]
    losses = [record["validation_loss"] for record in each]
    assert training["mean"]["validation_loss"] == pytest.approx(np.mean(losses))
    assert training["spread"]["validation_loss"] == pytest.approx(np.std(losses, ddof=1))
    assert len(training["mean"]["validation_dice"]) == 2
    assert training["stacks"] == ["cells"]
    assert "digest" not in training
    assert "held_out" not in training


def test_the_page_shows_the_folds(crossed):
    _, folds, model = crossed
    page = training_page(model)
    for fold in folds:
        assert f"{read_card(fold).training['validation_loss']:.4f}" in page
        assert f"fold {fold.name}" in page
    assert f"{read_card(model).training['spread']['validation_loss']:.4f}" in page
    assert "Planes held out" in training_page(folds[0])


def test_verify_and_record_reach_the_folds(crossed):
    _, folds, model = crossed
    said = []
    verify(model.parent, said.append)
    assert all(any(str(place) in line for line in said) for place in [*folds, model])
    traced = {(origin.verb, origin.name) for origin in trace(model)}
    assert traced == {("ensemble", "model"), *(("train", f"fold {n}") for n in range(3)), ("weigh", "cells"),
                      ("ingest", "cells")}  # fmt: skip


def test_each_plane_is_predicted_by_the_model_that_has_not_seen_it(crossed):
    made, folds, model = crossed
    config = settings(predict={"probabilities": "float16"})
    record = made.record.with_name("tiles.json")
    tile(made, config, 2, record, read_card(model), out_of_fold=True)
    assert json.loads(record.read_text())["out_of_fold"] is True
    stack_plan = StackPlan.open(record)
    assert run(stack_plan, model, config).exists()
    for fold in folds:
        (place,) = read_card(fold).training["held_out"]
        for plane in place["planes"]:
            stored = stack_plan.probabilities().read(plane, slice(0, 64), slice(0, 64))
            np.testing.assert_allclose(stored, softmax(logits(fold, made, plane), axis=0), atol=1e-3)
            others = [other for other in folds if other != fold]
            assert all(np.abs(stored - softmax(logits(other, made, plane), axis=0)).max() > 2e-3 for other in others)


def test_a_plane_nobody_labelled_is_predicted_by_all(crossed):
    made, _, model = crossed
    forward = Forward.load(model, made, Predict(), settings().compute)
    assert forward.without(made, 99).network is forward.network


def test_a_model_that_held_out_no_plane_of_the_stack_is_refused(crossed, models, stack):
    made, _, model = crossed
    for other, one in ((models[0], made), (model, stack)):
        forward = Forward.load(other, one, Predict(), settings().compute)
        with pytest.raises(PipelineError, match="held out its planes"):
            forward.without(one, 0)
