"""Export: a trained network as a file that other programs run, compared with the original before it appears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.export.bioimageio_package import Credit, symmetric_halo, write_package
from unet_pipeline.model.export.exported import TOLERANCE, Exported
from unet_pipeline.model.export.onnx_file import write_onnx
from unet_pipeline.model.export.torch_files import write_program, write_torchscript
from unet_pipeline.model.models import load_model
from unet_pipeline.records.files import atomic_path

Kind = Literal["onnx", "torchscript", "torch-export", "bioimageio"]
UNSTATED = Credit()
WRITERS: Mapping[str, Callable[[Exported, Path], float]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "torch-export": write_program,
}


def export(
    model: Path,
    kind: Kind,
    output: Path,
    probabilities: bool | None = None,
    same_size: bool = False,
    credit: Credit = UNSTATED,
) -> str:
    """Export a model folder.

    Args:
        model: model folder.
        kind: format.
        output: the file to write; it appears only after the exported network was run and compared.
        probabilities: whether the activation follows the network; None: in a bioimage.io package only.
        same_size: whether the exported network mirrors the image beyond its edges by itself, so that the output has its
            size. Else the output of an unpadded network is smaller; in a bioimage.io package it is cropped, alike on
            all sides, to a multiple of the stride.
        credit: name, authors and license of a bioimage.io package.

    Returns:
        A text for people: the file, its size, the largest difference.

    Raises:
        PipelineError: the model is not whole or one of volumes, packages are not installed, or the exported network
            computes something else than the original.
    """
    network, card = load_model(model, torch.device("cpu"))
    if card.architecture.dimensions == 3:
        fix = "predict with `segment` or the workflow, or train with model.dimensions: 2"
        expected = "a network of planes: those of volumes are not exported yet"
        raise PipelineError(model, expected, "dimensions: 3", fix=fix)
    packaged = kind == "bioimageio"
    trim_px = symmetric_halo(card.geometry) if packaged and card.geometry.lost else 0
    module = Exported(network, card, packaged if probabilities is None else probabilities, same_size, trim_px)
    with atomic_path(output) as partial:
        difference = write_package(module, partial, credit, model) if packaged else WRITERS[kind](module, partial)
    return (
        f"{output}: {kind}, {module.output_name} of {', '.join(card.classes)}, {output.stat().st_size / 1e6:.1f} MB\n"
        f"largest difference from the network: {difference:.2g} of its largest value (allowed: {TOLERANCE:g})"
    )
