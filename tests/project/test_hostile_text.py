"""Forged configurations, tables, models and names: one clear error, and no meaning to a shell, a path or Python."""

from __future__ import annotations

import json
import os
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from forged import SMALL
from fuzz.seeds import PIXELS
from fuzz.worker import _peak, _reset_peak, _resident
from hypothesis import example, given, settings
from hypothesis import strategies as st
from workspace import Workspace, fake_checkout

from unet_pipeline.__main__ import main
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.files import load
from unet_pipeline.errors import LONGEST, PipelineError, printable
from unet_pipeline.images.plane_numbers import parse_planes
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.stacks.table import load_stacks

DIRECTIONS = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
"""Bidirectional classes of the marks that turn the direction of writing."""
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*{'m' + str(i - 1) if i else 'a'}, *a]}}\n" for i in range(40))
DEEP = "[" * 100_000
CONFIGS = {
    "billion laughs": LAUGHS,
    "merged": MERGES,
    "deep": f"labels: {DEEP}",
    "python": "!!python/object/apply:os.mknod [pwned]",
    "name": "labels: !!python/name:os.system",
    "date": "stacks: 2024-99-99",
    "digits": "train: {steps: " + "9" * 5000 + "}",
    "huge": "train: {learning_rate: 1" + "0" * 400 + "}",
    "binary": "stacks: !!binary '???'",
    "list": "- 1",
    "text": "x",
    "surrogate": 'labels: {classes: ["\\ud800", b]}',
    "not a number": "train: {learning_rate: .nan}",
    "bytes": "\0",
    "infinite key": "labels: {kind: classes, classes: [a, b], values: {.inf: a, 1: b}}",
    "twice": "? [a]\n: b",
    "long": "x" * (2**20 + 1),
    "circle": "labels: &a {classes: [*a]}",
    "aliases": "labels: &a {kind: &k [*k, *k]}",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_hostile_yaml(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIGS[kind])
    held = _resident()
    _reset_peak()
    with pytest.raises(PipelineError) as caught:
        load("config.yaml")
    assert _peak() - held < SMALL
    assert len(str(caught.value)) < 3 * LONGEST
    assert not Path("pwned").exists()


def test_aliases_that_mean_little_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("labels: {classes: &names [background, cell]}\ntrain: {<<: {steps: 7}}\n")
    assert load(str(tmp_path / "config.yaml")).train.steps == 7


@pytest.mark.parametrize(
    "text", ['{"labels":' + DEEP, '{"train": {"steps": ' + "9" * 5000 + "}}", '{"a": "\\ud800"}', "{"]
)
def test_hostile_json(text):
    with pytest.raises(PipelineError):
        load(text)


@pytest.mark.parametrize("source", ["nul\0.yaml", "x" * 5000, "/dev/zero", "pipe", "."])
def test_configurations_and_tables_that_are_no_files(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for reader in (load, load_stacks):
        with pytest.raises(PipelineError):
            reader(source)


def test_a_value_nested_without_end_has_a_short_message():
    value: object = "x"
    for _ in range(60):
        value = [value] * 9
    with pytest.raises(PipelineError) as caught:
        from_dict({"labels": {"classes": value}})
    assert len(str(caught.value)) < 3 * LONGEST


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3), max_leaves=6
)
sections = st.sampled_from(["labels", "store", "train", "model", "normalise", "weigh", "stacks", "compute"])
keys = st.sampled_from(
    ["kind", "classes", "values", "ignore", "chunk_px", "shard_px", "steps", "folder", "depth", "low"]
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(sections, st.dictionaries(keys | plain, values, max_size=3) | values, max_size=3))
def test_any_value_is_a_configuration_or_refused(value):
    try:
        json.dumps(from_dict(value).section("labels", "train"))
    except PipelineError as error:
        assert len(str(error)) < 4 * LONGEST


NAMES = [
    "../x",
    "/etc/x",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a b",
    "$(touch pwned)",
    "`id`",
    "a;b",
    "a|b",
    "-rf",
    "'",
    '"',
    "*",
    "{stack}",
    "~",
    "é",
    "ａ",
    "a\u202e",
    "a\0b",
    "a\x0bb",
    "x" * 101,
    "model",
    "logs",
    "report.html",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_with_a_meaning_are_refused(tmp_path, name):
    (tmp_path / "stacks.tsv").write_text(f"stack\timage\n{name}\ta.tif\n", encoding="utf-8")
    with pytest.raises(PipelineError):
        load_stacks(tmp_path / "stacks.tsv")


def test_braces_are_refused(tmp_path):
    (tmp_path / "stacks.tsv").write_text("stack\timage\na\t{stack}.tif\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="column image: expected a path without"):
        load_stacks(tmp_path / "stacks.tsv")


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=12), st.text(max_size=20), st.text(max_size=12))
@example("a", "x" * 200_000, "")
@example("a", "\0", "9" * 5000)
@example("a", '"', "١")
def test_any_table_is_read_or_refused(tmp_path_factory, name, image, regions):
    folder = tmp_path_factory.getbasetemp()
    text = f"stack\timage\tregions\tseries\n{name}\t{image}\t{regions}\t{regions}\n"
    (folder / "any.tsv").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        stacks = load_stacks(folder / "any.tsv")
    except PipelineError:
        return
    for stack, row in stacks.items():
        assert shlex.quote(stack) == stack
        assert (folder / "results" / stack).resolve().parent == (folder / "results").resolve()
        assert 1 <= int(row.regions or 1) <= 100_000


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789-, ;x", max_size=12), st.integers(1, 10**6))
@example("9" * 5000, 5)
@example("0-" + "9" * 5000, 5)
def test_any_choice_of_planes_is_read_or_refused(text, count):
    try:
        chosen = parse_planes("a", text, count)
    except PipelineError:
        return
    assert len(chosen) <= count


FILES = [
    "a $(touch pwned).tif",
    "`touch pwned`.tif",
    "a;touch pwned;.tif",
    "quote'\".tif",
    "-rf.tif",
    "--help.tif",
    "{stack}.tif",
    "é ✓ ａ.tif",
    "a&b|c>d.tif",
    "%s %d.tif",
    "new\nline.tif",
    "~a.tif",
    "$HOME.tif",
    "#a.tif",
    "\\n.tif",
    "a=b.tif",
]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_name_is_ingested(tmp_path, monkeypatch, name, capfd):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS, metadata={"axes": "ZYX"})
    (tmp_path / "plain.tif").rename(tmp_path / name)
    assert main(["ingest", "--stack", "a", f"--image={name}", "--output", "results/a/ingest.json"]) == 0
    assert read_json(Path("results/a/ingest.json"))["grid"]["planes"] == 3
    assert {path.name for path in tmp_path.iterdir()} == {name, "results"}
    assert np.asarray(PIXELS).any()


@given(st.text() | st.text(alphabet="\x1b[]2J\x07\r\n\t\x9b\u202e\udcff"))
def test_what_is_printed_drives_no_terminal(text):
    shown = printable(text)
    assert all(letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp") for letter in shown)
    assert not any(unicodedata.bidirectional(letter) in DIRECTIONS for letter in shown)
    shown.encode()  # no half of a character is left
    assert printable(shown) == shown
    assert str(PipelineError(text, "a", text, text, text)) == printable(str(PipelineError(text, "a", text, text, text)))


def test_escape_sequences_of_names_and_records_are_shown_not_obeyed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    name = "a\x1b]0;pwned\x07\x1b[2J.tif"
    tifffile.imwrite(tmp_path / "plain.tif", PIXELS, metadata={"axes": "ZYX"})
    (tmp_path / "plain.tif").rename(tmp_path / name)
    assert main(["ingest", "--stack", "a", f"--image={name}", "--output", "results/a/ingest.json"]) == 0
    facts = read_json(Path("results/a/ingest.json"))
    write_json(Path("results/a/ingest.json"), facts | {"provenance": facts["provenance"] | {"commit": "\x1b[31mx"}})
    assert main(["record", "results/a"]) == 0
    assert main(["differs", "results/a"]) == 1
    (tmp_path / name).write_bytes(b"no TIFF")
    assert main(["ingest", "--stack", "b", f"--image={name}", "--output", "results/b/ingest.json"]) == 1
    said = "".join(capfd.readouterr())
    assert "\\x1b]0;pwned\\x07" in said
    assert "\\x1b[31mx" in said
    assert "\x1b" not in said


def test_snakemake_passes_file_names_on_as_they_are(tmp_path):
    """The real rules with stages that write down the words they got."""
    names = [name for name in FILES if "\n" not in name and "{" not in name]
    space = Workspace(tmp_path / "my $(touch pwned) project", fake_checkout(tmp_path / "check out"))
    for name in names:
        (space.folder / name).write_text(name)
    folder = space.folder / "folder"
    folder.mkdir()
    (folder / "{stack}.tif").write_text("x")
    names.append("folder")
    rows = [f"s{number}\t{name}\tpredict" for number, name in enumerate(names)]
    (space.folder / "stacks.tsv").write_text("\n".join(["stack\timage\trole", *rows]) + "\n", encoding="utf-8")
    model = space.folder / "model 'of' $(touch pwned)"
    model.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (model / name).write_text("x")
    ran = space.run("--until", "ingest", model={"folder": model.name})
    assert ran.code == 0, ran.text[-3000:]
    for number, name in enumerate(names):
        words = json.loads((space.folder / f"results/s{number}/ingest.json").read_text())[1]
        assert f"--image={name}" in words
    assert not list(tmp_path.rglob("pwned"))
