import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorstore
import zarr
from reading import check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.readers.blocks import Window
from unet_pipeline.images.readers.zarr_reader import ZarrReader
from unet_pipeline.images.source_image import SourceImage

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
LAYOUTS = {
    "chunks that do not divide": {"chunks": (2, 8, 16)},
    "one chunk": {"chunks": (5, 21, 33)},
    "sharded": {"chunks": (2, 8, 16), "shards": (4, 16, 32)},
    "uncompressed": {"chunks": (3, 10, 10), "compressors": None},
    "version 2": {"chunks": (2, 8, 16), "zarr_format": 2},
    "version 2, one key per dimension": {
        "chunks": (1, 8, 16),
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "Fortran order": {"chunks": (2, 8, 16), "zarr_format": 2, "order": "F"},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_type_and_layout(tmp_path, dtype, layout):
    pixels = noise((5, 21, 33), dtype)
    zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, dtype=pixels.dtype, **LAYOUTS[layout])[:] = pixels
    planes = check(tmp_path / "a.zarr", pixels[:, None])
    assert planes.block_px == LAYOUTS[layout]["chunks"][1:]


def test_big_endian(tmp_path):
    pixels = noise((5, 21, 33), ">u2")
    zarr.create_array(tmp_path / "a.zarr", data=pixels, zarr_format=2, chunks=(2, 8, 16))
    check(tmp_path / "a.zarr", pixels[:, None])


CODECS = {
    "zarr3, sharded": (
        "zarr3",
        {
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 12, 24]}},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [1, 4, 8],
                        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}],
                    },
                }
            ],
            "dimension_names": ["z", "y", "x"],
        },
    ),
    "zarr3, big-endian gzip": (
        "zarr3",
        {
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 8, 16]}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "gzip"}],
        },
    ),
    "zarr, blosc": (
        "zarr",
        {"chunks": [2, 8, 16], "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}},
    ),
}


@pytest.mark.parametrize("codec", CODECS)
def test_stores_that_tensorstore_wrote(tmp_path, codec):
    driver, metadata = CODECS[codec]
    pixels = noise((5, 21, 33), "u2")
    kind = {"data_type": "uint16"} if driver == "zarr3" else {"dtype": "<u2"}
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": str(tmp_path / "a.zarr")},
        "metadata": metadata | kind | {"shape": list(pixels.shape)},
        "create": True,
    }
    tensorstore.open(spec).result().write(pixels).result()
    check(tmp_path / "a.zarr", pixels[:, None])


@pytest.mark.parametrize("axes", ["xyz", "xyzc", "tcyx", "yxzc", "cyx", "yx", "yxt"])
def test_any_order_of_axes(tmp_path, axes):
    sizes = {"t": 4, "z": 4, "c": 2, "y": 21, "x": 33}
    pixels = noise(tuple(sizes[a] for a in axes))
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=tuple(max(2, n // 3) for n in pixels.shape))
    where = [axes.find(a) for a in ("t" if "t" in axes else "z", "c", "y", "x")]
    expected = pixels.transpose([i for i in where if i >= 0])
    expected = expected.reshape([1 if i < 0 else pixels.shape[i] for i in where])
    check(tmp_path / "a.zarr", expected, axes)


def test_absent_chunks_read_as_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 40, 40), dtype="u2", chunks=(1, 16, 16), fill_value=9)
    array[1, 16:32, :16] = 5
    expected = np.full((2, 1, 40, 40), 9, np.uint16)
    expected[1, 0, 16:32, :16] = 5
    check(tmp_path / "a.zarr", expected)


def count_loads(reader: ZarrReader) -> list[int]:
    """Make the reader note the pixels of every request to zarr."""
    seen: list[int] = []
    load = reader._load

    def noting(box):
        block = load(box)
        seen.append(block.size)
        return block

    reader._load = noting
    return seen


@pytest.mark.parametrize("shards", [None, (4, 64, 64)])
def test_bands_and_planes_decode_every_chunk_once(tmp_path, shards):
    pixels = noise((8, 128, 96))
    zarr.create_array(tmp_path / "a.zarr", shape=pixels.shape, dtype="u1", chunks=(4, 32, 32), shards=shards)[:] = (
        pixels
    )
    reader = ZarrReader(tmp_path / "a.zarr")
    seen = count_loads(reader)
    for plane in range(8):
        bands = [SourceImage(reader).read(plane, Window(top, top + 8, 0, 96)) for top in range(0, 128, 8)]
        np.testing.assert_array_equal(np.concatenate(bands, 1)[0], pixels[plane])
    assert sum(seen) == pixels.size
    reader.close()
    SourceImage(reader).read(0, Window(0, 1, 0, 1))
    assert seen[-1] == 4 * 32 * 32


def test_a_window_loads_no_more_than_its_chunks(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=noise((4, 128, 96)), chunks=(1, 32, 32))
    reader = ZarrReader(tmp_path / "a.zarr")
    seen = count_loads(reader)
    SourceImage(reader).read(2, Window(30, 40, 32, 64))
    assert seen == [2 * 32 * 32]


def test_memory_is_that_of_band_and_cache(tmp_path):
    pixels = noise((1, 6144, 4096))
    pixels[:, 64:] = 3
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(1, 256, 256))
    del pixels
    cache = 4 * 2**20
    reader = ZarrReader(tmp_path / "a.zarr", cache_bytes=cache)
    tracemalloc.start()
    for top in range(0, 6144, 256):
        band = SourceImage(reader).read(0, Window(top, top + 256, 0, 4096))
        assert (band == 3).all() == (top > 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < cache + 6 * band.nbytes + 2**20 < 6144 * 4096


def test_a_forged_shape_allocates_nothing(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**4, 10**6, 10**6), dtype="u2", chunks=(10**4, 10**2, 10**3))
    tracemalloc.start()
    with pytest.raises(PipelineError, match=r"a\.zarr: expected at least one in 100000 of its chunks"):
        open_planes(str(tmp_path / "a.zarr"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("compressors", [None, "auto"])
@pytest.mark.parametrize("shards", [None, (1, 32, 32)])
def test_damaged_chunks_name_array_and_plane(tmp_path, compressors, shards):
    path = tmp_path / "hurt.zarr"
    zarr.create_array(path, shape=(3, 32, 32), dtype="u2", chunks=(1, 16, 16), shards=shards, compressors=compressors)[
        :
    ] = noise((3, 32, 32), "u2")
    chunk = path / "c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    planes = open_planes(str(path))
    planes.read(0, slice(None), slice(None))
    with pytest.raises(PipelineError, match=r"hurt\.zarr, plane 1.*decoded"):
        planes.read(1, slice(None), slice(None))


@pytest.mark.parametrize("dtype", ["c8", "U5", "M8[s]", [("a", "u1"), ("b", "f4")]])
def test_what_is_no_number_is_refused(tmp_path, dtype):
    zarr.create_array(tmp_path / "odd.zarr", shape=(4, 5), dtype=np.dtype(dtype), zarr_format=2)
    with pytest.raises(PipelineError, match=r"odd\.zarr.*(pixels|numbers)"):
        open_planes(str(tmp_path / "odd.zarr"))


def test_fingerprint(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=noise((3, 32, 32)), chunks=(1, 16, 16))
    first = open_planes(str(tmp_path / "a.zarr")).fingerprint()
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert open_planes(str(tmp_path / "b.zarr")).fingerprint() == first
    chunk = tmp_path / "b.zarr/c/1/0/1"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert open_planes(str(tmp_path / "b.zarr")).fingerprint() != first
    chunk.write_bytes(data)
    assert open_planes(str(tmp_path / "b.zarr")).fingerprint() == first
    chunk.rename(chunk.with_name("0b"))
    assert open_planes(str(tmp_path / "b.zarr")).fingerprint() != first


def test_fingerprint_covers_the_scale_of_an_image(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=noise((32, 32)))
    image = {"axes": [{"name": a, "unit": "micrometer"} for a in "yx"], "datasets": [{"path": "0"}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    planes = open_planes(str(tmp_path / "a.zarr"))
    assert [file.relative_to(tmp_path).as_posix() for file in planes.files] == [
        "a.zarr/zarr.json",
        "a.zarr/0/zarr.json",
    ]
    first = planes.fingerprint()
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image | {"name": "other"}]}
    assert open_planes(str(tmp_path / "a.zarr")).fingerprint() != first


def test_threads_read_alike(tmp_path):
    pixels = noise((4, 200, 300), "u2")
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(2, 32, 32))
    reader = ZarrReader(tmp_path / "a.zarr", cache_bytes=60_000)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        plane, top, left = (int(rng.integers(n)) for n in (4, 150, 250))
        found = SourceImage(reader).read(plane, Window(top, top + 50, left, left + 50))
        return bool((found[0] == pixels[plane, top : top + 50, left : left + 50]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(60)))


def test_zarr_does_not_warn(tmp_path, recwarn):
    zarr.create_array(tmp_path / "a.zarr", data=noise((3, 32, 32)))
    (tmp_path / "a.zarr/.DS_Store").write_bytes(b"")
    recwarn.clear()
    open_planes(str(tmp_path / "a.zarr")).read(0, slice(None), slice(None))
    assert not recwarn.list
