"""Lists of names: which files of a folder are planes, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reading import assert_reads, calm, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.name_list import listed, pick, read_names
from unet_pipeline.images.open import open_planes


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "train.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        read_names(path)
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        "2007_000032\n2007_000039\n",
        "2007_000032\r\n2007_000039\r\n",
        "2007_000032\n\n   \n2007_000039",
        "\ufeff2007_000032\n 2007_000039 \n",
    ],
    ids=["plain", "windows", "blank lines", "byte order mark"],
)
def test_names_in_the_order_of_the_list(tmp_path: Path, content: str) -> None:
    assert read_names(write(tmp_path, content)) == ("2007_000032", "2007_000039")


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        ("", "train.txt", "an empty list"),
        ("\r\n \n", "train.txt", "an empty list"),
        ("a\n\nb\na\n", "train.txt line 4", "'a' a second time (first in line 1)"),
        ("a\n../secret\n", "train.txt line 2", "'../secret'"),
        ("a\n..\\secret\n", "train.txt line 2", "secret"),
        ("/etc/passwd\n", "train.txt line 1", "/etc/passwd"),
        ("a\n..\n", "train.txt line 2", "'..'"),
        ("2007_000032\t-1\n", "train.txt line 1", "2007_000032"),
        ("a\0b\n", "train.txt line 1", "a"),
        (b"\xff\xfea\x00", "train.txt line 1", "UTF-16"),
        (b"a\n\xb5\n", "train.txt line 2", "Latin-1"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, content: bytes | str, where: str, words: str) -> None:
    error = refusal(write(tmp_path, content))
    assert error.where.endswith(where)
    assert words in error.got


def test_a_list_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "none.txt" in refusal(tmp_path / "none.txt").where
    assert "folder" in refusal(tmp_path).got


names = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1)


@calm
@given(st.lists(names.map(str.strip).filter(lambda one: one not in ("", ".", "..")), min_size=1, unique=True))
def test_every_list_of_names_comes_back(tmp_path_factory: pytest.TempPathFactory, wanted: list[str]) -> None:
    text = "\n".join(wanted)
    if "\ufeff" not in text:
        assert read_names(write(tmp_path_factory.mktemp("list"), text)) == tuple(wanted)


def test_a_name_has_one_file() -> None:
    files = [Path("a/1.png"), Path("a/2.png"), Path("a/1.jpg"), Path("a/10.png")]
    assert pick(("10", "2"), files, "list", "a") == [Path("a/10.png"), Path("a/2.png")]
    with pytest.raises(PipelineError, match=r"2 called '1': 1\.png, 1\.jpg"):
        pick(("1",), files, "list", "a")
    with pytest.raises(PipelineError, match="none for 2 of 3 names, the first '11'") as caught:
        pick(("2", "11", "12"), files, "list", "a")
    assert caught.value.nearest in ("1", "10")
    assert listed(("10", "2", "7"), [str(file) for file in files]) == ["a/2.png", "a/10.png"]


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, np.ndarray]:
    pixels = noise((12, 21, 33))
    (tmp_path / "a").mkdir()
    for i, plane in enumerate(pixels):
        Image.fromarray(plane).save(tmp_path / f"a/{i}.png")
    return tmp_path / "a", pixels


@pytest.mark.parametrize("source", ["a", "a/*.png", "**/*.png"])
def test_the_list_says_which_files_in_which_order(folder: tuple[Path, np.ndarray], source: str) -> None:
    place, pixels = folder
    path = write(place.parent, "10\n2\n0\n")
    planes = open_planes(str(place.parent / source), names=str(path))
    assert_reads(planes, pixels[[10, 2, 0], None])
    assert [planes.name(plane) for plane in range(3)] == [str(place / f"{number}.png") for number in (10, 2, 0)]
    chosen = open_planes(str(place.parent / source), names=str(path), planes="1")
    assert_reads(chosen, pixels[[2], None])
    assert chosen.name(0) == str(place / "2.png")


def test_the_fingerprint_is_that_of_the_files_on_the_list(folder: tuple[Path, np.ndarray]) -> None:
    place, _ = folder

    def fingerprint(content: str) -> str:
        return open_planes(str(place), names=str(write(place.parent, content))).fingerprint()

    assert fingerprint("1\n2\n") == fingerprint("1\r\n\r\n2\r\n")
    assert fingerprint("1\n2\n") != fingerprint("2\n1\n")
    assert fingerprint("1\n2\n") != fingerprint("1\n2\n3\n")


def test_a_list_of_one_file_or_store_is_refused(folder: tuple[Path, np.ndarray]) -> None:
    place, _ = folder
    with pytest.raises(PipelineError, match=r"1\.png: expected a folder or glob"):
        open_planes(str(place / "1.png"), names=str(write(place.parent, "1\n")))


def test_names_that_no_file_has(folder: tuple[Path, np.ndarray]) -> None:
    place, _ = folder
    with pytest.raises(PipelineError, match=r"none for 1 of 2 names, the first '1\.png'") as caught:
        open_planes(str(place), names=str(write(place.parent, "1.png\n2\n")))
    assert "without folder and suffix" in caught.value.fix
