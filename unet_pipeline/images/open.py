"""Open stacks of any format: TIFF, PNG, JPEG, folders and globs of those, and Zarr.

source ─► reader of its format ─► SourceImage ─► SourcePlanes: (planes, channels, height, width), read window by window
          what a file declares     axes, which way up, transparency

Readers are imported when a source needs one: their libraries are a part of the start of every stage.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.images.files import CHECK_DISK, SUFFIXES, Files, FileStack, is_image, open_file, refuse_dangling
from unet_pipeline.images.plane_numbers import natural_key, parse_planes
from unet_pipeline.images.planes import SourcePlanes
from unet_pipeline.images.readers.blocks import Array, Window
from unet_pipeline.images.readers.zarr_nodes import is_zarr
from unet_pipeline.images.source_image import SourceImage

MAX_CHANNELS = 1024
"""As many as a network takes."""
MAX_PLANES = 10**6


def open_planes(
    source: str,
    axes: str | None = None,
    pixel_um: tuple[float, float] | None = None,
    step: float | None = None,
    planes: str | None = None,
    series: int | None = None,
    names: str | None = None,
    mixed: bool = False,
    colours: bool = False,
) -> SourcePlanes:
    """Open a stack and check what it says about itself; pixels are read later, window by window.

    Args:
        source: TIFF, PNG or JPEG file; folder or glob of such, one per plane, in natural order; Zarr array or
            OME-Zarr image, of which the largest level counts, perhaps inside a store (`a.zarr/labels/nuclei`).
        axes: letters of t z c y x (s counts as c), one for each dimension longer than 1; None believes the file.
        pixel_um: (y, x) size of a pixel, instead of what the file says.
        step: distance between planes, micrometres or seconds, likewise.
        planes: planes to use, in this order, such as "0-17,20"; None or blank means all.
        series: which image of a TIFF that holds several; None means the only one.
        names: list of the files of a folder or glob that are meant, see `namelist`; None means all.
        mixed: whether the files of a folder, glob or list may differ in height and width; `SourcePlanes.size` tells.
        colours: whether palette PNGs give the colours of their pixels instead of the indices.

    Raises:
        PipelineError: naming the file, for anything in it that cannot be used.
    """
    try:
        opened = _open_source(source, axes, series, Files(names, mixed, colours))
    except OSError as error:
        raise PipelineError(source, "a file that can be read", error, fix=CHECK_DISK) from error
    except (ValueError, RuntimeError) as error:  # a name with NUL, a pattern such as a**b, the home of nobody
        raise PipelineError(source, "a path", error, fix="check the path") from error
    _check_counts(source, opened.shape)
    chosen = parse_planes(source, planes, opened.shape[0])
    for name, values in (("pixel_um", pixel_um or ()), ("step", () if step is None else (step,))):
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise PipelineError(f"{source}: {name}", "positive numbers", values)
    return _View(source, opened, chosen, pixel_um, step)


def _check_counts(source: str, shape: tuple[int, int, int, int]) -> None:
    for count, most, what in ((shape[1], MAX_CHANNELS, "channels"), (shape[0], MAX_PLANES, "planes")):
        if count > most:
            fix = "set axes, such as zyx, if these are planes; else save fewer"
            raise PipelineError(source, f"at most {most} {what}", f"{count}", fix=fix)


class _View:
    """The planes of an image that are wanted, with the user's scale; see `SourcePlanes`."""

    def __init__(
        self,
        source: str,
        opened: SourceImage | FileStack,
        chosen: Sequence[int],
        pixel_um: tuple[float, float] | None,
        step: float | None,
    ) -> None:
        self._source, self._opened, self.numbers = source, opened, tuple(chosen)
        sizes = [opened.sizes[number] for number in chosen] if opened.sizes else [opened.shape[2:]]
        self.shape = (len(chosen), opened.shape[1], *(max(edges) for edges in zip(*sizes, strict=True)))
        self.dtype, self.plane_axis, self.channel_names = opened.dtype, opened.plane_axis, opened.channel_names
        self.pixel_um = pixel_um or opened.pixel_um
        self.step = opened.step if step is None else step
        self.block_px, self.files, self.palette = opened.block_px, opened.files, opened.palette

    def read(self, plane: int, rows: slice, columns: slice) -> Array:
        number = operator.index(plane)
        if not 0 <= number < len(self.numbers):
            raise IndexError(f"plane {number} of {len(self.numbers)}")
        height, width = self.size(number)
        top, bottom, row_step = rows.indices(height)
        left, right, column_step = columns.indices(width)
        if (row_step, column_step) != (1, 1):
            raise ValueError(f"windows have step 1, not {row_step}, {column_step}")
        window = Window(top, max(top, bottom), left, max(left, right))
        if 0 in window.shape:
            return np.empty((self.shape[1], *window.shape), self.dtype)
        return self._opened.read(self.numbers[number], window)

    def size(self, plane: int) -> tuple[int, int]:
        sizes = self._opened.sizes
        return sizes[self.numbers[plane]] if sizes else self.shape[2:]

    def file(self, plane: int) -> Path | None:
        return self.files[self.numbers[plane]] if self._opened.sizes else None

    def name(self, plane: int) -> str:
        return str(self.file(plane) or f"{self._source}, plane {self.numbers[plane]}")

    def take(self, numbers: Sequence[int]) -> _View:
        return _View(self._source, self._opened, numbers, self.pixel_um, self.step)

    def notes(self) -> list[str]:
        return [f"{self._source}: {note}" for note in self._opened.notes()]

    def fingerprint(self) -> str:
        return self._opened.fingerprint()

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _open_source(source: str, axes: str | None, series: int | None, options: Files) -> SourceImage | FileStack:
    path = Path(source) if Path(source).exists() else Path(source).expanduser()
    if options.names is not None and (path.is_file() or is_zarr(path)):
        _refuse_names(source, options.names)
    if is_zarr(path):
        from unet_pipeline.images.readers.zarr_reader import ZarrReader

        return SourceImage(ZarrReader(path), axes)
    if path.is_dir():
        return FileStack(source, _list_folder(path), axes, options)
    if path.is_file():
        return open_file(path, axes, series, options.colours)
    if path.exists():
        raise PipelineError(path, "a regular file or a folder", "a pipe, socket or device", fix="name a file")
    refuse_dangling(path)
    if not any(letter in source for letter in "*?["):
        raise PipelineError(path, "a file or folder that exists", "none there", _nearest(path), fix="check the path")
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    files = sorted((one for one in found if is_image(one)), key=lambda one: natural_key(str(one)))
    if not files:
        raise PipelineError(source, f"images that match ({' '.join(SUFFIXES)})", "none", _nearest(path))
    return FileStack(source, files, axes, options)


def _refuse_names(source: str, names: str) -> None:
    fix = "name the folder of the pictures, or empty column names of the table of stacks"
    raise PipelineError(source, f"a folder or glob, of which {names} lists files", "one file or store", fix=fix)


def _nearest(path: Path) -> Path | None:
    """Return what exists and is most like `path`: in the deepest of its folders that exists, the nearest name."""
    wanted, folder = path, path.parent
    while not folder.is_dir() and folder != folder.parent:
        wanted, folder = folder, folder.parent
    try:
        name = nearest_name(wanted.name, sorted(one.name for one in folder.iterdir()))
    except OSError:
        return None
    return folder / name if name else None


def _list_folder(path: Path) -> list[Path]:
    try:
        names = sorted(path.iterdir(), key=lambda one: natural_key(one.name))
    except OSError as error:
        raise PipelineError(path, "a folder that can be read", error) from error
    images = [one for one in names if is_image(one)]
    if not images:
        got = f"{len(names)} other files, such as {names[0].name}" if names else "an empty folder"
        raise PipelineError(path, f"images ({' '.join(SUFFIXES)}) or a Zarr store", got)
    return images
