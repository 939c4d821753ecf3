"""The files of a model in a bioimage.io package that was exported here: card, weights and calibration, no code."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.records.layout import CALIBRATE_FILE, CARD_FILE, WEIGHTS_FILE
from unet_pipeline.stacks.start_files import is_zip

ALL = (CARD_FILE, WEIGHTS_FILE, CALIBRATE_FILE)
"""The files of a model; the last may be absent."""

LARGEST = 2**34
"""Largest weights file that is read, bytes: more than the largest network has."""

FIX = "export it again with this version, from the model folder it was made of"


@contextmanager
def model_folder(model: Path, names: Collection[str] = (CARD_FILE, WEIGHTS_FILE)) -> Iterator[Path]:
    """Give the folder of a model within the block: its own or, of a zip, one that holds some files of it meanwhile.

    Args:
        model: a model folder, or the zip that `export --format bioimageio` wrote.
        names: of the files that are needed.

    Raises:
        PipelineError: if the zip is none of those; what is raised within the block names the zip.
    """
    if not is_zip(model):
        yield model
        return
    with TemporaryDirectory() as folder:
        for name, content in package_files(model, names).items():
            Path(folder, name).write_bytes(content)
        try:
            yield Path(folder)
        except PipelineError as error:
            where = error.where.replace(f"{folder}/", "").replace(folder, "it")
            raise PipelineError(f"{model}: {where}", error.expected, error.got, fix=FIX) from error


def package_files(package: Path, names: Collection[str] = ALL) -> dict[str, bytes]:
    """Return the content of the files of a model in a package, by name.

    Args:
        package: the zip that `export --format bioimageio` wrote, or the folder it was unpacked into.
        names: of the files; a calibration may be absent.

    Raises:
        PipelineError: no such package, or one that was not exported here or before there was `import`.
    """
    return _of_folder(package, names) if package.is_dir() else _of_zip(package, names)


def _of_folder(package: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read the files of a model in an unpacked package."""
    there = [path.name for path in package.iterdir()]
    return {name: read_small(package / name, LARGEST) for name in _wanted(package, there) if name in names}


def _of_zip(package: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read the files of a model in a zip, wherever it keeps them: some programs put a folder around all."""
    try:
        with zipfile.ZipFile(package) as archive:
            places = {PurePosixPath(name).name: name for name in archive.namelist()}
            wanted = [name for name in _wanted(package, places) if name in names]
            return {name: _member(package, archive, places[name]) for name in wanted}
    except PipelineError:
        raise
    except Exception as error:  # besides its own, zipfile raises those of zlib and lzma, and RuntimeError if encrypted
        fix = "name a zip that `export --format bioimageio` wrote, or the folder it was unpacked into"
        raise PipelineError(package, "a bioimage.io package", error, fix=fix) from error


def _member(package: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member, at most as many bytes as the zip says: packed zeros may have no end."""
    with archive.open(name) as member:
        content = member.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise PipelineError(f"{package}: {name}", f"at most {LARGEST} bytes", "more", fix=FIX)
    return content


def _wanted(package: Path, names: Collection[str]) -> list[str]:
    """Return the names of the files of a model among those of a package."""
    lacking = [name for name in (CARD_FILE, WEIGHTS_FILE) if name not in names]
    if lacking:
        got = f"only {', '.join(sorted(names)[:8]) or 'nothing'}"
        raise PipelineError(package, f"a package of unet_pipeline 0.2 or later, with {lacking[0]}", got, fix=FIX)
    return [name for name in ALL if name in names]
