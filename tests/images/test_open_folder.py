"""Folders and patterns of files as the planes of one stack."""

import pytest
import tifffile
from PIL import Image
from reading import check, noise, write_planes

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


def test_folders_count_as_people_do(tmp_path):
    pixels = noise((12, 21, 33))
    write_planes(tmp_path / "a folder", pixels)
    (tmp_path / "a folder/.DS_Store").write_bytes(b"")
    (tmp_path / "a folder/._img3.png").write_bytes(b"")
    (tmp_path / "a folder/notes.txt").write_text("not an image")
    (tmp_path / "a folder/deeper.png").mkdir()
    planes = check(tmp_path / "a folder", pixels[:, None])
    assert [file.name for file in planes.files] == [f"img{i}.png" for i in range(12)]
    assert planes.plane_axis == "z"


@pytest.mark.parametrize("axes", ["tyx", "yx", "zyx"])
def test_axes_of_a_folder(tmp_path, axes):
    pixels = noise((3, 21, 33))
    write_planes(tmp_path / "a", pixels)
    assert check(tmp_path / "a", pixels[:, None], axes).plane_axis == ("t" if axes == "tyx" else "z")


def test_colours_in_a_folder(tmp_path):
    pixels = noise((3, 21, 33, 3))
    write_planes(tmp_path / "a", pixels)
    check(tmp_path / "a", pixels.transpose(0, 3, 1, 2))
    check(tmp_path / "a", pixels.transpose(0, 3, 1, 2), "tyxc")


@pytest.mark.parametrize("pattern", ["*.png", "img*.png", "img[0-9]*.png", "img?.png"])
def test_globs(tmp_path, monkeypatch, pattern):
    pixels = noise((12, 21, 33))
    write_planes(tmp_path / "a", pixels)
    write_planes(tmp_path / "a", noise((2, 5, 5)), "mask{}.tif")
    expected = pixels[:10] if "?" in pattern else pixels
    check(tmp_path / "a" / pattern, expected[:, None])
    monkeypatch.chdir(tmp_path)
    check(f"a/{pattern}", expected[:, None])
    check(f"../{tmp_path.name}/a/{pattern}", expected[:, None])


def test_globs_over_folders(tmp_path):
    pixels = noise((4, 21, 33))
    for day in (0, 1):
        write_planes(tmp_path / f"day{day}", pixels[2 * day : 2 * day + 2])
    check(tmp_path / "day*" / "*.png", pixels[:, None])
    check(tmp_path / "**" / "*.png", pixels[:, None])


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    tifffile.imwrite(tmp_path / "cells [1].tif", noise((21, 33)))
    check(tmp_path / "cells [1].tif", noise((21, 33))[None, None])


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".ome.tif", ".btf", ".tf8"])
def test_folder_of_tiffs_each_read_lazily(tmp_path, suffix):
    pixels = noise((3, 64, 80), "f4")
    (tmp_path / "a").mkdir()
    for i, plane in enumerate(pixels):
        tifffile.imwrite(
            tmp_path / f"a/z{i}{suffix}",
            plane,
            tile=(16, 16),
            compression="zlib",
            resolution=(2e4, 2e4),
            resolutionunit=3,
        )
    planes = check(tmp_path / "a", pixels[:, None])
    assert planes.block_px == (16, 16)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (noise((21, 34)), ["img2.png", "1 channels of 21 × 33 uint8 as img0.png", "21 × 34"]),
        (noise((21, 33), "u2"), ["img2.png", "uint16"]),
        (noise((21, 33, 3)), ["img2.png", "3 channels"]),
    ],
)
def test_files_of_a_folder_are_alike(tmp_path, odd, words):
    write_planes(tmp_path / "a", noise((4, 21, 33)))
    Image.fromarray(odd).save(tmp_path / "a/img2.png")
    with pytest.raises(PipelineError) as caught:
        open_planes(str(tmp_path / "a"))
    for word in words:
        assert word in str(caught.value)


def test_files_of_a_folder_are_of_one_kind(tmp_path):
    write_planes(tmp_path / "a", noise((2, 21, 33)))
    tifffile.imwrite(tmp_path / "a/mask.tif", noise((21, 33)))
    with pytest.raises(
        PipelineError, match=r"a: expected images of one kind, got PNG \(img0\.png\) and TIFF \(mask\.tif\)(.|\n)*glob"
    ):
        open_planes(str(tmp_path / "a"))
    check(tmp_path / "a/*.png", noise((2, 21, 33))[:, None])


def test_files_of_a_folder_hold_one_plane(tmp_path):
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a/z0.tif", noise((5, 21, 33)))
    with pytest.raises(PipelineError, match=r"z0\.tif.*one plane.*got 5 planes"):
        open_planes(str(tmp_path / "a"))
