"""Shards against tensorstore and zarr-python, and what the codecs cost: `python benchmarks/shards.py`."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorstore
import zarr
from figures import Figure, in_turn, publish, sized, step
from numcodecs import LZ4, Blosc, GZip, Zstd

from unet_pipeline.config.sections import Store
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import Vouch, open_array, unlisted
from unet_pipeline.machine.allocator import keep_pages
from unet_pipeline.records.checksums import Vouched, write_list

WHY = """
Why Zstandard, level 3: levels above it keep a hundredth less at half the speed, level 1 keeps two hundredths more at
one and a half times the speed, LZ4 a sixth more. Compression is not what is waited for: on two cores a network makes
4 to 6 MB/s of probabilities and classes; 16 cores beside a GPU compress 1.3 GB/s, where 250 Mpx/s would make 0.75.
"""
EDGE = sized(4096, 512)
CHUNK = Store().chunk_px


def probabilities() -> npt.NDArray[np.uint8]:
    """Return what a network is sure of: two channels (2, y, x), mostly 0 or 255, soft at edges, a little noise."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(0)
    field = gaussian_filter(generator.normal(size=(EDGE, EDGE)).astype(np.float32), 12)
    cell = 1 / (1 + np.exp(-field / field.std() * 6 + generator.normal(0, 0.3, field.shape).astype(np.float32)))
    return (np.stack([1 - cell, cell]) * 255).round().astype(np.uint8)


def objects() -> npt.NDArray[np.uint32]:
    """Return instances (y, x): discs with numbers."""
    y, x = np.mgrid[:EDGE, :EDGE]
    inside = (y % 64 - 32) ** 2 + (x % 64 - 32) ** 2 < 25**2
    return np.where(inside, y // 64 * 64 + x // 64 + 1, 0).astype(np.uint32)


def create(folder: Path, level: int, channels: int | None, dtype: npt.DTypeLike) -> Path:
    """Create an empty array as the pipeline does."""
    shutil.rmtree(folder, ignore_errors=True)
    grid = ngff.Grid(1, EDGE, EDGE, "z", None, None)
    ngff.create_array(zarr.create_group(folder, zarr_format=3), "0", grid, channels, dtype, Store(compression=level))
    return folder


def write_ours(folder: Path, values: npt.NDArray) -> None:
    """Write one shard."""
    every = slice(0, EDGE)
    open_array(folder, "0", writable=True).write(0, every, every, values)


def write_tensorstore(folder: Path, values: npt.NDArray) -> None:
    """Write the same array, made by the pipeline, with tensorstore."""
    place = {"driver": "file", "path": str(folder / "0")}
    store = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result()
    store[(slice(None), 0) if values.ndim == 3 else 0].write(values).result()


def against_tensorstore(folder: Path) -> list[Figure]:
    """Write both kinds of array with both libraries in turn, and see that they read alike."""
    figures = []
    for name, values in (("probabilities", probabilities()), ("instances", objects())):
        step(name)
        channels = len(values) if values.ndim == 3 else None
        one, two = (create(folder / side, 3, channels, values.dtype) for side in ("ours", "other"))
        mine, other = in_turn(lambda v=values, p=one: write_ours(p, v), lambda v=values, p=two: write_tensorstore(p, v))
        every = slice(0, EDGE)
        for place in (one, two):
            read = open_array(place, "0").read(0, every, every)
            assert np.array_equal(read if channels else read[0], values), place
        rates = values.nbytes / 1e6 / mine.wall_s, values.nbytes / 1e6 / other.wall_s
        figures.append(Figure(f"shards: {name} written, against tensorstore", *rates, "MB/s", 0.8))
    return figures


def reading(folder: Path) -> list[Figure]:
    """Read a window of nine shards of noise, which compresses little, against both libraries."""
    step("reading, against zarr-python and tensorstore")
    grid, edge = ngff.Grid(1, 3 * EDGE, 3 * EDGE, "z", None, None), EDGE + 2 * 100
    ngff.create_array(
        zarr.create_group(folder, zarr_format=3),
        "0",
        grid,
        1,
        np.uint8,
        Store(shard_px=EDGE, chunk_px=min(CHUNK, EDGE)),
    )
    array = open_array(folder, "0", writable=True)
    noise = np.random.default_rng(0).integers(60, 180, (EDGE, EDGE), np.uint8)
    for shard in array.shards():
        array.write(*shard.at, noise[None])
    part = slice(EDGE - 100, EDGE - 100 + edge)
    place = {"driver": "file", "path": str(folder / "0")}
    other = tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result()
    sides = {
        "zarr-python": lambda: np.asarray(array.array[0, 0, part, part]),
        "tensorstore": lambda: other[0, 0, part, part].read().result(),
    }
    mine, *theirs = in_turn(lambda: array.read(0, part, part), *sides.values())
    mpx = edge**2 / 1e6
    return [
        Figure(
            f"shards: a window read, against {name}",
            mpx / mine.wall_s,
            mpx / taken.wall_s,
            "Mpx/s",
            cpu_s=(mine.cpu_s / mpx, taken.cpu_s / mpx),
        )
        for name, taken in zip(sides, theirs, strict=True)
    ]


def held_against_a_list(folder: Path) -> list[Figure]:
    """Read a plane of nine shards with and without holding each file against its listed checksum first."""
    step("reading, each shard held against the list")
    grid, values = ngff.Grid(1, 3 * EDGE, 3 * EDGE, "z", None, None), probabilities()
    folder.mkdir()
    store, record = folder / "image.ome.zarr", folder / "ingest.json"
    ngff.create_image(store, "", grid, len(values), values.dtype, Store(shard_px=EDGE, chunk_px=min(CHUNK, EDGE)), {})
    written = open_array(store, "0", writable=True)
    for shard in written.shards():
        written.write(*shard.at, values)
    files = write_list(record, [store])

    def read(vouch: Vouch) -> None:
        array = open_array(store, "0", vouch=vouch)
        for shard in array.shards():
            array.read(*shard.at)

    checked, unchecked = in_turn(lambda: read(Vouched(record, files).check), lambda: read(unlisted))
    rates = 9 * values.nbytes / 1e6 / checked.wall_s, 9 * values.nbytes / 1e6 / unchecked.wall_s
    return [Figure("shards: read and held against the list, against read alone", *rates, "MB/s", 0.7)]


def levels(folder: Path) -> list[str]:
    """Return a table of what the levels of Zstandard cost and save."""
    lines = [
        "| level | probabilities, MB/s | of their size | instances, MB/s | of their size |",
        "|---|---|---|---|---|",
    ]
    for level in (0, 1, 2, 3, 5, 7, 9):
        step(f"Zstandard level {level}")
        cells = [str(level)]
        for values in (probabilities(), objects()):
            place = create(folder / "level", level, len(values) if values.ndim == 3 else None, values.dtype)
            (taken,) = in_turn(lambda v=values, p=place: write_ours(p, v), rounds=3)
            size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            cells += [f"{values.nbytes / 1e6 / taken.wall_s:.0f}", f"{size / values.nbytes:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def codecs() -> list[str]:
    """Return a table of what other codecs would cost and save, chunk by chunk on one core."""
    tried = {
        "LZ4": LZ4(),
        "gzip, level 5": GZip(5),
        "Blosc: LZ4": Blosc("lz4", 5, Blosc.NOSHUFFLE),
        "Blosc: Zstandard 3": Blosc("zstd", 3, Blosc.NOSHUFFLE),
        "Zstandard 3, as stored": Zstd(3),
    }
    lines = [
        "| codec | probabilities, MB/s | of their size | instances, MB/s | of their size |",
        "|---|---|---|---|---|",
    ]
    for name, codec in tried.items():
        step(name)
        cells = [name]
        for values in (probabilities(), objects()):
            planes = values.reshape(-1, EDGE, EDGE)
            places = itertools.product(range(len(planes)), range(0, EDGE, CHUNK), range(0, EDGE, CHUNK))
            chunks = [np.ascontiguousarray(planes[c, y : y + CHUNK, x : x + CHUNK]) for c, y, x in places]
            (taken,) = in_turn(lambda codec=codec, chunks=chunks: [codec.encode(chunk) for chunk in chunks], rounds=3)
            size = sum(len(codec.encode(chunk)) for chunk in chunks)
            cells += [f"{values.nbytes / 1e6 / taken.wall_s:.0f}", f"{size / values.nbytes:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    keep_pages()  # as predict does
    with tempfile.TemporaryDirectory() as name:
        made = [
            *against_tensorstore(Path(name)),
            *reading(Path(name) / "read"),
            *held_against_a_list(Path(name) / "listed"),
        ]
        publish("shards", made, "\n".join([*levels(Path(name)), "", *codecs(), WHY]))
