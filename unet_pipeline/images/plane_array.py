"""A Zarr array seen as planes: read anywhere, written in whole shards, each once.

Parallel writers inside one shard lose data silently, so a shard is the unit of writing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.shard_file import ShardFormat, cells
from unet_pipeline.objects.box import Box
from unet_pipeline.records.files import PARTIAL, atomic_path, refuse_link, sha256_file

Array = npt.NDArray[Any]
Repair = Callable[[int, int, int], str]
"""Function of (plane, row, column) that says how to mend the damaged shard there, for the error message."""


Vouch = Callable[[Path], None]
"""Function that raises a PipelineError where a file is not what a record vouches for; see `checksums.Vouched`."""


def unlisted(file: Path) -> None:
    """Vouch for nothing: take a file as it lies there."""


def rerun_step(plane: int, row: int, column: int) -> str:
    """Say how any store is mended."""
    return "rerun the step that writes it"


class PlaneArray:
    """A Zarr array of an image (4D) or a label (3D) seen as planes; writes whole shards.

    Attributes:
        shape: (planes, channels, height, width); labels have one channel.
        shard_px: (height, width) of a shard, the unit of writing.
        shard_planes: its planes.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        check: Callable[[], None] = lambda: None,
        repair: Repair = rerun_step,
        vouch: Vouch = unlisted,
    ) -> None:
        """Wrap an array with axes czyx, tcyx, zyx or tyx.

        Args:
            array: the array.
            check: called before each write, so that a job that was taken over stops (`claim.Claim.check`).
            repair: says how to mend the damaged shard at (plane, row, column), for the error message.
            vouch: called with the file of each shard before it is read.
        """
        self._check, self._repair, self._vouch = check, repair, vouch
        self.array = array.with_config({"order": "C"})
        self._names = tuple(str(name) for name in array.metadata.dimension_names or ())  # type: ignore[union-attr]
        self._plane_axis = "t" if "t" in self._names else "z"
        planes, channels = self._plane_and_channel()
        self.shape = (planes, channels, array.shape[-2], array.shape[-1])
        self.dtype = np.dtype(array.dtype)
        self._format = ShardFormat.of(array)
        shards = array.shards or array.chunks
        self.shard_px = (shards[-2], shards[-1])
        self.shard_planes = shards[self._names.index(self._plane_axis)] if self._names else 1

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
            PipelineError: if a stored chunk cannot be decoded, or a shard is not what its record vouches for.
        """
        for shard in self._overlapping(plane, rows, columns):
            self._vouch(self.shard_file(plane, shard.rows.start, shard.columns.start))
        try:
            values = self._values(plane, rows, columns)
        except (ValueError, RuntimeError, OSError) as error:
            raise self._damaged(plane, rows, columns, error) from error
        return values[None] if values.ndim == 2 else values

    def _values(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return the values at `_index`, its axes."""
        where = self._index(plane, rows, columns)
        if self._format is None:
            return np.asarray(self.array[where])
        window = [_span(axis, length) for axis, length in zip(where, self.array.shape, strict=True)]
        values = np.zeros([axis.stop - axis.start for axis in window], self.dtype)
        for shard, here, there in cells(window, self._format.shard):
            self._format.read(self.path / self.array.metadata.encode_chunk_key(shard), there, values[here])
        return values[tuple(slice(None) if isinstance(axis, slice) else 0 for axis in where)]

    def _overlapping(self, plane: int, rows: slice, columns: slice) -> Iterator[Box]:
        """Yield the shards that hold a part of these pixels, cut after the last of them."""
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[2]), columns.indices(self.shape[3])
        height, width = self.shard_px
        whole = Box.of(plane, slice(top // height * height, bottom), slice(left // width * width, right))
        yield from whole.divided(height, width)

    def _damaged(self, plane: int, rows: slice, columns: slice, error: Exception) -> PipelineError:
        """Return an error that names the shard that cannot be decoded."""
        for shard in self._overlapping(plane, rows, columns):
            place = plane, shard.rows.start, shard.columns.start
            try:
                self._values(*shard.at)
            except (ValueError, RuntimeError, OSError) as found:
                file, fix = self.shard_file(*place), self._repair(*place)
                return PipelineError(file, "a shard as it was written", f"damage: {found}", fix=fix)
        fix = self._repair(plane, rows.start, columns.start)
        return PipelineError(self.path, "readable shards", error, fix=fix)

    def read_label(self, plane: int, rows: slice, columns: slice) -> Array:
        """Return `(rows, columns)` of a label."""
        values: Array = self.read(plane, rows, columns)[0]
        return values

    def write(self, plane: int, rows: slice, columns: slice, values: Array) -> None:
        """Write a shard of one plane, `(channels, rows, columns)` or `(rows, columns)`; see `write_box`."""
        self.write_box(Box.of(plane, rows, columns), values.reshape(-1, 1, *values.shape[-2:]))

    def write_box(self, box: Box, values: Array) -> None:
        """Write a shard, `(channels, planes, rows, columns)`; it appears whole or not at all.

        Its name outlasts a loss of power once `files.sync_folders` was called, before the record that vouches for it.

        Raises:
            PipelineError: the box is not that of a shard; another job has taken over; or the disk is full or
                cannot be written. The shard then keeps its former content.
        """
        edges, whole = (self.shard_planes, *self.shard_px), (self.shape[0], *self.shape[2:])
        size = tuple(min(edge, of - first) for edge, of, first in zip(edges, whole, box.corner, strict=True))
        if any(first % edge for first, edge in zip(box.corner, edges, strict=True)) or values.shape[1:] != size:
            raise PipelineError(self.path, f"a whole shard of {size} px", f"{values.shape} at {box}")
        if self._format is None:
            raise PipelineError(self.path, "an array that this pipeline made", "one of another encoding")
        self._check()
        file = self.shard_file(*box.corner)
        refuse_link(file.parent, Path(str(self.array.store.root)))  # type: ignore[attr-defined]
        for left in file.parent.glob(f".{file.name}.*{PARTIAL}"):  # of a job that was killed
            left.unlink(missing_ok=True)
        if len(self.array.shape) == 3:
            values = values[0]
        elif self._names[0] == self._plane_axis:
            values = values.swapaxes(0, 1)
        parts = self._format.encode(values)
        try:
            with atomic_path(file, self._check, named=False) as partial, partial.open("wb") as opened:
                opened.writelines(parts)
        except PipelineError as error:
            self._check()
            if isinstance(error.__cause__, OSError):
                fix = "free space or choose another disk (--directory), then rerun: finished shards are kept"
                raise PipelineError(self.path, "room to write a shard", error.__cause__, fix=fix) from error
            raise

    @property
    def path(self) -> Path:
        """Folder of the array."""
        return Path(str(self.array.store.root)) / self.array.path  # type: ignore[attr-defined]

    def shard_file(self, plane: int, row: int, column: int) -> Path:
        """Return the file of the shard that holds pixel (row, column) of a plane."""
        deep, *grid = plane // self.shard_planes, row // self.shard_px[0], column // self.shard_px[1]
        if len(self.array.shape) == 3:
            key: tuple[int, ...] = (deep, *grid)
        else:
            key = (deep, 0, *grid) if self._names[0] == "t" else (0, deep, *grid)
        return self.path / self.array.metadata.encode_chunk_key(key)

    def shard_sha256(self, plane: int, row: int, column: int) -> str | None:
        """Return the SHA-256 of a shard's file, or None if it does not exist."""
        file = self.shard_file(plane, row, column)
        return sha256_file(file) if file.is_file() else None

    def shards(self) -> Iterator[Box]:
        """Yield the pixels of every shard, clipped to the image, in raster order."""
        planes, _, height, width = self.shape
        for first in range(0, planes, self.shard_planes):
            deep = slice(first, min(first + self.shard_planes, planes))
            yield from Box(deep, slice(0, height), slice(0, width)).divided(*self.shard_px)


def _span(axis: int | slice, length: int) -> slice:
    """Return the first and the last element + 1 of an axis that an index takes, (0, 0) where it takes none."""
    start, stop, _ = (axis if isinstance(axis, slice) else slice(axis, axis + 1)).indices(length)
    return slice(start, max(start, stop))


def check_metadata(node: Path) -> None:
    """Refuse a pipe or a device in place of the metadata of an array or group, from which zarr would read for ever.

    Raises:
        OSError: if it is one.
    """
    file = node / "zarr.json"
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "no regular file", str(file))


def open_array(
    store: Path,
    name: str,
    writable: bool = False,
    check: Callable[[], None] = lambda: None,
    repair: Repair = rerun_step,
    metadata_fix: str = "",
    vouch: Vouch = unlisted,
) -> PlaneArray:
    """Open an array of a store, e.g. `open_array(image, "labels/classes/0")`; see `PlaneArray` for the rest.

    `metadata_fix` says how the metadata are mended, where that differs from `repair` of the first shard.

    Raises:
        PipelineError: if the store or the array does not exist, cannot be read, or is not what its record vouches for.
    """
    vouch(store / name / "zarr.json")
    try:
        check_metadata(store / name)
        array = zarr.open_array(store, path=name, mode="r+" if writable else "r", zarr_format=3)
        return PlaneArray(array, check, repair, vouch)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(store / name, "a Zarr v3 array", error, fix=metadata_fix or repair(0, 0, 0)) from error
