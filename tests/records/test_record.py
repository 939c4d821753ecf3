import json
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from unet_pipeline.config.keys import plain
from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.records import files, provenance, record


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file.json"
    record.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert record.read_json(path) == {"old": 1}
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    record.write_text(path, "old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(PipelineError, match="can be written"):
            record.write_text(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("content", [None, "", "[1]", "{", "\udcff"])
def test_a_spoilt_record_is_named(tmp_path, content):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(PipelineError, match=r"some\.json"):
        record.read_json(path)


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        record.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_digest_does_not_depend_on_order():
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1}) != files.digest({"a": 1, "b": [3]})


def test_provenance_names_what_made_a_product(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        record.write_json(tmp_path / name / "in.json", {"stack": name})
    made = provenance.provenance({"train": {"steps": 1}}, [tmp_path / "a" / "in.json", Path("b/in.json")])
    assert made.config == {"train": {"steps": 1}}
    assert made.inputs == {f"{name}/in.json": files.sha256_file(Path(name, "in.json")) for name in ("a", "b")}
    assert made.packages["numpy"]
    json.dumps(plain(made), allow_nan=False)


def test_the_commit_is_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    for place, known in (("unet_pipeline", True), ("lib/unet_pipeline", False)):
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / place / "records" / "provenance.py"))
        assert (provenance._commit.__wrapped__() != "unknown") is known


def test_a_path_is_told_from_the_working_directory_and_found_again_after_a_move(tmp_path, monkeypatch):
    home, moved = tmp_path / "home", tmp_path / "further away" / "moved"
    image = home / "data" / "image.zarr"
    image.mkdir(parents=True)
    monkeypatch.chdir(home)
    assert provenance.portable_path("data/../data/image.zarr") == provenance.portable_path(image) == "data/image.zarr"
    assert provenance.portable_path(tmp_path / "elsewhere.zarr") == str(tmp_path / "elsewhere.zarr")
    shutil.copytree(home, moved)
    written = moved / "results" / "a" / "ingest.json"
    (written.parent / "data" / "image.zarr").mkdir(parents=True)  # what the step wrote itself is not meant
    found = [path for path in provenance.possible_paths("data/image.zarr", written) if path.exists()]
    assert found[0] == moved / "data" / "image.zarr"


def test_an_error_says_where_what_and_what_to_do():
    error = PipelineError("tile.tile_px", "a multiple of 16", "388 px", 384, "change it")
    assert str(error).splitlines() == [
        "tile.tile_px: expected a multiple of 16, got 388 px",
        "  nearest legal value: 384",
        "  what to do: change it",
    ]
    assert nearest_name("stepps", ["steps", "seed"]) == "steps"
    assert nearest_name("zzz", ["steps"]) is None
