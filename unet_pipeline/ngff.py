"""OME-NGFF 0.5 images and labels: the only module that knows the format.

Images are 4D with one plane axis, `czyx` or `tcyx`; labels are 3D, `zyx` or `tyx`. Both are seen by the rest of
the library as planes. Parallel writers inside one shard lose data silently, so a shard is written whole, once.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from unet_pipeline.config import Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.record import sha256_file

VERSION = "0.5"
EDGE_PX = 64
"""Small images are stored in chunks rounded up to this: a multiple of every pooling stride up to depth 6."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """The size and physical scale of a stack.

    Attributes:
        planes, height, width: size in planes and px.
        plane_axis: "z" or "t", what the planes are.
        pixel_um: (y, x) size of a pixel, micrometres; None where unknown.
        step: distance between planes, micrometres for z and seconds for t; None where unknown.
    """

    planes: int
    height: int
    width: int
    plane_axis: str = "z"
    pixel_um: tuple[float, float] | None = None
    step: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes, height, width)."""
        return self.planes, self.height, self.width

    def halved(self, level: int) -> Grid:
        """Return the grid of a pyramid level: height and width halved `level` times, rounded up."""
        height, width = -(-self.height // 2**level), -(-self.width // 2**level)
        return Grid(self.planes, height, width, self.plane_axis, self.pixel_um, self.step)

    def levels(self, chunk_px: int) -> int:
        """Return the number of pyramid levels: the last one fits a chunk."""
        return 1 + max(0, int(np.ceil(np.log2(max(self.height, self.width) / chunk_px))))


class Planes(Protocol):
    """Anything that is read plane by plane, `(channels, rows, columns)` at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(planes, channels, height, width)."""
        ...

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return `(channels, rows, columns)`."""
        ...


class PlaneArray:
    """A Zarr array of an image (4D) or a label (3D) seen as planes; writes whole shards.

    Attributes:
        shape: (planes, channels, height, width); labels have one channel.
        shard_px: (height, width) of a shard, the unit of writing.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        """Wrap an array with axes czyx, tcyx, zyx or tyx."""
        self.array = array.with_config({"write_empty_chunks": True, "order": "C"})
        self._names = tuple(str(name) for name in array.metadata.dimension_names or ())  # type: ignore[union-attr]
        self._plane_axis = "t" if "t" in self._names else "z"
        planes, channels = self._plane_and_channel()
        self.shape = (planes, channels, array.shape[-2], array.shape[-1])
        self.dtype = np.dtype(array.dtype)
        shards = array.shards or array.chunks
        self.shard_px = (shards[-2], shards[-1])

    def _plane_and_channel(self) -> tuple[int, int]:
        if len(self.array.shape) == 3:
            return self.array.shape[0], 1
        by_name = dict(zip(self._names, self.array.shape, strict=True))
        return int(by_name[self._plane_axis]), int(by_name["c"])

    def _index(self, plane: int, rows: slice, columns: slice) -> tuple[Any, ...]:
        if len(self.array.shape) == 3:
            return plane, rows, columns
        every = slice(None)
        return (plane, every, rows, columns) if self._names[0] == "t" else (every, plane, rows, columns)

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return `(channels, rows, columns)` of an image.

        Raises:
            PipelineError: if a stored chunk cannot be decoded.
        """
        try:
            values = np.asarray(self.array[self._index(plane, rows, columns)])
        except (ValueError, RuntimeError, OSError) as error:
            where = f"{self.path} plane {plane}, rows {rows.start}:{rows.stop}, columns {columns.start}:{columns.stop}"
            raise PipelineError(where, "readable chunks", error, fix="the store was damaged; rerun its step") from error
        return values[None] if values.ndim == 2 else values

    def read_label(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return `(rows, columns)` of a label."""
        values: Array = self.read(plane, rows, columns)[0]
        return values

    def write(self, plane: int, rows: slice, columns: slice, values: Array) -> None:
        """Write `(channels, rows, columns)` or `(rows, columns)`; rows and columns must cover whole shards.

        Raises:
            PipelineError: if the disk is full or cannot be written; the shard then keeps its former content.
        """
        index = self._index(plane, rows, columns)
        one_plane = values[0] if values.ndim == 3 and len(self.array.shape) == 3 else values
        try:
            self._replace(index, one_plane, self.shard_file(plane, rows.start, columns.start))
        except OSError as error:
            fix = "free space or choose another disk (--directory), then rerun: finished shards are kept"
            raise PipelineError(self.path, "room to write a shard", error, fix=fix) from error

    def _replace(self, index: tuple[Any, ...], values: Array, shard: Path) -> None:
        try:
            self.array[index] = values
        except (ValueError, RuntimeError):
            # zarr reads a shard that the image edge clips before it writes it; a damaged one is in the way.
            if not shard.is_file():
                raise
            shard.unlink()
            self.array[index] = values

    @property
    def path(self) -> Path:
        """Folder of the array."""
        return Path(str(self.array.store.root)) / self.array.path  # type: ignore[attr-defined]

    def shard_file(self, plane: int, row: int, column: int) -> Path:
        """Return the file of the shard that holds pixel (row, column) of a plane."""
        grid = (row // self.shard_px[0], column // self.shard_px[1])
        if len(self.array.shape) == 3:
            key: tuple[int, ...] = (plane, *grid)
        else:
            key = (plane, 0, *grid) if self._names[0] == "t" else (0, plane, *grid)
        return self.path / self.array.metadata.encode_chunk_key(key)

    def shard_sha256(self, plane: int, row: int, column: int) -> str | None:
        """Return the SHA-256 of a shard's file, or None if it does not exist."""
        file = self.shard_file(plane, row, column)
        return sha256_file(file) if file.is_file() else None

    def blocks(self) -> Iterator[tuple[int, slice, slice]]:
        """Yield (plane, rows, columns) of every shard, clipped to the image, in raster order."""
        planes, _, height, width = self.shape
        for plane in range(planes):
            for y in range(0, height, self.shard_px[0]):
                for x in range(0, width, self.shard_px[1]):
                    yield plane, slice(y, min(y + self.shard_px[0], height)), slice(x, min(x + self.shard_px[1], width))


def open_array(store: Path, name: str, writable: bool = False) -> PlaneArray:
    """Open an array of a store, e.g. `open_array(image, "labels/classes/0")`.

    Raises:
        PipelineError: if the store or the array does not exist or cannot be read.
    """
    try:
        return PlaneArray(zarr.open_array(store, path=name, mode="r+" if writable else "r", zarr_format=3))
    except (OSError, ValueError, KeyError) as error:
        raise PipelineError(store / name, "a Zarr v3 array", error, fix="rerun the step that creates it") from error


def clipped_edges(height: int, width: int, store: Store) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return chunk and shard edges (height, width), clipped for images smaller than a chunk or a shard."""
    chunk = tuple(min(store.chunk_px, -(-size // EDGE_PX) * EDGE_PX) for size in (height, width))
    shard = tuple(
        min(store.shard_px // edge * edge, -(-size // edge) * edge)
        for size, edge in zip((height, width), chunk, strict=True)
    )
    return (chunk[0], chunk[1]), (shard[0], shard[1])


def create_array(
    group: zarr.Group, name: str, grid: Grid, channels: int | None, dtype: npt.DTypeLike, store: Store
) -> PlaneArray:
    """Create one array in a group: an image with `channels`, or a label where `channels` is None."""
    chunk, shard = clipped_edges(grid.height, grid.width, store)
    axes = _axes(grid.plane_axis, channels is not None)
    sizes = {grid.plane_axis: grid.planes, "c": channels or 1, "y": grid.height, "x": grid.width}
    chunks = {grid.plane_axis: 1, "c": 1, "y": chunk[0], "x": chunk[1]}
    shards = {grid.plane_axis: 1, "c": channels or 1, "y": shard[0], "x": shard[1]}
    array = group.create_array(
        name,
        shape=tuple(sizes[axis] for axis in axes),
        chunks=tuple(chunks[axis] for axis in axes),
        shards=tuple(shards[axis] for axis in axes),
        dtype=dtype,
        compressors=ZstdCodec(level=store.compression),
        fill_value=0,
        dimension_names=axes,
    )
    return PlaneArray(array)


def create_like(group: zarr.Group, name: str, model: PlaneArray) -> PlaneArray:
    """Create an empty array with the shape, data type and shards of another."""
    array = model.array
    created = group.create_array(
        name,
        shape=array.shape,
        chunks=array.chunks,
        shards=array.shards,
        dtype=array.dtype,
        compressors=array.compressors,
        fill_value=0,
        dimension_names=array.metadata.dimension_names,  # type: ignore[union-attr]
    )
    return PlaneArray(created)


def create_image(
    path: Path,
    grid: Grid,
    channels: int,
    dtype: npt.DTypeLike,
    store: Store,
    labels: Mapping[str, npt.DTypeLike],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Create an empty image with all its pyramid levels and labels; it appears whole, replacing what was there.

    Args:
        path: the store, `*.ome.zarr`.
        grid: size and scale.
        channels: channels of the image.
        dtype: data type of the image.
        store: chunk, shard and compression.
        labels: name and integer data type of each label image.
        attributes: further attributes of the image group, beside `ome`.
    """
    with _replacing(path) as partial:
        group = zarr.create_group(partial, zarr_format=3)
        levels = _create_levels(group, grid, channels, dtype, store)
        name = path.name.removesuffix(".ome.zarr")
        group.attrs.update({"ome": _multiscales(name, grid, True, levels), **(attributes or {})})
        _create_label_group(group, grid, store, labels)


def create_labels(path: Path, grid: Grid, store: Store, labels: Mapping[str, npt.DTypeLike]) -> None:
    """Create empty labels alone, for an image that lies elsewhere and is used in place."""
    with _replacing(path) as partial:
        _create_label_group(zarr.create_group(partial, zarr_format=3), grid, store, labels)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path` when the block ends well."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    except OSError as error:
        raise PipelineError(path, "a place that can be written", error, fix="free space or use --directory") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _create_label_group(image: zarr.Group, grid: Grid, store: Store, labels: Mapping[str, npt.DTypeLike]) -> None:
    if not labels:
        return
    group = image.create_group("labels", attributes={"ome": {"version": VERSION, "labels": list(labels)}})
    for name, dtype in labels.items():
        _create_label(group, name, grid, dtype, store)


def _create_label(labels: zarr.Group, name: str, grid: Grid, dtype: npt.DTypeLike, store: Store) -> None:
    group = labels.create_group(name)
    levels = _create_levels(group, grid, None, dtype, store)
    ome = _multiscales(name, grid, False, levels)
    group.attrs["ome"] = ome | {"image-label": {"version": VERSION, "source": {"image": "../../"}}}


def _create_levels(
    group: zarr.Group, grid: Grid, channels: int | None, dtype: npt.DTypeLike, store: Store
) -> list[PlaneArray]:
    count = grid.levels(store.chunk_px)
    return [create_array(group, str(level), grid.halved(level), channels, dtype, store) for level in range(count)]


def _axes(plane_axis: str, image: bool) -> tuple[str, ...]:
    # NGFF orders axes by kind: time, channel, space.
    if not image:
        return (plane_axis, "y", "x")
    return ("t", "c", "y", "x") if plane_axis == "t" else ("c", "z", "y", "x")


def _multiscales(name: str, grid: Grid, image: bool, levels: Sequence[PlaneArray]) -> dict[str, Any]:
    axes = _axes(grid.plane_axis, image)
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(axes, grid, level)}
        for level in range(len(levels))
    ]
    described = [_describe_axis(axis, grid) for axis in axes]
    return {"version": VERSION, "multiscales": [{"name": name, "axes": described, "datasets": datasets}]}


def _describe_axis(axis: str, grid: Grid) -> dict[str, str]:
    kind = {"t": "time", "c": "channel"}.get(axis, "space")
    known = grid.pixel_um is not None if axis in "yx" else grid.step is not None
    unit = {"space": "micrometer", "time": "second"}.get(kind) if known else None
    return {"name": axis, "type": kind} | ({"unit": unit} if unit else {})


def _transformations(axes: Sequence[str], grid: Grid, level: int) -> list[dict[str, Any]]:
    pixel_y, pixel_x = grid.pixel_um or (1.0, 1.0)
    base = {"y": pixel_y, "x": pixel_x, "z": grid.step or 1.0, "t": grid.step or 1.0, "c": 1.0}
    factor = {axis: 2.0**level if axis in "yx" else 1.0 for axis in axes}
    scale = {"type": "scale", "scale": [base[axis] * factor[axis] for axis in axes]}
    # The centre of a coarse pixel lies between the fine pixels it stands for.
    shift = [base[axis] * (factor[axis] - 1) / 2 for axis in axes]
    return [scale, {"type": "translation", "translation": shift}] if level else [scale]


def count_levels(store: Path, name: str = "") -> int:
    """Return the number of pyramid levels of an image or label."""
    ome: Any = zarr.open_group(store, path=name, mode="r", zarr_format=3).attrs["ome"]
    return len(ome["multiscales"][0]["datasets"])
