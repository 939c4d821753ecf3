"""Shards encoded and read here, against zarr and tensorstore."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from unet_pipeline.config.sections import Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.images.shard_file import ShardFormat

PLANES, HEIGHT, WIDTH = 2, 100, 70
EVERY = slice(0, HEIGHT), slice(0, WIDTH)


def create(folder: Path, axis: str = "z", channels: int | None = 2, dtype: type = np.uint8) -> PlaneArray:
    grid = ngff.Grid(PLANES, HEIGHT, WIDTH, axis)
    group = zarr.create_group(folder, zarr_format=3)
    return ngff.create_array(group, "0", grid, channels, dtype, Store(chunk_px=32, shard_px=64))


@pytest.mark.parametrize(
    ("axis", "channels", "dtype"),
    list(itertools.product("zt", (None, 3), (np.uint8, np.uint16, np.uint32, np.float16, np.float32))),
)
def test_zarr_and_tensorstore_read_what_was_written(tmp_path, axis, channels, dtype):
    array = create(tmp_path / "store", axis, channels, dtype)
    values = np.random.default_rng(0).integers(0, 200, (PLANES, channels or 1, HEIGHT, WIDTH)).astype(dtype)
    for plane, rows, columns in (shard.at for shard in array.shards()):
        part = values[plane][:, rows, columns]
        array.write(plane, rows, columns, part if channels else part[0])
    for plane in range(PLANES):
        np.testing.assert_array_equal(array.read(plane, *EVERY), values[plane])
    place = {"driver": "file", "path": str(tmp_path / "store" / "0")}
    other = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result().read().result()
    whole = values[:, 0] if channels is None else values if axis == "t" else values.transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(other, whole)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_window_is_what_zarr_reads(data):
    """Of an array that zarr wrote, with a shard and chunks that nobody wrote."""
    channels = data.draw(st.sampled_from([None, 3]))
    with tempfile.TemporaryDirectory() as place:
        array = create(Path(place) / "store", data.draw(st.sampled_from("zt")), channels, np.uint16)
        values = np.random.default_rng(0).integers(0, 2**16, array.array.shape).astype(np.uint16)
        values[..., :32, :32] = 0  # a chunk of zeros is not written
        for plane in range(PLANES):
            where = array._index(plane, slice(0, 64), slice(0, WIDTH))
            array.array[where] = values[where]
        edges = [sorted(data.draw(st.tuples(*[st.integers(0, size + 9)] * 2))) for size in (HEIGHT, WIDTH)]
        index = array._index(data.draw(st.integers(0, PLANES - 1)), *(slice(*edge) for edge in edges))
        expected = np.asarray(array.array[index])
        plane = next(part for part in index if isinstance(part, int))
        found = array.read(plane, *(slice(*edge) for edge in edges))
    np.testing.assert_array_equal(found, expected if channels else expected[None])


def test_the_same_values_give_the_same_bytes_as_zarrs_chunks(tmp_path):
    """Chunks may lie in another order; each of them is the same, byte for byte."""
    array = create(tmp_path / "ours", channels=None)
    values = np.random.default_rng(1).integers(0, 9, (64, 64)).astype(np.uint8)
    array.write(0, slice(0, 64), slice(0, 64), values)
    zarrs = create(tmp_path / "zarrs", channels=None).array
    zarrs[0:1, 0:64, 0:64] = values[None]
    index_bytes = 4 * 16 + 4
    chunks = []
    for name in ("ours", "zarrs"):
        data = (tmp_path / name / "0" / "c" / "0" / "0" / "0").read_bytes()
        index = np.frombuffer(data[-index_bytes:-4], "<u8").reshape(4, 2).tolist()
        chunks.append([data[offset : offset + length] for offset, length in index])
    assert chunks[0] == chunks[1]


@pytest.mark.parametrize("damage", [3, -1, -40])
def test_a_flipped_byte_is_found(tmp_path, damage):
    array = create(tmp_path / "store", channels=None)
    array.write(0, slice(0, 64), slice(0, 64), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    file = array.shard_file(0, 0, 0)
    data = bytearray(file.read_bytes())
    data[damage] ^= 1
    file.write_bytes(data)
    with pytest.raises(PipelineError, match="a shard as it was written"):
        array.read(0, slice(0, 64), slice(0, 64))


FAR = 2**64 - 1


@pytest.mark.parametrize("entry", [(2**63, 10), (0, 2**62), (2**40, 10), (10, FAR), (FAR, 10), (0, 0), (0, 3)])
def test_an_index_that_points_out_of_its_file_is_damage(tmp_path, entry):
    """Its own checksum fits, as one that a faulty program wrote would: no zeros, no error but the one of damage."""
    array = create(tmp_path / "store", channels=None)
    array.write(0, slice(0, 64), slice(0, 64), np.ones((64, 64), np.uint8))
    file, size = array.shard_file(0, 0, 0), 4 * 16 + 4
    data = file.read_bytes()
    index = np.frombuffer(data[-size:-4], "<u8").copy()
    index[2:4] = entry
    file.write_bytes(data[:-size] + index.tobytes() + int(crc32c(index.tobytes())).to_bytes(4, "little"))
    with pytest.raises(PipelineError, match="a shard as it was written, got damage"):
        array.read(0, slice(0, 64), slice(0, 64))
    assert array.read(0, slice(0, 32), slice(0, 32)).all(), "another chunk of it is as it was"


def test_a_pipe_in_place_of_a_shard_is_not_waited_for(tmp_path):
    array = create(tmp_path / "store", channels=None)
    array.shard_file(0, 0, 0).parent.mkdir(parents=True)
    os.mkfifo(array.shard_file(0, 0, 0))
    with pytest.raises(PipelineError, match="a shard as it was written, got damage"):
        array.read(0, slice(0, 64), slice(0, 64))


def test_a_shard_at_the_edge_replaces_a_damaged_one(tmp_path):
    array = create(tmp_path / "store", channels=None)
    part = slice(64, HEIGHT), slice(64, WIDTH)
    values = np.full((HEIGHT - 64, WIDTH - 64), 7, np.uint8)
    array.write(1, *part, values)
    array.shard_file(1, 64, 64).write_bytes(b"damaged")
    array.write(1, *part, values)
    np.testing.assert_array_equal(array.read(1, *part)[0], values)
    assert not array.read(0, *EVERY).any(), "what was never written is 0"


def test_a_write_that_fails_leaves_the_former_shard_and_nothing_else(tmp_path):
    array = create(tmp_path / "store", channels=None)
    place = slice(0, 64), slice(0, 64)
    array.write(0, *place, np.full((64, 64), 5, np.uint8))

    def taken_over():
        raise PipelineError("shard", "no other job", "another")

    blocked = open_array(tmp_path / "store", "0", writable=True, check=taken_over)
    with pytest.raises(PipelineError, match="no other job"):
        blocked.write(0, *place, np.full((64, 64), 6, np.uint8))
    assert (array.read(0, *place) == 5).all()
    assert len(list(array.shard_file(0, 0, 0).parent.iterdir())) == 1


def test_what_a_killed_job_left_is_swept(tmp_path):
    array = create(tmp_path / "store", channels=None)
    folder = array.shard_file(0, 0, 0).parent
    folder.mkdir(parents=True)
    (folder / ".0.cafe.partial").write_bytes(b"half")
    (folder / ".1.cafe.partial").write_bytes(b"of another shard")
    array.write(0, slice(0, 64), slice(0, 64), np.zeros((64, 64), np.uint8))
    assert sorted(path.name for path in folder.iterdir()) == [".1.cafe.partial", "0"]


@pytest.mark.parametrize("edges", [(0, 32, 0, 64), (32, 96, 0, 64), (0, 100, 0, 70), (64, 100, 0, 70)])
def test_less_or_more_than_a_shard_is_refused(tmp_path, edges):
    rows, columns = slice(*edges[:2]), slice(*edges[2:])
    array = create(tmp_path / "store", channels=None)
    with pytest.raises(PipelineError, match="a whole shard of"):
        array.write(0, rows, columns, np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": ZstdCodec(level=3)},
        {"compressors": (BloscCodec(), Crc32cCodec())},
        {"compressors": (ZstdCodec(level=3, checksum=True), Crc32cCodec())},
        {"compressors": (ZstdCodec(level=3), Crc32cCodec()), "fill_value": 1},
        {"compressors": (ZstdCodec(level=3), Crc32cCodec()), "shards": None},
    ],
)
def test_arrays_of_another_encoding_are_read_but_not_written(tmp_path, options):
    shape = {"shape": (2, 64, 64), "chunks": (1, 32, 32), "shards": (1, 64, 64), "dtype": "uint8", "fill_value": 0}
    group = zarr.create_group(tmp_path / "store", zarr_format=3)
    array = group.create_array("0", **{**shape, **options}, dimension_names=("z", "y", "x"))
    assert ShardFormat.of(array) is None
    array[:] = 3
    other = PlaneArray(array)
    assert (other.read(1, slice(0, 64), slice(0, 64)) == 3).all()
    with pytest.raises(PipelineError, match="an array that this pipeline made"):
        other.write(0, slice(0, other.shard_px[0]), slice(0, other.shard_px[1]), np.zeros(other.shard_px, np.uint8))
    shutil.rmtree(tmp_path / "store")
