"""Arrays seen as the stages see stacks: planes that are read, a store that is ingested, sections of a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.files import load
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.axes import check_axes

Array = npt.NDArray[Any]
Settings: TypeAlias = Mapping[str, Any] | str | Path
"""Sections of the configuration, as a mapping or a YAML file; absent keys take their defaults."""
USUAL_AXES = {2: "yx", 3: "zyx"}
BAND_PX = 512
"""Rows that are copied together: bounds the memory."""


class ArrayLike(Protocol):
    """What has a shape and a data type and gives NumPy arrays when it is sliced: NumPy, Zarr, h5py, Dask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Data type of the elements."""

    def __getitem__(self, place: Any, /) -> Any:
        """Return a part."""


def as_planes(labels: npt.ArrayLike, what: str) -> Array:
    """Return labels as (planes, y, x).

    Args:
        labels: (y, x), (planes, y, x), or (planes, 1, y, x) as an opened stack has.
        what: how to call it in the error.

    Raises:
        PipelineError: any other shape, or no pixel.
    """
    values = np.asarray(labels)
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in USUAL_AXES or not values.size:
        raise PipelineError(what, "an array (y, x) or (planes, y, x) with pixels", f"shape {values.shape}")
    return values if values.ndim == 3 else values[None]


def write_array(image: ArrayLike, axes: str, path: Path) -> str:
    """Write an array as Zarr, a few rows of a plane at a time, and return its axes.

    Args:
        image: of any shape.
        axes: one letter of t z c y x for each axis; empty: yx or zyx.
        path: of the new array.

    Raises:
        PipelineError: axes that do not fit or are not said, elements that are no numbers, a full disk.
    """
    shape, dtype = tuple(image.shape), np.dtype(image.dtype)
    letters = check_axes("image", axes) if axes else USUAL_AXES.get(len(shape), "")
    if len(letters) != len(shape):
        near = {2: "yx", 3: "zyx", 4: "zcyx"}.get(len(shape))
        expected = f"axes, a letter of t z c y x for each of the {len(shape)} axes of an array {shape}"
        raise PipelineError("axes", expected, repr(axes) if axes else "none", near)
    if dtype.kind not in "buif" or 0 in shape:
        raise PipelineError("image", "numbers, at least one", f"{dtype} {shape}")
    steps = {"t": 1, "z": 1, "y": BAND_PX}
    parts = [_parts(length, steps.get(letter, length)) for letter, length in zip(letters, shape, strict=True)]
    try:
        target = zarr.create_array(
            path, shape=shape, dtype=dtype, chunks=tuple(part[0].stop for part in parts), compressors=None
        )
        for place in itertools.product(*parts):
            target[place] = np.asarray(image[place])
    except OSError as error:
        fix = "set TMPDIR to a folder on a larger disk, or give the image as a path"
        raise PipelineError(path, "room for a copy of the image", error, fix=fix) from error
    return letters


def _parts(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def settings_of(config: Settings | None) -> Config:
    """Return the configuration of a mapping or a YAML file.

    Raises:
        PipelineError: an unknown section or key, an illegal value, an unreadable file.
    """
    return load(str(config)) if isinstance(config, str | Path) else from_dict(config or {}, whole=False)


def changed(config: Config, section: str, given: Mapping[str, object]) -> Config:
    """Return a configuration in which those keys of a section that are not None have these values.

    Raises:
        PipelineError: an illegal value.
    """
    old = getattr(config, section)
    new = asdict(old) | {name: value for name, value in given.items() if value is not None}
    return replace(config, **{section: build(type(old), new, section)})
