"""The bytes that a compressed strip or tile declares, read from its header before it is decoded.

Decoders of pictures allocate what the picture declares, whatever the TIFF around it says.
Sources: ITU-T T.81, B.2.2 (JPEG frame header); ITU-T T.800, A.5.1 (JPEG 2000 SIZ); W3C PNG 3, 11.2.1 (IHDR).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

JPEG = (6, 7, 99, 33007, 34892)
JPEG_2000 = (33003, 33004, 33005, 34712)
PNG = (34933,)
WEBP = (34927, 50001)
BYTE_STREAMS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)
"""Compressions for which tifffile passes the decoder a limit of bytes."""

READABLE = frozenset(JPEG + JPEG_2000 + PNG + WEBP + BYTE_STREAMS)
"""TIFF compressions whose decoders cannot be made to exceed what a strip or tile needs; WebP ends at 1 GiB."""

# A progressive JPEG is decoded once per scan; ten are usual.
MAX_SCANS = 100


def declared_bytes(compression: int, data: bytes) -> int:
    """Return the bytes of the largest picture that `data` declares; 0 for streams of bytes.

    Raises:
        ValueError: for a JPEG of more than 100 scans, which are there to keep the decoder busy.
    """
    if compression in JPEG:
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise ValueError(f"a JPEG of {scans} scans")
        return max(_jpeg(data), default=0)
    if compression in JPEG_2000:
        return max(_jpeg_2000(data), default=0)
    if compression in PNG and len(data) >= 26:
        width, height = struct.unpack(">II", data[16:24])
        return int(width * height * 8)
    return 0


def _jpeg(data: bytes) -> Iterator[int]:
    # Whatever looks like a frame header counts: a decoder may find it, and walking the segments could be misled.
    for match in re.finditer(
        rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\x00.([\x08-\x10])(....)([\x01-\x04])", data, re.DOTALL
    ):
        height, width = struct.unpack(">HH", match[2])
        yield height * width * match[3][0] * (1 if match[1] == b"\x08" else 2)


def _jpeg_2000(data: bytes) -> Iterator[int]:
    for match in re.finditer(rb"\xff\x4f\xff\x51", data):
        head = data[match.end() : match.end() + 38]
        if len(head) == 38:
            right, bottom, left, top = struct.unpack(">IIII", head[4:20])
            components = struct.unpack(">H", head[36:38])[0]
            yield max(0, right - left) * max(0, bottom - top) * components * 4
