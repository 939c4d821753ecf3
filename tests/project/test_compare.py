"""The comparison of presets: splits that hold, runs that are not done twice, a table that is true."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
import torch
import yaml
from chain import draw, make_model, make_plan, make_stack, run, settings
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from safetensors.torch import save_file

sys.path.append(str(ROOT / "benchmarks"))  # as Python does for a script; last, so that nothing is hidden

import compare
from comparison import datasets, pipeline, variants
from comparison.datasets import CELLS, DATA_SETS, DataSet
from comparison.scoring import metrics_of
from comparison.splits import make_splits, planes_text, read_splits, write_splits
from comparison.table import spread

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.images.readers.axes import parse_planes
from unet_pipeline.model.card import Architecture
from unet_pipeline.model.models import build
from unet_pipeline.predict.stack_plan import StackPlan

PRESET = {
    "model": {"depth": 2, "base_channels": 6},
    "train": {"tile_px": 32, "validate_tiles": 1},
    "weigh": {"gap_px": 1, "w0": 10.0},
}
CELLS_DATA = DataSet("drawn", "drawn.tif", "drawn_.tif", "zyx", "sequence", {"labels": CELLS})

orders = st.sampled_from(["sequence", "independent"])


@given(st.integers(7, 120), st.integers(2, 3), orders, st.integers(0, 5))
def test_folds_are_disjoint_and_complete_and_seeded(planes, folds, order, seed):
    splits = make_splits("some", planes, order, folds, seed)
    assert splits == make_splits("some", planes, order, folds, seed)
    assert sorted(plane for split in splits for plane in split.test) == list(range(planes))
    for split in splits:
        assert sorted(split.train + split.val + split.test) == list(range(planes))
        assert min(map(len, (split.train, split.val, split.test))) > 0
        if order == "sequence":
            assert not {plane + side for plane in split.test for side in (-1, 1)} & set(split.train)


def test_another_seed_and_another_name_divide_otherwise():
    one = make_splits("a", 50, "independent")
    assert one != make_splits("b", 50, "independent")
    assert one != make_splits("a", 50, "independent", seed=1)


def test_more_folds_than_planes_are_refused():
    with pytest.raises(PipelineError, match=r"2 to 5 folds of its 5 labelled planes, .* got 6"):
        make_splits("few", 5, "independent", 6)
    with pytest.raises(PipelineError):
        make_splits("few", 3, "independent", 3)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_planes_are_written_as_tables_read_them(planes):
    assert set(parse_planes("here", planes_text(sorted(planes)), 61)) == planes


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_fixed_splits_are_those_the_seed_makes(name, tmp_path):
    path = compare.SPLITS / f"{name}.tsv"
    planes = 1 + max(int(number) for number in re.findall(r"\d+", path.read_text().split(name, 1)[1].replace(name, "")))
    write_splits(name, make_splits(name, planes, DATA_SETS[name].order), tmp_path)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_split_that_tests_what_it_trains_is_refused(tmp_path):
    (tmp_path / "x.tsv").write_text("data\tfold\ttrain\tval\ttest\nx\t0\t0-3\t4\t3,5\n")
    with pytest.raises(PipelineError, match="each plane once"):
        read_splits("x", 6, tmp_path)
    with pytest.raises(PipelineError):
        read_splits("x", 5, tmp_path)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Options for a comparison of the preset `tiny` on six drawn planes in two folds."""
    image, labels = draw(6, (64, 72), 5)
    tifffile.imwrite(tmp_path / "drawn.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "drawn_.tif", labels, photometric="minisblack")
    monkeypatch.setattr(datasets, "DATA_SETS", {"drawn": CELLS_DATA})
    monkeypatch.setattr(variants, "PRESETS", tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(PRESET))
    write_splits("drawn", make_splits("drawn", 6, "sequence", 2), tmp_path)

    def options(*more):
        where = ["--root", tmp_path, "--splits", tmp_path, "--work", tmp_path / "work", "--table", tmp_path / "t.md"]
        what = ["--data", "drawn", "--presets", "tiny", "--steps", "1", "--width", "4", "--planes", "2", "--peers"]
        given = compare.parser().parse_args(list(map(str, [*where, *what, "--workers", "1", *more])))
        given.shown = ["as", "tested"]
        return given

    return options


def parameters_of(width):
    """Learned numbers of the paper's network of depth 2, one channel in, two classes out."""
    return sum(part.numel() for part in build(Architecture("unet", 2, width, 1, 2, 0.5)).parameters())


def records(given):
    """The time at which each run was finished, by its folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in given.work.rglob(pipeline.RUN)}


def test_a_comparison_gives_a_table_and_goes_on_where_it_stopped(drawn, capsys):
    given = drawn("--folds", "0")
    table = compare.compare(given).read_text()
    rows = [line for line in table.splitlines() if line.startswith("| tiny")]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "tiny", "tiny, no weight map", "tiny, no gap", "tiny, no elastic",
    ]  # fmt: skip
    assert all(row.endswith("| 1 |") for row in rows)
    assert "failed" not in table
    before = records(given)
    assert len(before) == 4
    assert not list(given.work.rglob("*.zarr")), "stores of finished runs take no room"
    (given.work / "drawn" / "fold0" / "tiny" / pipeline.RUN).unlink()
    capsys.readouterr()
    assert compare.compare(given).read_text().splitlines()[4:] != []
    assert "1 of 4 runs to do" in capsys.readouterr().err
    after = records(given)
    assert {name for name in before if before[name] != after[name]} == {"tiny"}
    compare.compare(drawn("--folds", "0", "1", "--ablate", ""))
    assert "1 of 2 runs to do" in capsys.readouterr().err
    compare.compare(drawn("--folds", "0", "--ablate", "", "--steps", "2"))
    assert "1 of 1 runs to do" in capsys.readouterr().err


def test_the_same_steps_give_the_same_scores(drawn, tmp_path):
    given = drawn("--folds", "0", "--ablate", "")
    (job,) = compare.jobs(given, variants.variants(["tiny"], "", []))
    first, again = pipeline.run(job), pipeline.run(job)
    assert first["scores"] == again["scores"]
    assert first["parameters"] == again["parameters"] == parameters_of(4)
    assert (first["steps"], first["seen_px"], first["test_px"]) == (36, 36 * 32**2, 2 * 64 * 72)


def test_seconds_buy_steps_measured_once(drawn):
    given = drawn("--folds", "0", "--ablate", "")
    given.steps, given.minutes = None, 0.02
    (job,) = compare.jobs(given, variants.variants(["tiny"], "", []))
    record = pipeline.run(job)
    (pace,) = (given.work / "pace").glob("*.json")
    step_seconds = pipeline.read_json(pace)["step_seconds"]
    assert record["steps"] == round(1.2 / step_seconds)
    stamp = pace.stat().st_mtime_ns
    assert pipeline.run(job)["steps"] == record["steps"]
    assert pace.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("step_seconds", [0.001, 0.05, 2.0])
def test_other_work_hardly_changes_the_measured_pace(step_seconds):
    rng = np.random.default_rng(0)

    def busy(steps):
        return 0.8 + steps * step_seconds + (rng.exponential(3) if rng.random() < 0.4 else 0.0)

    assert pipeline._pace(busy) == pytest.approx(step_seconds, rel=0.3)
    assert pipeline._pace(lambda steps: 1.0) == 0.5, "a step that takes no time at all still gives a number"


def test_one_failed_run_is_told_and_the_others_go_on(drawn, monkeypatch):
    given, train = drawn("--folds", "0"), pipeline._train

    def fail(job, *rest):
        if "gap" in job.variant.name:
            raise RuntimeError("no memory")
        train(job, *rest)

    monkeypatch.setattr(pipeline, "_train", fail)
    table = compare.compare(given).read_text()
    assert "- tiny, no gap failed: RuntimeError: no memory" in table
    assert len(re.findall(r"^\| tiny", table, re.MULTILINE)) == 3
    monkeypatch.setattr(pipeline, "_train", train)
    assert "failed" not in compare.compare(given).read_text()


def test_a_verb_that_refuses_says_why_in_the_record(drawn, tmp_path):
    given = drawn("--folds", "0", "--ablate", "")
    tifffile.imwrite(tmp_path / "drawn_.tif", np.zeros((6, 64, 72), np.float32))
    (job,) = compare.jobs(given, variants.variants(["tiny"], "", []))
    record = pipeline.run(job)
    assert record["state"] == "failed"
    assert "ingest: error:" in record["error"]
    assert pipeline.finished(job) is None


def test_a_training_that_was_interrupted_goes_on_and_counts_no_seconds(drawn, monkeypatch):
    given, predict = drawn("--folds", "0", "--ablate", ""), pipeline._predict
    (job,) = compare.jobs(given, variants.variants(["tiny"], "", []))
    whole = pipeline.run(job)

    def stop(*rest):
        raise KeyboardInterrupt

    (job.folder / pipeline.RUN).unlink()
    monkeypatch.setattr(pipeline, "_predict", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(job)
    assert not (job.folder / pipeline.RUN).exists()
    monkeypatch.setattr(pipeline, "_predict", predict)
    resumed = pipeline.run(job)
    assert resumed["seconds"]["train"] is None
    assert resumed["scores"] == whole["scores"]


def test_a_signal_ends_the_comparison_and_is_no_failed_run(drawn, monkeypatch):
    given = drawn("--folds", "0")

    def killed(arguments):
        print("error: train: expected 72 steps, got SIGTERM after step 24", file=sys.stderr)
        return 1

    monkeypatch.setattr(pipeline, "main", killed)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(given)
    assert not records(given)


def test_ablations_leave_out_what_they_say(drawn, tmp_path):
    rows = variants.variants(["tiny"], "tiny", [])
    found = {job.variant.name: job.config() for job in compare.jobs(drawn("--folds", "0"), rows)}
    whole = found.pop("tiny")
    changed = {
        name: {(part, key) for part in whole for key in whole[part] if config[part] != whole[part]
               and config[part][key] != whole[part][key]}
        for name, config in found.items() if name != "tiny"
    }  # fmt: skip
    assert changed == {
        "tiny, no weight map": {("weigh", "w0")},
        "tiny, no gap": {("weigh", "gap_px"), ("stitch", "grow_px")},
        "tiny, no elastic": {("augment", "elastic_std_px")},
    }
    assert [job.variant.name for job in compare.jobs(drawn("--folds", "0", "--ablate-on"), rows)] == ["tiny"]
    none = {**PRESET, "weigh": {"gap_px": 0}, "stitch": {"grow_px": 0}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(none))
    names = [job.variant.name for job in compare.jobs(drawn("--folds", "0"), rows)]
    assert names == ["tiny", "tiny, no weight map", "tiny, no elastic"], "what is off already is no ablation"


def test_unknown_names_are_answered_by_the_nearest(drawn):
    with pytest.raises(PipelineError, match="nearest legal value: tiny"):
        compare.compare(drawn("--presets", "tinny"))
    with pytest.raises(PipelineError, match="nearest legal value: drawn"):
        compare.compare(drawn("--data", "drawm"))
    with pytest.raises(PipelineError, match="--folds"):
        compare.compare(drawn("--folds", "7"))


def test_a_peer_is_scored_as_we_are(tmp_path):
    stack = make_stack(tmp_path, labels=None)
    config = settings(stitch={"min_area_px": 20, "grow_px": 2}, evaluate={"isbi": True})
    plan = make_plan(stack, config)
    stitched = run(plan, make_model(tmp_path / "model"), config)
    ours = asdict(evaluate(stitched, config, stitched.with_name("metrics.json")))
    planes, height, width = stack.grid.shape
    stored = StackPlan.open(plan.record).probabilities()
    probabilities = np.stack([stored.read(plane, slice(0, height), slice(0, width)) for plane in range(planes)])
    assert pipeline.scores_of(metrics_of(probabilities, stack, config)) == pipeline.scores_of(ours)
    assert ours["instances"]["seg"] is not None


def test_running_statistics_are_no_parameters(tmp_path):
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    save_file(layers.state_dict(), tmp_path / "weights.safetensors", {"about": "two layers"})
    assert pipeline.parameters(tmp_path / "weights.safetensors") == sum(part.numel() for part in layers.parameters())


def test_spread():
    assert spread([None]) == "–"
    assert spread([0.5, None]) == "0.500"
    assert spread([0.4, 0.6, 0.5]) == "0.500 ± 0.100"


@pytest.mark.parametrize("preset", [*compare.ROWS, *compare.LARGE])
def test_every_row_fits_every_data_set_and_sees_the_same_pixels(preset, tmp_path):
    tifffile.imwrite(tmp_path / "drawn.tif", np.zeros((6, 64, 72), np.uint8), photometric="minisblack")
    for data in (replace(one, images="drawn.tif") for one in datasets.DATA_SETS.values()):
        split = make_splits(data.name, 6, data.order, 2)[0]
        job = pipeline.Job(data, split, variants.Variant(preset, preset), variants.Budget(), tmp_path, tmp_path)
        config = job.config()
        assert config["ingest"]["sizes"] == "same" and not config["model"]["resize_output"]
        assert config["train"]["hold_out"] == 0.0 and config["model"]["encoder_weights"] is None
