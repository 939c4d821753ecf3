import json

import numpy as np
import pytest
from chain import draw, make_stack, settings
from safetensors.numpy import load_file

from unet_pipeline.audit.record import read_link
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.predict.tile import tile
from unet_pipeline.report.results import ModelResult
from unet_pipeline.report.training_section import training_section
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.train import Weighed, train_model


def weighed(folder, config=None, **source):
    stack = make_stack(folder, config, **source)
    record = stack.record.with_name("weigh.json")
    weigh(stack, config or settings(), record)
    return record


@pytest.mark.slow
def test_the_model_knows_what_made_it(tmp_path):
    records = [weighed(tmp_path / name) for name in ("a", "b")]
    train_model(records[:1], records[1:], settings(), tmp_path / "model")
    card = read_card(tmp_path / "model")
    assert card.classes == ("background", "cell")
    assert card.architecture.base_channels == 4
    assert card.training["stacks"] == ["cells"]
    assert card.training["provenance"]["config"]["train"]["steps"] == 4


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(tmp_path):
    record = weighed(tmp_path / "a")
    files = ("weights.safetensors", "history.tsv", "model.json")
    made = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        train_model([record], [], settings(train={"seed": seed}), tmp_path / name)
        made.append([(tmp_path / name / file).read_bytes() for file in files])
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]


def test_the_boundary_weights_reach_the_loss(tmp_path):
    """Two weight maps, one training: if w0 did not count, the weights would be the same."""
    made = []
    for w0 in (0.0, 10.0):
        config = settings(weigh={"w0": w0})
        record = weighed(tmp_path / str(w0), config)
        train_model([record], [], config, tmp_path / f"model{w0}")
        made.append(load_file(tmp_path / f"model{w0}" / "weights.safetensors"))
    assert any(not np.array_equal(made[0][name], made[1][name]) for name in made[0])


def test_what_is_open_is_settled_by_objects_and_planes(tmp_path, capsys):
    """The network is that of the numbers, to the last bit; log, card and page say the numbers and why."""
    record = weighed(tmp_path / "a")
    found = {}
    for depth, tile_px, batch in (("auto", "auto", "auto"), (3, 96, 6)):
        config = settings(model={"depth": depth}, train={"steps": 1, "tile_px": tile_px, "batch": batch})
        train_model([record], [record], config, tmp_path / str(depth))
        found[depth] = load_file(tmp_path / str(depth) / "weights.safetensors")
    assert all(np.array_equal(found["auto"][name], found[3][name]) for name in found[3])
    card, other = (read_card(tmp_path / str(depth)) for depth in ("auto", 3))
    assert card.architecture == other.architecture
    assert "auto" not in other.training
    assert card.training["settings"] == other.training["settings"], "the numbers"
    why, *_ = card.training["auto"].values()
    assert list(card.training["auto"]) == ["model.depth", "train.tile_px", "train.batch"]
    assert why.startswith("3: nine of ten objects are up to") and "the smallest plane 100 px" in why
    assert f"train: model.depth comes to {why}" in capsys.readouterr().err
    assert card.training["provenance"]["config"]["model"]["depth"] == "auto", "what the configuration says"
    assert read_link(tmp_path / "auto" / "model.json").found == card.training["auto"]
    network = training_section(ModelResult.open(tmp_path / "auto")).network
    assert dict(network)["model.depth"] == why
    assert dict(network)["train.tile_px"].startswith("96: 26 % of the 188 x 188 px")
    stack, config = Stack.open(record.with_name("ingest.json")), settings(model={"depth": "auto"})
    with pytest.raises(PipelineError, match=r"model\.depth: expected a number where nothing is trained, got auto"):
        tile(stack, config, 1, record.with_name("tiles.json"))
    assert "stride 8 px" in tile(stack, config, 1, record.with_name("tiles.json"), card, dry_run=True)


@pytest.mark.slow
def test_normalisation_of_the_model_is_that_of_the_training_set(tmp_path):
    config = settings(normalise={"method": "zscore", "scope": "model"})
    train_model([weighed(tmp_path / "a", config)], [], config, tmp_path / "model")
    normaliser = read_card(tmp_path / "model").normaliser
    image = draw()[0].astype(float)
    assert normaliser.offset[0] == pytest.approx(image.mean())
    assert normaliser.scale[0] == pytest.approx(1 / image.std())


@pytest.mark.slow
def test_stacks_with_other_channels_do_not_mix(tmp_path):
    image, labels = draw()
    two = np.stack([image, image], axis=1)
    records = [weighed(tmp_path / "one"), weighed(tmp_path / "two", image=two, labels=labels, axes="zcyx")]
    with pytest.raises(PipelineError, match="same number of channels"):
        train_model(records, [], settings(), tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()


def test_a_foreign_record_is_named(tmp_path):
    record = weighed(tmp_path / "a")
    with pytest.raises(PipelineError, match=r"ingest\.json"):
        Weighed.open(record.with_name("ingest.json"))


@pytest.mark.slow
def test_class_weights_balance_the_pixels_of_all_training_stacks(tmp_path):
    _, labels = draw()
    fewer = np.where(np.arange(labels.shape[2]) < 30, labels, 0)
    records = [weighed(tmp_path / name, labels=ids) for name, ids in (("many", labels), ("few", fewer))]
    train_model(records, [], settings(train={"class_weights": "balanced"}), tmp_path / "model")
    counts = [json.loads(record.read_text())["class_counts"] for record in records]
    pixels = {name: sum(one[name] for one in counts) for name in ("background", "cell")}
    balance = read_card(tmp_path / "model").training["class_weights"]
    assert balance == pytest.approx({name: sum(pixels.values()) / 2 / of for name, of in pixels.items()})


def test_a_class_that_no_stack_shows_is_told(tmp_path, capsys):
    values = {"0": "background", "1": "cell", "2": "debris"}
    classes = {"kind": "classes", "classes": ["background", "cell", "debris"], "values": values}
    config = settings(labels=classes)
    record = weighed(tmp_path / "a", config, labels=(draw()[1] > 0).astype(np.uint16))
    train_model([record], [], config, tmp_path / "model")
    assert "no training stack has a pixel of debris" in capsys.readouterr().err
    with pytest.raises(PipelineError, match="labelled pixels of every class"):
        train_model([record], [], settings(labels=classes, train={"class_weights": "balanced"}), tmp_path / "model")
