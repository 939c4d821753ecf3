"""Zarr stores that claim, decompress to, or point at more than they hold."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import zarr
from forged import Touch, refused
from fuzz.seeds import PIXELS, zip_bomb, zstd_bomb

pytestmark = pytest.mark.slow


def store(folder: Path, zarr_format: int = 3, codec: dict[str, object] | None = None, **changes: object) -> Path:
    """Write the metadata of a Zarr array of 32 x 32 u1 in one chunk."""
    path = folder / "a.zarr"
    path.mkdir()
    if zarr_format == 2:
        facts = {"zarr_format": 2, "shape": [32, 32], "chunks": [32, 32], "dtype": "|u1", "order": "C", "fill_value": 0,
                 "compressor": codec, "filters": None}  # fmt: skip
        (path / ".zarray").write_text(json.dumps(facts | changes))
    else:
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, *([codec] if codec else [])]
        facts = {"zarr_format": 3, "node_type": "array", "shape": [32, 32], "data_type": "uint8", "fill_value": 0,
                 "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [32, 32]}},
                 "chunk_key_encoding": {"name": "default"}, "codecs": codecs}  # fmt: skip
        (path / "zarr.json").write_text(json.dumps(facts | changes))
        (path / "c/0").mkdir(parents=True)
    return path


def chunk_of(path: Path) -> Path:
    return path / "0.0" if (path / ".zarray").exists() else path / "c/0/0"


V3 = {"gzip": {"name": "gzip", "configuration": {"level": 5}},
      "zstd": {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
      "blosc": {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 1,
                                                   "blocksize": 0}}}  # fmt: skip


V2 = {"gzip": {"id": "gzip", "level": 1}, "zlib": {"id": "zlib", "level": 1}, "bz2": {"id": "bz2", "level": 1},
      "zstd": {"id": "zstd", "level": 1}, "lz4": {"id": "lz4", "acceleration": 1},
      "blosc": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0, "blocksize": 0}}  # fmt: skip


def bomb(codec: str) -> bytes:
    """Return a few hundred kilobytes that decompress to more than SMALL, or say so."""
    import bz2
    import zlib

    size = 384 * 2**20
    if codec == "zlib":
        return zlib.compress(bytes(size), 1)
    if codec == "bz2":
        return bz2.compress(bytes(2**20)) * 384
    if codec == "lz4":
        return struct.pack("<I", size) + bytes(60)
    if codec == "blosc":
        return struct.pack("<BBBBIII", 2, 1, 2, 1, size, size, 76) + bytes(60)
    return {"gzip": zip_bomb, "zstd": zstd_bomb}[codec](size)


@pytest.mark.parametrize(("zarr_format", "codec"), [*((2, name) for name in V2), *((3, name) for name in V3)])
def test_chunks_that_decompress_to_more_than_they_hold(tmp_path, zarr_format, codec):
    path = store(tmp_path, zarr_format, (V2 if zarr_format == 2 else V3)[codec])
    chunk_of(path).write_bytes(bomb(codec))
    refused(path, "decompresses to|bytes")


def sharding(edge: int, *codecs: dict[str, object]) -> dict[str, object]:
    """Return the metadata of shards of square chunks."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inside = {"chunk_shape": [edge, edge], "codecs": [little, *codecs]}
    index = {"index_codecs": [little, {"name": "crc32c"}], "index_location": "end"}
    return {"name": "sharding_indexed", "configuration": inside | index}


def test_a_bomb_inside_a_shard(tmp_path):
    path = store(tmp_path, codecs=[sharding(16, V3["zstd"])])
    data = zstd_bomb(512 * 2**20)
    index = struct.pack("<8Q", *(0, len(data)) * 4)
    import google_crc32c

    chunk_of(path).write_bytes(data + index + google_crc32c.value(index).to_bytes(4, "little"))
    refused(path, "decompresses to")


def test_a_frame_that_declares_an_exabyte(tmp_path):
    path = store(tmp_path, 3, V3["zstd"])
    frame = struct.pack("<IBQ", 0xFD2FB528, 0xC0 | 0x20, 2**60) + (1 | 16 << 3).to_bytes(3, "little") + bytes(16)
    chunk_of(path).write_bytes(frame)
    refused(path, "decompresses to 1152921504606846976 bytes")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "chunks", "word"),
    [
        ([10**6, 10**6], [10**6, 10**6], "chunks of at most"),
        ([10**9, 10**9], [64, 64], "on disk"),
        ([10**15, 64, 64], [1, 64, 64], "on disk|planes"),
        ([10**5, 10**5], [1, 1], "pixels"),
        ([2**62, 2**62], [2**62, 2**62], "chunks of at most|zarr can open"),
        ([32, 32], [0, 0], "zarr can open"),
        ([10**400, 32], [32, 32], "a.zarr"),
    ],
)
def test_forged_shapes(tmp_path, zarr_format, shape, chunks, word):
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    changes = {"shape": shape} | ({"chunks": chunks} if zarr_format == 2 else {"chunk_grid": grid})
    refused(store(tmp_path, zarr_format, **changes), word)


def test_a_shard_of_billions_of_chunks(tmp_path):
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**5, 10**5]}}
    path = store(tmp_path, shape=[10**5, 10**5], chunk_grid=grid, codecs=[sharding(1)])
    refused(path, "chunks in a shard")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("special", ["pipe", "/dev/zero", "huge"])
def test_chunks_that_are_no_files_or_too_large(tmp_path, zarr_format, special):
    path = store(tmp_path, zarr_format)
    if special == "pipe":
        os.mkfifo(chunk_of(path))
    elif special == "huge":
        with chunk_of(path).open("wb") as file:
            file.truncate(2**36)
    else:
        chunk_of(path).symlink_to(special)
    refused(path, "regular file|more than the array can hold")


@pytest.mark.parametrize("level", ["../secret.zarr", "/secret.zarr", "a/../../secret.zarr", "..", ""])
def test_levels_that_lie_outside_the_store(tmp_path, level):
    zarr.create_array(tmp_path / "secret.zarr", data=PIXELS, chunks=(1, 20, 24))
    group = zarr.create_group(tmp_path / "a.zarr")
    wanted = level.replace("/secret", f"{tmp_path}/secret") if level.startswith("/") else level
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": [{"name": n} for n in "zyx"], "datasets": [{"path": wanted}]}],
    }
    refused(tmp_path / "a.zarr", "a.zarr")


@pytest.mark.parametrize("place", ["compressor", "filters", "v3", "object", "msgpack"])
def test_no_pickle_in_chunks(tmp_path, place):
    codec: object = {"id": "msgpack2" if place == "msgpack" else "pickle", "protocol": 5}
    if place == "v3":
        path = store(tmp_path, 3, {"name": "numcodecs.pickle", "configuration": {"protocol": 5}})
    elif place == "compressor":
        path = store(tmp_path, 2, codec)
    else:
        path = store(tmp_path, 2, filters=[codec], dtype="|O" if place == "object" else "|u1")
    chunk_of(path).write_bytes(pickle.dumps(Touch(tmp_path / "pwned")))
    refused(path, "codecs that only hold data")
    assert not (tmp_path / "pwned").exists()


def test_deep_json_is_refused(tmp_path):
    path = store(tmp_path)
    (path / "zarr.json").write_text('{"attributes":' + "[" * 200_000)
    refused(path, "readable Zarr metadata")
