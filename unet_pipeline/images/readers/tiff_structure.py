"""Checks of a TIFF before it is decoded: the chain of its pages, and the places of the pixel data of each page.

Source of the file structure: TIFF 6.0, section 2; BigTIFF, https://www.awaresystems.be/imaging/tiff/bigtiff.html.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError

COPY_AGAIN = "copy the file again or repair it"
# How much larger than its compressed bytes a strip or tile may claim to be. Deflate cannot exceed 1032, PackBits 64,
# LZW 4096 / 1.5; run-length frames of zstd reach 32768. Smaller blocks than FREE_BYTES need no such check.
MAX_RATIO = {1: 1, 5: 2731, 8: 1033, 32946: 1033, 32773: 64}
OTHER_RATIO = 65536
FREE_BYTES = 64 * 2**20
# The largest compressed strip or tile: it is decoded whole.
MAX_BLOCK_BYTES = 4 * 2**30
MAX_TAGS = 4096
# Bytes of a value, by the type of its tag.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Directories and values of all pages together may fill the file a few times over, where pages share some.
MAX_SHARED = 8


# Tags that fix how a page is stored, with their defaults: size, bits, compression, colours, bit order, samples, rows
# per strip, planar configuration, predictor, tile size, extra samples, sample format.
FORMAT_TAGS = {
    256: 0, 257: 0, 258: 1, 259: 1, 262: 0, 266: 1, 277: 1,
    278: 2**32 - 1, 284: 1, 317: 1, 322: 0, 323: 0, 338: 0, 339: 1,
}  # fmt: skip
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}

PageFormat = tuple[tuple[int, ...], ...]


class _Variant(NamedTuple):
    """The places and formats of numbers in TIFF or BigTIFF (struct codes, with byte order)."""

    first: int
    tags: str
    offset: str
    entry: str
    inline: int


def no_image(path: Path, expected: str) -> PipelineError:
    """Return the error for a file that does not begin as its name says, with what people take for images by mistake."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return PipelineError(path, expected, "a pointer of Git LFS", fix="fetch the file itself: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return PipelineError(path, expected, "a web page", fix="download the file itself, not the page that shows it")
    got = f"a file that starts with {head[:8]!r}" if head else "an empty file"
    return PipelineError(path, expected, got, fix=COPY_AGAIN)


def read_chain(path: Path) -> dict[int, PageFormat]:
    """Walk the chain of page directories.

    Returns:
        How each page is stored, by the offset of its directory, in order; equal values mean alike pages.

    Raises:
        PipelineError: if `path` is no TIFF, or the chain leaves the file (truncated) or bites its tail.
    """
    with path.open("rb") as file:
        head = file.read(4)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(order + "H", head[2:])[0] if order and len(head) == 4 else 0
        if version not in (42, 43):
            raise no_image(path, "a TIFF file")
        big = _Variant(8, order + "Q", order + "Q", order + "HHQ", 8)
        return _walk(path, file, big if version == 43 else _Variant(4, order + "H", order + "I", order + "HHI", 4))


def _walk(path: Path, file: BinaryIO, form: _Variant) -> dict[int, PageFormat]:
    chain: dict[int, PageFormat] = {}
    entry_bytes = struct.calcsize(form.entry) + form.inline
    room = FREE_BYTES + MAX_SHARED * path.stat().st_size
    offset = _number(path, file, form.first, form.offset, 0)
    while offset and offset not in chain:
        where, page = f"{path}, page {len(chain)}", len(chain)
        tags = _number(path, file, offset, form.tags, page)
        if tags > MAX_TAGS:
            raise PipelineError(where, "a TIFF page directory", f"{tags} tags", fix=COPY_AGAIN)
        start = offset + struct.calcsize(form.tags)
        entries = _bytes(path, file, start, tags * entry_bytes, page)
        room -= len(entries) + _value_bytes(form, entries)
        if room < 0:
            got = "overlapping directories, or values far beyond its size"
            raise PipelineError(where, "a TIFF page that the file can hold", got, fix=COPY_AGAIN)
        chain[offset] = _page_format(path, file, form, entries, page)
        offset = _number(path, file, start + len(entries), form.offset, page)
    if offset:
        raise PipelineError(path, "a chain of TIFF pages", f"a circle after page {len(chain) - 1}", fix=COPY_AGAIN)
    if not chain:
        raise PipelineError(path, "a TIFF with at least one page", "none", fix=COPY_AGAIN)
    return chain


def _value_bytes(form: _Variant, entries: bytes) -> int:
    """Return the bytes of all values of a directory."""
    tags = struct.iter_unpack(f"{form.entry}{form.inline}x", entries)
    return sum(count * TYPE_BYTES.get(kind, 1) for _, kind, count in tags)


def _page_format(path: Path, file: BinaryIO, form: _Variant, entries: bytes, page: int) -> PageFormat:
    values = {code: (default,) for code, default in FORMAT_TAGS.items()}
    head = struct.calcsize(form.entry)
    for i in range(0, len(entries), head + form.inline):
        code, kind, count = struct.unpack_from(form.entry, entries, i)
        if code in values and kind in INTEGERS and 0 < count <= MAX_TAGS:
            wanted = f"{form.entry[0]}{count}{INTEGERS[kind]}"
            data = entries[i + head : i + head + form.inline]
            if struct.calcsize(wanted) > form.inline:
                data = _bytes(path, file, struct.unpack(form.offset, data)[0], struct.calcsize(wanted), page)
            values[code] = struct.unpack_from(wanted, data)
    # RowsPerStrip may be anything from the height up.
    values[278] = (min(values[278][0], values[257][0]),)
    return tuple(values.values())


def _number(path: Path, file: BinaryIO, offset: int, code: str, page: int) -> int:
    return int(struct.unpack(code, _bytes(path, file, offset, struct.calcsize(code), page))[0])


def _bytes(path: Path, file: BinaryIO, offset: int, size: int, page: int) -> bytes:
    # BigTIFF offsets may exceed what seek accepts.
    data = b"" if offset > 2**62 else (file.seek(offset), file.read(size))[1]
    if len(data) < size:
        got = f"the directory of page {page} beyond its end: truncated"
        raise PipelineError(path, "a whole TIFF file", got, fix=COPY_AGAIN)
    return data


@dataclass(frozen=True)
class Grid:
    """Strips or tiles of every page of a series; strips are tiles as wide as the image.

    Attributes:
        height, width: of the image, px.
        rows, columns: of a strip or tile, px.
        separate: sample planes stored one after the other (PlanarConfiguration 2), or 1.
        contiguous: samples stored with each pixel, or 1.
        sample_bits: bits per sample in the file.
        compression: the TIFF tag.
        tiled: tiles, not strips.
    """

    height: int
    width: int
    rows: int
    columns: int
    separate: int
    contiguous: int
    sample_bits: int
    compression: int
    tiled: bool

    @property
    def across(self) -> int:
        """Strips or tiles in a row."""
        return math.ceil(self.width / self.columns)

    @property
    def down(self) -> int:
        """Strips or tiles in a column."""
        return math.ceil(self.height / self.rows)

    @property
    def count(self) -> int:
        """Strips or tiles in a page."""
        return self.across * self.down * self.separate

    def stored_bytes(self, rows: int) -> int:
        """Bytes of `rows` rows of a strip or tile, uncompressed as in the file."""
        return rows * math.ceil(self.columns * self.contiguous * self.sample_bits / 8)


class PageData(NamedTuple):
    """The places of the strips or tiles of one page.

    Attributes:
        path: the file.
        offsets, sizes: (strips or tiles,) int64, bytes; size 0 marks an absent tile.
        tables: JPEG tables shared by the strips or tiles, if any.
    """

    path: Path
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    tables: Any


def check_page(where: str, page: PageData, grid: Grid) -> None:
    """Check that every strip or tile lies inside the file and is large enough for what it claims to hold.

    Raises:
        PipelineError: naming `where`, the file and page.
    """
    file_size = page.path.stat().st_size
    if not len(page.offsets) == len(page.sizes) == grid.count:
        got = f"{len(page.offsets)} offsets and {len(page.sizes)} sizes"
        raise PipelineError(where, f"{grid.count} strips or tiles", f"{got}: damaged or truncated", fix=COPY_AGAIN)
    if (page.offsets > file_size - page.sizes).any() or (page.offsets < 0).any() or (page.sizes < 0).any():
        end = max(int(offset) + int(size) for offset, size in zip(page.offsets, page.sizes, strict=True))
        got = f"data up to byte {end} in a file of {file_size} bytes: truncated"
        raise PipelineError(where, "pixel data inside the file", got, fix=COPY_AGAIN)
    present = (page.sizes > 0) & (page.offsets > 0)
    if not grid.tiled and not present.all():
        raise PipelineError(where, "pixel data for every strip", "strips without data: truncated", fix=COPY_AGAIN)
    _check_claim(where, page.sizes[present], np.flatnonzero(present), grid)


def _check_claim(where: str, sizes: npt.NDArray[np.int64], index: npt.NDArray[np.intp], grid: Grid) -> None:
    """Compare the declared size of strips or tiles with the bytes that are there, before anything is allocated."""
    claim = grid.stored_bytes(grid.rows)
    if claim > FREE_BYTES and sizes.size == 0:
        raise PipelineError(where, "tiles with data", f"absent tiles of {claim} bytes", fix=COPY_AGAIN)
    last = grid.stored_bytes(grid.height - (grid.down - 1) * grid.rows)
    claims = np.where(np.logical_or(grid.tiled, index % grid.down != grid.down - 1), float(claim), float(last))
    ratio = MAX_RATIO.get(grid.compression, OTHER_RATIO)
    small = 0 if grid.compression == 1 else FREE_BYTES
    if grid.compression != 1 and claims.max(initial=0) > MAX_BLOCK_BYTES:
        expected, fix = f"compressed strips or tiles of at most {MAX_BLOCK_BYTES} bytes", "save it in tiles"
        raise PipelineError(where, expected, f"{claim} bytes", fix=fix)
    if ((claims > small) & (claims > sizes.astype(np.float64) * ratio)).any():
        got = f"strips or tiles of {claim} bytes backed by {int(sizes.min())} bytes: the header is damaged or forged"
        raise PipelineError(where, "a declared size that the file can hold", got, fix=COPY_AGAIN)
