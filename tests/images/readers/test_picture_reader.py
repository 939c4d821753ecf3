import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from reading import assert_reads, check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, data: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand, so that the test does not depend on a writer."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", ["?", "u1", "u2"])
def test_grey_png(tmp_path, dtype):
    pixels = noise((21, 33), dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert check(tmp_path / "a.png", pixels[None, None]).block_px == (21, 33)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_rgb_png(tmp_path, dtype):
    pixels = noise((21, 33, 3), dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    check(tmp_path / "a.png", pixels.transpose(2, 0, 1)[None])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_few_bits_keeps_its_numbers(tmp_path, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (5, 16)).astype("u1" if bits <= 8 else ">u2")
    columns = (pixels[..., None] >> np.arange(bits)[::-1]) & 1
    rows = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in columns)
    (tmp_path / "a.png").write_bytes(png(16, 5, bits, 0, rows))
    check(tmp_path / "a.png", pixels[None, None])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_indices_are_kept(tmp_path, bits):
    indices = np.random.default_rng(0).integers(0, 2**bits, (21, 33)).astype(np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(np.random.default_rng(1).integers(0, 255, 3 * 2**bits).tolist())
    image.save(tmp_path / "a.png", bits=bits, transparency=0)
    check(tmp_path / "a.png", indices[None, None])


@pytest.mark.parametrize(("channels", "dtype"), [(2, "u1"), (2, "u2"), (4, "u1"), (4, "u2")])
def test_alpha(tmp_path, channels, dtype):
    pixels = noise((21, 33, channels), dtype)
    pixels[..., -1] = np.iinfo(dtype).max
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    check(tmp_path / "a.png", pixels[..., :-1].transpose(2, 0, 1)[None])
    pixels[20, 30, -1] -= 1
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    with pytest.raises(PipelineError, match=r"a\.png.*opaque"):
        open_planes(str(tmp_path / "a.png")).read(0, slice(None), slice(None))
    check(tmp_path / "a.png", pixels.transpose(2, 0, 1)[None], "yxc")


@pytest.mark.parametrize("colour", [0, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_of_no_account(tmp_path, colour, bits):
    samples = 3 if colour else 1
    pixels = noise((4, 6, samples), "u1" if bits == 8 else ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    key = chunk(b"tRNS", pixels[0, 0].astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(png(6, 4, bits, colour, rows, key))
    check(tmp_path / "a.png", pixels.transpose(2, 0, 1)[None])


def test_jpeg(tmp_path):
    smooth = np.linspace(0, 255, 64 * 96).reshape(64, 96).astype(np.uint8)
    colour = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1)
    for name, pixels in (("g.jpg", smooth[..., None]), ("c.JPEG", colour)):
        Image.fromarray(pixels.squeeze()).save(tmp_path / name, quality=95)
        with Image.open(tmp_path / name) as image:
            decoded = np.asarray(image).reshape(64, 96, -1)
        assert_reads(open_planes(str(tmp_path / name)), decoded.transpose(2, 0, 1)[None])
        assert np.abs(decoded.astype(int) - pixels).max() < 12


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (9, 8)).save(tmp_path / "print.jpg")
    with pytest.raises(PipelineError, match=r"print\.jpg.*CMYK"):
        open_planes(str(tmp_path / "print.jpg"))


@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx"])
def test_axes_of_one_picture(tmp_path, axes):
    pixels = noise((21, 33))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert check(tmp_path / "a.png", pixels[None, None], axes).plane_axis == ("t" if "t" in axes else "z")


def test_axes_that_turn_the_picture_are_refused(tmp_path):
    Image.fromarray(noise((21, 33))).save(tmp_path / "a.png")
    with pytest.raises(PipelineError, match=r"a\.png: axes"):
        open_planes(str(tmp_path / "a.png"), "xy")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_file_is_refused(tmp_path, name):
    Image.fromarray(noise((60, 70))).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for cut in np.linspace(0, len(data) - 3, 40).astype(int):
        (tmp_path / name).write_bytes(data[:cut])
        with pytest.raises(PipelineError, match=name.replace(".", r"\.")):
            open_planes(str(tmp_path / name)).read(0, slice(None), slice(None))


def test_damaged_pixels_name_the_file(tmp_path):
    Image.fromarray(noise((60, 70))).save(tmp_path / "hurt.png")
    data = bytearray((tmp_path / "hurt.png").read_bytes())
    data[200:240] = bytes(40)
    (tmp_path / "hurt.png").write_bytes(data)
    with pytest.raises(PipelineError, match=r"hurt\.png.*decoded"):
        open_planes(str(tmp_path / "hurt.png")).read(0, slice(None), slice(None))


def test_forged_sizes_allocate_nothing(tmp_path):
    (tmp_path / "forged.png").write_bytes(png(10**6, 10**6, 8, 0, bytes(1000)))
    Image.fromarray(noise((16, 16))).save(tmp_path / "forged.jpg")
    data = bytearray((tmp_path / "forged.jpg").read_bytes())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "forged.jpg").write_bytes(data)
    long = bytearray(png(6, 4, 8, 0, bytes(28)))
    long[33:37] = struct.pack(">I", 2**31 - 1)
    (tmp_path / "forged2.png").write_bytes(long)
    for name in ("forged.png", "forged.jpg", "forged2.png"):
        tracemalloc.start()
        with pytest.raises(PipelineError, match=name):
            open_planes(str(tmp_path / name))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_constant_pictures_are_not_taken_for_forged(tmp_path):
    pixels = np.full((3000, 4000), 7, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", optimize=True)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", optimize=True, progressive=True)
    Image.fromarray(np.stack([pixels] * 3, -1)).save(tmp_path / "c.jpg", optimize=True, progressive=True, quality=5)
    for name in ("a.png", "a.jpg", "c.jpg"):
        assert open_planes(str(tmp_path / name)).shape[2:] == (3000, 4000)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_another_kind_of_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"II*\0 this is no picture, whatever its name says")
    with pytest.raises(PipelineError, match=rf"{name}.*starts with b'II"):
        open_planes(str(tmp_path / name))
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(PipelineError, match=rf"{name}.*an empty file"):
        open_planes(str(tmp_path / name))


def test_bands_decode_the_picture_once(tmp_path, monkeypatch):
    from unet_pipeline.images.readers import picture_reader

    pixels = noise((90, 70))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    calls = []
    decode = picture_reader._decode
    monkeypatch.setattr(picture_reader, "_decode", lambda *a: calls.append(a) or decode(*a))
    planes = open_planes(str(tmp_path / "a.png"))
    bands = [planes.read(0, slice(top, top + 16), slice(None)) for top in range(0, 90, 16)]
    np.testing.assert_array_equal(np.concatenate(bands, 1)[0], pixels)
    assert len(calls) == 1
    planes.close()
    planes.read(0, slice(0, 1), slice(0, 1))
    assert len(calls) == 2
