import dataclasses
import multiprocessing
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image
from reading import check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.readers.blocks import Window
from unet_pipeline.images.readers.tiff_reader import TiffReader
from unet_pipeline.images.source_image import SourceImage

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
STORED = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "zstd tiles": {"compression": "zstd", "tile": (16, 32)},
    "tiles": {"tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "big-endian deflate": {"byteorder": ">", "compression": "zlib", "predictor": True},
    "BigTIFF": {"bigtiff": True, "compression": "packbits"},
    "lzma": {"compression": "lzma"},
}


# tifffile cannot write bilevel tiles.
CASES = [(dtype, stored) for dtype in DTYPES for stored in STORED if dtype != "?" or "tile" not in STORED[stored]]


@pytest.mark.parametrize(("dtype", "stored"), CASES)
def test_every_type_and_way_of_storing(tmp_path, dtype, stored):
    options = dict(STORED[stored])
    if dtype in ("?", "u8", "i8"):
        # Nor predict these.
        options.pop("predictor", None)
    pixels = noise((3, 45, 52), dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", **options)
    check(path, pixels[:, None])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 4}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("metadata", [{}, None])
def test_rgb(tmp_path, options, planar, metadata):
    pixels = noise((4, 21, 33, 3), "u2")
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, metadata=metadata, **options)
    check(path, np.moveaxis(pixels, -1, 1))


def test_jpeg_in_tiff_is_near_enough(tmp_path):
    smooth = np.linspace(0, 255, 64 * 96).reshape(64, 96).astype(np.uint8)
    colour = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1)
    tifffile.imwrite(tmp_path / "g.tif", smooth, compression="jpeg", compressionargs={"level": 95}, tile=(32, 32))
    tifffile.imwrite(tmp_path / "c.tif", colour, compression="jpeg", compressionargs={"level": 95}, photometric="rgb")
    for name, expected in (("g.tif", smooth[None]), ("c.tif", np.moveaxis(colour, -1, 0))):
        found = open_planes(str(tmp_path / name)).read(0, slice(5, 60), slice(7, 90))
        np.testing.assert_array_equal(
            found, tifffile.imread(tmp_path / name).reshape(64, 96, -1)[5:60, 7:90].transpose(2, 0, 1)
        )
        assert np.abs(found.astype(int) - expected[:, 5:60, 7:90]).max() < 12


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_tables_are_shared_by_the_strips(tmp_path, mode):
    """Pillow writes by libtiff, which keeps the tables once for the page."""
    smooth = np.linspace(0, 255, 640 * 96).reshape(640, 96).astype(np.uint8)
    image = Image.fromarray(smooth if mode == "L" else np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1))
    image.save(tmp_path / "a.tif", compression="jpeg", quality=95, strip_size=4096)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].jpegtables
        assert len(tiff.pages[0].dataoffsets) > 1
    expected = tifffile.imread(tmp_path / "a.tif").reshape(640, 96, -1).transpose(2, 0, 1)
    assert np.abs(expected.astype(int) - np.asarray(image).reshape(640, 96, -1).transpose(2, 0, 1)).max() < 12
    check(tmp_path / "a.tif", expected[None])


def test_strips_in_another_order(tmp_path):
    pixels = noise((32, 30), "u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels, rowsperstrip=8, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        offsets = tiff.pages[0].tags[273]
        offsets.overwrite([offsets.value[i] for i in (2, 0, 3, 1)])
    check(tmp_path / "a.tif", pixels.reshape(4, 8, 30)[[2, 0, 3, 1]].reshape(1, 1, 32, 30))


def test_palette_indices_are_kept(tmp_path):
    indices = noise((21, 33))
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=noise((3, 256), "u2"))
    check(tmp_path / "a.tif", indices[None, None])


def test_packed_bits(tmp_path):
    pixels = noise((2, 21, 34), "u2") >> 4
    tifffile.imwrite(tmp_path / "a.tif", pixels, bitspersample=12, photometric="minisblack")
    check(tmp_path / "a.tif", pixels[:, None])


def test_alpha(tmp_path):
    pixels = noise((40, 30, 4))
    pixels[:20, :, 3] = 255
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    planes = open_planes(str(tmp_path / "a.tif"))
    assert planes.shape == (1, 3, 40, 30)
    np.testing.assert_array_equal(planes.read(0, slice(3, 20), slice(None)), pixels[3:20, :, :3].transpose(2, 0, 1))
    with pytest.raises(PipelineError, match=r"a\.tif, plane 0.*opaque"):
        planes.read(0, slice(3, 21), slice(None))
    check(tmp_path / "a.tif", pixels.transpose(2, 0, 1)[None], "yxc")
    tifffile.imwrite(tmp_path / "four.tif", pixels, photometric="minisblack", planarconfig="contig")
    check(tmp_path / "four.tif", pixels.transpose(2, 0, 1)[None])


def test_absent_tiles_read_as_no_data(tmp_path):
    pixels = noise((64, 64), "u2")
    tiles = [pixels[:32, :32], None, None, pixels[32:, 32:]]
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(64, 64),
        dtype="u2",
        tile=(32, 32),
        compression="zlib",
        extratags=[(42113, 2, 2, "7", True)],
    )
    expected = np.full((64, 64), 7, np.uint16)
    expected[:32, :32], expected[32:, 32:] = pixels[:32, :32], pixels[32:, 32:]
    check(path, expected[None, None])


def count_decoding(reader: TiffReader) -> list[int]:
    """Make the reader note every strip or tile it decodes."""
    seen: list[int] = []
    decode = reader._series.decode

    def noting(data, index, **options):
        seen.append(index)
        return decode(data, index, **options)

    reader._series = dataclasses.replace(reader._series, decode=noting)
    return seen


@pytest.mark.parametrize("options", [{"rowsperstrip": 100}, {"tile": (64, 64)}, {"rowsperstrip": 1000}])
def test_bands_decode_every_block_once(tmp_path, options):
    pixels = noise((2, 300, 200))
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", metadata=None, **options)
    reader = TiffReader(tmp_path / "a.tif")
    seen = count_decoding(reader)
    for plane in range(2):
        bands = [SourceImage(reader).read(plane, Window(top, min(top + 16, 300), 0, 200)) for top in range(0, 300, 16)]
        np.testing.assert_array_equal(np.concatenate(bands, 1)[0], pixels[plane])
    per_page = reader._series.grid.count
    assert len(seen) == 2 * per_page
    reader.close()
    SourceImage(reader).read(0, Window(0, 1, 0, 1))
    assert len(seen) == 2 * per_page + 1


def test_a_window_decodes_no_more_than_it_touches(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((320, 320)), compression="zlib", tile=(64, 64))
    reader = TiffReader(tmp_path / "a.tif")
    seen = count_decoding(reader)
    SourceImage(reader).read(0, Window(60, 130, 64, 128))
    assert sorted(seen) == [1, 6, 11]


def test_a_huge_tiled_image_is_read_in_flat_memory(tmp_path):
    """65536² pixels, nearly all absent, the rest noise; read band by band here and there."""
    path, edge, tile = tmp_path / "huge.btf", 65536, 512
    across = edge // tile
    tiles = {
        0: noise((tile, tile)),
        7 * across + 3: noise((tile, tile), seed=1),
        across**2 - 1: noise((tile, tile), seed=2),
    }
    source = (tiles.get(i) for i in range(across**2))
    tifffile.imwrite(path, source, shape=(edge, edge), dtype="u1", tile=(tile, tile), compression="zlib", bigtiff=True)
    planes = open_planes(str(path))
    assert planes.shape == (1, 1, edge, edge)
    assert planes.block_px == (tile, tile)
    tracemalloc.start()
    for row in (0, 7, 63, 127):
        band = planes.read(0, slice(row * tile, (row + 1) * tile), slice(None))[0]
        for i, pixels in tiles.items():
            if i // across == row:
                at = (i % across) * tile
                np.testing.assert_array_equal(band[:, at : at + tile], pixels)
                band[:, at : at + tile] = 0
        assert not band.any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two bands of 32 MiB are alive at once, and little else.
    assert peak < 2 * tile * edge + 8 * 2**20


@pytest.mark.parametrize(
    "options", [{"compression": "zlib", "tile": (256, 256)}, {"compression": "zlib", "rowsperstrip": 64}, {}]
)
def test_memory_is_that_of_band_and_cache(tmp_path, options):
    path, pixels = tmp_path / "a.tif", noise((6144, 4096))
    pixels[64:] = 3
    tifffile.imwrite(path, pixels, bigtiff=True, metadata=None, **options)
    del pixels
    cache = 4 * 2**20
    tracemalloc.start()
    reader = TiffReader(path, cache_bytes=cache)
    for top in range(0, 6144, 256):
        band = SourceImage(reader).read(0, Window(top, top + 256, 0, 4096))
        assert (band == 3).all() == (top > 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < cache + 4 * band.nbytes + 2**20 < 6144 * 4096


@pytest.mark.parametrize(
    ("step", "remembered"),
    [(512, False), (320, True), (64, True)],
    ids=["windows of whole blocks", "windows that cut blocks", "windows inside blocks"],
)
def test_each_block_is_decoded_once_and_remembered_only_if_wanted_again(tmp_path, step, remembered):
    path, pixels = tmp_path / "a.tif", noise((1100, 800))
    tifffile.imwrite(path, pixels, compression="zlib", tile=(256, 256), metadata=None)  # 5 x 4, some clipped
    reader, found, most = TiffReader(path), [], 0
    decode = reader._series.decode
    reader._series = dataclasses.replace(
        reader._series, decode=lambda *args, **named: found.append(1) or decode(*args, **named)
    )
    for top in range(0, 1100, step):
        for left in range(0, 800, step):
            window = Window(top, min(top + step, 1100), left, min(left + step, 800))
            assert np.array_equal(
                SourceImage(reader).read(0, window)[0], pixels[top : window.bottom, left : window.right]
            )
            most = max(most, reader._cache._bytes)
    assert (most > 0) == remembered
    assert len(found) == 20


def test_block_of_uncompressed_rows_is_small(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((3000, 2000), "u2"))
    planes = open_planes(str(tmp_path / "a.tif"))
    assert planes.block_px == (2**20 // 4000, 2000)
    tifffile.imwrite(tmp_path / "a.tif", noise((3000, 2000)), compression="zlib", rowsperstrip=33)
    assert open_planes(str(tmp_path / "a.tif")).block_px == (33, 2000)


def test_threads_read_alike(tmp_path):
    pixels = noise((4, 200, 300), "u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", tile=(32, 32), photometric="minisblack")
    reader = TiffReader(tmp_path / "a.tif", cache_bytes=20_000)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        plane, top, left = (int(rng.integers(n)) for n in (4, 150, 250))
        found = SourceImage(reader).read(plane, Window(top, top + 50, left, left + 50))
        return bool((found[0] == pixels[plane, top : top + 50, left : left + 50]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def _read_plane(planes, plane):
    return planes.read(plane, slice(None), slice(None))


def test_forked_processes_share_a_reader(tmp_path):
    pixels = noise((6, 200, 300), "u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    planes = open_planes(str(tmp_path / "a.tif"))
    planes.read(0, slice(None), slice(None))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=lambda k=k: queue.put((k, bool((_read_plane(planes, k)[0] == pixels[k]).all()))))
        for k in range(6)
    ]
    for worker in workers:
        worker.start()
    results = dict(queue.get(timeout=30) for _ in workers)
    for worker in workers:
        worker.join()
    assert results == dict.fromkeys(range(6), True)
