"""What would differ if a result were made today: each kind of change is named, and what Snakemake does about it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml
from workspace import Workspace

from unet_pipeline.__main__ import main
from unet_pipeline.audit.differs import MISSES, NEWER, RUNS, UNSEEN, device_now
from unet_pipeline.records.record import read_json, write_json

pytestmark = pytest.mark.slow
RESULT = "results/unseen/metrics.json"


@pytest.fixture
def place(finished_project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished project, and the working directory."""
    shutil.copytree(finished_project.folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path()


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Run the verb as JSON; its exit code must fit what it says."""
    capsys.readouterr()
    code = main(["differs", RESULT, "--json", *arguments])
    differences: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert code == bool(differences)
    return differences


def configure(**sections: dict[str, Any]) -> None:
    values = yaml.safe_load(Path("config.yaml").read_text())
    merged = {name: values.get(name, {}) | sections.get(name, {}) for name in {**values, **sections}}
    Path("config.yaml").write_text(yaml.safe_dump(merged))


def rewrite(name: str, change: Callable[[dict[str, Any]], None]) -> None:
    facts = read_json(Path(name))
    change(facts)
    write_json(Path(name), facts)


def test_nothing_differs_right_after_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys) == []
    assert main(["differs", "results"]) == 0
    records = [path for path in Path("results").rglob("[a-z0-9]*.json") if path.name != "zarr.json"]
    assert capsys.readouterr().out == f"{len(records)} records compared: nothing differs\n"


@pytest.mark.parametrize(
    ("section", "key", "value", "snakemake", "changes", "steps"),
    [
        ("train", "steps", 21, RUNS, True, {"train"}),
        ("train", "seed", 1, RUNS, True, {"train"}),
        ("weigh", "w0", 5.0, RUNS, True, {"weigh"}),
        ("stitch", "min_area_px", 9, RUNS, True, {"stitch"}),
        ("predict", "batch", 2, RUNS, False, {"tile", "calibrate", "predict", "stitch"}),
        ("tile", "tile_px", 32, RUNS, True, {"tile"}),
        ("labels", "ignore", 9, RUNS, True, {"ingest", "weigh", "train", "calibrate", "tile", "stitch", "evaluate"}),
        ("compute", "threads", 2, UNSEEN, True, {"train", "calibrate", "predict"}),
    ],
)
def test_a_changed_key_is_found_in_the_steps_that_are_told_it(
    place: Path, capsys: Any, section: str, key: str, value: object, snakemake: str, changes: bool, steps: set[str]
) -> None:
    configure(**{section: {key: value}})
    (one,) = found(capsys)
    name = f"{section}.{key}" if section == "compute" else f"config {section}.{key}"
    assert (one["what"], one["now"], one["snakemake"]) == (name, str(value), snakemake)
    assert one["changes_result"] is changes
    assert {record.split()[0] for record in one["records"]} == steps


def test_snakemake_agrees_about_every_key_it_is_said_to_see(
    place: Path, capsys: Any, finished_project: Workspace
) -> None:
    """What `differs` says of a key, and the jobs of a dry run, name the same steps."""
    space = Workspace(Path.cwd())
    space.config = finished_project.config
    for section, key, value in (("weigh", "w0", 5.0), ("stitch", "grow_px", 0), ("evaluate", "isbi", True)):
        configure(**{section: {key: value}})
        (one,) = found(capsys)
        jobs = space.would_run(**{section: {key: value}})
        assert set(one["records"]) <= {*jobs, *(f"{job} model" for job in jobs if job == "train")}
        configure(**{section: {key: {"w0": 10.0, "grow_px": "auto", "isbi": False}[key]}})
        assert found(capsys) == []


def test_several_configurations_are_merged_as_snakemake_does(place: Path, capsys: Any) -> None:
    Path("mine.yaml").write_text("train: {steps: 99}\n")
    (one,) = found(capsys, "--config", "config.yaml", "mine.yaml")
    assert (one["what"], one["recorded"], one["now"]) == ("config train.steps", "20", "99")


@pytest.mark.parametrize("newer", [True, False])
def test_edited_pixels_are_found_whatever_the_date_of_the_file(place: Path, capsys: Any, newer: bool) -> None:
    image = Path("my images/unseen.tif")
    grey = tifffile.imread(image)
    grey[0, 3, 4] ^= 1
    tifffile.imwrite(image, grey, photometric="minisblack")
    if not newer:
        os.utime(image, (1_000_000_000, 1_000_000_000))
    (one,) = found(capsys)
    assert (one["what"], one["snakemake"]) == ("image my images/unseen.tif", NEWER)
    assert one["records"] == ["ingest unseen"]


def test_a_touched_file_is_no_difference(place: Path, capsys: Any) -> None:
    Path("my images/unseen.tif").touch()
    assert found(capsys) == []


def test_a_missing_source_and_a_missing_record_are_found(place: Path, capsys: Any) -> None:
    Path("my images/learn_.tif").unlink()
    Path("results/unseen/regions/1.json").unlink()
    by = {one["what"]: one for one in found(capsys)}
    assert set(by) == {"labels my images/learn_.tif", "record results/unseen/regions/1.json"}
    assert by["labels my images/learn_.tif"]["snakemake"] == MISSES
    assert by["record results/unseen/regions/1.json"]["changes_result"] is False


def test_planes_in_a_folder_count_too(place: Path, capsys: Any) -> None:
    assert main(["differs", "results/new"]) == 0
    Path("my images/new/plane 1.tif").unlink()
    assert main(["differs", "results/new"]) == 1
    assert "image my images/new/*.tif" in capsys.readouterr().out


def test_the_table_is_compared(place: Path, capsys: Any) -> None:
    table = Path("stacks.tsv").read_text()
    Path("stacks.tsv").write_text(table + "more\tmy images/new/*.tif\tx.tif\ttrain\t\n")
    (one,) = found(capsys)
    assert (one["what"], one["recorded"], one["now"]) == ("stacks with role train", "learn", "learn, more")
    Path("stacks.tsv").write_text(table.replace("test\t2", "test\t3"))
    (one,) = found(capsys)
    assert (one["what"], one["now"], one["changes_result"]) == ("regions of unseen", "3", False)
    Path("stacks.tsv").write_text(table.replace("unseen\t", "renamed\t"))
    (one,) = found(capsys)
    assert one["what"] == "row unseen of the table"
    Path("stacks.tsv").write_text(table.replace("my images/unseen_.tif", "my images/val_.tif"))
    (one,) = found(capsys)
    assert (one["what"], one["now"]) == ("row unseen, column labels", "my images/val_.tif")


@pytest.mark.parametrize(
    ("key", "value", "what", "snakemake"),
    [
        ("unet_pipeline", "0.0.1", "version of unet_pipeline", RUNS),
        ("commit", "abc", "commit of unet_pipeline", UNSEEN),
        ("python", "3.9.9", "Python", UNSEEN),
        ("machine", "another kind", "kind of machine", UNSEEN),
        ("packages", {"numpy": "1.0"}, "package numpy", UNSEEN),
    ],
)
def test_other_code_packages_and_machines_are_found(
    place: Path, capsys: Any, key: str, value: Any, what: str, snakemake: str
) -> None:
    def change(facts: dict[str, Any]) -> None:
        made = facts["provenance"]
        made[key] = made[key] | value if isinstance(value, dict) else value

    rewrite(RESULT, change)
    (one,) = found(capsys)
    assert (one["what"], one["snakemake"], one["changes_result"]) == (what, snakemake, True)
    assert one["records"] == ["evaluate unseen"]


def test_torch_counts_only_where_the_network_runs_and_snakemake_changes_no_result(place: Path, capsys: Any) -> None:
    old = {"torch": "1.0", "snakemake": "1.0"}
    for name in (RESULT, "results/unseen/regions/0.json"):
        rewrite(name, lambda facts: facts["provenance"]["packages"].update(old))
    by = {one["what"]: one for one in found(capsys) if one["what"].startswith("package")}
    assert by["package torch"]["records"] == ["predict unseen 0"]
    assert set(by["package snakemake"]["records"]) == {"evaluate unseen", "predict unseen 0"}
    assert by["package snakemake"]["changes_result"] is False


def test_another_device_is_found(place: Path, capsys: Any) -> None:
    rewrite("results/unseen/regions/0.json", lambda facts: facts["compute"].update(device="NVIDIA X"))
    by = {one["what"]: one for one in found(capsys)}
    assert (by["compute.device"]["recorded"], by["compute.device"]["now"]) == ("NVIDIA X", "cpu")
    assert set(by) == {"compute.device", "record results/unseen/regions/0.json"}


def test_the_gpu_of_today_is_asked_for_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [device_now(wanted) for wanted in ("auto", "cuda", "cpu")] == ["NVIDIA X", "NVIDIA X", "cpu"]
    monkeypatch.setenv("PATH", "")
    assert [device_now(wanted) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    assert device_now("cuda").startswith("no GPU")


def test_people_read_first_what_snakemake_does_not_see(place: Path, capsys: Any) -> None:
    configure(compute={"threads": 2}, stitch={"min_area_px": 9})
    assert main(["differs", RESULT]) == 1
    text = capsys.readouterr().out
    assert text.startswith("12 records compared: 2 differences\n\ncompute.threads: 1 -> 2\n  Snakemake does not see it")
    assert "config stitch.min_area_px: auto -> 9\n  Snakemake runs it again by itself; the result may differ" in text
    assert "--forcerun" in text


@pytest.mark.parametrize(
    "arguments", [["nothing"], [RESULT, "--config", "nothing.yaml"], [RESULT, "--stacks", "no.tsv"]]
)
def test_what_cannot_be_compared_has_an_exit_code_of_its_own(place: Path, capsys: Any, arguments: list[str]) -> None:
    assert main(["differs", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_exit_codes_are_told(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["differs", "--help"])
    assert "exit code 0: nothing, 1: something, 2: unusable" in " ".join(capsys.readouterr().out.split())
