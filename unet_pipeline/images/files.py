"""Files that are read as one stack, one plane each; and which reader opens which file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.name_list import pick, read_names
from unet_pipeline.images.readers.axes import check_axes
from unet_pipeline.images.readers.blocks import Array, Reader, Window
from unet_pipeline.images.source_image import SourceImage
from unet_pipeline.records.files import digest

TIFF, PNG, JPEG = "TIFF", "PNG", "JPEG"
SUFFIXES = {
    ".tif": TIFF, ".tiff": TIFF, ".btf": TIFF, ".tf2": TIFF, ".tf8": TIFF, ".png": PNG, ".jpg": JPEG, ".jpeg": JPEG
}  # fmt: skip
CHECK_DISK = "check its permissions and the disk"
SUPPORTED = f"an image ({' '.join(SUFFIXES)}), a folder or glob of such, or a Zarr store"


def is_image(path: Path) -> bool:
    """Return whether a path is a file that may be a plane of a folder, or a link to one; hidden files are none."""
    return (path.is_file() or _dangles(path)) and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _dangles(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def refuse_dangling(path: Path) -> None:
    """Refuse a link to a file that is not there, such as one whose content git-annex has not fetched.

    Raises:
        PipelineError: naming the link and what it leads to.
    """
    if _dangles(path):
        fix = "fetch the file (git annex get, datalad get), correct the link, or remove it"
        raise PipelineError(path, "a link to a file that is there", f"one to {path.readlink()}, which is not", fix=fix)


def _kind(path: Path) -> str:
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise PipelineError(path, SUPPORTED, f"a file named *{path.suffix}", fix="convert it to TIFF or OME-Zarr")
    return kind


def open_file(path: Path, axes: str | None, series: int | None = None, colours: bool = False) -> SourceImage:
    """Open one TIFF, PNG or JPEG file.

    Args:
        path: the file.
        axes: the user's axes, or None to believe the file.
        series: which image of a TIFF that holds several.
        colours: whether a palette PNG gives colours instead of indices.

    Raises:
        PipelineError: for a file of another kind, or one that cannot be used.
    """
    kind = _kind(path)
    refuse_dangling(path)
    try:
        return SourceImage(_reader(kind, path, series, colours), axes)
    except OSError as error:
        raise PipelineError(path, "a file that can be read", error, fix=CHECK_DISK) from error


def _reader(kind: str, path: Path, series: int | None, colours: bool) -> Reader:
    if kind == TIFF:
        from unet_pipeline.images.readers.tiff_reader import TiffReader

        return TiffReader(path, series)
    from unet_pipeline.images.readers.picture_reader import PictureReader

    return PictureReader(path, colours=colours)


@dataclass(frozen=True)
class Files:
    """Which files of a folder or glob are read, and how.

    Attributes:
        names: a list of names (see `namelist`), or None for all files.
        mixed: whether they may differ in height and width.
        colours: whether palette PNGs give colours instead of indices.
    """

    names: str | None = None
    mixed: bool = False
    colours: bool = False


ALL_ALIKE = Files()


class FileStack:
    """A stack of files of one plane each, all alike; the attributes are those of `source_image.SourceImage`.

    Attributes:
        sizes: (height, width) of each plane.
    """

    def __init__(self, source: str, files: Sequence[Path], axes: str | None, options: Files = ALL_ALIKE) -> None:
        """Read and check the header of every file.

        Args:
            source: folder or glob, for messages.
            files: in the order of the planes.
            axes: the user's axes, of the stack (zyx) or of a file (yx); None believes the files and takes z.
            options: which of the files, and how they may differ.

        Raises:
            PipelineError: naming the file that is not like the first, or holds more than one plane.
        """
        if options.names is not None:
            files = pick(read_names(options.names), files, options.names, source)
        kinds = {_kind(file): file for file in reversed(files)}
        if len(kinds) > 1:
            got = " and ".join(f"{kind} ({file.name})" for kind, file in sorted(kinds.items()))
            raise PipelineError(source, "images of one kind", got, fix="use a glob such as folder/*.png")
        said = check_axes(source, axes) if axes is not None else "z"
        inner = said[1:] if said[0] in "tz" else said
        self.files, self._axes, self._options = tuple(files), None if axes is None else inner, options
        self._first = first = self._open_file(0)
        self._told: Counter[str] = Counter()
        self.sizes = tuple(self._size(number) for number in range(len(files)))
        self._open: tuple[int, SourceImage] | None = None
        self.shape = (len(files), first.shape[1], *(max(sides) for sides in zip(*self.sizes, strict=True)))
        self.dtype, self.plane_axis = first.dtype, said[0] if said[0] in "tz" else "z"
        self.pixel_um, self.channel_names, self.block_px = first.pixel_um, first.channel_names, first.block_px
        self.step: float | None = None
        self.palette = first.declared.palette

    def _open_file(self, number: int) -> SourceImage:
        return open_file(self.files[number], self._axes, colours=self._options.colours)

    def _size(self, number: int) -> tuple[int, int]:
        image = self._open_file(number)
        self._check(self.files[number], image)
        self._told.update(image.notes()[1:])
        return image.shape[2:]

    def _check(self, file: Path, image: SourceImage) -> None:
        if image.shape[0] != 1:
            fix = "name that file alone, or save one plane per file"
            got = f"{image.shape[0]} planes"
            raise PipelineError(file, "one plane in each file of a folder or glob", got, fix=fix)
        alike = (image.shape[1], image.dtype) == (self._first.shape[1], self._first.dtype)
        if alike and (self._options.mixed or image.shape == self._first.shape):
            return
        fix = "give all files of a stack one size and type"
        if alike:
            fix = "set ingest.sizes: pad or square, or give all files of a stack one size"
        raise PipelineError(file, f"{_words(self._first)} as {self.files[0].name}", _words(image), fix=fix)

    def read(self, plane: int, window: Window) -> Array:
        """Return (channels, rows, columns) of a file.

        Raises:
            PipelineError: naming the file, if it cannot be read or is no longer what it was when it was opened.
        """
        current = self._open
        if current is None or current[0] != plane:
            current = (plane, self._open_file(plane))
            self._check(self.files[plane], current[1])
            if current[1].shape[2:] != self.sizes[plane]:
                got = _words(current[1])
                raise PipelineError(self.files[plane], f"{self.sizes[plane]} pixels as when it was opened", got)
            self._open = current
        return current[1].read(0, window)

    def notes(self) -> list[str]:
        """Return how the files are read, in sentences: their number, the first one, and what is doubtful."""
        first = self._first.notes()[0]
        counted = [f"{count} of the files: {note}" for note, count in self._told.items()]
        return [
            f"{len(self.files)} files, one plane ({self.plane_axis}) each, {self.files[0].name} first: {first}",
            *counted,
        ]

    def fingerprint(self) -> str:
        """Return a digest of the SHA-256 of all files in order."""
        return digest([self._open_file(number).fingerprint() for number in range(len(self.files))])

    def close(self) -> None:
        """Forget the file read last."""
        self._open = None


def _words(image: SourceImage) -> str:
    return f"{image.shape[1]} channels of {image.shape[2]} × {image.shape[3]} {image.dtype}"
