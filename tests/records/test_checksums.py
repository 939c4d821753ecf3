import os
import subprocess
from dataclasses import replace

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.checksums import damaged, files_below, parse_list, read_list, write_list
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import list_path


@pytest.fixture
def made(tmp_path):
    """A record's place, its products, and what the record says of them."""
    store = tmp_path / "my store.zarr"
    (store / "c" / "0").mkdir(parents=True)
    for name, content in (("zarr.json", "{}"), ("c/0/1", "one"), ("c/0/0", "zero")):
        (store / name).write_text(content)
    (store / "c" / ".half.123.partial").write_text("half-written")
    (tmp_path / "b.tif").write_text("picture")
    record, products = tmp_path / "a.json", [store, tmp_path / "b.tif"]
    return record, products, write_list(record, products)


def test_sha256sum_reads_the_list(made, tmp_path):
    record, _, files = made
    ran = subprocess.run(["sha256sum", "--check", "a.sha256"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(": OK") == files.files == 4
    assert files.bytes == len("{}" + "one" + "zero" + "picture")
    assert files.sha256 == sha256_file(list_path(record))


def test_nothing_is_damaged_at_first(made):
    record, products, files = made
    assert not list(damaged(read_list(record, files), products))


def test_what_was_changed_lost_or_added_is_named(made, tmp_path):
    record, products, files = made
    store = products[0]
    (store / "c/0/1").write_text("two")
    (store / "zarr.json").unlink()
    (store / "c/0/2").write_text("new")
    found = dict(damaged(read_list(record, files), products))
    assert found == {
        store / "c/0/1": "a file that was changed since",
        store / "zarr.json": "no file",
        store / "c/0/2": "a file that nobody wrote",
    }


def test_known_checksums_are_used(made):
    record, products, files = made
    file = products[0] / "c/0/1"
    assert dict(damaged(read_list(record, files), products, {file: "another"})) == {
        file: "a file that was changed since"
    }
    write_list(record, products, {file: "0" * 64})
    assert parse_list(record)[file] == "0" * 64


@pytest.mark.parametrize("change", ["bit", "lost", "record"])
def test_a_damaged_list_is_named(made, change):
    record, _, files = made
    if change == "bit":
        text = list_path(record).read_text()
        list_path(record).write_text(text.replace("b.tif", "c.tif"))
    elif change == "lost":
        list_path(record).unlink()
    else:
        files = replace(files, sha256="0" * 64)
    with pytest.raises(PipelineError, match=r"a\.sha256[\s\S]*--forcerun .*a\.json"):
        read_list(record, files)


@pytest.mark.parametrize("name", ["/dev/zero", "../a.json", "my store.zarr/../../b"])
def test_a_list_that_names_what_is_not_below_its_folder_is_refused(made, name):
    record, _, files = made
    list_path(record).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(PipelineError, match=r"a\.sha256: expected names of files below its folder"):
        read_list(record, replace(files, sha256=sha256_file(list_path(record))))


def test_nothing_without_an_end_is_read(made, tmp_path):
    """A pipe or a device in place of a file or a list is named, and not waited for."""
    record, products, files = made
    shard = products[0] / "c/0/1"
    shard.unlink()
    os.mkfifo(shard)
    (products[0] / "c/0/2").symlink_to("/dev/zero")
    found = dict(damaged(read_list(record, files), products))
    assert found == {shard: "no file", products[0] / "c/0/2": "a file that nobody wrote"}
    for end in ("/dev/zero", "pipe"):
        list_path(record).unlink()
        os.mkfifo(tmp_path / "pipe") if end == "pipe" else None
        list_path(record).symlink_to(end)
        with pytest.raises(PipelineError, match=r"a\.sha256"):
            read_list(record, files)
        with pytest.raises(PipelineError, match=r"a\.sha256"):
            parse_list(record)


def test_links_are_neither_followed_nor_listed(made, tmp_path):
    record, products, _ = made
    (products[0] / "round").symlink_to(".")
    assert list(files_below(products[0]))[-1] == products[0] / "zarr.json"
    assert sum(file.name == "round" for file in files_below(products[0])) == 1
    with pytest.raises(PipelineError, match=r"round: expected a file that this pipeline wrote, got a symbolic link"):
        write_list(record, products)
