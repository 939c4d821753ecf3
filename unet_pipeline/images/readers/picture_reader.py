"""Read PNG and JPEG: one plane, decoded whole.

Resolutions in these files are for printing, so they say nothing about the size of a pixel.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.blocks import CACHE_BYTES, Array, BlockCache, Declared, Spans
from unet_pipeline.images.readers.codestreams import declared_bytes
from unet_pipeline.images.readers.tiff_structure import COPY_AGAIN, MAX_BLOCK_BYTES, no_image
from unet_pipeline.records.files import sha256_file

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
JPEG_IN_TIFF = 7
ORIENTATION, SHORT, MAX_TAGS, MAX_EXIF_BYTES = 274, 3, 500, 2**20
# Deflate cannot exceed 1032. An optimal JPEG takes 12 bits for 768 bytes (4:2:0, one grey), a progressive one less.
MAX_RATIO = {"PNG": 1033, "JPEG": 8192}
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 1, RGB_ALPHA: 3}


class _Header(NamedTuple):
    """The header of a PNG or JPEG; `colour` and `bits` as in the IHDR chunk of PNG."""

    kind: str
    width: int
    height: int
    bits: int
    colour: int
    orientation: int = 1

    @property
    def alpha(self) -> bool:
        return self.colour in (GREY_ALPHA, RGB_ALPHA)


class PictureReader:
    """One PNG or JPEG file."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES, colours: bool = False) -> None:
        """Read and check the header; no pixels.

        Palette PNGs give their indices, grey PNGs of 1, 2 or 4 bits the numbers 0 to 1, 3 or 15.

        Args:
            path: the file.
            cache_bytes: how much decoded data to keep.
            colours: whether palette PNGs give the colours of the palette: RGB, or one channel where all are grey. That
                a colour is transparent is of no account.

        Raises:
            PipelineError: for a file that is no PNG or JPEG, forged, or CMYK.
        """
        self._path, self._cache = path, BlockCache(cache_bytes)
        self._header = header = _read_header(path)
        self._palette = _read_palette(path) if colours and header.colour == PALETTE else None
        drawn = CHANNELS[header.colour] if self._palette is None else self._palette.shape[1]
        self._channels = drawn + header.alpha
        shape = (header.height, header.width, self._channels)[: 3 if self._channels > 1 else 2]
        self.declared = Declared(
            where=path,
            shape=shape,
            letters="yxc"[: len(shape)],
            dtype=np.dtype(np.uint16 if header.bits == 16 else np.uint8),
            block=shape,
            files=(path,),
            rows=0,
            alpha=2 if header.alpha else None,
            orientation=header.orientation,
            palette=header.colour == PALETTE and self._palette is None,
        )

    def read(self, spans: Spans, place: str) -> Array:
        """Return (rows, columns) or, of several channels, (rows, columns, channels).

        Raises:
            PipelineError: naming the file, if it cannot be decoded.
        """
        image = self._cache.get(0)
        if image is None:
            image = self._decode()
            self._cache.put(0, image)
        return image[tuple(slice(*span) for span in spans)].copy()

    def _decode(self) -> Array:
        """Return the whole picture, of the shape declared."""
        try:
            image = _decode(self._path, self._header)
        except MemoryError:
            raise
        # Decoders raise errors of many kinds, and all of them mean a damaged file.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise PipelineError(self._path, "a picture that can be decoded", what, fix=COPY_AGAIN) from error
        expected = (self._header.height, self._header.width)
        if image.shape[:2] != expected:
            raise PipelineError(self._path, f"{expected} pixels as declared", image.shape[:2], fix=COPY_AGAIN)
        if self._palette is not None:
            image = self._paint(image, self._palette)
        shape = self.declared.shape
        return (
            image.reshape(*expected, -1)[..., : self._channels].reshape(shape).astype(self.declared.dtype, copy=False)
        )

    def _paint(self, indices: Array, palette: Array) -> Array:
        """Return the colours (height, width, 1 or 3) of indices (height, width)."""
        if (largest := int(indices.max())) >= len(palette):
            raise PipelineError(self._path, f"indices of a palette of {len(palette)} colours", largest, fix=COPY_AGAIN)
        painted: Array = palette[indices]
        return painted

    def notes(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file."""
        return sha256_file(self._path)

    def close(self) -> None:
        """Forget the decoded picture."""
        self._cache.clear()


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        head = file.read(26)
    if head.startswith(PNG) and len(head) == 26:
        width, height, bits, colour = struct.unpack(">IIBB", head[16:])
        offset, length = _walk_chunks(path, b"eXIf")
        header = _Header("PNG", width, height, bits, colour, _orientation(_part(path, offset, length)))
    elif head.startswith(JPEG):
        header = _jpeg_header(path)
    else:
        raise no_image(path, "a PNG or JPEG file")
    if header.colour not in CHANNELS or min(header.width, header.height) < 1:
        raise PipelineError(path, f"a {header.kind} header", str(header), fix=COPY_AGAIN)
    samples = CHANNELS[header.colour] + header.alpha
    claim, size = header.height * (-(-header.width * samples * header.bits // 8)), path.stat().st_size
    if claim > 2**20 + size * MAX_RATIO[header.kind]:
        got = f"{header.height} × {header.width} pixels in {size} bytes: the header is damaged or forged"
        raise PipelineError(path, "a declared size that the file can hold", got, fix=COPY_AGAIN)
    if claim > MAX_BLOCK_BYTES:
        fix = "save it as tiled TIFF or OME-Zarr"
        raise PipelineError(path, f"a picture of at most {MAX_BLOCK_BYTES} bytes of pixels", f"{claim}", fix=fix)
    return header


def _walk_chunks(path: Path, wanted: bytes) -> tuple[int, int]:
    """Check that all chunks of a PNG, up to IEND, lie inside the file; return offset and bytes of the `wanted` one."""
    found = 0, 0
    size, offset, kind = path.stat().st_size, len(PNG), b""
    with path.open("rb") as file:
        while kind != b"IEND":
            file.seek(offset)
            head = file.read(8)
            # After its 8 byte head, a chunk has its data and a checksum of 4 bytes.
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            found = (offset + 8, length) if kind == wanted else found
            offset += 12 + length
            if len(head) < 8 or offset > size:
                got = f"a chunk up to byte {offset} in a file of {size} bytes: truncated"
                raise PipelineError(path, "a whole PNG file", got, fix=COPY_AGAIN)
    return found


def _part(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(min(length, MAX_EXIF_BYTES))


def _orientation(exif: bytes) -> int:
    """Return the orientation of a picture, 1 where Exif data do not say or are damaged (Exif 2.32, 4.6.4)."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return 1
    start = struct.unpack(order + "I", data[4:8])[0] + 2
    for at in range(start, min(start + 12 * MAX_TAGS, len(data) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", data, at)
        if (tag, kind, count) == (ORIENTATION, SHORT, 1):
            return value if 1 <= value <= 8 else 1
    return 1


def _read_palette(path: Path) -> Array:
    """Return the colours of a palette PNG, (colours, 3) uint8, or (colours, 1) where all are grey."""
    offset, length = _walk_chunks(path, b"PLTE")
    if length % 3 or not 3 <= length <= 768:
        got = f"{length} bytes" if length else "none"
        raise PipelineError(path, "a palette of 1 to 256 colours, 3 bytes each", got, fix=COPY_AGAIN)
    colours = np.frombuffer(_part(path, offset, length), np.uint8).reshape(-1, 3)
    return colours[:, :1] if (colours == colours[:, :1]).all() else colours


def _jpeg_header(path: Path) -> _Header:
    try:
        # The class itself, because Image.open refuses more than 179 Mpx whatever the size of the file.
        with JpegImagePlugin.JpegImageFile(path) as image:
            mode, (width, height), exif = image.mode, image.size, image.info.get("exif", b"")
    # Pillow raises errors of many kinds on damaged headers.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise PipelineError(path, "a JPEG that can be read", what, fix=COPY_AGAIN) from error
    if mode not in ("L", "RGB"):
        raise PipelineError(path, "grey or RGB pixels", f"{mode} pixels", fix="convert the image to grey or RGB")
    return _Header("JPEG", width, height, 8, GREY if mode == "L" else RGB, _orientation(exif))


def _decode(path: Path, header: _Header) -> Array:
    if header.bits == 16 and header.colour != GREY:
        # Pillow reduces these to 8 bits.
        wide: Array = imagecodecs.png_decode(path.read_bytes())
        return wide[..., : CHANNELS[header.colour] + header.alpha]
    if header.kind == "JPEG":
        declared_bytes(JPEG_IN_TIFF, path.read_bytes())
    opener: Any = PngImagePlugin.PngImageFile if header.kind == "PNG" else JpegImagePlugin.JpegImageFile
    with opener(path) as image:
        values = np.asarray(image)
    # Pillow stretches 2 and 4 bit grey to 0..255.
    return values // (255 // (2**header.bits - 1)) if header.colour == GREY and header.bits in (2, 4) else values
