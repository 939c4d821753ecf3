"""OME-NGFF 0.5 images and labels: the only module that knows the format.

Images are 4D with one plane axis, `czyx` or `tcyx`; labels are 3D, `zyx` or `tyx`. Both are seen by the rest of
the library as planes. Parallel writers inside one shard lose data silently, so a shard is written whole, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from unet_pipeline.config.sections import Store
from unet_pipeline.images.display import Channel, Value
from unet_pipeline.images.plane_array import PlaneArray, check_metadata

VERSION = "0.5"
MARK = "unet_pipeline"
"""Attribute of a store's root group, beside `ome`, that binds it to its record."""

EDGE_PX = 64
"""Small images are stored in chunks rounded up to this: a multiple of every pooling stride up to depth 6."""


VOLUME_SHARD_PX = 512
"""Largest edge of a shard that holds many planes, px."""

CUBIC = 0.1
"""By how much the sides of a voxel may differ that is taken for a cube."""


@dataclass(frozen=True)
class Grid:
    """The size and physical scale of a stack.

    Attributes:
        planes, height, width: size in planes and px.
        plane_axis: "z" or "t", the axis along which the planes lie.
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

    @property
    def is_cubic(self) -> bool:
        """Whether voxels are known to be cubes, within a tenth."""
        if self.plane_axis != "z" or self.pixel_um is None or not self.step:
            return False
        return all(abs(edge / self.step - 1) < CUBIC for edge in self.pixel_um)

    def halved(self, level: int) -> Grid:
        """Return the grid of a pyramid level: height and width halved `level` times, rounded up."""
        height, width = -(-self.height // 2**level), -(-self.width // 2**level)
        return Grid(self.planes, height, width, self.plane_axis, self.pixel_um, self.step)

    def levels(self, chunk_px: int) -> int:
        """Return the number of pyramid levels: the last one fits a chunk."""
        return 1 + max(0, int(np.ceil(np.log2(max(self.height, self.width) / chunk_px))))


def volume_store(store: Store) -> Store:
    """Return the edges of shards of many planes: smaller than those of single planes."""
    shard = min(store.shard_px, VOLUME_SHARD_PX)
    return replace(store, shard_px=shard, chunk_px=min(store.chunk_px, shard))


def clipped_edges(height: int, width: int, store: Store) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return chunk and shard edges (height, width), clipped for images smaller than a chunk or a shard."""
    chunk = tuple(min(store.chunk_px, -(-size // EDGE_PX) * EDGE_PX) for size in (height, width))
    shard = tuple(
        min(store.shard_px // edge * edge, -(-size // edge) * edge)
        for size, edge in zip((height, width), chunk, strict=True)
    )
    return (chunk[0], chunk[1]), (shard[0], shard[1])


def create_array(
    group: zarr.Group,
    name: str,
    grid: Grid,
    channels: int | None,
    dtype: npt.DTypeLike,
    store: Store,
    shard_planes: int = 1,
) -> PlaneArray:
    """Create one array in a group: an image with `channels`, or a label where `channels` is None.

    A shard may hold several planes; a chunk holds one, since most steps work plane by plane.
    """
    chunk, shard = clipped_edges(grid.height, grid.width, store)
    axes = _axes(grid.plane_axis, channels is not None)
    sizes = {grid.plane_axis: grid.planes, "c": channels or 1, "y": grid.height, "x": grid.width}
    chunks = {grid.plane_axis: 1, "c": 1, "y": chunk[0], "x": chunk[1]}
    shards = {grid.plane_axis: shard_planes, "c": channels or 1, "y": shard[0], "x": shard[1]}
    array = group.create_array(
        name,
        shape=tuple(sizes[axis] for axis in axes),
        chunks=tuple(chunks[axis] for axis in axes),
        shards=tuple(shards[axis] for axis in axes),
        dtype=dtype,
        # the checksum comes last, over the compressed bytes: a flipped bit is found at every read, by any reader
        compressors=(ZstdCodec(level=store.compression), Crc32cCodec()),
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
    name: str,
    grid: Grid,
    channels: int,
    dtype: npt.DTypeLike,
    store: Store,
    labels: Mapping[str, npt.DTypeLike],
    volume: tuple[Store, int] | None = None,
) -> None:
    """Create an empty image with all its pyramid levels and labels.

    Args:
        path: the store to make; `claim.replacing` makes it appear whole.
        name: of the image, for viewers.
        grid: size and scale.
        channels: channels of the image.
        dtype: data type of the image.
        store: chunk, shard and compression.
        labels: name and integer data type of each label image.
        volume: edges, and planes of a shard, of the image at full size where they are others.
    """
    group = zarr.create_group(path, zarr_format=3)
    levels = _create_levels(group, grid, channels, dtype, store, volume)
    group.attrs["ome"] = _multiscales(name, grid, True, levels)
    _create_label_group(group, grid, store, labels)


def create_labels(path: Path, grid: Grid, store: Store, labels: Mapping[str, npt.DTypeLike]) -> None:
    """Create empty labels alone, for an image that lies elsewhere and is used in place."""
    _create_label_group(zarr.create_group(path, zarr_format=3), grid, store, labels)


def show_channels(store: Path, channels: Sequence[Channel]) -> None:
    """Write into an image how viewers show its channels."""
    shown = [
        {
            "label": one.name,
            "color": "".join(f"{part:02X}" for part in one.colour),
            "active": one.shown,
            "window": dict(zip(("start", "end", "min", "max"), (*one.window, *one.span), strict=True)),
        }
        for one in channels
    ]
    group = zarr.open_group(store, mode="r+", zarr_format=3)
    group.attrs["ome"] = _ome(group) | {"omero": {"channels": shown, "rdefs": {"model": "color"}}}


def show_values(store: Path, label: str, values: Sequence[Value]) -> None:
    """Write into a label of an image how viewers show its values."""
    group = zarr.open_group(store, path=f"labels/{label}", mode="r+", zarr_format=3)
    described = {
        "colors": [{"label-value": one.value, "rgba": [*one.colour, 255 if one.shown else 0]} for one in values],
        "properties": [{"label-value": one.value, "class": one.name} for one in values],
    }
    ome = _ome(group)
    group.attrs["ome"] = ome | {"image-label": ome["image-label"] | described}


def _ome(group: zarr.Group) -> dict[str, Any]:
    ome: Any = group.attrs["ome"]
    return dict(ome)


def mark(store: Path, key: str) -> None:
    """Write into a store the key of the record it belongs to."""
    zarr.open_group(store, mode="r+", zarr_format=3).attrs[MARK] = {"record": key}


def belongs(store: Path, key: str) -> bool:
    """Return whether `mark` wrote this key into a store."""
    try:
        check_metadata(store)
        stored: Any = zarr.open_group(store, mode="r", zarr_format=3).attrs.get(MARK)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(stored, dict) and stored.get("record") == key


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
    group: zarr.Group,
    grid: Grid,
    channels: int | None,
    dtype: npt.DTypeLike,
    store: Store,
    volume: tuple[Store, int] | None = None,
) -> list[PlaneArray]:
    full = create_array(group, "0", grid, channels, dtype, *(volume or (store,)))
    coarser = range(1, grid.levels(store.chunk_px))
    return [full] + [create_array(group, str(level), grid.halved(level), channels, dtype, store) for level in coarser]


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
