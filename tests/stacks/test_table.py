"""The table of stacks: what is read, and what is refused with the line it is on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from places import ROOT

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import TAKEN
from unet_pipeline.stacks.table import (
    StackRow,
    check_names,
    check_overlap,
    check_roles,
    load_stacks,
    row_schema,
    source_files,
)


def table(folder: Path, *rows: str, header: str = "stack image labels role") -> Path:
    path = folder / "stacks.tsv"
    path.write_text("\n".join("\t".join(row.split(" ")) for row in (header, *rows)) + "\n", encoding="utf-8")
    return path


def refusal(path: Path) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        load_stacks(path)
    return caught.value


def test_rows_keep_their_order_and_empty_cells_take_defaults(tmp_path: Path) -> None:
    rows = load_stacks(table(tmp_path, "b b.tif b_labels.tif train", "a a.tif"))
    assert list(rows.items()) == [
        ("b", StackRow("b", "b.tif", "b_labels.tif", "train")),
        ("a", StackRow("a", "a.tif", "", "predict")),
    ]


def test_comments_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    text = "\ufeff# ours\r\nstack\timage\trole\r\n\r\n# not yet: c\r\n a \t my image.tif \tpredict\t\r\n"
    path = tmp_path / "stacks.tsv"
    path.write_bytes(text.replace("predict\t", "predict").encode())
    assert load_stacks(path) == {"a": StackRow("a", "my image.tif")}


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    assert load_stacks(table(tmp_path, 'a "a".tif'))["a"].image == '"a".tif'


@pytest.mark.parametrize(
    ("row", "column", "nearest"),
    [
        ("a/b a.tif", "stack", "a_b"),
        ("../a a.tif", "stack", "a"),
        ("a..b a.tif", "stack", None),
        (".hidden a.tif", "stack", "hidden"),
        ("ä a.tif", "stack", "stack"),
        ("-- a.tif", "stack", "stack"),
        *[(f"{name} a.tif", "stack", f"{name}_1") for name in TAKEN],
        ("a ", "image", None),
        ("a a.tif  train", "labels", None),
        ("a a.tif  val", "labels", None),
        ("a a.tif  test", "labels", None),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column(tmp_path: Path, row: str, column: str, nearest: str | None) -> None:
    error = refusal(table(tmp_path, "good good.tif", row))
    assert error.where.endswith(f"stacks.tsv line 3, column {column}")
    assert nearest is None or error.nearest == nearest


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "x" * 100])
def test_names_that_make_good_folders_are_taken(tmp_path: Path, name: str) -> None:
    assert list(load_stacks(table(tmp_path, f"{name} a.tif"))) == [name]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("pixel_um", ["0.5", "1e-3"], ["0", "-1", "half", "inf", "nan"]),
        ("step", ["50"], ["0", "x"]),
        ("regions", ["1", "100000"], ["0", "1.5", "-1", "100001", "many"]),
    ],
)
def test_numbers_are_checked(tmp_path: Path, column: str, good: list[str], bad: list[str]) -> None:
    for text in good:
        row = load_stacks(table(tmp_path, f"a a.tif {text}", header=f"stack image {column}"))["a"]
        assert getattr(row, column) == text
    for text in bad:
        error = refusal(table(tmp_path, f"a a.tif {text}", header=f"stack image {column}"))
        assert (error.where.split(", ")[-1], text in error.got) == (f"column {column}", True)


def test_a_duplicate_name_is_refused(tmp_path: Path) -> None:
    error = refusal(table(tmp_path, "a a.tif", "b b.tif", "a c.tif"))
    assert "line 4" in error.where
    assert "'a'" in error.got


def test_an_unknown_column_or_role_names_the_nearest(tmp_path: Path) -> None:
    assert refusal(table(tmp_path, "a a.tif b", header="stack image lables")).nearest == "labels"
    assert refusal(table(tmp_path, "a a.tif b.tif trian")).nearest == "train"


def test_more_cells_than_columns_are_refused(tmp_path: Path) -> None:
    assert "line 2" in refusal(table(tmp_path, "a a.tif b.tif test 3")).where


@pytest.mark.parametrize("text", ["", "# only a remark\n", "stack\timage\n"])
def test_a_table_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "stacks.tsv").write_text(text)
    assert "row" in refusal(tmp_path / "stacks.tsv").expected


def test_an_unreadable_table_is_named(tmp_path: Path) -> None:
    assert "none.tsv" in refusal(tmp_path / "none.tsv").where
    (tmp_path / "latin.tsv").write_bytes("stack\timage\nä\ta.tif\n".encode("latin-1"))
    assert "UTF-8" in refusal(tmp_path / "latin.tsv").expected


def test_without_a_model_there_must_be_a_stack_to_train_on(tmp_path: Path) -> None:
    rows = load_stacks(table(tmp_path, "a a.tif b.tif test"))
    with pytest.raises(PipelineError, match=r"role train.*\n.*model\.folder"):
        check_roles(rows, "stacks.tsv", None)
    check_roles(load_stacks(table(tmp_path, "a a.tif b.tif train")), "stacks.tsv", None)


def test_a_finished_model_must_be_whole_and_have_something_to_do(tmp_path: Path) -> None:
    predict = load_stacks(table(tmp_path, "a a.tif"))
    train = load_stacks(table(tmp_path, "a a.tif b.tif train"))
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(PipelineError, match=r"model\.json"):
        check_roles(predict, "stacks.tsv", str(model))
    (model / "model.json").touch()
    with pytest.raises(PipelineError, match=r"weights\.safetensors"):
        check_roles(predict, "stacks.tsv", str(model))
    (model / "weights.safetensors").touch()
    check_roles(predict, "stacks.tsv", str(model))
    with pytest.raises(PipelineError, match="a stack to predict"):
        check_roles(train, "stacks.tsv", str(model))


def test_what_a_stack_is_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("planes dir/sub")  # noqa: PTH103
    for name in ("planes dir/2.png", "planes dir/1.png", "planes dir/.hidden", "one.tif"):
        Path(name).touch()
    for name in ("v3.zarr/zarr.json", "v2.zarr/.zgroup", "v2.zarr/.zattrs", "v2.zarr/0/.zarray"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("empty").mkdir()
    assert source_files("one.tif") == ["one.tif"]
    assert source_files("planes dir") == ["planes dir/1.png", "planes dir/2.png"]
    assert source_files("planes dir/*.png") == ["planes dir/1.png", "planes dir/2.png"]
    assert source_files(str(tmp_path / "planes dir/1*")) == [str(tmp_path / "planes dir/1.png")]
    assert source_files("v3.zarr") == ["v3.zarr/zarr.json"]
    assert source_files("v2.zarr") == ["v2.zarr/.zattrs", "v2.zarr/.zgroup"]
    assert source_files("v2.zarr/0") == ["v2.zarr/0/.zarray"]
    for absent in ("none.tif", "none/*.tif", "empty"):
        assert source_files(absent) == [absent]


def test_a_list_says_which_files_of_a_folder_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("JPEGImages/1.jpg", "JPEGImages/2.jpg", "JPEGImages/10.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("list.txt").write_text("10\r\n1\r\n")
    assert source_files("JPEGImages", "list.txt") == ["list.txt", "JPEGImages/1.jpg", "JPEGImages/10.jpg"]
    assert source_files("JPEGImages/*.jpg", "list.txt") == source_files("JPEGImages", "list.txt")
    assert source_files("none", "list.txt") == ["list.txt", "none"]
    assert source_files("JPEGImages", "none.txt") == ["none.txt", "JPEGImages"]
    check_names({"a": StackRow("a", "JPEGImages", names="list.txt"), "b": StackRow("b", "x", names="none.txt")})
    Path("list.txt").write_text("1\n1\n")
    with pytest.raises(PipelineError, match=r"list\.txt line 2"):
        check_names({"a": StackRow("a", "JPEGImages", names="list.txt")})


def test_the_default_table_is_good_and_fits_its_schema() -> None:
    rows = load_stacks(ROOT / "stacks.tsv")
    check_roles(rows, "stacks.tsv", None)
    assert {row.role for row in rows.values()} == {"train", "val", "test", "predict"}
    validator = jsonschema.Draft202012Validator(row_schema())
    for row in rows.values():
        validator.validate({name: value for name, value in vars(row).items() if value})
    assert not validator.is_valid({"stack": "a"})
    assert not validator.is_valid({"stack": "a", "image": "a.tif", "lables": "b.tif"})


@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        ({"image": "a.tif"}, {"image": "./x/../a.tif"}, True),
        ({"image": "a.tif"}, {"image": "link.tif"}, True),
        ({"image": "a.tif", "planes": "0-4"}, {"image": "a.tif", "planes": "5,6"}, False),
        ({"image": "a.tif", "planes": "0-5"}, {"image": "a.tif", "planes": "5,6"}, True),
        ({"image": "a.tif"}, {"image": "a.tif", "planes": "5,6"}, True),
        ({"image": "a.tif", "series": "0"}, {"image": "a.tif", "series": "1"}, False),
        ({"image": "f"}, {"image": "f/1.png"}, True),
        ({"image": "f", "names": "one.txt"}, {"image": "f", "names": "two.txt"}, False),
        ({"image": "f", "planes": "0"}, {"image": "f/*.png", "planes": "1"}, False),
        ({"image": "f", "planes": "2"}, {"image": "f/10.png"}, True),
        ({"image": "f", "planes": "1"}, {"image": "f/10.png"}, False),
        ({"image": "a.tif"}, {"image": "b.tif"}, False),
    ],
)
def test_no_picture_trains_and_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, str], test: dict[str, str], shared: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    Path("f").mkdir()
    for name in ("a.tif", "b.tif", "f/2.png", "f/10.png", "f/1.png"):
        Path(name).touch()
    Path("link.tif").symlink_to("a.tif")
    Path("one.txt").write_text("1\n2\n")
    Path("two.txt").write_text("10\n")
    rows = {"a": StackRow("a", labels="l", role="train", **train), "b": StackRow("b", labels="l", role="test", **test)}
    if shared:
        with pytest.raises(PipelineError, match=r"t\.tsv: stack b, role test: .* that a, which trains"):
            check_overlap(rows, "t.tsv")
    else:
        check_overlap(rows, "t.tsv")
    check_overlap({"a": rows["a"], "b": replace(rows["b"], role="predict")}, "t.tsv")


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("stack,image,labels,role\na,a.tif,,predict\n", 1, "commas"),
        ("# ours\nstack;image;role\na;a.tif;predict\n", 2, "semicolons"),
        ("stack image role\na a.tif predict\n", 1, "spaces"),
        ("stack\timage\trole\na\ta.tif\tpredict\n\nb       b.tif   predict\n", 4, "spaces"),
    ],
)
def test_cells_without_tabs_between_are_told(tmp_path: Path, text: str, line: int, cause: str) -> None:
    (tmp_path / "stacks.tsv").write_text(text)
    error = refusal(tmp_path / "stacks.tsv")
    assert (error.where, error.expected) == (f"{tmp_path / 'stacks.tsv'} line {line}", "cells between tabs")
    assert error.got.startswith(f"{cause} instead: {text.splitlines()[line - 1]!r}")
    assert "tab delimited" in error.fix


@pytest.mark.parametrize(
    ("encoding", "line", "cause"), [("utf-16", 1, "UTF-16"), ("utf-16-le", 1, "UTF-16"), ("latin-1", 3, "0xb5")]
)
def test_another_character_set_is_told(tmp_path: Path, encoding: str, line: int, cause: str) -> None:
    (tmp_path / "stacks.tsv").write_bytes("stack\timage\na\ta.tif\nb\tb µm.tif\n".encode(encoding))
    error = refusal(tmp_path / "stacks.tsv")
    assert (error.where, error.expected) == (f"{tmp_path / 'stacks.tsv'} line {line}", "text as UTF-8")
    assert cause in error.got


def test_names_that_snakemake_would_misread_or_print_are_told_by_their_folder(tmp_path: Path) -> None:
    for folder, name in (("a", "{x}.tif"), ("b", "\x1b[2J.tif"), ("c", "plain.tif")):
        (tmp_path / folder).mkdir()
        for file in (name, "other.tif"):
            (tmp_path / folder / file).write_text("")
    a, b, c = (str(tmp_path / folder) for folder in "abc")
    assert source_files(a) == source_files(f"{a}/*.tif") == [a]
    assert source_files(b) == source_files(f"{b}/*.tif") == [b]
    assert source_files(f"{tmp_path}/?/*.tif") == [a, b, c]
    assert source_files(c) == source_files(f"{c}/*.tif") == [f"{c}/other.tif", f"{c}/plain.tif"]


def test_a_path_with_an_escape_sequence_is_refused(tmp_path: Path) -> None:
    error = refusal(table(tmp_path, "a \x1b[2Ja.tif"))
    assert error.where.endswith("line 2, column image")
    assert "\x1b" not in str(error)
