"""Zarr arrays opened so that no chunk takes more memory than the array says: every decompressor is held to a limit.

zarr believes chunks: one of a kilobyte may decompress to gigabytes, and may be a pipe or a device. Sources of the
headers: RFC 8878, 3.1.1 (Zstandard frames); Blosc, README_CHUNK_FORMAT; numcodecs, lz4 (size before the block).
"""

from __future__ import annotations

import bz2
import itertools
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import ByteRequest
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from unet_pipeline.errors import PipelineError

HEADERS = ("blosc", "zstd", "lz4")
STREAMS = ("gzip", "zlib", "bz2")
PLAIN = (
    "bytes", "endian", "transpose", "sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32",
    "jenkins_lookup3", "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype",
)  # fmt: skip
CODECS = frozenset(HEADERS + STREAMS + PLAIN)
"""Codecs that hold numbers only and are read in bounded memory; in Zarr v3 also as `numcodecs.NAME`."""

# What a decompressed chunk may exceed its size by, and a file its shard: headers, checksums, an index.
SLACK_BYTES = 2**20
MAX_CHUNK_BYTES = 4 * 2**30
MAX_CHUNKS_PER_SHARD = 2**22
# A store of empty chunks is legal, and would keep every stage busy for as long as its shape says.
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
FEW_FILES, SPARSEST = 1000, 100_000
MANY_FILES, TINY_CHUNK = 10**6, 64
# A Zstandard block holds at most this much.
ZSTD_BLOCK = 128 * 2**10


def check_codecs(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse codecs that run code from the store, hold no numbers, or cannot be bounded.

    Raises:
        PipelineError: naming the codec.
    """
    for name in _names([metadata.get(key) for key in ("compressor", "filters", "codecs")]):
        if name.removeprefix("numcodecs.") not in CODECS:
            fix = "save the array anew, with zstd, blosc or gzip"
            raise PipelineError(path, "codecs that only hold data", f"the codec {name!r}", fix=fix)


def _names(found: object) -> Iterator[str]:
    """Yield the name of every codec, also of those inside shards."""
    for codec in found if isinstance(found, list) else [found]:
        if isinstance(codec, list):
            yield from _names(codec)
        elif isinstance(codec, dict):
            yield str(codec.get("id", codec.get("name")))
            inside = codec.get("configuration")
            if isinstance(inside, dict):
                yield from _names([inside.get(key) for key in ("codecs", "index_codecs")])
        elif codec is not None:
            yield str(codec)


def open_bounded(path: Path, zarr_format: Any) -> zarr.Array[Any]:
    """Open an array for reading, its axes as they are, e.g. (t, c, z, y, x); `zarr_format` is 2 or 3.

    Raises:
        PipelineError: for chunks of more than 4 GiB, shards of more than 2**22 chunks, millions of tiny chunks, or an
            array that holds next to nothing of what it declares.
    """
    array = zarr.open_array(store=RegularFiles(path, read_only=True), mode="r", zarr_format=zarr_format)
    shards = array.shards or array.chunks
    size, file_size = (math.prod(edges) * array.dtype.itemsize for edges in (array.chunks, shards))
    if size > MAX_CHUNK_BYTES:
        got = f"{array.chunks} of {size} bytes"
        raise PipelineError(path, f"chunks of at most {MAX_CHUNK_BYTES} bytes", got, fix="store it in smaller chunks")
    inside = math.prod(max(1, shard // chunk) for shard, chunk in zip(shards, array.chunks, strict=True))
    if inside > MAX_CHUNKS_PER_SHARD:
        raise PipelineError(path, f"at most {MAX_CHUNKS_PER_SHARD} chunks in a shard", f"{inside}", fix="store it anew")
    _check_stored(path, array.shape, shards, array.dtype.itemsize)
    whole: Any = array.async_array
    limit = SLACK_BYTES + 2 * file_size + 32 * inside
    store = RegularFiles(path, read_only=True, largest=limit)
    place = type(whole.store_path)(store, whole.store_path.path)
    return zarr.Array(type(whole)(_bounded(whole.metadata, size), place, whole.config))


def _check_stored(path: Path, shape: Sequence[int], shards: Sequence[int], itemsize: int) -> None:
    """Compare what the array declares with the files that are there."""
    files = math.prod(-(-n // max(1, edge)) for n, edge in zip(shape, shards, strict=True))
    if files > MANY_FILES and math.prod(shards) < TINY_CHUNK:
        got = f"{files} of {tuple(shards)}"
        raise PipelineError(path, f"chunks of at least {TINY_CHUNK} pixels", got, fix="store it in larger chunks")
    small = files <= FEW_FILES and math.prod(shape) * itemsize <= SLACK_BYTES * 64
    wanted = 0 if small else max(1, files // SPARSEST)
    found = sum(1 for _ in itertools.islice(_data_files(path), wanted))
    if found < wanted:
        got = f"{found} of {files}: the store is incomplete, or its shape is forged"
        raise PipelineError(path, f"at least one in {SPARSEST} of its chunks on disk", got, fix="copy the store again")


def count_stored(path: Path, array: zarr.Array[Any]) -> tuple[int, int]:
    """Return how many chunk or shard files an array, such as (z, y, x), has, and how many if none were missing."""
    edges = array.shards or array.chunks
    expected = math.prod(-(-n // edge) for n, edge in zip(array.shape, edges, strict=True))
    return sum(1 for _ in _data_files(path)), expected


def _data_files(path: Path) -> Iterator[str]:
    return (name for _, _, names in os.walk(path) for name in names if name not in METADATA)


def _bounded(metadata: Any, size: int) -> Any:
    """Return array metadata whose decompressors are bounded."""
    if metadata.zarr_format == 3:
        return replace(metadata, codecs=tuple(map(_bound, metadata.codecs)))
    compressor = None if metadata.compressor is None else _BoundedV2(metadata.compressor, size)
    filters = None if metadata.filters is None else tuple(_BoundedV2(one, size) for one in metadata.filters)
    return replace(metadata, compressor=compressor, filters=filters)


def _bound(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(map(_bound, codec.codecs)))
    return _BoundedV3(codec) if isinstance(codec, BytesBytesCodec) else codec


class RegularFiles(LocalStore):
    """A store on disk that reads regular files only, up to a size."""

    def __init__(self, root: Path | str, *, read_only: bool = True, largest: int = SLACK_BYTES * 64) -> None:
        """Keep the largest size of a file, bytes."""
        super().__init__(root, read_only=read_only)
        self._largest = largest

    def with_read_only(self, read_only: bool = True) -> RegularFiles:
        """Return the same store."""
        return RegularFiles(self.root, read_only=read_only, largest=self._largest)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the content of a file, or None where there is none.

        Raises:
            OSError: for a pipe or a device, or a file that is larger than anything the array can hold.
        """
        path = self.root / key
        if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
            raise OSError(f"{key} is a link to a file that is not there")
        if os.path.exists(path):  # noqa: PTH110 -- no exception for names that are too long
            if not path.is_file():
                raise OSError(f"{key} is no regular file")
            if byte_range is None and path.stat().st_size > self._largest:
                raise OSError(f"{key} has {path.stat().st_size} bytes, more than the array can hold")
        return await super().get(key, prototype, byte_range)


@dataclass(frozen=True)
class _BoundedV3(BytesBytesCodec):
    """A codec of Zarr v3 that looks at a chunk before it decodes it."""

    inner: Any

    @property
    def is_fixed_size(self) -> bool:  # type: ignore[override]
        return bool(self.inner.is_fixed_size)

    @property
    def _name(self) -> str:
        return str(self.inner.to_dict()["name"]).removeprefix("numcodecs.")

    def to_dict(self) -> dict[str, Any]:
        described: dict[str, Any] = self.inner.to_dict()
        return described

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> _BoundedV3:
        return _BoundedV3(self.inner.evolve_from_array_spec(array_spec))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return int(self.inner.compute_encoded_size(input_byte_length, chunk_spec))

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        decoded = decompress(self._name, chunk_bytes.to_bytes(), SLACK_BYTES + 2 * size)
        if decoded is not None:
            return chunk_spec.prototype.buffer.from_bytes(decoded)
        known: Buffer = await self.inner._decode_single(chunk_bytes, chunk_spec)
        return known


class _BoundedV2:
    """A codec of Zarr v2 that looks at a chunk before it decodes it; has what zarr asks of a numcodecs codec."""

    codec_id = ""

    def __init__(self, inner: Any, size: int) -> None:
        self.codec_id, self._inner, self._limit = inner.codec_id, inner, SLACK_BYTES + 2 * size

    def get_config(self) -> dict[str, Any]:
        described: dict[str, Any] = self._inner.get_config()
        return described

    @classmethod
    def from_config(cls, config: Any) -> Any:
        raise NotImplementedError("made around another codec only")

    def encode(self, buf: Any) -> Any:
        return self._inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        if self.codec_id not in HEADERS + STREAMS:
            return self._inner.decode(buf)
        decoded = decompress(self.codec_id, np.ascontiguousarray(buf).tobytes(), self._limit)
        return self._inner.decode(buf) if decoded is None else decoded


def decompress(codec: str, data: bytes, limit: int) -> bytes | None:
    """Decompress `data`, or return None where its header already tells that at most `limit` bytes will come out.

    Raises:
        ValueError: if there are more, or the data are damaged.
    """
    if codec in STREAMS:
        return _inflate(codec, data, limit)
    declared = {"blosc": _blosc_bytes, "zstd": _zstd_bytes, "lz4": _lz4_bytes}.get(codec)
    if declared is not None and (held := declared(data)) > limit:
        raise ValueError(f"a chunk that decompresses to {held} bytes, where {limit} are the most: damaged or forged")
    return None


def _inflate(codec: str, data: bytes, limit: int) -> bytes:
    """Decompress a stream of one or more members."""
    parts, total = [], 0
    while data:
        member: Any = bz2.BZ2Decompressor() if codec == "bz2" else zlib.decompressobj(47)
        part = member.decompress(data, limit - total + 1)
        parts.append(part)
        total += len(part)
        if total > limit:
            raise ValueError(f"a chunk that decompresses to more than {limit} bytes: damaged or forged")
        if not member.eof:
            raise ValueError("a compressed chunk that is cut short")
        data = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _blosc_bytes(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little")


def _lz4_bytes(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


def _zstd_bytes(data: bytes) -> int:
    """Return the declared content of all frames or, where a frame does not say, the most its blocks can hold."""
    total, at = 0, 0
    while len(data) - at >= 5:
        if 0x184D2A50 <= int.from_bytes(data[at : at + 4], "little") <= 0x184D2A5F:  # a frame to skip
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        flags = data[at + 4]
        single = bool(flags & 32)
        start = at + 5 + (not single) + (0, 1, 2, 4)[flags & 3]
        width = (1 if single else 0, 2, 4, 8)[flags >> 6]
        declared = int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
        at, held = _walk_blocks(data, start + width)
        at += 4 if flags & 4 else 0
        total += declared if width else held
    return total


def _walk_blocks(data: bytes, at: int) -> tuple[int, int]:
    """Return where the blocks of a frame end, and the most that they hold."""
    held, last = 0, False
    while not last and at + 3 <= len(data):
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        held += ZSTD_BLOCK if kind == 2 else size
        at += 3 + (1 if kind == 1 else size)
    return at, held
