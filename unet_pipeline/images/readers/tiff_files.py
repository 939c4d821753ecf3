"""What the metadata of a TIFF may ask of tifffile: which other files it opens, and how many planes it lists.

tifffile believes OME-XML and the index of an NDTiff set, so both are checked before it sees them: files of a set lie
beside each other, and counts that no file can hold are refused before a list is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.tiff_structure import COPY_AGAIN

# tifffile makes a list entry for every plane that OME-XML declares, before it looks for them.
MAX_OME_PLANES = 10**7
COUNTS = ("PlaneCount", "NumPlanes", "FirstC", "FirstZ", "FirstT", "IFD")
SIZES = ("SizeC", "SizeZ", "SizeT", "SizeX", "SizeY")


def check_metadata(path: Path, tiff: tifffile.TiffFile) -> None:
    """Check what the file says about a set of files, before tifffile acts on it.

    Raises:
        PipelineError: for counts that are forged, or names of files outside the folder of `path`.
    """
    if tiff.is_ome and tiff.ome_metadata:
        _check_ome(path, tiff.ome_metadata, max(1, math.prod(tiff.pages.first.shape[:2])))
    if tiff.is_ndtiff:
        _check_ndtiff(path)


def check_series(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Check that the pages of a series lie in files of the folder of `path`, whatever named them.

    Raises:
        PipelineError: naming the file outside.
    """
    seen = {page.parent.filehandle.path for page in series.pages if page is not None}
    for other in seen - {str(path), str(path.absolute())}:
        _check_beside(path, other)


def _check_ome(path: Path, text: str, page_pixels: int) -> None:
    # Entities can grow beyond memory, and OME-XML has none: its schema is no document type definition.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PipelineError(path, "OME-XML without document type and entities", "<!DOCTYPE or <!ENTITY", fix=COPY_AGAIN)
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeError):
        return
    for element in root.iter():
        declared = max(_declared(element, page_pixels), default=0)
        if declared > MAX_OME_PLANES:
            got = f"{declared:.0f} in {element.tag.rpartition('}')[2][:40]} {str(element.attrib)[:200]}"
            raise PipelineError(path, f"at most {MAX_OME_PLANES} planes in OME-XML", got, fix=COPY_AGAIN)
        if element.tag.endswith("UUID") and (name := element.get("FileName", "")):
            _check_beside(path, name)


def _declared(element: ElementTree.Element, page_pixels: int) -> Iterator[float]:
    """Yield how many planes an element asks for, read as tifffile reads them."""
    sizes = {name: max(1, _whole(element.get(name))) for name in SIZES}
    yield math.prod(sizes[name] for name in SIZES[:3])
    yield math.prod(sizes.values()) / page_pixels
    yield from (_whole(element.get(name)) for name in COUNTS)
    if element.tag[:-1].endswith("Along"):
        start, step, end = (_number(element.get(name)) for name in ("Start", "Step", "End"))
        yield abs((end - start) / (step or 1)) + 1


def _whole(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _number(text: str | None) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else math.inf


def _check_ndtiff(path: Path) -> None:
    index = path.parent / "NDTiff.index"
    if not index.is_file():
        return
    for name in {str(entry[1]) for entry in tifffile.read_ndtiff_index(index)}:
        _check_beside(path, name)


def _check_beside(path: Path, name: str) -> None:
    """Refuse a file that is not in the folder of `path` or below it, or is no regular file such as a pipe.

    Where `path` is a link, the folder is that of the file it leads to: tifffile looks there.
    """
    folder = path.resolve().parent
    try:
        other = (folder / name).resolve()
        inside, special = other.is_relative_to(folder), other.exists() and not other.is_file()
    except (OSError, ValueError, RuntimeError):  # names with NUL or too long; links in a circle
        inside, special = False, False
    if not inside or special:
        got = f"the name {name[:200]!r}"
        raise PipelineError(path, "a set of files that lie in the folder of the first", got, fix=COPY_AGAIN)
