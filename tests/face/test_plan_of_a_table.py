"""Plan: what lies in a table, which settings suit it, what a run takes; what it advises is legal and enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from chain import draw, make_model, settings

from unet_pipeline.__main__ import main
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.network_section import Model
from unet_pipeline.config.sections import Weigh
from unet_pipeline.errors import PipelineError
from unet_pipeline.face.cost import Cost, measure_cost, stored_bytes
from unet_pipeline.face.plan import plan
from unet_pipeline.model.card import Architecture, architecture, geometry
from unet_pipeline.model.networks.unet import UNet
from unet_pipeline.stacks.graph import Graph


def table(folder: Path, planes: int = 6, labels: np.ndarray | None = None, *rows: str) -> Graph:
    """A table with a stack that trains, one to predict, and others."""
    image, ids = draw(planes, (96, 96))
    tifffile.imwrite(folder / "a.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "a_.tif", ids if labels is None else labels, photometric="minisblack")
    tifffile.imwrite(folder / "b.tif", image[:2], photometric="minisblack")
    lines = [
        "stack\timage\tlabels\trole",
        f"a\t{folder}/a.tif\t{folder}/a_.tif\ttrain",
        f"b\t{folder}/b.tif\t\tpredict",
    ]
    (folder / "stacks.tsv").write_text("\n".join([*lines, *rows]) + "\n")
    return Graph.read(
        {
            "compute": {"threads": 1, "device": "cpu"},
            "model": {"base_channels": 4},
            "tile": {"tile_px": 32},
            "train": {"tile_px": 32, "batch": 2},
        },
        lambda _: str(folder / "stacks.tsv"),
        True,
    )


def test_a_plan_settles_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Architecture] = []
    monkeypatch.setattr(
        "unet_pipeline.face.plan.measure_cost", lambda network, _: timed.append(network) or Cost(0.5, 1.0, "here")
    )
    graph = table(tmp_path)
    config = graph.config
    model, train = replace(config.model, depth="auto"), replace(config.train, tile_px="auto", batch="auto")
    text = plan(replace(graph, config=replace(config, model=model, train=train)))
    assert "model.depth comes to 3: nine of ten objects are up to" in text
    assert "train.tile_px comes to 96: 26 % of the 188 x 188 px that a tile reads are learned from" in text
    assert "train.batch comes to 6: 55,296 px to learn from in a step, which keeps about 0.08 GB" in text
    assert "the configuration suits these objects" in text
    assert timed[0].depth == 3


def test_a_table_is_told_with_what_it_takes(tmp_path: Path) -> None:
    graph = table(tmp_path)
    text = plan(graph)
    assert "a                train         6          96 x 96        1 uint8" in text
    assert "b                predict       2          96 x 96        1 uint8" in text
    assert "in 6 planes" in text
    assert "chosen by 15 % of the 6 planes of the stacks that train, which the network does not learn from" in text
    assert "so section weigh comes to sigma 3 px and gap_px 1 px, for each stack by its own objects" in text
    assert "the configuration suits these objects" in text
    text = plan(replace(graph, config=replace(graph.config, weigh=Weigh(sigma=20.0))))
    assert "weigh.sigma: auto    # now 20.0: it is 3 px here" in text
    snippet = text.split("for Snakemake's --configfile:\n")[1].split("\n\n")[0]
    assert yaml.safe_load("\n".join(line.strip() for line in snippet.splitlines()))["weigh"]["sigma"] == "auto"
    assert "train    " in text and "(750 steps)" in text
    assert "(0.0184 Mpx in 1 stacks)" in text


@pytest.mark.parametrize(
    ("keys", "device", "named"), [({}, "cpu", True), ({}, "cuda", False), ({"padded": True}, "cpu", False)]
)
def test_a_cpu_is_told_of_its_preset(
    keys: dict[str, bool], device: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_pipeline.face.plan.measure_cost", lambda *_: Cost(0.5, 1.0, "here", device))
    graph = table(tmp_path)
    text = plan(replace(graph, config=replace(graph.config, model=Model(**keys))))
    assert ("presets/fast.yaml" in text) == named


def test_a_finished_model_wants_no_stack_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of one that is scored are told, advice on a training is not, and what is open stays so."""
    monkeypatch.setattr("unet_pipeline.face.plan.measure_cost", lambda *_: Cost(0.5, 1.0, "here"))
    graph = table(tmp_path)
    val = replace(graph.stacks["a"], role="val")
    model = Model(folder=str(make_model(tmp_path / "model")), depth="auto")
    config = replace(graph.config, model=model, train=replace(graph.config.train, hold_out=0.0))
    text = plan(replace(graph, config=config, stacks={"a": val, "b": graph.stacks["b"]}))
    assert "objects: " in text and "predict  " in text
    assert not [word for word in ("model.depth", "train.", "train    ", "suit") if word in text]


def test_a_step_of_a_padded_network_reads_no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    keys = {
        "model": {"depth": 2, "base_channels": 2, "padded": True},
        "train": {"tile_px": 32},
        "tile": {"tile_px": 64},
    }
    config = from_dict({**keys, "compute": {"device": "cpu", "threads": 1}})

    def seen(_: object, given: tuple[torch.Tensor, ...]) -> None:
        shapes.append(tuple(given[0].shape[2:]))

    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: seen(module, given) if isinstance(module, UNet) else None
    ):
        measure_cost(architecture(config.model, 1, 2), config)
    read_px = geometry(architecture(config.model, 1, 2)).read_px(64)
    assert set(shapes) == {(32, 32), (read_px, read_px)}


def test_more_folds_than_planes_are_refused_before_anything_runs(tmp_path: Path) -> None:
    graph = table(tmp_path)
    config = replace(graph.config, train=replace(graph.config.train, folds=20))
    with pytest.raises(PipelineError, match=r"train\.folds: expected at most 6"):
        plan(replace(graph, config=config))


@pytest.mark.slow
def test_a_run_of_folds_costs_as_many_trainings(tmp_path: Path) -> None:
    assert "750 steps, 2 networks" in plan(table(tmp_path, planes=2))


def test_minutes_become_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unet_pipeline.face.plan.measure_cost", lambda *_: Cost(0.5, 1.0, "2 CPU threads"))
    text = plan(table(tmp_path), minutes=10)
    assert "train.steps: 960    # now 750: what 10 minutes buy at 0.5 s a step" in text
    assert "train    8 min (960 steps)" in text
    assert "train.steps" not in plan(table(tmp_path))
    assert "train.steps: 480" in plan(table(tmp_path, planes=2), minutes=10), "two networks"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 0])
def test_labels_with_one_object_or_none(tmp_path: Path, count: int) -> None:
    labels = np.zeros((6, 96, 96), np.uint16)
    labels[3, 20:50, 30:60] = count
    if count:
        text = plan(table(tmp_path, labels=labels))
        assert "1 in 6 planes" in text and "5 of the 6 planes looked at have no object" in text
    else:
        with pytest.raises(
            PipelineError, match=r"a_\.tif: expected labelled objects, got none in the 6 planes looked at"
        ):
            plan(table(tmp_path, labels=labels))


@pytest.mark.slow
def test_class_labels_are_measured_by_their_pieces(tmp_path: Path) -> None:
    graph = table(tmp_path, labels=(draw(6, (96, 96))[1] > 0).astype(np.uint8))
    labels = from_dict({"labels": {"kind": "classes", "values": {0: "background", 1: "cell"}}}).labels
    text = plan(replace(graph, config=replace(graph.config, labels=labels)))
    assert "weigh.sigma" not in text, "classes have no boundary weights"


@pytest.mark.slow
def test_the_verb_prints_it_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert (
        main(["plan", str(tmp_path / "stacks.tsv"), "--config", '{"model": {"base_channels": 2}}', "--threads", "1"])
        == 0
    )
    assert "the configuration suits these objects" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before
    assert main(["plan", str(tmp_path / "none.tsv")]) == 1


def test_it_takes_the_configuration_that_lies_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_pipeline.face.plan.measure_cost", lambda *_: Cost(0.5, 1.0, "2 CPU threads"))
    table(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "stacks.tsv"]) == 0
    assert "the defaults, as no config.yaml is here" in capsys.readouterr().out
    Path("config.yaml").write_text("train: {steps: 77}\nweigh: {sigma: 20.0}\n")
    assert main(["plan", "stacks.tsv"]) == 0
    text = capsys.readouterr().out
    assert "configuration: config.yaml" in text and "(77 steps)" in text and "now 20.0" in text
    Path("other.yaml").write_text("train: {steps: 88}\n")
    assert main(["plan", "stacks.tsv", "--configfile", "other.yaml"]) == 0
    assert "(88 steps)" in capsys.readouterr().out


def test_labels_that_ingest_refuses_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((6, 96, 96), np.uint8)
    mask[:, 10:30, 10:30] = mask[:, 50:70, 10:30] = mask[:, 50:70, 60:80] = 255
    with pytest.raises(PipelineError, match="expected instances, each with its own value, got a mask"):
        plan(table(tmp_path, labels=mask))


def test_a_plan_of_volumes_is_for_the_network_that_training_will_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Architecture] = []
    monkeypatch.setattr(
        "unet_pipeline.face.plan.measure_cost", lambda network, _: timed.append(network) or Cost(0.5, 1.0, "a CPU")
    )
    graph = table(tmp_path)
    deep = replace(graph.config, model=replace(graph.config.model, dimensions=3))
    known = {name: replace(row, axes="zyx", pixel_um="0.2", step="0.4") for name, row in graph.stacks.items()}
    text = plan(Graph(deep, known))
    assert "model.z_levels comes to 3 of 4: voxels are 2 times as long along z as across (a)" in text
    assert timed[0].z_levels == 3
    with pytest.raises(PipelineError, match="fill in column step"):
        plan(Graph(deep, known | {"a": replace(known["a"], step="")}))
    with pytest.raises(PipelineError, match=r"stack b: expected planes along z with model\.dimensions: 3"):
        plan(Graph(deep, known | {"b": replace(known["b"], axes="tyx")}))


def test_bytes_are_those_of_the_stores() -> None:
    config = settings()
    assert stored_bytes(1000, 1, 1, config, False, False) == pytest.approx(4 / 3 * 1000)
    assert stored_bytes(1000, 3, 2, config, True, True) == pytest.approx(
        4 / 3 * 1000 * (6 + 5) + 5000 + 4 / 3 * 1000 * 7
    )
