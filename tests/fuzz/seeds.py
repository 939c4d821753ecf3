"""Valid small inputs of every format, made by code: what the fuzzer starts from."""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import tifffile
import zarr
from PIL import Image
from places import ROOT

from fuzz.tree import Tree, read

sys.path[:0] = [str(ROOT / "tests")]

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 40, 48), dtype=np.uint8)


def tiffs() -> list[Tree]:
    """TIFF, BigTIFF, ImageJ, OME-TIFF, tiled, compressed, big-endian, RGB."""
    ways: list[dict[str, object]] = [
        {}, {"bigtiff": True}, {"byteorder": ">"}, {"imagej": True}, {"metadata": None},
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}},
        {"tile": (16, 16)}, {"bigtiff": True, "tile": (16, 32), "compression": "zstd"},
    ]  # fmt: skip
    ways += [{"compression": name, "rowsperstrip": 8} for name in ("zlib", "lzw", "packbits", "lzma", "zstd")]
    ways += [{"compression": name, "tile": (16, 16)} for name in ("jpeg", "jpeg2000", "webp", "png")]
    seeds = [_tiff(PIXELS, **way) for way in ways]
    seeds.append(_tiff(PIXELS.astype(np.uint16), compression="zlib", predictor=True))
    seeds.append(_tiff(PIXELS.astype(np.float32), compression="zlib", predictor=True))
    seeds.append(_tiff(PIXELS.astype(np.int32), resolution=(3, 4), resolutionunit="CENTIMETER"))
    seeds.append(_tiff(np.moveaxis(PIXELS, 0, -1), photometric="rgb", compression="jpeg", tile=(16, 16)))
    seeds.append(_tiff(PIXELS, photometric="rgb", planarconfig="separate"))
    return [{"image.tif": data} for data in seeds]


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    given = {"photometric": "minisblack"} | options
    if options.get("compression") in ("webp",):
        pixels, given["photometric"] = np.moveaxis(pixels, 0, -1), "rgb"
    made = {name: given.pop(name) for name in ("bigtiff", "byteorder", "imagej", "ome") if name in given}
    if made.get("imagej"):
        given.pop("photometric")
    with tifffile.TiffWriter(file, **made) as writer:
        writer.write(pixels, **given)
    return file.getvalue()


def tiff_sets() -> list[Tree]:
    """OME-TIFF of two files that name each other, and folders of single planes."""
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="48" SizeY="40" SizeZ="2" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0" SamplesPerPixel="1"/>'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"><UUID FileName="image.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="other.tif">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    pair = {
        "image.tif": _tiff(PIXELS[0], metadata=None, description=xml),
        "other.tif": _tiff(PIXELS[1], metadata=None, description=xml.replace('UUID="urn:uuid:a"', 'UUID="urn:uuid:b"')),
    }
    modulo = xml.replace(
        "</OME>",
        '<StructuredAnnotations><XMLAnnotation ID="Annotation:0" Namespace="openmicroscopy.org/omero/dimension/modulo">'
        '<Value><Modulo><ModuloAlongZ Start="0" End="1" Step="1"/></Modulo></Value></XMLAnnotation>'
        "</StructuredAnnotations></OME>",
    )
    return [pair, {**pair, "image.tif": _tiff(PIXELS[0], metadata=None, description=modulo)}]


def pictures() -> list[Tree]:
    """PNG of all kinds, JPEG grey, RGB and progressive."""
    colour = np.moveaxis(PIXELS, 0, -1)
    seeds = []
    for pixels in (PIXELS[0], colour, PIXELS[0].astype(np.uint16) * 200, PIXELS[0] > 99):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        seeds.append({"image.png": file.getvalue()})
    for pixels, progressive in ((PIXELS[0], False), (colour, False), (colour, True)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", progressive=progressive)
        seeds.append({"image.jpg": file.getvalue()})
    return seeds


def lists() -> list[Tree]:
    """Lists of names, as people and as Windows write them, and a folder of palette PNGs of two sizes."""
    pictures = {}
    for name, size in (("1", (8, 9)), ("2", (12, 5)), ("10", (8, 9))):
        picture = Image.fromarray(PIXELS[0, : size[0], : size[1]]).convert("P")
        picture.putpalette(PIXELS.ravel()[:768].tolist())
        file = io.BytesIO()
        picture.save(file, "PNG")
        pictures[f"a/{name}.png"] = file.getvalue()
    return [{"train.txt": text, **pictures} for text in (b"1\n2\n10\n", b"\xef\xbb\xbf10\r\n\r\n 1 \r\n")]


def zarrs() -> list[Tree]:
    """Zarr v2 and v3 of every codec, sharded too, and OME-Zarr 0.4 and 0.5."""
    v2 = [None, {"id": "zlib", "level": 1}, {"id": "blosc", "cname": "lz4", "clevel": 3, "shuffle": 1},
          {"id": "zstd", "level": 1}, {"id": "lz4"}, {"id": "bz2", "level": 1}, {"id": "gzip", "level": 1}]  # fmt: skip
    seeds = []
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        for number, compressor in enumerate(v2):
            seeds.append(_zarr2(Path(folder, str(number)), compressor))
        for number, codec in enumerate(("gzip", "zstd", "blosc", "none", "sharded")):
            seeds.append(_zarr3(Path(folder, f"three{number}"), codec))
        seeds += [_ome(Path(folder, f"ome{version}"), version) for version in ("0.4", "0.5")]
    return seeds


def _zarr2(path: Path, compressor: dict[str, object] | None) -> Tree:
    root = path / "image.zarr"
    root.mkdir(parents=True)
    import numcodecs

    metadata = {
        "zarr_format": 2, "shape": [3, 40, 48], "chunks": [1, 20, 24], "dtype": "|u1", "order": "C", "fill_value": 0,
        "compressor": compressor, "filters": None, "dimension_separator": "/",
    }  # fmt: skip
    (root / ".zarray").write_text(json.dumps(metadata))
    for z in range(3):
        for y in range(2):
            for x in range(2):
                chunk = PIXELS[z, y * 20 : y * 20 + 20, x * 24 : x * 24 + 24].tobytes()
                data = numcodecs.get_codec(dict(compressor)).encode(chunk) if compressor else chunk
                file = root / str(z) / str(y) / str(x)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(bytes(data))
    return read(path)


def _zarr3(path: Path, kind: str) -> Tree:
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    codec = {"gzip": GzipCodec(), "zstd": ZstdCodec(), "blosc": BloscCodec(), "sharded": ZstdCodec()}.get(kind)
    shards = (1, 40, 48) if kind == "sharded" else None
    array = zarr.create_array(
        path / "image.zarr", shape=PIXELS.shape, dtype="u1", chunks=(1, 20, 24), shards=shards,
        compressors=codec, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    array[:] = PIXELS
    return read(path)


def _ome(path: Path, version: str) -> Tree:
    group = zarr.create_group(path / "image.zarr", zarr_format=2 if version == "0.4" else 3)
    for level, pixels in enumerate((PIXELS, PIXELS[:, ::2, ::2])):
        group.create_array(str(level), data=pixels, chunks=(1, 20, 24))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    levels = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [2, 0.5 * f, 0.5 * f]}]}
        for level, f in enumerate((1, 2))
    ]
    image = {"version": version, "axes": axes, "datasets": levels, "name": "image"}
    attributes = {"multiscales": [image], "omero": {"channels": [{"label": "DAPI"}]}}
    group.attrs.update(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})
    return read(path)


def configs() -> list[Tree]:
    """The default configuration, the presets, one with aliases and merges, and the JSON that rules pass."""
    files = [ROOT / "config.yaml", *sorted((ROOT / "workflow" / "presets").glob("*.yaml"))]
    alias = b"labels: &l {kind: classes, classes: [a, b], values: {0: a, 255: b}}\ntrain: &t {steps: 3}\n"
    alias += b"store: {<<: {chunk_px: 64}}\n"
    rule = json.dumps({"labels": {"kind": "instances", "ignore": 7}, "store": {"chunk_px": 32, "shard_px": 64}})
    return [{"config.yaml": data} for data in (*(file.read_bytes() for file in files), alias, rule.encode())]


def tables() -> list[Tree]:
    """The demo's table and one that fills every column."""
    full = (
        "stack\timage\tlabels\trole\taxes\tlabel_axes\tpixel_um\tstep\tplanes\tlabel_planes\tseries\tregions\n"
        "a\tdata/a.tif\tdata/l.tif\ttrain\tzyx\tzyx\t0.5\t2\t0-3,5\t0-3,5\t0\t4\n# comment\n"
        "b\tx/*.png\t\tpredict\t\t\t\t\t\t\t\t\n"
    )
    return [{"stacks.tsv": (ROOT / "stacks.tsv").read_bytes()}, {"stacks.tsv": full.encode()}]


def models() -> list[Tree]:
    """A model folder with random weights."""
    from chain import make_model

    with tempfile.TemporaryDirectory() as folder:
        return [read(make_model(Path(folder, "model")))]


def results() -> list[Tree]:
    """A results folder of one stack after every stage, and its model."""
    from chain import make_model, make_plan, make_stack, run, settings

    from unet_pipeline.evaluate.evaluate import evaluate
    from unet_pipeline.stacks.weigh import weigh

    with tempfile.TemporaryDirectory() as name:
        folder, config = Path(name), settings()
        stack = make_stack(folder, config)
        weigh(stack, config, stack.record.with_name("weigh.json"))
        stitched = run(make_plan(stack, config), make_model(folder / "results" / "model"), config)
        evaluate(stitched, config, stitched.with_name("metrics.json"))
        return [unsigned(read(folder))]


def unsigned(tree: Tree) -> Tree:
    """Return the tree with records as `read_json` gives them, without their checksum."""
    from unet_pipeline.records.record import read_json

    out = dict(tree)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in tree.items():
            if is_record(name):
                path = Path(folder, "record.json")
                path.write_bytes(data)
                out[name] = json.dumps(read_json(path)).encode()
    return out


def is_record(name: str) -> bool:
    return name.endswith(".json") and ".zarr/" not in name


def ingests() -> list[Tree]:
    """Image and labels of a stack that is to be ingested."""
    labels = np.zeros(PIXELS.shape, np.uint16)
    for number, (y, x) in enumerate((y, x) for y in range(2, 36, 12) for x in range(2, 44, 12)):
        labels[:, y : y + 9, x : x + 9] = number + 1
    pair = {
        "image.tif": _tiff(PIXELS, imagej=True, metadata={"axes": "ZYX"}),
        "labels.tif": _tiff(labels, metadata={"axes": "ZYX"}),
    }
    floating = {
        **pair,
        "image.tif": _tiff(PIXELS.astype(np.float32)),
        "labels.tif": _tiff(labels.astype(np.float32), metadata=None),
    }
    return [pair, floating]


def zip_bomb(size: int) -> bytes:
    """A gzip stream of zeros hundreds of times smaller than `size`."""
    import zlib

    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join([*parts, packer.flush()])


def zstd_bomb(size: int) -> bytes:
    """A Zstandard frame without content size: run-length blocks of 128 kB in 4 bytes each."""
    count = max(1, size // 2**17)
    block = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (2**17 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return struct.pack("<I", 0xFD2FB528) + bytes([0, 0x58]) + block * (count - 1) + last
