"""Forged files end in one clear error, in little memory, and never lead elsewhere; real large ones still open."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from forged import SMALL, refused
from fuzz.seeds import PIXELS
from fuzz.worker import _peak, _reset_peak, _resident
from reading import noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.readers.tiff_files import check_metadata

pytestmark = pytest.mark.slow


def page(tags: dict[int, tuple[int, int, int]], body: bytes = b"", big: bool = False) -> bytes:
    """Return a TIFF of one page: tags as {code: (type, count, value)}; `body` follows at offset 1000."""
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    count, entry, link = ("<Q", "<HHQQ", "<Q") if big else ("<H", "<HHII", "<I")
    entries = b"".join(struct.pack(entry, code, *tags[code]) for code in sorted(tags))
    data = head + struct.pack(count, len(tags)) + entries + struct.pack(link, 0)
    assert len(data) <= 1000
    return data.ljust(1000, b"\0") + body


GREY = {258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
MILLION = {256: (4, 1, 10**6), 257: (4, 1, 10**6)}
STRIP = {273: (4, 1, 1000), 278: (4, 1, 10**6), 279: (4, 1, 24)}
TILE = {322: (4, 1, 10**6), 323: (4, 1, 10**6), 324: (4, 1, 1000), 325: (4, 1, 24)}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 34925, 50000])
@pytest.mark.parametrize("layout", [STRIP, TILE])
def test_a_kilobyte_that_claims_a_terabyte(tmp_path, big, compression, layout):
    tags = GREY | MILLION | layout | {259: (3, 1, compression)}
    (tmp_path / "a.tif").write_bytes(page(tags, bytes(24), big))
    refused(tmp_path / "a.tif", r"a\.tif")


@pytest.mark.parametrize("code", [258, 273, 279, 320, 270])
@pytest.mark.parametrize("big", [False, True])
def test_a_tag_that_claims_billions_of_values(tmp_path, code, big):
    tags = GREY | {256: (4, 1, 32), 257: (4, 1, 32)} | STRIP | {code: (4, 2**32 - 1, 8)}
    (tmp_path / "a.tif").write_bytes(page(tags, bytes(1024), big))
    refused(tmp_path / "a.tif", r"a\.tif")


def test_pages_that_share_one_directory_ten_thousand_times(tmp_path):
    """Each page begins two bytes after the last and counts the same bytes as its tags: 1 MB would list 4 GB."""
    count = 20_000
    data = bytearray(struct.pack("<2sHI", b"II", 42, 8) + bytes(2 * count + 4096 * 12))
    for number in range(0, count, 8):
        at = 8 + 2 * number
        struct.pack_into("<H", data, at, 4000)
        if at + 2 + 4000 * 12 + 4 < len(data):
            struct.pack_into("<I", data, at + 2 + 4000 * 12, at + 16)
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", r"a\.tif")


def jpeg_of(height: int, width: int, scans: int = 1) -> bytes:
    """Return a small JPEG whose header declares another size."""
    import imagecodecs

    data = bytearray(imagecodecs.jpeg_encode(noise((16, 16))))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data) + b"\xff\xda" * (scans - 1)


def jpeg_2000_of(height: int, width: int) -> bytes:
    import imagecodecs

    data = bytearray(imagecodecs.jpeg2k_encode(noise((16, 16)), codecformat="j2k"))
    at = data.index(b"\xff\x51") + 6
    struct.pack_into(">II", data, at, width, height)
    struct.pack_into(">II", data, at + 16, width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("compression", "stream", "word"),
    [
        (7, jpeg_of(65000, 65000), "forged"),
        (7, jpeg_of(16, 16, scans=5000), "scans"),
        (34712, jpeg_2000_of(10**6, 10**6), "forged"),
        (50002, b"\xff\x0a", "bounded memory"),
    ],
)
def test_pictures_in_tiles_that_declare_more_than_the_tile(tmp_path, compression, stream, word):
    tags = GREY | {256: (4, 1, 16), 257: (4, 1, 16), 322: (4, 1, 16), 323: (4, 1, 16), 324: (4, 1, 1000)}
    (tmp_path / "a.tif").write_bytes(page(tags | {325: (4, 1, len(stream)), 259: (3, 1, compression)}, stream))
    refused(tmp_path / "a.tif", word)


def test_a_picture_of_many_scans(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_of(16, 16, scans=5000))
    refused(tmp_path / "a.jpg", "scans")


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 9))
BOMB = f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>'
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a">{before}<Image ID="Image:0">'
    "<Pixels ID='Pixels:0' DimensionOrder='XYZCT' Type='uint8' SizeX='{x}' SizeY='40' SizeZ='{z}' SizeC='1' SizeT='1'>"
    '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
    '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:b</UUID></TiffData>'
    "</Pixels></Image>{after}</OME>"
)
MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="A:0" Namespace="modulo"><Value><Modulo><ModuloAlongZ Start="0" '
    'Step="1" End="1e13"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'
)


def ome(
    folder: Path, x: int = 48, z: int = 2, name: str = "b.ome.tif", before: str = "", after: str = "", head: str = ""
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    xml = head + OME.format(x=x, z=z, name=name, before=before, after=after)
    tifffile.imwrite(folder / "a.ome.tif", PIXELS[0], metadata=None, description=xml)
    tifffile.imwrite(
        folder / "b.ome.tif", PIXELS[1], metadata=None, description=xml.replace("urn:uuid:a", "urn:uuid:b", 1)
    )
    return folder / "a.ome.tif"


def test_a_sound_set_of_files_is_read_whole(tmp_path):
    with open_planes(str(ome(tmp_path))) as planes:
        assert {file.name for file in planes.files} == {"a.ome.tif", "b.ome.tif"}
        np.testing.assert_array_equal(planes.read(1, slice(None), slice(None))[0], PIXELS[1])


@pytest.mark.parametrize(
    "changes",
    [{"x": 48 * 10**9}, {"z": 10**9}, {"after": MODULO}, {"head": BOMB, "before": "<a>&l8;</a>"}],
    ids=["width", "planes", "modulo", "laughs"],
)
def test_ome_xml_that_claims_too_much(tmp_path, changes):
    refused(ome(tmp_path, **changes), "OME-XML")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.tif",
        "/etc/passwd",
        "{outside}",
        "x/../../secret.tif",
        "&#46;&#46;/secret.tif",
        "pipe.tif",
        "link.tif",
    ],
)
def test_ome_xml_that_names_files_elsewhere(tmp_path, name, monkeypatch):
    tifffile.imwrite(tmp_path / "secret.tif", PIXELS[1], metadata=None)
    path = ome(tmp_path / "set", name=name.format(outside=tmp_path / "secret.tif"))
    os.mkfifo(path.with_name("pipe.tif"))
    path.with_name("link.tif").symlink_to(tmp_path / "secret.tif")
    opened = []
    monkeypatch.setattr(tifffile.FileHandle, "open", spy(tifffile.FileHandle.open, opened))
    refused(path, "folder of the first")
    assert set(opened) == {str(path)}


def spy(original: Callable, seen: list[str]) -> Callable:
    def call(self, *given):
        original(self, *given)
        seen.append(self.path)

    return call


def test_an_index_that_names_files_elsewhere(tmp_path):
    tifffile.imwrite(tmp_path / "secret.tif", PIXELS[1], metadata=None)
    folder = tmp_path / "set"
    folder.mkdir()
    tifffile.imwrite(folder / "a_NDTiffStack.tif", PIXELS[0], metadata=None)
    axes, name = b'{"z": 0}', b"../secret.tif"
    index = (
        struct.pack("<I", len(axes))
        + axes
        + struct.pack("<I", len(name))
        + name
        + struct.pack("<8I", 0, 48, 40, 0, 0, 0, 0, 0)
    )
    (folder / "NDTiff.index").write_bytes(index)
    with tifffile.TiffFile(folder / "a_NDTiffStack.tif") as tiff:
        tiff.is_ndtiff = True
        with pytest.raises(PipelineError, match="folder of the first"):
            check_metadata(folder / "a_NDTiffStack.tif", tiff)


@pytest.mark.parametrize(
    "name", ["pipe.tif", "pipe.png", "nul\0.tif", "~nobody-here/a.tif", "a**b/*.tif", "x" * 5000 + ".tif"]
)
def test_paths_that_are_no_files(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.tif")
    os.mkfifo(tmp_path / "pipe.png")
    source = name if name.startswith("~") else str(tmp_path / name)
    with pytest.raises(PipelineError):
        open_planes(source)


def test_thousands_of_channels_are_refused(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", data=np.zeros((5000, 4, 4), "u1"), chunks=(5000, 4, 4), dimension_names="cyx"
    )
    with pytest.raises(PipelineError, match="at most 1024 channels"):
        open_planes(str(tmp_path / "a.zarr"))


def test_real_large_images_open(tmp_path):
    """100 000 x 100 000 px as tiles of BigTIFF and as chunks of Zarr, mostly absent."""
    edge, size = 1024, 100_000
    count = (-(-size // edge)) ** 2
    first = io.BytesIO()
    tifffile.imwrite(first, np.full((edge, edge), 7, np.uint8), compression="zlib", tile=(edge, edge), metadata=None)
    first.seek(0)
    with tifffile.TiffFile(first) as tiff:
        start, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    tile = first.getvalue()[start : start + length]
    body = tile + struct.pack(f"<{count}Q", *[1000] * count) + struct.pack(f"<{count}Q", *[length] * count)
    tags = GREY | {256: (4, 1, size), 257: (4, 1, size), 259: (3, 1, 8), 322: (4, 1, edge), 323: (4, 1, edge)}
    tags |= {324: (16, count, 1000 + length), 325: (16, count, 1000 + length + 8 * count)}
    (tmp_path / "a.tif").write_bytes(page(tags, body, big=True))
    array = zarr.create_array(tmp_path / "a.zarr", shape=(size, size), chunks=(edge, edge), dtype="u2")
    array[-100:, -100:] = 7
    held = _resident()
    _reset_peak()
    for name in ("a.tif", "a.zarr"):
        with open_planes(str(tmp_path / name)) as planes:
            assert planes.shape == (1, 1, size, size)
            assert (planes.read(0, slice(size - 100, size), slice(size - 100, size)) == 7).all()
    assert _peak() - held < SMALL
