"""What made a result: from anything a run has written back to the source files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from workspace import Workspace

from unet_pipeline.__main__ import main
from unet_pipeline.audit.record import describe, trace, vouching
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.record import read_json, write_json

pytestmark = pytest.mark.slow
RECORDS = {"ingest.json", "tiles.json", "stitch.json", "measure.json", "metrics.json"}


@pytest.fixture
def place(finished_project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished project, and the working directory."""
    shutil.copytree(finished_project.folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path("results")


@pytest.mark.parametrize(
    ("result", "records"),
    [
        ("unseen/stitch.json", {"unseen/stitch.json"}),
        ("unseen/segmentation.ome.zarr", {"unseen/stitch.json"}),
        ("unseen/segmentation.ome.zarr/labels/instances/0/zarr.json", {"unseen/stitch.json"}),
        ("unseen/image.ome.zarr", {"unseen/ingest.json"}),
        ("learn/weights.zarr", {"learn/weigh.json"}),
        ("unseen/regions", {"unseen/regions/0.json", "unseen/regions/1.json"}),
        ("model", {"model/model.json"}),
        ("model/weights.safetensors", {"model/model.json"}),
        ("model/history.tsv", {"model/model.json"}),
        ("unseen/confusion.csv", {"unseen/metrics.json"}),
        ("unseen", {f"unseen/{name}" for name in RECORDS}),
        ("learn", {"learn/ingest.json", "learn/weigh.json"}),
    ],
)
def test_a_result_leads_to_the_records_that_vouch_for_it(place: Path, result: str, records: set[str]) -> None:
    found = {path.resolve().relative_to(place.resolve()).as_posix() for path in vouching(place / result)}
    assert found == records


@pytest.mark.parametrize("result", ["report.html", "."])
def test_the_page_and_the_whole_folder_lead_to_all_records(place: Path, result: str) -> None:
    found = {path.resolve().relative_to(place.resolve()).as_posix() for path in vouching(place / result)}
    every = {path.relative_to(place).as_posix() for path in place.rglob("*.json") if path.name != "zarr.json"}
    assert found == ({name for name in every if "/regions/" not in name} if result == "." else {"report.json"})
    assert {one.record.resolve() for one in trace(place / result)} == {(place / name).resolve() for name in every}


def test_a_volume_that_is_not_stitched_yet_has_its_regions(place: Path) -> None:
    (place / "unseen" / "stitch.json").unlink()
    found = vouching(place / "unseen" / "segmentation.ome.zarr")
    assert [path.name for path in found] == ["0.json", "1.json"]


def test_tiffs_beside_a_record_lead_to_it(place: Path) -> None:
    (place / "unseen" / "instances.tif").write_bytes(b"")
    assert [path.name for path in vouching(place / "unseen" / "instances.tif")] == ["stitch.json"]


def test_the_chain_goes_back_to_the_source_files(place: Path) -> None:
    chain = trace(place / "unseen" / "metrics.json")
    steps = [f"{one.verb} {one.name}" for one in chain]
    assert set(steps) == {
        *("evaluate unseen", "stitch unseen", "predict unseen 0", "predict unseen 1", "tile unseen", "ingest unseen"),
        *("train model", "calibrate model", "weigh learn", "weigh val", "ingest learn", "ingest val"),
    }
    assert len(steps) == len(set(steps))
    by = {f"{one.verb} {one.name}": one for one in chain}
    assert by["ingest unseen"].sources == read_json(place / "unseen" / "ingest.json")["fingerprints"]
    assert by["train model"].seed == 0
    assert by["train model"].compute == {"device": "cpu", "threads": 1}
    assert by["predict unseen 1"].compute["precision"] == "float32"
    made = read_json(place / "unseen" / "stitch.json")["made"]
    assert by["stitch unseen"].found["objects"].startswith(made["method"])
    assert f"at least {made['min_area_px']} px" in by["calibrate model"].found["objects"]
    assert by["weigh learn"].found == {"weights": "sigma 3 px, gap 1 px"}
    assert {one.name for one in by["predict unseen 0"].inputs} == {
        "results/unseen/tiles.json",
        "results/model/model.json",
    }
    for one in chain:
        for made_from in one.inputs:
            assert made_from.state == "as recorded"
            assert made_from.path is not None
            assert sha256_file(made_from.path) == made_from.sha256


def test_a_renamed_results_folder_keeps_its_chain(place: Path) -> None:
    before = {f"{one.verb} {one.name}" for one in trace(place / "unseen" / "metrics.json")}
    moved = place.rename("old results of march")
    chain = trace(moved / "unseen" / "metrics.json")
    assert {f"{one.verb} {one.name}" for one in chain} == before
    assert {read.state for one in chain for read in one.inputs} == {"as recorded"}


def test_changed_and_missing_records_are_named_as_such(place: Path) -> None:
    tiles, ingest = place / "unseen" / "tiles.json", place / "unseen" / "ingest.json"
    write_json(tiles, read_json(tiles) | {"tiles": 0})
    ingest.unlink()
    states = {
        (one.verb, read.name): read.state for one in trace(place / "unseen" / "stitch.json") for read in one.inputs
    }
    assert states["stitch", "results/unseen/tiles.json"] == "changed"
    assert states["tile", "results/unseen/ingest.json"] == "missing"
    assert states["stitch", "results/unseen/regions/0.json"] == "as recorded"


def test_people_read_what_all_records_share_once(place: Path) -> None:
    text = describe(trace(place / "unseen" / "metrics.json"))
    assert text.startswith("12 records; the same in all of them:\n")
    assert text.count("numpy ") == 1
    for words in (
        *("results/unseen/metrics.json: evaluate unseen", "my images/unseen.tif, fingerprint ", "seed         0"),
        *("threads 1", "steps 20", "results/unseen/regions/1.json, sha256 ", ", as recorded"),
    ):
        assert words in text
    assert str(Path.cwd()) not in text


def test_the_verb_prints_text_or_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", str(place / "model")]) == 0
    assert "train model" in capsys.readouterr().out
    assert main(["record", "--json", str(place / "model")]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["provenance"] == read_json(place / "model" / "model.json")["training"]["provenance"]
    assert {"unet_pipeline", "commit", "config", "packages", "python", "machine", "command"} <= set(first["provenance"])


def test_a_model_made_elsewhere_says_so(place: Path, tmp_path: Path) -> None:
    from chain import make_model

    assert "elsewhere: the record does not say how" in describe(trace(make_model(tmp_path / "bought")))


@pytest.mark.parametrize("name", ["nothing there", "config.yaml", "my images", "results/logs"])
def test_what_is_no_result_is_refused(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PipelineError, match=name):
        trace(Path(name))
    assert main(["record", name]) == 1
    assert capsys.readouterr().err.startswith(f"error: {name}: expected a record")
