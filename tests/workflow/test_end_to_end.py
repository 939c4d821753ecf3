"""The whole chain through Snakemake, for real, on pictures as small as can be."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tifffile
import zarr
from real_project import TINY, write
from workspace import ROOT, Workspace

DATA = Path(os.environ.get("UNET_PIPELINE_DATA") or ROOT.parent / "shared" / "data")


def read(space: Workspace, name: str) -> dict:
    return json.loads((space.folder / "results" / name).read_text())


def sums(space: Workspace, stack: str) -> list:
    """Checksums of every shard that was predicted."""
    records = sorted((space.folder / "results" / stack / "regions").iterdir())
    return [json.loads(path.read_text())["shards"] for path in records]


def test_every_product_is_there_and_nothing_else(finished_project: Workspace) -> None:
    results = finished_project.folder / "results"
    made = {path.name for path in results.iterdir()}
    page = {"report.html", "report.json", "report.sha256", "objects.csv"}
    assert made == {"benchmarks", "learn", "logs", "model", "new", "unseen", "val"} | page
    expected = {"image.ome.zarr", "ingest.json", "segmentation.ome.zarr", "tiles.json", "regions", "stitch.json"}
    expected |= {"ingest.sha256", "tiles.sha256", "stitch.sha256", "measure.json", "measure.sha256", "objects.csv"}
    assert {path.name for path in (results / "new").iterdir()} == expected
    assert {path.name for path in (results / "unseen").iterdir()} == expected | {"metrics.json", "confusion.csv"}
    assert {path.name for path in (results / "learn").iterdir()} == {
        *("image.ome.zarr", "ingest.json", "ingest.sha256", "weights.zarr", "weigh.json", "weigh.sha256")
    }
    assert {"model.json", "weights.safetensors", "history.tsv"} <= {path.name for path in (results / "model").iterdir()}
    assert not [path for path in results.rglob("*") if "partial" in path.name]


def test_the_volume_has_the_shape_of_the_image(finished_project: Workspace) -> None:
    group = zarr.open_group(finished_project.folder / "results" / "unseen" / "segmentation.ome.zarr", mode="r")
    assert group["0"].shape[-2:] == (70, 101)
    assert group["labels/instances/0"].shape == (2, 70, 101)
    assert read(finished_project, "unseen/stitch.json")["coverage"]["covered_once"] is True
    assert 0 <= read(finished_project, "unseen/metrics.json")["instances"]["seg"] <= 1


def test_the_page_shows_every_stack(finished_project: Workspace) -> None:
    page = (finished_project.folder / "results" / "report.html").read_text(encoding="utf-8")
    for name in ("learn", "val", "unseen", "new"):
        assert f">{name}<" in page or f'"{name}"' in page


def test_logs_are_plain_lines(finished_project: Workspace) -> None:
    for log in (finished_project.folder / "results" / "logs").rglob("*.log"):
        text = log.read_text(encoding="utf-8")
        assert text.endswith("\n"), log
        assert "\r" not in text, log
        assert "\x1b" not in text, log


def test_a_second_run_does_nothing_and_the_report_of_snakemake_works(done: Workspace) -> None:
    assert done.would_run() == set()
    assert done.would_run(compute={"threads": 2}) == set()
    ran = done.run("--report", "its report.zip")
    assert ran.code == 0, ran.text
    with ZipFile(done.folder / "its report.zip") as archive:
        assert {"report.html", "metrics.json"} <= {Path(name).name for name in archive.namelist()}


@pytest.mark.slow
def test_a_damaged_shard_is_found_and_its_region_made_again(done: Workspace) -> None:
    before, folder = sums(done, "unseen"), done.folder / "results" / "unseen"
    shards = sorted(path for path in (folder / "segmentation.ome.zarr" / "0" / "c").rglob("*") if path.is_file())
    damaged = shards[-1].read_bytes()
    shards[-1].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    (folder / "stitch.json").unlink()
    ran = done.run("results/unseen/stitch.json")
    assert ran.code == 1
    assert "regions/1.json" in ran.text
    assert not (folder / "stitch.json").exists()
    (folder / "regions" / "1.json").unlink()
    ran = done.run("results/unseen/stitch.json")
    assert ran.code == 0, ran.text
    assert ran.jobs == {"predict unseen 1", "stitch unseen"}
    assert sums(done, "unseen") == before


def test_tiling_is_proved_seamless_on_the_trained_model(done: Workspace) -> None:
    ran = done.run("results/unseen/prove.json")
    assert ran.code == 0, ran.text
    assert ran.jobs == {"prove unseen"}
    assert read(done, "unseen/prove.json")["seamless"] is True


@pytest.mark.slow
def test_a_finished_model_predicts_elsewhere_without_a_word_on_its_depth(
    finished_project: Workspace, tmp_path: Path
) -> None:
    space = Workspace(tmp_path / "next month")
    shutil.copytree(finished_project.folder / "results" / "model", space.folder / "the model")
    write(space.folder, "next", (60, 50), 1, 9)
    space.table("stack | image", "next | next.tif")
    space.config = {name: TINY[name] for name in ("store", "tile", "measure", "report", "compute")} | {
        "model": {"folder": "the model"}
    }
    ran = space.run()
    assert ran.code == 0, ran.text
    assert set(ran.rules) == {"ingest", "tile", "predict", "stitch", "measure", "report"}
    assert not (space.folder / "results" / "model").exists()


@pytest.mark.slow
def test_a_cross_validation_from_pictures_to_scores_out_of_fold(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "cross validation")
    space.config = {**TINY, "train": {**TINY["train"], "folds": 2}, "predict": {"mirror": "flips"}}
    space.config["model"] = {**TINY["model"], "depth": "auto"}
    write(space.folder, "learn", (64, 64), 3, 1)
    write(space.folder, "other", (50, 70), 1, 2)
    space.table(
        "stack | image | labels | role",
        "learn | learn.tif | learn_.tif | train",
        "other | other.tif | other_.tif | test",
    )
    ran = space.run()
    assert ran.code == 0, ran.text
    assert {"train 0", "train 1", "ensemble", "evaluate learn", "evaluate other"} <= ran.jobs
    card = read(space, "model/model.json")
    training = card["training"]
    assert card["architecture"]["depth"] == 3 and training["auto"]["model.depth"].startswith("3: nine of ten objects")
    assert read(space, "other/tiles.json")["plan"]["geometry"]["stride"] == 8
    held_out = [plane for one in training["members"] for place in one["held_out"] for plane in place["planes"]]
    assert sorted(held_out) == [0, 1, 2]
    assert read(space, "learn/metrics.json")["pixels"]["scored"] == 3 * 64 * 64
    page = (space.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "(cross-validation)" in page
    assert "spread (standard deviation)" in page
    assert space.run("results/other/prove.json").code == 0
    assert read(space, "other/prove.json")["seamless"] is True
    assert space.would_run() == set()
    failing(space, "train.folds", "at most 3", "nearest legal value: 3", train={**space.config["train"], "folds": 5})


def failing(space: Workspace, *messages: str, **sections: dict) -> None:
    ran = space.run(**sections)
    assert ran.code == 1, ran.text
    for message in messages:
        assert message in ran.text
    assert "Traceback" not in ran.text, ran.text


def test_labels_of_another_shape_end_in_one_message(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "p")
    space.config = TINY
    write(space.folder, "a", (64, 64), 1, 1)
    tifffile.imwrite(space.folder / "a_.tif", np.ones((64, 63), np.uint8))
    space.table("stack | image | labels | role", "a | a.tif | a_.tif | train")
    failing(space, "error: a_.tif", "expected the image's shape", "(64, 64)", "(64, 63)")
    assert not (space.folder / "results" / "a" / "ingest.json").exists()


def test_a_gpu_that_is_not_there_ends_in_one_message(done: Workspace) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for name in ("stitch.json", "regions/0.json"):
        (done.folder / "results" / "unseen" / name).unlink()
    failing(done, "compute.device", compute={"device": "cuda"})
    assert not (done.folder / "results" / "unseen" / "regions" / "0.json").exists()


@pytest.mark.slow
def test_the_preset_of_isbi_2012_runs_on_a_crop_of_the_data(tmp_path: Path) -> None:
    source = DATA / "isbi2012_em"
    if not source.is_dir():
        pytest.skip(f"no data at {source}; set UNET_PIPELINE_DATA to the folder of data sets")
    space = Workspace(tmp_path / "crop")
    (space.folder / "data" / "isbi2012_em").mkdir(parents=True)
    for name in ("images.tif", "labels.tif"):
        whole = tifffile.imread(source / name)
        tifffile.imwrite(
            space.folder / "data" / "isbi2012_em" / name, whole[:, 100:196, 200:312], photometric="minisblack"
        )
    space.config = TINY
    ran = space.run(
        "--configfile", str(ROOT / "workflow" / "presets" / "isbi2012.yaml"), str(space.folder / "config.yaml")
    )
    assert ran.code == 0, ran.text
    metrics = read(space, "unseen/metrics.json")
    assert metrics["isbi"]
    assert tifffile.imread(space.folder / "results" / "unseen" / "instances.tif").shape == (6, 96, 112)
