"""TIFF files that are forged, cut or damaged: refused or read right, file and plane named."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from reading import assert_reads, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


def forge(path, tags: dict[int, int]) -> None:
    """Overwrite tags of the first page in place."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for code, value in tags.items():
            tiff.pages[0].tags[code].overwrite(value)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zstd"}, {"tile": (16, 16)}])
def test_forged_sizes_allocate_nothing(tmp_path, options):
    """A file of about a kilobyte that claims 10¹² pixels."""
    path = tmp_path / "forged.tif"
    tifffile.imwrite(path, noise((16, 32)), metadata=None, **options)
    if "tile" in options:
        forge(path, {256: 10**6, 257: 10**6, 322: 10**6, 323: 10**6})
    else:
        forge(path, {256: 10**6, 257: 10**6, 278: 10**6})
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"forged\.tif"):
        open_planes(str(path)).read(0, slice(0, 1), slice(0, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


ZYX = {"metadata": {"axes": "ZYX"}}


WAYS = [
    ZYX,
    ZYX | {"compression": "zlib"},
    ZYX | {"compression": "lzw", "tile": (16, 16)},
    ZYX | {"imagej": True},
    ZYX | {"ome": True},
    {"metadata": None},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_truncated_file_is_refused_or_reads_right(tmp_path, options, caplog, capfd):
    """Cut anywhere; only a cut in trailing metadata may pass."""
    pixels = noise((3, 40, 50), "u2")
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, pixels, photometric="minisblack", **options)
    data, refused = whole.read_bytes(), 0
    cuts = np.linspace(0, len(data) - 1, 60).astype(int)
    for cut in cuts:
        (tmp_path / "cut.tif").write_bytes(data[:cut])
        try:
            planes = open_planes(str(tmp_path / "cut.tif"))
            assert_reads(planes, pixels[:, None], 0)
        except PipelineError as error:
            assert "cut.tif" in str(error)
            refused += 1
    assert refused >= 55
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_damaged_pixels_name_file_and_plane(tmp_path):
    path = tmp_path / "hurt.tif"
    tifffile.imwrite(path, noise((3, 40, 50), "u2"), compression="zlib", metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[1].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    planes = open_planes(str(path))
    planes.read(0, slice(None), slice(None))
    with pytest.raises(PipelineError, match=r"hurt\.tif, plane 1.*decoded"):
        planes.read(1, slice(None), slice(None))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_file_cut_after_opening(tmp_path, options):
    path = tmp_path / "late.tif"
    tifffile.imwrite(path, noise((3, 40, 50), "u2"), metadata=None, photometric="minisblack", **options)
    planes = open_planes(str(path))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(PipelineError, match=r"late\.tif, plane 2.*ends before"):
        planes.read(2, slice(None), slice(None))
