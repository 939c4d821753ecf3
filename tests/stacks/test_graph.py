"""The graph of the workflow: which stacks take which steps, and what rules are told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.graph import Graph

TABLE = (
    "stack\timage\tlabels\trole\tregions\tpixel_um\tplanes",
    "a\ta.tif\tal.tif\ttrain\t\t\t0-3",
    "b\tb.tif\tbl.tif\tval\t\t\t",
    "c\tc.tif\tcl.tif\ttest\t3\t0.5\t",
    "d\td.tif\t\tpredict\t\t\t",
)


def graph(folder: Path, **values: Any) -> Graph:
    (folder / "stacks.tsv").write_text("\n".join(TABLE) + "\n", encoding="utf-8")
    return Graph.read(values, lambda name: str(folder / name))


def test_roles_say_what_is_learned_predicted_and_scored(tmp_path: Path) -> None:
    found = graph(tmp_path)
    assert (found.learned, found.predicted, found.scored) == (["a", "b"], ["b", "c", "d"], ["b", "c"])
    assert list(found.folds) == []
    assert found.shown_stacks == ["results/a/ingest.json", *(f"results/{name}/stitch.json" for name in "bcd")]
    assert found.shown_files == [*(f"results/{name}/weigh.json" for name in "ab"),
                                 *(f"results/{name}/measure.json" for name in "bcd"),
                                 *(f"results/{name}/metrics.json" for name in "bc")]  # fmt: skip


def test_in_a_cross_validation_what_trains_is_predicted_out_of_fold(tmp_path: Path) -> None:
    found = graph(tmp_path, train={"folds": 3})
    assert list(found.folds) == [0, 1, 2]
    assert found.predicted == ["a", "b", "c", "d"]
    assert found.scored == ["a", "b", "c"]
    assert [found.out_of_fold_options(name) for name in "ab"] == [["--out-of-fold"], []]


def test_objects_are_calibrated_by_what_validates_or_may_be_held_out(tmp_path: Path) -> None:
    assert graph(tmp_path).calibrated == ["b"]
    assert graph(tmp_path, train={"hold_out": 0.1}).calibrated == ["a", "b"]
    assert graph(tmp_path, stitch={"method": "distance"}).calibrated == []
    alone = [row for row in TABLE if "\tval\t" not in row]
    (tmp_path / "alone.tsv").write_text("\n".join(alone) + "\n", encoding="utf-8")

    def of(**train: Any) -> list[str]:
        return Graph.read({"train": train}, lambda _: str(tmp_path / "alone.tsv")).calibrated

    assert of() == of(hold_out=0.1) == of(folds=2) == ["a"]
    assert of(hold_out=0.0) == []


def test_with_a_finished_model_nothing_is_learned(tmp_path: Path) -> None:
    for name in ("model.json", "weights.safetensors"):
        (tmp_path / name).write_text("")
    found = graph(tmp_path, model={"folder": str(tmp_path)}, train={"folds": 3})
    assert (found.learned, list(found.folds), found.predicted) == ([], [], ["b", "c", "d"])


def test_what_the_row_says_goes_before_the_configuration(tmp_path: Path) -> None:
    found = graph(tmp_path, tile={"regions": 2}, stitch={"tiff": True}, watch={"samples": True})
    assert [found.region_count(name) for name in "bc"] == [2, 3]
    assert found.region_records("d") == ["results/d/regions/0.json", "results/d/regions/1.json"]
    assert found.source_options("a") == ["--image=a.tif", "--labels=al.tif", "--planes=0-3"]
    assert found.source_options("c") == ["--image=c.tif", "--labels=cl.tif", "--pixel-um=0.5"]
    assert found.label_tiffs == ["results/{stack}/classes.tif", "results/{stack}/instances.tif"]
    assert (found.watched, graph(tmp_path).watched) == ("samples", "none")
    assert graph(tmp_path).label_tiffs == []


def test_a_file_that_is_image_and_labels_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("2.tif", "1.tif"):
        (tmp_path / "folder" / name).write_text("")
    rows = "stack\timage\tlabels\trole\ne\tfolder\tfolder/1.tif\ttrain\n"
    (tmp_path / "other.tsv").write_text(rows, encoding="utf-8")
    assert Graph.read({"stacks": "other.tsv"}, str).sources("e") == ["folder/1.tif", "folder/2.tif"]


def test_configuration_and_table_are_held_against_each_other(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"model\.folder: expected a folder with model.json"):
        graph(tmp_path, model={"folder": str(tmp_path / "none")})
    with pytest.raises(PipelineError, match="a readable table"):
        Graph.read({"stacks": str(tmp_path / "none.tsv")}, str)
