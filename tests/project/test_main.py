import json
import os
import subprocess
import sys

import pytest
import tifffile
from chain import SETTINGS, draw, make_model
from places import ROOT

from unet_pipeline.__main__ import main, parser
from unet_pipeline.face.verbs import config_of

VERBS = ("demo", "ingest", "weigh", "train", "tile", "predict", "stitch", "measure", "evaluate", "prove", "report")
VERBS += ("record", "differs", "export", "import", "summary", "segment")


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two files in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("my data")
    image, labels = draw()
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack")
    return folder


@pytest.mark.parametrize(
    ("words", "on"), [([], {"samples"}), (["none"], set()), (["tensorboard,samples"], {"tensorboard", "samples"})]
)
def test_what_a_training_shows_is_an_option_or_a_section(words, on):
    given = ["train", "--config", '{"watch": {"samples": true}}', "--train", "weigh.json", "--output", "model"]
    options = parser().parse_args([*given, *(part for word in words for part in ("--watch", word))])
    assert {name for name, wanted in vars(config_of(options).watch).items() if wanted} == on


def test_a_wrong_word_for_what_is_shown_is_named(capsys):
    assert run("train", "--watch", "tensorbord", "--train", "weigh.json", "--output", "model") == 1
    assert "nearest legal value: tensorboard" in capsys.readouterr().err


@pytest.mark.slow
def test_every_verb_from_files_to_scores(place, capsys):
    options = json.dumps(SETTINGS)
    out = place / "results" / "cells"
    ingest, tiles, model = out / "ingest.json", out / "tiles.json", place / "model"
    sources = ("--image", place / "image.tif", "--labels", place / "labels.tif")
    assert run("ingest", "--stack", "cells", *sources, "--pixel-um", 0.5, "--config", options, "--output", ingest) == 0
    assert run("weigh", "--ingest", ingest, "--config", options, "--output", out / "weigh.json") == 0
    common = ("--config", options, "--threads", 1, "--device", "cpu")
    assert (
        run("train", "--train", out / "weigh.json", "--validate", out / "weigh.json", *common, "--output", model) == 0
    )
    assert run("tile", "--ingest", ingest, "--regions", 2, "--config", options, "--output", tiles) == 0
    assert "2 region(s)" in capsys.readouterr().out
    regions = [out / "regions" / f"{region}.json" for region in range(2)]
    for number, region in enumerate(regions):
        assert run("predict", "--tiles", tiles, "--region", number, "--model", model, *common, "--output", region) == 0
    assert (
        run("stitch", "--tiles", tiles, "--regions", *regions, "--config", options, "--output", out / "stitch.json")
        == 0
    )
    assert run("measure", "--stitch", out / "stitch.json", "--config", options, "--output", out / "measure.json") == 0
    assert (out / "objects.parquet").stat().st_size > 0
    assert run("evaluate", "--stitch", out / "stitch.json", "--config", options, "--output", out / "metrics.json") == 0
    assert run("prove", "--model", model, "--ingest", ingest, *common) == 0
    assert "seamless: with one tile size every split stores the same bytes" in capsys.readouterr().out
    assert run("record", out / "stitch.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["provenance"]["config"]["stitch"]["min_area_px"] == "auto"
    report = place / "results" / "report.html"
    assert (
        run("report", "--model", model, "--stacks", out / "stitch.json", "--config", options, "--output", report) == 0
    )
    assert report.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    history = (model / "history.tsv").read_text().splitlines()
    assert history[0].startswith("step\tlearning_rate\ttrain_loss\tvalidation_loss")
    assert history[-1].split("\t")[0] == "4"


def test_a_mistake_is_one_message_and_exit_code_1(tmp_path):
    command = [
        sys.executable,
        "-m",
        "unet_pipeline",
        "ingest",
        "--stack",
        "x",
        "--image",
        "imag.tif",
        "--output",
        "o.json",
    ]
    (tmp_path / "image.tif").write_bytes(b"")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("error: imag.tif: expected")
    assert "nearest legal value: image.tif" in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["image.tif"]


@pytest.mark.parametrize("spoil", ["truncated", "empty", "text"])
def test_a_spoilt_tiff_is_named_and_leaves_nothing(place, tmp_path, spoil, capsys):
    content = (place / "image.tif").read_bytes()
    bad = tmp_path / "bad.tif"
    bad.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"not a tiff"}[spoil])
    output = tmp_path / "results" / "ingest.json"
    assert run("ingest", "--stack", "x", "--image", bad, "--output", output) == 1
    assert "bad.tif" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ('{"train": {"stepps": 3}}', "train.stepps"),
        ('{"tile": {"tile_px": 390}, "model": {"depth": 4}}', "tile.tile_px"),
        ('{"store": {"shard_px": 1000}}', "store.shard_px"),
        ('{"predict": {"precision": "float8"}}', "predict.precision"),
        ("{", "--config"),
        ("missing.yaml", "missing.yaml"),
    ],
)
def test_a_bad_configuration_names_the_key(place, tmp_path, config, key, capsys):
    output = tmp_path / "o.json"
    assert run("ingest", "--stack", "x", "--image", place / "image.tif", "--config", config, "--output", output) == 1
    assert key in capsys.readouterr().err
    assert not output.exists()


def test_a_finished_model_gives_the_plan_its_geometry(place, tmp_path, capsys):
    ingest = tmp_path / "ingest.json"
    assert run("ingest", "--stack", "x", "--image", place / "image.tif", "--output", ingest) == 0
    model = make_model(tmp_path / "model", depth=4, base_channels=2)
    config = json.dumps({"model": {"folder": str(model)}, "tile": {"tile_px": 384}})
    arguments = ("--model", model, "--config", config, "--output", tmp_path / "t.json", "--dry-run")
    assert run("tile", "--ingest", ingest, *arguments) == 0
    assert "stride 16 px, reads 92 px before, 96 px after" in capsys.readouterr().out


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            parser().parse_args([verb, "--help"])
        assert caught.value.code == 0
        assert f"unet-pipeline {verb}" in capsys.readouterr().out
