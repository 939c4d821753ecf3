"""The comparison on real data: splits that hold, equal budgets, runs that Snakemake does once, a table that is true."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from scipy import ndimage
from workspace import snakemake

sys.path.append(str(ROOT / "benchmarks"))  # as Python does for a script; last, so that nothing is hidden

from comparison import datasets, learn, table
from comparison.clock import Clock
from comparison.peer import run_peer
from comparison.planes import Found, planes_of, read_planes
from comparison.results import parameters, scores_of
from comparison.runs import Options, Run, runs_of
from comparison.scoring import choose, metrics_of, objects_of
from comparison.splits import SPLITS, make_splits, planes_text, read_splits, write_splits
from comparison.variants import PRESETS, Budget, Variant, steps_for

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.object_settings import settled
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.images.plane_numbers import parse_planes
from unet_pipeline.predict.stack_plan import StackPlan

COMPARISON = ROOT / "benchmarks" / "comparison"
DEFAULTS = yaml.safe_load((COMPARISON / "config.yaml").read_text(encoding="utf-8"))
FULL = yaml.safe_load((COMPARISON / "full.yaml").read_text(encoding="utf-8"))

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


def test_more_folds_than_planes_are_refused():
    with pytest.raises(PipelineError, match=r"2 to 5 folds of its 5 labelled planes, .* got 6"):
        make_splits("few", 5, "independent", 6)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_planes_are_written_as_tables_read_them(planes):
    assert set(parse_planes("here", planes_text(sorted(planes)), 61)) == planes


@pytest.mark.parametrize("name", datasets.DATA_SETS)
def test_the_fixed_splits_are_those_the_seed_makes(name, tmp_path):
    path = SPLITS / f"{name}.tsv"
    planes = 1 + max(int(number) for number in re.findall(r"\d+", path.read_text().split(name, 1)[1].replace(name, "")))
    write_splits(name, make_splits(name, planes, datasets.DATA_SETS[name].order), tmp_path)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_split_that_tests_what_it_trains_is_refused(tmp_path):
    (tmp_path / "x.tsv").write_text("data\tfold\ttrain\tval\ttest\nx\t0\t0-3\t4\t3,5\n")
    with pytest.raises(PipelineError, match="each plane once"):
        read_splits("x", 6, tmp_path)


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    """Options for a comparison on six drawn planes, which take the place of a data set of that name."""
    image, labels = draw(6, (64, 72), 5)
    where = datasets.DATA_SETS["dsb2018_256"]
    (tmp_path / where.images).parent.mkdir()
    tifffile.imwrite(tmp_path / where.images, image, photometric="minisblack")
    tifffile.imwrite(tmp_path / where.labels, labels, photometric="minisblack")
    write_splits("dsb2018_256", make_splits("dsb2018_256", 6, "independent", 2), tmp_path)

    def values(**more: Any) -> dict[str, Any]:
        where = {"root": str(tmp_path), "splits": str(tmp_path)}
        what = {"data": "dsb2018_256", "presets": "default", "peers": "", "folds": "0", "ablate": ""}
        return {**DEFAULTS, **where, **what, "width": 2, "tile_px": 32, "planes": 2, **more}

    return values


def names_of(values: dict[str, Any]) -> list[str]:
    return [one.name for one in runs_of(Options.read(values))]


def test_every_fold_variant_and_budget_is_a_run(drawn):
    found = names_of(drawn(folds="0 1", presets="default paper", minutes="1 6 30"))
    assert len(found) == len(set(found)) == 2 * 2 * 3
    assert found[0] == "dsb2018_256, fold 0, default, 1 min"
    assert all("fold 0" in name for name in found[:6]), "an interrupted comparison compares"
    assert names_of(drawn(steps=7)) == ["dsb2018_256, fold 0, default, 7 steps"]


def test_ablations_leave_out_what_they_say(drawn):
    found = {one.variant.name: one.config() | {"stacks": ""} for one in runs_of(Options.read(drawn(ablate="default")))}
    whole = found.pop("default")
    changed = {
        name: {(part, key) for part in whole if config[part] != whole[part] for key in whole[part]
               if config[part][key] != whole[part][key]}
        for name, config in found.items()
    }  # fmt: skip
    assert changed == {
        "default, no weight map": {("weigh", "w0")},
        "default, no gap": {("weigh", "gap_px")},
        "default, no elastic": {("augment", "elastic_std_px")},
    }
    assert names_of(drawn(ablate="default", ablate_on="isbi2012_em")) == names_of(drawn())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"presets": "tgss"}, "nearest legal value: tgs"),
        ({"data": "dsb2018_257"}, "nearest legal value: dsb2018_256"),
        ({"peers": "monay"}, "nearest legal value: monai"),
        ({"folds": "7"}, "folds that .* has"),
        ({"minutes": "many"}, "comparison: minutes"),
        ({"widht": 3}, "nearest legal value: width"),
    ],
)
def test_a_mistake_is_one_clear_message(drawn, more, message):
    with pytest.raises(PipelineError, match=message):
        names_of(drawn(**more))


@pytest.mark.parametrize("preset", FULL["presets"])
def test_every_row_fits_every_data_set_and_sees_the_same_pixels(preset, tmp_path):
    tifffile.imwrite(tmp_path / "drawn.tif", np.zeros((6, 64, 72), np.uint8), photometric="minisblack")
    for data in (replace(one, images="drawn.tif") for one in datasets.DATA_SETS.values()):
        split = make_splits(data.name, 6, data.order, 2)[0]
        config = Run(data, split, Variant(preset, preset), Budget(), tmp_path).config()
        assert config["ingest"]["sizes"] == "same" and not config["model"]["resize_output"]
        assert config["train"]["hold_out"] == 0.0 and config["model"]["encoder_weights"] is None


def test_the_configurations_name_what_there_is():
    small, full = (Options.read(values).budgets[0] for values in (DEFAULTS, {**DEFAULTS, **FULL}))
    assert (small.seconds, small.clock) == (360, time.process_time), "equal budgets are of the process's CPU time"
    assert full.clock is time.perf_counter
    assert {*FULL["presets"]} <= {"default", *(path.stem for path in PRESETS.glob("*.yaml"))}


def test_seconds_buy_steps_and_pixels_buy_steps():
    config = {"train": {"batch": 4, "tile_px": 96}}
    assert steps_for(config, Budget(30.0), 0.25) == 120
    assert steps_for(config, Budget(None, 20, tile_px=192), None) == 20
    assert steps_for(config, Budget(30.0), 1000.0) == 1


@pytest.mark.parametrize("step_seconds", [0.001, 0.05, 2.0])
def test_other_work_hardly_changes_the_measured_pace(step_seconds):
    rng = np.random.default_rng(0)

    def busy(steps):
        return 0.8 + steps * step_seconds + (rng.exponential(3) if rng.random() < 0.4 else 0.0)

    assert learn.pace(busy) == pytest.approx(step_seconds, rel=0.3)
    assert learn.pace(lambda steps: 1.0) == 0.5, "a step that takes no time at all still gives a number"


def test_a_peer_stops_and_slows_by_its_clock():
    clock = Clock(Budget(None, 10, tile_px=8), step_px=2 * 8**2)
    rates = []
    while clock.share < 1:
        rates.append(clock.rate)
        clock.begin()
        clock.end()
    assert (clock.steps, clock.seen_px) == (5, 640)
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[0] < 0.02 and clock.rate < 1e-6
    timed = Clock(Budget(0.05), step_px=1)
    timed.begin()
    sum(math.sqrt(number) for number in range(2_000_000))  # CPU time, which waiting would not use
    timed.end()
    assert timed.share >= 1


@pytest.mark.slow
def test_a_peer_is_calibrated_and_scored_as_we_are(tmp_path):
    stack = make_stack(tmp_path, labels=None)
    config = settings(stitch={"method": "components", "min_area_px": 20, "grow_px": 2}, evaluate={"isbi": True})
    plan = make_plan(stack, config)
    stitched = run(plan, make_model(tmp_path / "model"), config)
    ours = asdict(evaluate(stitched, config, stitched.with_name("metrics.json")))
    planes, height, width = stack.grid.shape
    stored = StackPlan.open(plan.record).probabilities()
    probabilities = [stored.read(plane, slice(0, height), slice(0, width)) for plane in range(planes)]
    settled_on = settled(config.stitch)
    found = [Found(objects_of(one, settled_on), one[0]) for one in probabilities]
    truth = planes_of(stack.record)
    assert scores_of(metrics_of(found, truth, config)) == scores_of(ours)
    assert ours["instances"]["seg"] is not None
    chosen = choose(probabilities, truth, settings(calibrate={"score": "seg"}))
    better = [Found(objects_of(one, chosen.settings), None) for one in probabilities]
    assert metrics_of(better, truth, settings())["instances"]["seg"] == pytest.approx(chosen.score)
    assert chosen.score >= ours["instances"]["seg"] > 0


class Bright:
    """A peer that takes what is bright, and has nothing to learn."""

    parameters = 0
    step_px = 64

    def __init__(self, config, seed, learn):
        self.seed, self.learned, self.level = seed, learn, 1.0

    def train(self, learn, check, clock):
        while clock.share < 1:
            clock.begin()
            clock.end()

    def choose(self, check):
        self.level = 0.5
        return f"brighter than {self.level}"

    def objects(self, plane):
        return Found(ndimage.label(plane.image > self.level)[0].astype(np.uint32), None)


def test_a_peer_sees_the_planes_of_the_run_and_no_more(drawn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "comparison.peer_monai", SimpleNamespace(make=Bright))
    monkeypatch.setattr(Options, "installed", property(lambda options: list(options.peers)))
    monkeypatch.chdir(tmp_path)
    ours, theirs = runs_of(Options.read(drawn(peers="monai", steps=3)))
    theirs.write_table()
    table = Path(theirs.folder, "stacks.tsv")
    assert (ours.planes(), theirs.about()["peer"]) == (theirs.planes(), "monai")
    planes = read_planes(table, from_dict(theirs.config()))
    truth = tifffile.imread(tmp_path / theirs.data.labels)
    for role, part in theirs.planes().items():
        wanted = parse_planes("here", part, 6)
        assert len(planes[role]) == len(wanted)
        assert all((one.instances == truth[number]).all() for one, number in zip(planes[role], wanted, strict=True))
    found = run_peer(theirs.about(), table)
    assert (found["steps"], found["seen_px"], found["objects"]) == (48, 3 * 32**2, "brighter than 0.5")
    assert found["scores"]["seg"] > 0.3


def test_running_statistics_are_no_parameters(tmp_path):
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    save_file(layers.state_dict(), tmp_path / "weights.safetensors", {"about": "two layers"})
    assert parameters(tmp_path / "weights.safetensors") == sum(part.numel() for part in layers.parameters())


def test_spread():
    assert table.spread([None]) == "–"
    assert table.spread([0.5, None]) == "0.500"
    assert table.spread([0.4, 0.6, 0.5]) == "0.500 ± 0.100"


@pytest.mark.slow
def test_the_comparison_is_a_workflow_of_modules(drawn, tmp_path):
    """Two budgets, from images to the table; a third costs its own jobs; a finished run takes no room."""
    (tmp_path / "mine").mkdir()

    def ran(*more: str, **values: Any) -> Any:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(drawn(**values)))
        where = ["--snakefile", str(COMPARISON / "Snakefile"), "--configfile", str(tmp_path / "mine.yaml")]
        return snakemake(*where, "--directory", str(tmp_path / "mine"), "--cores", "2", "--nolock", *more, cwd=tmp_path)

    first = ran(minutes="0.01")
    assert first.code == 0, first.text
    found = json.loads((tmp_path / "mine/dsb2018_256/fold0/default/0.01_min/run.json").read_text())
    assert found["seen_px"] == found["steps"] * 2 * 32**2
    assert 0 < found["seconds"] < 60
    assert found["objects"].split(",")[0].split()[0] in ("components", "watershed", "distance")
    assert not list((tmp_path / "mine").rglob("*.zarr"))
    lines = (tmp_path / "mine" / "compare.md").read_text().splitlines()
    assert "## dsb2018_256, 0.01 min" in lines
    assert [f"| 1 | {found['objects']} |" in line for line in lines if line.startswith("| default")] == [True]
    again = ran("--dry-run", minutes="0.01")
    assert "Nothing to be done" in again.text
    more = ran("--dry-run", minutes="0.01 0.02").jobs
    assert {job.split()[0] for job in more if "0_02" in job} >= {
        f"dsb2018_256_fold0_default_0_02_min__{step}" for step in ("ingest", "calibrate", "predict", "evaluate")
    }
    assert not [job for job in more if "0_01" in job], "what is done is not done again"
    assert [job.split()[0] for job in more].count("learn") == 1
