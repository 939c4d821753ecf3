import threading
from dataclasses import dataclass

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.claim import Claim, claim, replacing, sweep
from unet_pipeline.records.files import atomic_path, unclaimed
from unet_pipeline.records.record import read_json
from unet_pipeline.records.run_lock import RUN, lock


@dataclass(frozen=True)
class Note:
    """Stands for a record."""

    by: str


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_job_that_starts_writes_and_the_earlier_one_stops(tmp_path):
    output = tmp_path / "a.json"
    with claim(output) as orphan:
        orphan.write(Note("orphan"))
        with claim(output) as later:
            with pytest.raises(PipelineError, match="no other job"):
                orphan.write(Note("orphan again"))
            later.check()
            later.write(Note("later"))
        with pytest.raises(PipelineError, match="one that has finished"):
            orphan.check()
    assert read_json(output) == {"by": "later"}
    assert names(tmp_path) == ["a.json"]


def test_a_job_of_an_earlier_run_stops_even_if_it_starts_last(tmp_path, monkeypatch):
    """It waited in the queue of a cluster while its Snakemake was killed and another one started."""
    output, path = tmp_path / "results" / "a.json", tmp_path / ".snakemake" / "unet_pipeline.lock"
    former, last = lock(path), lock(path)
    monkeypatch.setenv(RUN, last)
    with claim(output) as rerun:
        monkeypatch.setenv(RUN, former)
        with pytest.raises(PipelineError, match="the run that started this job"), claim(output):
            pass
        monkeypatch.setenv(RUN, last)
        rerun.write(Note("rerun"))
    monkeypatch.setenv(RUN, former)
    with pytest.raises(PipelineError, match="the run that started this job"), claim(output):
        pass
    assert read_json(output) == {"by": "rerun"}
    assert names(output.parent) == ["a.json"]


def test_an_orphan_stops_when_another_run_begins_before_its_successor_does(tmp_path, monkeypatch):
    path = tmp_path / ".snakemake" / "unet_pipeline.lock"
    monkeypatch.setenv(RUN, lock(path))
    with claim(tmp_path / "a.json") as orphan:
        orphan.check()
        lock(path)
        with pytest.raises(PipelineError, match="the run that started this job"):
            orphan.write(Note("orphan"))
    assert not (tmp_path / "a.json").exists()


def test_the_claim_is_looked_at_when_the_slow_work_is_done(tmp_path):
    """A job that is taken over while it writes a file must not give that file its name."""
    place, looked = tmp_path / "a.tif", []

    def check():
        looked.append(names(tmp_path))
        raise PipelineError("a", "no other job", "another")

    place.write_text("of the other job")
    with pytest.raises(PipelineError, match="no other job"), atomic_path(place, check) as partial:
        partial.write_text("late")
    assert [len(found) for found in looked] == [2], "looked once, with the new file written beside the old one"
    assert place.read_text() == "of the other job"
    assert names(tmp_path) == ["a.tif"]


def test_an_orphan_that_ends_leaves_the_claim_of_its_successor(tmp_path):
    first, second = Claim(tmp_path / "a.json"), Claim(tmp_path / "a.json")
    first.take()
    second.take()
    first.release()
    second.check()
    second.release()
    assert names(tmp_path) == []


def test_a_claim_that_is_away_for_a_moment_is_waited_for(tmp_path):
    mine = Claim(tmp_path / "a.json")
    mine.take()
    place = tmp_path / ".a.json.owner"
    away = place.rename(tmp_path / "away")
    threading.Timer(0.1, away.rename, [place]).start()
    mine.check()


def test_claims_without_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr("unet_pipeline.records.claim.os.link", refused)
    first, second = Claim(tmp_path / "a.json"), Claim(tmp_path / "a.json")
    first.take()
    second.take()
    first.release()
    second.check()


def test_outputs_are_claimed_one_by_one(tmp_path):
    with claim(tmp_path / "0.json") as one, claim(tmp_path / "1.json") as other:
        one.check()
        other.check()


@pytest.mark.parametrize("name", ["a.zarr", "odd [1] *.zarr"])
def test_what_a_killed_job_left_is_removed_and_nothing_else(tmp_path, name):
    (tmp_path / f".{name}.123.partial").mkdir()
    (tmp_path / f".{name}.123.partial" / "zarr.json").write_text("half")
    (tmp_path / f".{name}.456.partial").write_text("half")
    (tmp_path / "..a.json.owner.789.partial").write_text("job")
    (tmp_path / name).mkdir()
    (tmp_path / ".other.zarr.123.partial").write_text("of somebody else")
    with claim(tmp_path / "a.json", tmp_path / name):
        pass
    assert names(tmp_path) == sorted([".other.zarr.123.partial", name])
    sweep(tmp_path / "nothing")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    store = tmp_path / "a.zarr"
    for content in ("first", "second"):
        with replacing(store, unclaimed) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
        assert names(store) == [content]
    with pytest.raises(RuntimeError), replacing(store, unclaimed) as partial:
        partial.mkdir()
        raise RuntimeError
    with replacing(store, unclaimed):
        pass
    assert names(store) == ["second"]
    assert names(tmp_path) == ["a.zarr"]


def test_a_job_that_was_taken_over_leaves_the_folder_alone(tmp_path):
    store, output = tmp_path / "a.zarr", tmp_path / "a.json"
    with claim(output) as orphan, pytest.raises(PipelineError), replacing(store, orphan.check) as partial:
        partial.mkdir()
        Claim(output).take()
    assert not store.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PipelineError, match="can be written"), claim(tmp_path / "file" / "a.json"):
        pass
    with pytest.raises(PipelineError, match="can be written"), replacing(tmp_path / "file" / "a", unclaimed):
        pass
