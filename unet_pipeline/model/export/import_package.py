"""Import: a bioimage.io package that was exported here becomes a model folder again, of the same bytes.

Only card, weights and calibration are read, which lie in it beside what the format has: no pickle and no code.
"""

from __future__ import annotations

from pathlib import Path

import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.calibration import read_calibration
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.models import load_model
from unet_pipeline.model.package import FIX, package_files
from unet_pipeline.records.claim import replacing
from unet_pipeline.records.files import unclaimed
from unet_pipeline.records.layout import calibration_in


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
    files = package_files(package)
    with replacing(folder, unclaimed) as partial:
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        card = _checked(package, partial)
    return (
        f"{folder}: {', '.join(card.classes)}; weights {card.weights_sha256[:12]}\n"
        "name it in model.folder to use it, or in model.start_from to train it further, which takes the zip too"
    )


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
