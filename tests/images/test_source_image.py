"""Which way up a file is, and what is said of how it is read."""

import struct

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image, ImageOps
from reading import check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes

UPRIGHT = {1: (), 2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}


def write_tiff(path, pixels, orientation, **options):
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(path, pixels, photometric="minisblack", extratags=[tag], metadata=None, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_pictures_are_read_as_viewers_show_them(tmp_path, orientation, name):
    image = Image.fromarray(noise((24, 40, 3)))
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1)[None]
    planes = check(tmp_path / name, expected)
    assert any("turned upright" in note for note in planes.notes()) == (orientation > 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_tiffs_are_turned_by_their_tag(tmp_path, orientation, options):
    """TIFF 6.0, page 36: where row 0 and column 0 of what is stored belong; Pillow's turns are the oracle."""
    pixels = noise((3, 24, 40))
    write_tiff(tmp_path / "a.tif", pixels, orientation, resolution=(1e4, 2e4), resolutionunit=3, **options)
    expected = []
    for plane in pixels:
        image = Image.fromarray(plane)
        image.getexif()[274] = orientation
        expected.append(np.asarray(ImageOps.exif_transpose(image)))
    planes = check(tmp_path / "a.tif", np.stack(expected)[:, None])
    assert planes.pixel_um == ((0.5, 1.0) if orientation < 5 else (1.0, 0.5))
    assert planes.take([2, 0]).read(0, slice(3, 9), slice(5, 6)).tolist() == expected[2][None, 3:9, 5:6].tolist()


def test_pictures_of_a_folder_are_turned_each_by_itself(tmp_path):
    pixels = noise((24, 40))
    for number, orientation in enumerate((1, 6, 3)):
        write_tiff(tmp_path / f"{number}.tif", pixels, orientation)
    planes = open_planes(str(tmp_path), mixed=True)
    assert [planes.size(plane) for plane in range(3)] == [(24, 40), (40, 24), (24, 40)]
    np.testing.assert_array_equal(planes.read(1, slice(None), slice(None))[0], np.rot90(pixels, -1))
    assert sum("1 of the files: turned upright" in note for note in planes.notes()) == 2


def test_damaged_exif_does_not_hide_the_picture(tmp_path):
    image = Image.fromarray(noise((24, 40)))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with Image.open(tmp_path / "a.jpg") as stored:
        check(tmp_path / "a.jpg", np.asarray(stored)[None, None])


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        (
            (3, 64, 80),
            None,
            ["(cyx) uint8 read as 1 planes (z), 3 channels", "if they are planes, set axes"],
        ),
        ((3, 64, 80), "zyx", ["3 × 64 × 80 (cyx) uint8 read as 3 planes (z), 1 channels", "axes given"]),
        ((64, 80, 5), None, ["64 planes (z), 1 channels, 80 × 5 px, which the file does not say", "set axes: yxc"]),
        ((5, 64, 80), None, ["5 planes (z), 1 channels, 64 × 80 px, which the file does not say"]),
    ],
)
def test_how_an_array_is_read_is_said(tmp_path, shape, axes, words):
    """What tifffile.imwrite makes of an array without a word."""
    with pytest.warns(DeprecationWarning) if shape[0] == 3 else _nothing():
        tifffile.imwrite(tmp_path / "a.tif", noise(shape))
    told = "\n".join(open_planes(str(tmp_path / "a.tif"), axes).notes())
    for word in words:
        assert word in told


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize(
    ("options", "unit"),
    [
        ({"resolution": (28.346, 28.346), "resolutionunit": 3}, None),
        ({"resolution": (72, 72), "resolutionunit": 2}, None),
        ({"resolution": (118.11, 118.11), "resolutionunit": 3}, None),
        *(({"resolution": (72, 72), "imagej": True}, unit) for unit in ("inch", "in")),
        *(({"resolution": (28.346, 28.346), "imagej": True}, unit) for unit in ("cm", "centimeter")),
        ({"resolution": (2.8346, 2.8346), "imagej": True}, "mm"),
    ],
)
def test_a_print_resolution_is_no_pixel_size(tmp_path, options, unit):
    metadata = {"metadata": {"unit": unit}} if unit else {"metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", noise((21, 33)), **options, **metadata)
    planes = open_planes(str(tmp_path / "a.tif"))
    assert planes.pixel_um is None
    assert sum("resolution of a print" in note for note in planes.notes()) == 1


def test_an_ome_pixel_of_72_dpi_is_one_of_a_print(tmp_path):
    for size, unit, expected in (
        (352.778, "µm", None),
        (0.0353, "cm", None),
        (350.0, "µm", (350, 350)),
        (1, "mm", (1e3, 1e3)),
    ):
        data = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
        data |= {"PhysicalSizeY": size, "PhysicalSizeYUnit": unit}
        tifffile.imwrite(tmp_path / "a.ome.tif", noise((21, 33)), metadata=data)
        assert open_planes(str(tmp_path / "a.ome.tif")).pixel_um == (expected and pytest.approx(expected))


def stk(pixels):
    """Return a MetaMorph stack: one directory, the planes behind each other, UIC1 and UIC2 tags."""
    planes, height, width = pixels.shape
    uic = struct.pack("<4I", 0, 1, 1, 255)
    uic += np.tile(np.array([1, 1, 2452000, 0, 2452000, 0], "<u4"), planes).tobytes()
    tags = {256: (3, 1, width), 257: (3, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    start = 8 + 2 + 12 * 11 + 4
    tags |= {278: (3, 1, height), 279: (4, 1, height * width), 273: (4, 1, start + len(uic))}
    tags |= {33628: (4, 2, start), 33629: (5, planes, start + 16)}
    entries = b"".join(struct.pack("<HHII", code, *tags[code]) for code in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + uic + pixels.tobytes()


def test_a_metamorph_stack_has_all_its_planes(tmp_path):
    pixels = noise((4, 30, 50))
    (tmp_path / "a.tif").write_bytes(stk(pixels))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
    check(tmp_path / "a.tif", pixels[:, None])
    (tmp_path / "a.tif").write_bytes(stk(pixels)[:-1])
    with pytest.raises(PipelineError, match="truncated"):
        open_planes(str(tmp_path / "a.tif"))


def test_missing_chunks_are_counted(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 40, 40), dtype="u2", chunks=(1, 16, 16), fill_value=9)
    array[:] = 5
    assert len(open_planes(str(tmp_path / "a.zarr")).notes()) == 1
    (tmp_path / "a.zarr/c/1/0/2").unlink()
    (tmp_path / "a.zarr/c/0/1/1").unlink()
    told = open_planes(str(tmp_path / "a.zarr")).notes()[1]
    assert "2 of 18 chunks are not in the store and read as the fill value 9" in told
