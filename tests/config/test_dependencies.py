"""The sections a step depends on: no step reads another, and its record keeps the same as its rule tells it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from chain import make_stack, settings

from unet_pipeline.audit.prove import prove
from unet_pipeline.config.dependencies import MACHINE, RESULT_SECTIONS, SECTIONS, sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.evaluate.calibrate import calibrate
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.model.card import read_card
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.report.report import report
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.stitch.measure import measure
from unet_pipeline.stitch.stitch import stitch
from unet_pipeline.train.train import train_model


def only_for(step: str, config: Config) -> Config:
    """A configuration whose other sections cannot be read."""
    single = dict(name.split(".") for name in SECTIONS[step] if "." in name)
    hidden = {*RESULT_SECTIONS, "stacks"} - {name.partition(".")[0] for name in SECTIONS[step]}

    class Told(Config):
        def __getattribute__(self, name: str) -> Any:
            assert name not in hidden, f"{step} reads section {name}, for which its rule does not run again"
            found = super().__getattribute__(name)
            return SimpleNamespace(**{single[name]: getattr(found, single[name])}) if name in single else found

    return Told(**vars(config))


def test_the_guard_would_notice() -> None:
    with pytest.raises(AssertionError, match="stitch reads section evaluate"):
        sections_of(only_for("stitch", settings()), "evaluate")
    with pytest.raises(AttributeError, match="method"):
        assert only_for("calibrate", settings()).stitch.method


def test_every_section_is_of_a_result_or_of_the_machine() -> None:
    assert {*RESULT_SECTIONS, *MACHINE, "stacks"} == set(vars(Config()))
    read = {name.partition(".")[0] for step in SECTIONS if step != "report" for name in SECTIONS[step]}
    assert read | {"report"} == set(RESULT_SECTIONS)


@pytest.mark.slow
def test_no_step_reads_a_section_that_its_rule_is_not_told(tmp_path: Path) -> None:
    """The whole chain, each step with a configuration that refuses the rest; its record then keeps what it was told."""
    config = settings(stitch={"tiff": True}, report={"pictures": ["overlay", "panels"]})
    told = {step: only_for(step, config) for step in SECTIONS}
    stack = make_stack(tmp_path, told["ingest"])
    folder, model = stack.record.parent, tmp_path / "results" / "model"
    weigh(stack, told["weigh"], folder / "weigh.json", 1)
    train_model([folder / "weigh.json"], [folder / "weigh.json"], told["train"], model)
    calibrate(model, [stack.record], told["calibrate"], model / "calibrate.json")
    tile(stack, told["tile"], 1, folder / "tiles.json", read_card(model))
    planned = StackPlan.open(folder / "tiles.json")
    predict(planned, 0, model, told["predict"], folder / "regions" / "0.json")
    calibration, output = model / "calibrate.json", folder / "stitch.json"
    stitch(planned, [folder / "regions" / "0.json"], told["stitch"], output, read_card(model), calibration)
    measure(folder / "stitch.json", told["measure"], folder / "measure.json")
    evaluate(folder / "stitch.json", told["evaluate"], folder / "metrics.json")
    prove(model, stack, told["prove"], folder / "prove.json", 0, 64)
    report(model, [folder / "stitch.json"], told["report"], tmp_path / "results" / "report.html")
    records = {"predict": "regions/0.json", "tile": "tiles.json", "train": "../model/model.json"}
    records |= {"evaluate": "metrics.json", "calibrate": "../model/calibrate.json"}
    for step in SECTIONS:
        if step != "report":  # the page has no record beside it
            record = json.loads((folder / records.get(step, f"{step}.json")).read_text(encoding="utf-8"))
            made_by = record.get("training", record)["provenance"]
            told_of = sections_of(config, step)
            assert {name: made_by["config"][name] for name in told_of} == told_of
            assert set(made_by["config"]) - set(told_of) <= {"source"}
