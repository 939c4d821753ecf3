"""What the page says of a training, from the card of its model."""

from dataclasses import replace
from pathlib import Path

from synthetic_training import CARD

from unet_pipeline.report.results import ModelResult
from unet_pipeline.report.training_section import training_section


def told(**training: object) -> dict[str, object]:
    """Return the facts of the page, by name, of a model with this training record."""
    section = training_section(ModelResult(Path("nowhere"), replace(CARD, training=training), None))
    return dict([*section.network, *section.training])


def test_a_training_that_ended_early_says_why() -> None:
    settings = {"train": {"steps": 7500, "batch": 2, "tile_px": 160}}
    whole = told(steps=7500, settings=settings)["Steps"]
    assert whole == "7,500, each of 2 tile(s) of 160 px"
    why = "10 validations without a better score than that of step 900"
    ended = told(steps=2400, ended=why, settings=settings)["Steps"]
    assert ended == f"2,400, each of 2 tile(s) of 160 px; ended before 7,500: {why}"
    members = [{"fold": 0, "ended": why}, {"fold": 1}]
    of_folds = told(members=members, settings=settings)["Steps"]
    assert of_folds == (
        "at most 7,500, each of 2 tile(s) of 160 px; 1 network ended before 7,500, as no validation was better"
    )
    assert "Steps" not in told(settings=settings)
