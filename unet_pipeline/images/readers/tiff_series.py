"""The description of one image of a TIFF: axes, scale, places of the pixels of every page; no pixels are read."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers import calibration
from unet_pipeline.images.readers.axes import LETTERS, UNKNOWN
from unet_pipeline.images.readers.blocks import pixel_dtype
from unet_pipeline.images.readers.calibration import Calibration
from unet_pipeline.images.readers.codestreams import READABLE
from unet_pipeline.images.readers.tiff_files import check_metadata, check_series
from unet_pipeline.images.readers.tiff_pages import read_pages
from unet_pipeline.images.readers.tiff_structure import COPY_AGAIN, Grid, PageData, read_chain

RGB = 2
YCBCR = 6
JPEG = (6, 7, 34892, 33007)
REFUSED_COLOURS = {5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
ALPHA = (1, 2)
REDUCED = 1
ORIENTATION = 274


@dataclass(frozen=True)
class TiffSeries:
    """One image of a TIFF (for OME-TIFF perhaps spread over several files).

    Attributes:
        shape: of the image, one number per dimension; all but y, x and the samples count pages.
        letters: what each dimension is, "?" where the file does not say.
        rows: the dimension of rows; columns follow, and then perhaps samples.
        dtype: of the pixels as read. stored: as in the file, where it is plain.
        grid: strips or tiles of every page.
        pages: where the pixels of every page lie.
        plain: pixels are uncompressed, whole bytes, without predictor.
        alpha: the last sample is transparency.
        orientation: where the first row and column belong, 1 to 8.
        nodata: value of absent tiles.
        scale: pixel size and the like.
        decode: tifffile's function (bytes, index of strip or tile) to (array, ...).
        jpeg: keyword arguments that `decode` needs besides.
    """

    shape: tuple[int, ...]
    letters: str
    rows: int
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    grid: Grid
    pages: tuple[PageData, ...]
    plain: bool
    alpha: bool
    orientation: int
    nodata: float
    scale: Calibration
    decode: Callable[..., tuple[Any, ...]]
    jpeg: dict[str, Any]


def open_series(path: Path, series: int | None) -> TiffSeries:
    """Read and check the metadata of a TIFF.

    Args:
        path: the file.
        series: which image of the file; None means the only one.

    Raises:
        PipelineError: for a file that is no TIFF, truncated, forged, or of a kind that cannot be read.
    """
    pages = len(read_chain(path))
    with _opened(path, pages) as tiff:
        check_metadata(path, tiff)
        found = list(tiff.series)
        if not _written_one_by_one(found):
            return _describe(path, tiff, _choose(path, tiff, found, series))
    with _opened(path, pages, shaped=False) as tiff:
        return _describe(path, tiff, _choose(path, tiff, list(tiff.series), series))


@contextmanager
def _opened(path: Path, pages: int, shaped: bool = True) -> Iterator[tifffile.TiffFile]:
    """Open with tifffile; what it logs as errors goes into the message if anything then fails.

    Without `shaped` the shapes that tifffile itself wrote into the file are left out of account.
    """
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    passed_on, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with tifffile.TiffFile(path) if shaped else tifffile.TiffFile(path, is_shaped=False) as tiff:
            if len(tiff.pages) < pages:
                raise PipelineError(path, f"{pages} readable pages", f"{len(tiff.pages)}: truncated", fix=COPY_AGAIN)
            yield tiff
    except (PipelineError, MemoryError):
        raise
    # tifffile raises errors of many kinds on damaged metadata.
    except Exception as error:
        what = "; ".join([f"{type(error).__name__}: {error}", *said[:1], f"tifffile {tifffile.__version__}"])
        raise PipelineError(path, "a TIFF that can be read", what, fix=COPY_AGAIN) from error
    finally:
        logger.removeHandler(handler)
        logger.propagate = passed_on


def _choose(
    path: Path, tiff: tifffile.TiffFile, found: list[tifffile.TiffPageSeries], wanted: int | None
) -> tifffile.TiffPageSeries:
    if wanted is None:
        others = [one for one in found[1:] if not one.keyframe.subfiletype & REDUCED]
        if others and not found[0].is_pyramidal:
            names = ", ".join(f"{i}: {_name(one)}" for i, one in enumerate(found[:6]))
            fix = "set series, or save one image per file"
            raise PipelineError(path, "one image in the file", f"{len(found)} images ({names})", fix=fix)
        wanted = 0
    if not 0 <= wanted < len(found):
        raise PipelineError(f"{path}: series", f"a number from 0 to {len(found) - 1}", wanted, nearest=len(found) - 1)
    if tiff.is_imagej and found[wanted].kind in ("uniform", "generic"):
        raise PipelineError(path, "as many images as ImageJ's description says", "fewer: truncated", fix=COPY_AGAIN)
    check_series(path, found[wanted])
    return found[wanted]


def _written_one_by_one(found: list[tifffile.TiffPageSeries]) -> bool:
    """Tell whether tifffile wrote pages one by one, each with a shape of its own: they are one stack."""
    alike = {(one.shape, one.dtype) for one in found}
    return len(found) > 1 and len(alike) == 1 and all(one.kind == "shaped" and len(one) == 1 for one in found)


def _name(series: tifffile.TiffPageSeries) -> str:
    return f"{'×'.join(map(str, series.shape))} {series.dtype} {series.name}".strip()


def _describe(path: Path, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> TiffSeries:
    frame = series.keyframe
    dtype = pixel_dtype(path, frame.dtype)
    _refuse_kinds(path, series)
    grid = _grid(frame)
    shape, letters, rows = _shape(path, series, grid)
    bits = 8 * int(np.dtype(frame.dtype).itemsize)
    plain = (frame.compression, frame.predictor, frame.fillorder, frame.is_tiled) == (1, 1, 1, False)
    return TiffSeries(
        shape=shape,
        letters=letters,
        rows=rows,
        dtype=dtype,
        stored=dtype.newbyteorder(tiff.byteorder),
        grid=grid,
        pages=tuple(read_pages(path, series, grid, math.prod(shape[:rows]) // grid.separate)),
        plain=plain and grid.sample_bits == bits and not frame.is_subsampled,
        alpha=_has_alpha(frame),
        orientation=_orientation(frame),
        nodata=frame.nodata,
        scale=_scale(tiff, series),
        decode=frame.decode,
        jpeg={"jpegheader": frame.jpegheader} if frame.compression in JPEG else {},
    )


def _refuse_kinds(path: Path, series: tifffile.TiffPageSeries) -> None:
    frame = series.keyframe
    colour = REFUSED_COLOURS.get(frame.photometric)
    if frame.photometric == YCBCR and frame.compression not in JPEG:
        colour = "YCbCr"
    if colour:
        raise PipelineError(path, "grey or RGB pixels", f"{colour} pixels", fix="convert the image to grey or RGB")
    if int(frame.compression) not in READABLE:
        fix = "save it anew, uncompressed or with zlib, zstd, LZW or JPEG"
        raise PipelineError(path, "a compression that is read in bounded memory", str(frame.compression), fix=fix)
    if frame.imagedepth > 1 or series.transform is not None:
        raise PipelineError(
            path, "a TIFF of plain 2D pages", f"{series.kind} with volumes in a page", fix="save it anew"
        )


def _has_alpha(frame: tifffile.TiffPage) -> bool:
    """Tell whether an RGB page declares its last sample to be transparency."""
    return frame.photometric == RGB and len(frame.extrasamples) == 1 and frame.extrasamples[0] in ALPHA


def _orientation(frame: tifffile.TiffPage) -> int:
    found = frame.tags.valueof(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _grid(frame: tifffile.TiffPage) -> Grid:
    separate, _, height, width, contiguous = frame.shaped
    bits = frame.bitspersample
    return Grid(
        height=height,
        width=width,
        rows=frame.tilelength if frame.is_tiled else max(1, frame.rowsperstrip),
        columns=frame.tilewidth if frame.is_tiled else width,
        separate=separate,
        contiguous=contiguous,
        # Unequal bits, as in RGB 565, are packed; their sum over the samples is what a pixel takes.
        sample_bits=bits if isinstance(bits, int) else sum(bits) // max(1, len(bits)),
        compression=int(frame.compression),
        tiled=bool(frame.is_tiled),
    )


def _shape(path: Path, series: tifffile.TiffPageSeries, grid: Grid) -> tuple[tuple[int, ...], str, int]:
    """Return shape, letters and index of y, such that pages are (separate samples, y, x, contiguous samples)."""
    # Without dimensions of length 1, but for y and x.
    shape, letters = tuple(series.shape), series.axes.lower().replace("s", "c")
    if grid.contiguous == 1 and shape[-3:] == (grid.height, grid.width, 1):
        shape, letters = shape[:-1], letters[:-1]
    row_axis = len(shape) - (3 if grid.contiguous > 1 else 2)
    page = (grid.height, grid.width, grid.contiguous)[: len(shape) - row_axis]
    if row_axis < 0 or shape[row_axis:] != page or (grid.separate > 1 and shape[:row_axis][-1:] != (grid.separate,)):
        got = f"an image of {shape} ({letters})"
        raise PipelineError(path, f"an image made of pages of {grid.height} × {grid.width}", got, fix="save it anew")
    return shape, "".join(letter if letter in LETTERS else UNKNOWN for letter in letters), row_axis


def _scale(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Calibration:
    frame = series.keyframe
    per_unit = _per_unit(frame)
    if series.kind == "ome" and tiff.ome_metadata:
        return calibration.from_ome_xml(tiff.ome_metadata, _ome_index(tiff, series))
    if series.kind == "imagej" and tiff.imagej_metadata:
        return calibration.from_imagej(tiff.imagej_metadata, per_unit)
    return calibration.from_resolution(per_unit, int(frame.tags.valueof(296, 1)))


def _ome_index(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> int:
    return next(i for i, one in enumerate(tiff.series) if one is series)


def _per_unit(frame: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return (y, x) pixels per unit of the resolution tags."""
    pairs = [frame.tags.valueof(code) for code in (283, 282)]
    if not all(isinstance(pair, tuple) and len(pair) == 2 and pair[1] for pair in pairs):
        return None
    y, x = (pair[0] / pair[1] for pair in pairs)
    return y, x
