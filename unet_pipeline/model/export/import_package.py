"""Import: a bioimage.io package that was exported here becomes a model folder again, of the same bytes.

Only card, weights and calibration are read, which lie in it beside what the format has: no pickle and no code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import torch

from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.model.calibration import read_calibration
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.models import LARGEST, load_model
from unet_pipeline.records.claim import replacing
from unet_pipeline.records.files import unclaimed
from unet_pipeline.records.layout import CALIBRATE_FILE, CARD_FILE, WEIGHTS_FILE, calibration_in

FIX = "export it again with this version, from the model folder it was made of"


def import_package(package: Path, folder: Path) -> str:
    """Make a model folder of a package.

    Args:
        package: the zip that `export --format bioimageio` wrote, or the folder it was unpacked into.
        folder: the model folder to write, which holds no model yet.

    Returns:
        A text for people: the folder, the classes and the checksum of the weights.

    Raises:
        PipelineError: no such package, one that was not exported here or before there was `import`, one that is
            damaged, or a folder that exists.
    """
    if folder.exists():
        fix = "name a new folder, or remove this one"
        raise PipelineError("--output", "a folder that does not exist yet", folder, fix=fix)
    files = _of_folder(package) if package.is_dir() else _of_zip(package)
    with replacing(folder, unclaimed) as partial:
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        card = _checked(package, partial)
    return (
        f"{folder}: {', '.join(card.classes)}; weights {card.weights_sha256[:12]}\n"
        "name it in model.folder to use it, or in model.start_from to train it further"
    )


def _of_folder(package: Path) -> dict[str, bytes]:
    """Read the files of a model in an unpacked package."""
    names = [path.name for path in package.iterdir()]
    return {name: read_small(package / name, LARGEST) for name in _wanted(package, names)}


def _of_zip(package: Path) -> dict[str, bytes]:
    """Read the files of a model in a zip, wherever it keeps them: some programs put a folder around all."""
    try:
        with zipfile.ZipFile(package) as archive:
            places = {PurePosixPath(name).name: name for name in archive.namelist()}
            return {name: _member(package, archive, places[name]) for name in _wanted(package, places)}
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
    return [CARD_FILE, WEIGHTS_FILE, *({CALIBRATE_FILE} & set(names))]


def _checked(package: Path, folder: Path) -> ModelCard:
    """Open what was read as a model."""
    try:
        card = load_model(folder, torch.device("cpu"))[1]
        if (calibration := calibration_in(folder)) is not None:
            read_calibration(calibration, card)
        return card
    except PipelineError as error:
        where = error.where.replace(f"{folder}/", "")
        raise PipelineError(f"{package}: {where}", error.expected, error.got, fix=FIX) from error
