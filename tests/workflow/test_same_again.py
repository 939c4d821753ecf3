"""The same inputs and configuration give the same bytes, wherever and however divided they are run again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from chain import make_model, make_plan, make_stack, run, settings
from real_project import project
from same_tree import NOT_RESULTS, differing, tree, tree_of_any_split
from workspace import Workspace

from unet_pipeline.stacks.weigh import weigh


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same project in another place, run by one core; with an interpreter for each job, its hashes seeded anew."""
    os.environ.pop("PYTHONHASHSEED", None)
    space = project(tmp_path_factory.mktemp("again") / "another, longer place" / "with ünusual letters")
    space.preloaded = False
    ran = space.run("--cores", "1")
    assert ran.code == 0, ran.text
    return space


@pytest.mark.slow
def test_two_clean_runs_give_the_same_bytes(finished_project: Workspace, again: Workspace) -> None:
    first, second = tree(finished_project.folder / "results"), tree(again.folder / "results")
    assert differing(first, second) == []
    kinds = ("model/weights.safetensors", "report.html", "unseen/metrics.json", "unseen/stitch.json")
    assert set(kinds) <= set(first)
    for store in ("image.ome.zarr", "segmentation.ome.zarr"):
        assert any(f"unseen/{store}/0/c/" in name for name in first)


@pytest.mark.slow
def test_no_place_and_no_time_is_in_a_result(again: Workspace) -> None:
    words = [str(again.folder), again.folder.parent.name, "/tmp/"]
    for path in (again.folder / "results").rglob("*"):
        if path.is_file() and path.relative_to(again.folder / "results").parts[0] not in NOT_RESULTS:
            data = path.read_bytes()
            assert not [word for word in words if word.encode() in data], path
            if path.suffix == ".json":
                assert not re.search(rb'"(\w+_)?(seconds?|times?|date|duration|host|user)":', data), path


def test_the_comparison_sees_one_changed_byte_in_any_kind_of_file(done: Workspace) -> None:
    results = done.folder / "results"
    before = tree(results)
    for name in (
        *("model/weights.safetensors", "model/model.json", "model/history.tsv", "report.html"),
        *("learn/ingest.json", "learn/weights.zarr/boundary/c/0/0/0", "unseen/segmentation.ome.zarr/0/zarr.json"),
        *("unseen/regions/0.json", "unseen/stitch.json", "unseen/metrics.json"),
    ):
        whole = (results / name).read_bytes()
        place = len(whole) // 2
        (results / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert differing(before, tree(results)) == [name]
        (results / name).write_bytes(whole)
    assert differing(before, tree(results)) == []


def test_times_are_all_that_is_taken_out_of_the_page(done: Workspace) -> None:
    page = done.folder / "results" / "report.html"
    text, before = page.read_text(encoding="utf-8"), tree(done.folder / "results")
    assert len(re.findall("; jobs took ", text)) == 3
    page.write_text(re.sub(r"jobs took [\d.]+ s", "jobs took 99.9 s", text), encoding="utf-8")
    assert differing(before, tree(done.folder / "results")) == []
    page.write_text(text.replace("in float32; jobs took", "in bfloat16; jobs took", 1), encoding="utf-8")
    assert differing(before, tree(done.folder / "results")) == ["report.html"]


@pytest.mark.slow
def test_batches_regions_and_jobs_change_no_array_and_no_score(done: Workspace) -> None:
    results = done.folder / "results"
    before, plan = tree_of_any_split(results), (results / "unseen" / "tiles.json").read_bytes()
    trained = (results / "model" / "weights.safetensors").stat().st_mtime_ns
    table = (done.folder / "stacks.tsv").read_text()
    (done.folder / "stacks.tsv").write_text(re.sub(r"test\t2", "test\t4", table))
    ran = done.run("results/unseen/metrics.json", predict={"batch": 2})
    assert ran.code == 0, ran.text
    again = {
        "tile unseen",
        *(f"predict unseen {n}" for n in range(4)),
        "stitch unseen",
        "evaluate unseen",
    }
    assert ran.jobs == again | {"calibrate"}, "which predicts as section predict says, too"
    assert (results / "model" / "weights.safetensors").stat().st_mtime_ns == trained
    assert (results / "unseen" / "tiles.json").read_bytes() != plan
    assert differing(before, tree_of_any_split(results)) == []
    assert "unseen/metrics.json" in before
    shards = [name for name in before if "segmentation.ome.zarr" in name and "/c/" in name]
    damaged = results / shards[-1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert differing(before, tree_of_any_split(results)) == [shards[-1]]


@pytest.mark.slow
def test_threads_are_those_of_the_configuration_whatever_the_cores(done: Workspace) -> None:
    shards = {}
    for cores in ("1", "2"):
        (done.folder / "results" / "val" / "regions" / "0.json").unlink()
        target = "results/val/regions/0.json"
        ran = done.run("--cores", cores, target, compute={"threads": 2, "device": "cpu"})
        assert ran.code == 0, ran.text
        facts = json.loads((done.folder / target).read_text())
        assert facts["compute"]["threads"] == 2
        shards[cores] = facts["shards"]
    assert shards["1"] == shards["2"]


@pytest.mark.slow
def test_the_recorded_number_of_threads_is_the_one_torch_uses(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, labelled=False)
    plan, model, before = make_plan(stack, regions=1), make_model(tmp_path / "model"), torch.get_num_threads()
    try:
        for threads in (1, 3):
            run(plan, model, settings(compute={"threads": threads}))
            facts = json.loads((plan.record.parent / "regions" / "0.json").read_text())
            assert facts["compute"]["threads"] == torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bytes_again(tmp_path: Path) -> None:
    from unet_pipeline.train.train import train_model

    config = settings(compute={"device": "cuda"}, train={"steps": 20})
    trees = []
    for name in ("one", "two"):
        stack = make_stack(tmp_path / name)
        weigh(stack, config, stack.record.with_name("weigh.json"))
        weighed = [stack.record.with_name("weigh.json")]
        train_model(weighed, weighed, config, tmp_path / name / "results" / "model")
        run(make_plan(stack, config), tmp_path / name / "results" / "model", config)
        arrays = tree(tmp_path / name / "results")
        trees.append({file: total for file, total in arrays.items() if "zarr" in file or "safetensors" in file})
    assert len(trees[0]) > 10
    assert differing(*trees) == []
