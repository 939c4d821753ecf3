"""What the tests of the readers share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from PIL import Image

from unet_pipeline.images.open import open_planes
from unet_pipeline.images.planes import SourcePlanes

# The machines that run tests are shared, so a slow example is no failure.
calm = settings(deadline=None)


def noise(shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8, seed: int = 0) -> npt.NDArray[np.generic]:
    """Random pixels of any dtype, with the extreme values of integers among them."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, dtype=kind.newbyteorder("="), endpoint=True).astype(kind)


def assert_reads(planes: SourcePlanes, expected: npt.NDArray[np.generic], count: int = 12) -> None:
    """Compare shape, dtype, whole planes and random windows with `expected`, (planes, channels, height, width)."""
    wanted = expected.astype(np.uint8) if expected.dtype.kind == "b" else expected
    assert planes.shape == expected.shape
    assert planes.dtype == wanted.dtype.newbyteorder("=")
    assert planes.dtype.isnative
    for plane in range(len(wanted)):
        np.testing.assert_array_equal(planes.read(plane, slice(None), slice(None)), wanted[plane])
    rng = np.random.default_rng(1)
    for _ in range(count):
        plane = int(rng.integers(len(wanted)))
        rows, columns = (slice(*sorted(rng.integers(0, n + 1, 2).tolist())) for n in wanted.shape[2:])
        window = planes.read(plane, rows, columns)
        assert window.dtype == planes.dtype
        assert window.flags.writeable
        np.testing.assert_array_equal(window, wanted[plane][:, rows, columns])


def check(path: Path | str, expected: npt.NDArray[np.generic], axes: str | None = None) -> SourcePlanes:
    """Open `path` and compare everything with `expected`."""
    planes = open_planes(str(path), axes)
    assert_reads(planes, expected)
    return planes


def write_planes(folder, pixels, name="img{}.png"):
    folder.mkdir(exist_ok=True)
    for i, plane in enumerate(pixels):
        Image.fromarray(plane).save(folder / name.format(i))
