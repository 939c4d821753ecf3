"""config.yaml, its schema and the dataclasses say the same; and what is wrong is refused with a hint."""

from __future__ import annotations

import json
import runpy
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from places import ROOT

from unet_pipeline.config import sections as module
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.files import load
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.table import load_stacks

SECTIONS = [field.name for field in fields(Config) if field.name != "stacks"]
KEYS = [(section, field) for section in SECTIONS for field in fields(getattr(Config(), section))]
RANGED = [(section, field) for section, field in KEYS if field.metadata["low"] is not None]
PRESETS = sorted((ROOT / "workflow" / "presets").glob("*.yaml"))


def named(pairs: list[tuple[str, Field[Any]]]) -> Any:
    return pytest.mark.parametrize(("section", "field"), pairs, ids=[f"{s}.{f.name}" for s, f in pairs])


def refusal(value: dict[str, Any], **options: bool) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        from_dict(value, **options)
    return caught.value


def comments() -> dict[str, str]:
    """The comment above each `section` and `section.key` of config.yaml, as one line."""
    found: dict[str, str] = {}
    above: list[str] = []
    section = ""
    for line in (ROOT / "config.yaml").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.lstrip("# "))
            continue
        if text:
            name = text.split(":")[0]
            section = section if line.startswith(" ") else name
            found[f"{section}.{name}" if line.startswith(" ") else name] = " ".join(above)
        above = []
    return found


def test_config_yaml_holds_every_key_with_its_default_in_order() -> None:
    written = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    assert from_dict(written) == Config()
    assert list(written) == [field.name for field in fields(Config)]
    for section in SECTIONS:
        assert list(written[section]) == [field.name for field in fields(getattr(Config(), section))], section


def test_config_yaml_explains_every_section() -> None:
    for section in SECTIONS:
        doc = type(getattr(Config(), section)).__doc__
        assert comments()[section] == doc.splitlines()[0]


def test_config_yaml_gives_meaning_range_and_reason() -> None:
    written = comments()
    for section, field in KEYS:
        comment = written[f"{section}.{field.name}"]
        doc, low, high = (field.metadata[name] for name in ("doc", "low", "high"))
        assert comment.startswith(doc), f"{section}.{field.name}"
        rest = comment.removeprefix(doc).strip()
        if low is not None:
            span = f"({low:g} to {high:.15g})"
            assert rest.startswith(span), f"{section}.{field.name}"
            rest = rest.removeprefix(span).strip()
        assert rest.endswith("."), f"{section}.{field.name}: say why the default is what it is"


def test_the_schema_files_are_those_of_the_dataclasses() -> None:
    texts = runpy.run_path(str(ROOT / "workflow" / "schemas" / "generate.py"))["texts"]()
    assert set(texts) == {"config.schema.yaml", "stacks.schema.yaml"}
    for name, text in texts.items():
        assert (ROOT / "workflow" / "schemas" / name).read_text(encoding="utf-8") == text, "run `make schema`"


def test_the_schema_accepts_config_yaml_and_refuses_what_is_not_in_it() -> None:
    schema = module.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))
    assert not validator.is_valid({"trian": {}})
    assert not validator.is_valid({"train": {"stepps": 1}})


def test_both_refuse_what_is_out_of_range() -> None:
    validator = jsonschema.Draft202012Validator(module.schema())
    for section, field in RANGED:
        for bound, step in ((field.metadata["low"], -1), (field.metadata["high"], 1)):
            kind = float if isinstance(field.default, float) else int
            value = {section: {field.name: kind(bound + step)}}
            assert not validator.is_valid(value), f"{section}.{field.name}"
            error = refusal(value)
            assert error.where == f"{section}.{field.name}"
            assert f"nearest legal value: {bound}" in str(error)


def test_defaults_lie_within_their_range() -> None:
    for section, field in RANGED:
        if field.default not in (None, "auto"):
            assert field.metadata["low"] <= field.default <= field.metadata["high"], f"{section}.{field.name}"


def test_an_unknown_section_or_key_names_the_nearest() -> None:
    assert "nearest legal value: train" in str(refusal({"trian": {"steps": 3}}))
    assert "nearest legal value: learning_rate" in str(refusal({"train": {"learningrate": 0.1}}))


@pytest.mark.parametrize(
    ("value", "where", "nearest"),
    [
        ({"store": {"chunk_px": 100}}, "store.chunk_px", "96"),
        ({"store": {"chunk_px": 512, "shard_px": 1000}}, "store.shard_px", "1024"),
        ({"store": {"chunk_px": 16, "shard_px": 48}, "model": {"depth": 5}}, "store.shard_px", "64"),
        ({"tile": {"tile_px": 500}}, "tile.tile_px", "496"),
        ({"tile": {"tile_px": "automatic"}}, "tile.tile_px", "auto"),
        ({"tile": {"tile_px": "512"}}, "tile.tile_px", None),
        ({"model": {"network": "resnet"}}, "model.network", "resnet50"),
        ({"train": {"loss": "focl"}}, "train.loss", "focal"),
        ({"train": {"optimiser": "adm"}}, "train.optimiser", "adam"),
        ({"train": {"loss": "dice"}}, "train.loss", "cross_entropy+dice"),
        ({"model": {"padded": True, "resize_output": True}}, "model.resize_output", "False"),
        ({"model": {"wide_up": True, "up": "bilinear"}}, "model.wide_up", "False"),
        ({"model": {"stem": "half", "resize_output": True}}, "model.stem", "full"),
        ({"model": {"stem": "half", "network": "vgg16"}}, "model.stem", "full"),
        ({"model": {"residual": True, "network": "vgg16"}}, "model.residual", None),
        ({"model": {"widest": 64, "network": "vgg16"}}, "model.widest", None),
        ({"model": {"widest": 8}}, "model.widest", "16"),
        ({"model": {"depth": "auto", "resize_output": True}}, "model.depth", "3"),
        ({"model": {"depth": "auto"}, "train": {"tile_px": 152}}, "train.tile_px", "160"),
        ({"model": {"depth": "auto", "stem": "half"}, "tile": {"tile_px": 240}}, "tile.tile_px", "256"),
        ({"model": {"stem": "half"}, "train": {"tile_px": 152}}, "train.tile_px", "160"),
        ({"train": {"freeze_steps": 5}}, "train.freeze_steps", "0"),
        ({"train": {"folds": 2, "hold_out": 0.1}}, "train.hold_out", "0"),
        ({"train": {"patience": 5, "select": "last"}}, "train.patience", None),
        ({"train": {"patience": 0}}, "train.patience", "1"),
        ({"train": {"tile_px": 144}, "model": {"network": "resnet50"}}, "train.tile_px", "128"),
        ({"train": {"tile_px": 388}, "model": {"depth": 4}}, "train.tile_px", "384"),
        ({"normalise": {"low": 99.9}}, "normalise.low", None),
        ({"predict": {"threshold": 0.5}}, "predict.threshold", None),
        ({"train": {"checkpoint_every": 100}}, "train.checkpoint_every", None),
        ({"labels": {"classes": ["only"]}}, "labels.classes", None),
        ({"labels": {"classes": ["a", "a"]}}, "labels.classes", None),
        ({"labels": {"classes": ["a", "b", "c"]}}, "labels.classes", None),
        ({"labels": {"kind": "classes"}}, "labels.values", None),
        ({"labels": {"kind": "classes", "values": {0: "background", 1: "sell"}}}, "labels.values", None),
        (
            {"labels": {"kind": "classes", "values": {0: "background", 255: "cell"}, "ignore": 255}},
            "labels.ignore",
            None,
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(value: dict[str, Any], where: str, nearest: str | None) -> None:
    error = refusal(value)
    assert error.where == where
    assert nearest is None or f"nearest legal value: {nearest}" in str(error)


def test_a_finished_model_brings_its_own_stride() -> None:
    value = {"model": {"folder": "elsewhere"}, "tile": {"tile_px": 500}}
    assert from_dict(value).tile.tile_px == 500
    refusal({"tile": {"tile_px": 500}})


def test_the_sections_of_a_rule_are_not_held_against_defaults_of_sections_it_does_not_have() -> None:
    value = {"model": {"depth": 6}}
    assert refusal(value).where == "train.tile_px"
    assert load(json.dumps(value)).model.depth == 6
    assert refusal({"model": {"depth": 6}, "tile": {"tile_px": 96}}, whole=False).where == "tile.tile_px"


def test_sections_survive_the_way_to_a_job() -> None:
    config = from_dict({"labels": {"kind": "classes", "values": {0: "background", 255: "cell"}}, "train": {"steps": 7}})
    assert load(json.dumps(config.section(*SECTIONS))) == config
    assert set(config.section("labels", "train")) == {"labels", "train"}


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert load(str(tmp_path / "config.yaml")) == Config()


@pytest.mark.parametrize("text", ["train: [", "train: 3", "- 1", "\x00"])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(PipelineError):
        load(str(path))


@pytest.mark.parametrize(
    ("text", "where", "got"),
    [
        ("train:\n\tsteps: 3\n", "line 2, column 1", "a tab"),
        ("train:\n  steps: 3\n  seed:\t4\n", "line 3, column 8", "a tab"),
        ("train: {steps: 3\nlabels: 2", "line 2, column 7", "a mistake: "),
        ("stacks: µm.tsv\n", "line 1", "0xb5"),
    ],
)
def test_a_mistake_in_yaml_is_named_by_its_line_and_cause(tmp_path: Path, text: str, where: str, got: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(PipelineError) as caught:
        load(str(path))
    assert caught.value.where == f"{path} {where}"
    assert got in str(caught.value.got)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_and_broken_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"none\.yaml"):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(PipelineError, match="--config"):
        load("{broken")


@pytest.mark.parametrize("path", PRESETS, ids=[path.stem for path in PRESETS])
def test_presets_are_legal_and_bring_their_table(path: Path) -> None:
    config = load(str(path))
    if config.stacks != Config().stacks:
        assert load_stacks(ROOT / config.stacks)


def test_the_paper_preset_is_the_paper() -> None:
    config = load(str(ROOT / "workflow" / "presets" / "paper.yaml"))
    model, train, weigh, augment = config.model, config.train, config.weigh, config.augment
    assert (model.depth, model.base_channels, model.dropout) == (4, 64, 0.5)
    assert not (model.batch_norm or model.padded)
    assert (train.loss, train.class_weights) == ("cross_entropy", "balanced")
    assert (train.batch, train.tile_px, train.optimiser, train.momentum) == (1, 384, "sgd", 0.99)
    assert (weigh.w0, weigh.sigma, weigh.unit, weigh.formula) == (10, 5, "px", "paper")
    assert (augment.elastic_std_px, augment.elastic_grid) == (10, 3)
