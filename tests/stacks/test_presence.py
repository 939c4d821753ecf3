"""Paths of the table where nothing lies: found before the graph, with line, column and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chain import make_stack
from places import ROOT

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import DEMO
from unet_pipeline.stacks.graph import Graph
from unet_pipeline.stacks.presence import check_present
from unet_pipeline.stacks.table import load_stacks

HEADER = "# ours\nstack\trole\timage\tlabels\tnames\n"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with some images in it."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "my images/Cells_01.tif",
        "my images/cells.zarr/zarr.json",
        "planes/1.png",
        "planes/2.png",
        "train.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n2\n")
    return tmp_path


def refusal(*rows: str) -> PipelineError:
    lines = ["\t".join(cell.strip() for cell in row.split("|")) for row in rows]
    Path("stacks.tsv").write_text(HEADER + "\n".join(lines) + "\n")
    with pytest.raises(PipelineError) as caught:
        check_present(load_stacks("stacks.tsv").values(), "stacks.tsv")
    return caught.value


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("my images/cells_01.tif", "my images/Cells_01.tif"),
        ("my images/Cells_01.tiff", "my images/Cells_01.tif"),
        ("my image/Cells_01.tif", "my images/Cells_01.tif"),
        ("My Images/other.tif", "my images"),
        ("my images/cells.zar", "my images/cells.zarr"),
        ("plane/*.png", "planes"),
        ("planes/*.tif", None),
        ("zzz", None),
    ],
)
def test_the_nearest_name_that_is_there_is_given(images: Path, written: str, nearest: str | None) -> None:
    error = refusal(f"a | predict | {written} | | ")
    assert error.where == "stacks.tsv line 3, column image"
    assert error.got == f"{written!r}: nothing lies at {images / written}"
    assert str(images) in error.fix
    assert error.nearest == (None if nearest is None else Path(nearest))


def test_column_and_line_are_those_of_the_first_and_the_others_are_counted(images: Path) -> None:
    rows = (
        "a | predict | planes | | train.txt",
        "",
        "b | test | planes | gone | ",
        "c | predict | planes | | gone.txt",
    )
    error = refusal(*rows)
    assert (error.where, "; so is 1 more" in error.got) == ("stacks.tsv line 5, column labels", True)


def test_a_space_for_a_tab_is_told(images: Path) -> None:
    assert "put a tab" in refusal("a | train | planes/1.png planes/2.png | planes | ").fix


def test_a_link_to_nothing_is_told(images: Path) -> None:
    (images / "a.tif").symlink_to("nowhere.tif")
    error = refusal("a | predict | a.tif | | ")
    assert "'a.tif': a link to nowhere.tif, which is not there" in error.got


def test_what_is_there_or_made_by_a_rule_is_taken(images: Path) -> None:
    sources = [
        "my images/Cells_01.tif",
        "my images/cells.zarr",
        "planes",
        "planes/*.png",
        str(images / "planes"),
        *DEMO,
    ]
    sources += ["./demo/new.tif", "results/b/classes.tif"]
    Path("stacks.tsv").write_text(HEADER + "".join(f"s{n}\tpredict\t{one}\n" for n, one in enumerate(sources)))
    check_present(load_stacks("stacks.tsv").values(), "stacks.tsv")


def test_the_demo_is_what_its_rule_makes() -> None:
    text = (ROOT / "workflow" / "rules" / "demo.smk").read_text(encoding="utf-8")
    assert set(re.findall(r'"(demo/[^"]+)"', text)) == set(DEMO)


def test_what_was_ingested_from_these_paths_may_be_gone(images: Path) -> None:
    """Archived images stop nothing; but a path that was changed since, to one where nothing lies, does."""
    make_stack(Path())
    Path("image.tif").unlink()
    Path("labels.tif").unlink()
    row = "cells\tpredict\timage.tif\tlabels.tif\n"
    Path("stacks.tsv").write_text(HEADER + row)
    check_present(load_stacks("stacks.tsv").values(), "stacks.tsv")
    assert refusal("cells | predict | image_2.tif | labels.tif | ").where.endswith("column image")


@pytest.mark.parametrize(
    "row",
    [
        "b\ttest\tb.tif\tresults/b/instances.tif",
        "c\ttrain\tc.tif\t./results/b/instances.tif",
        "c\tval\tc.tif\tresults/b/segmentation.ome.zarr/labels/instances",
        "c\tval\tc.tif\tHERE/results/b/classes.tif",
    ],
)
def test_labels_that_the_next_stitch_would_write_over_are_refused(images: Path, row: str) -> None:
    row = row.replace("HERE", str(images))
    Path("stacks.tsv").write_text(HEADER + f"a\ttrain\ta.tif\tal.tif\n{row}\n")
    with pytest.raises(PipelineError) as caught:
        Graph.read({}, str)
    error = caught.value
    assert error.where == "stacks.tsv line 4, column labels"
    assert error.expected == "labels that this workflow does not write itself"
    assert f"copy it elsewhere, such as to corrected/{row[0]}" in error.fix


def test_results_of_another_stack_may_be_compared_with(images: Path) -> None:
    rows = "a\ttrain\ta.tif\tal.tif\nb\ttest\tb.tif\tresults/c/instances.tif\nc\tpredict\tb.tif\n"
    Path("stacks.tsv").write_text(HEADER + rows)
    assert Graph.read({}, str).scored == ["b"]


def test_only_stacks_that_are_used_must_be_there(images: Path) -> None:
    (images / "model").mkdir()
    for name in ("model.json", "weights.safetensors"):
        (images / "model" / name).write_text("")
    Path("stacks.tsv").write_text(HEADER + "a\ttrain\tgone.tif\tgone.tif\nb\tpredict\tplanes\n")
    Graph.read({"model": {"folder": "model"}}, str, present=True)
    with pytest.raises(PipelineError, match=r"stacks.tsv line 3, column image"):
        Graph.read({}, str, present=True)
    Graph.read({}, str)
