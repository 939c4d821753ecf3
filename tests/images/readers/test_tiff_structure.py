import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from reading import noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.tiff_structure import Grid, PageData, check_page, read_chain


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", "<>")
def test_chain_has_the_offsets_that_tifffile_finds(tmp_path, bigtiff, byteorder):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((5, 20, 30)), bigtiff=bigtiff, byteorder=byteorder, compression="zlib")
    chain = read_chain(path)
    with tifffile.TiffFile(path) as tiff:
        assert list(chain) == [page.offset for page in tiff.pages]
    assert len(set(chain.values())) == 1


@pytest.mark.parametrize(
    ("name", "page", "options"),
    [
        ("height", noise((19, 30)), {}),
        ("type", noise((20, 30), "u2"), {}),
        ("sign", noise((20, 30), "i1"), {}),
        ("compression", noise((20, 30)), {"compression": "zlib"}),
        ("predictor", noise((20, 30)), {"compression": "lzw", "predictor": True}),
        ("samples", noise((20, 30, 3)), {"photometric": "rgb"}),
        ("tiles", noise((20, 30)), {"tile": (16, 16)}),
        ("strips", noise((20, 30)), {"rowsperstrip": 4}),
    ],
)
def test_pages_stored_in_another_way_differ(tmp_path, name, page, options):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(noise((20, 30)), metadata=None)
        writer.write(noise((20, 30), seed=1), metadata=None, resolution=(3, 4), description="of no account")
        writer.write(page, metadata=None, **options)
    first, second, third = read_chain(path).values()
    assert first == second != third


def test_default_values_may_be_left_out(tmp_path):
    """RowsPerStrip beyond the height, and no Compression tag, are how other writers say the same."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((20, 30)), metadata=None)
    before = list(read_chain(path).values())
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[278].overwrite(2**32 - 1)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 259, 3, 1))
    data[entry : entry + 2] = struct.pack("<H", 258 + 3)
    path.write_bytes(data)
    assert list(read_chain(path).values()) == before


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "an empty file"),
        (b"II", "starts with"),
        (b"II*\0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II\x2c\0\0\0\0\0", "starts with"),
        (b"II*\0\0\0\0\0", "at least one page"),
        (b"II*\0\xff\xff\xff\x7f", "truncated"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, "truncated"),
        (b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "circle"),
        (b"II*\0\x08\0\0\0\xff\xff\0\0", "65535 tags"),
    ],
)
def test_files_that_are_no_tiff(tmp_path, data, word):
    path = tmp_path / "broken.tif"
    path.write_bytes(data)
    with pytest.raises(PipelineError, match=word) as caught:
        read_chain(path)
    assert "broken.tif" in str(caught.value)


@pytest.mark.parametrize("cut", [1, 30, 200, 3000])
def test_a_cut_chain_is_noticed(tmp_path, cut):
    """The pages of this file lie behind each other, so a cut loses some of them."""
    path = tmp_path / "cut.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in noise((5, 20, 30)):
            writer.write(plane, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[-1].offset
    path.write_bytes(path.read_bytes()[: last + 40 - cut])
    with pytest.raises(PipelineError, match=r"cut\.tif.*truncated"):
        read_chain(path)


GRID = Grid(
    height=20, width=30, rows=8, columns=30, separate=1, contiguous=1, sample_bits=16, compression=1, tiled=False
)


def page(path: Path, offsets: list[int], sizes: list[int]) -> PageData:
    return PageData(path, np.array(offsets, np.int64), np.array(sizes, np.int64), None)


@pytest.fixture
def kilobyte(tmp_path):
    path = tmp_path / "k.tif"
    path.write_bytes(bytes(1500))
    return path


def test_grid_counts():
    assert (GRID.down, GRID.across, GRID.count, GRID.stored_bytes(1)) == (3, 1, 3, 60)
    tiles = Grid(20, 30, 16, 16, 3, 1, 1, 8, True)
    assert (tiles.down, tiles.across, tiles.count, tiles.stored_bytes(16)) == (2, 2, 12, 32)
    packed = Grid(20, 30, 20, 30, 1, 1, 12, 1, False)
    assert packed.stored_bytes(1) == 45


def test_sound_pages_pass(kilobyte):
    check_page("p", page(kilobyte, [8, 488, 968], [480, 480, 240]), GRID)
    absent = Grid(20, 30, 16, 16, 1, 1, 16, 1, True)
    check_page("p", page(kilobyte, [8, 0, 520, 0], [512, 0, 512, 0]), absent)


@pytest.mark.parametrize(
    ("offsets", "sizes", "word"),
    [
        ([8, 488], [480, 480], "2 offsets"),
        ([8, 488, 968], [480, 480], "2 sizes"),
        ([8, 488, 1400], [480, 480, 240], "up to byte 1640 in a file of 1500"),
        ([8, 488, 2**62], [480, 480, 240], "truncated"),
        ([8, 488, -5], [480, 480, 240], "inside the file"),
        ([8, 488, 968], [480, 480, -240], "inside the file"),
        ([8, 488, 0], [480, 480, 0], "without data"),
        ([8, 488, 968], [480, 480, 239], "forged"),
        ([8, 488, 968], [479, 480, 240], "forged"),
    ],
)
def test_unsound_pages_are_refused(kilobyte, offsets, sizes, word):
    with pytest.raises(PipelineError, match=word) as caught:
        check_page("k.tif, page 7", page(kilobyte, offsets, sizes), GRID)
    assert "k.tif, page 7" in str(caught.value)


@pytest.mark.parametrize(
    ("compression", "accepted"), [(8, 5 * 10**5), (5, 1.3 * 10**6), (32773, 3 * 10**4), (50000, 3 * 10**7)]
)
def test_compressed_data_may_claim_what_the_codec_can_hold(tmp_path, compression, accepted):
    """Of a strip of 50 kB, whose claim grows until no such codec could have made it."""
    path = tmp_path / "c.tif"
    path.write_bytes(bytes(50_008))
    data = page(path, [8], [50_000])
    for times, sound in ((0.9, True), (1.2, False)):
        rows = int(accepted * times)
        grid = Grid(rows, 100, rows, 100, 1, 1, 8, compression, False)
        if sound or rows * 100 <= 64 * 2**20:
            check_page("p", data, grid)
        else:
            with pytest.raises(PipelineError, match="forged"):
                check_page("p", data, grid)


def test_huge_absent_tiles_are_refused(kilobyte):
    with pytest.raises(PipelineError, match="absent"):
        check_page("p", page(kilobyte, [0], [0]), Grid(10**6, 10**6, 10**6, 10**6, 1, 1, 8, 8, True))
