"""A bioimage.io package: a zip that napari, ilastik, deepImageJ, QuPath and others can apply to images.

The rules are those of the model description 0.5 (bioimageio.spec): legal sizes as smallest and step, the output's size
as an offset from the input's, a halo where output pixels must not be used.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from unet_pipeline import __version__
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.calibration import read_calibration
from unet_pipeline.model.card import ModelCard, read_card
from unet_pipeline.model.export import onnx_file
from unet_pipeline.model.export.exported import Exported, facts, import_all
from unet_pipeline.model.export.onnx_file import opset, write_onnx
from unet_pipeline.model.export.sample import sample
from unet_pipeline.model.export.torch_files import write_torchscript
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.records.layout import CARD_FILE, WEIGHTS_FILE, calibration_in

KIND = "bioimageio"
INPUT, OUTPUT = "image", "segmentation"
EPS = 1e-9
"""Number that bioimage.io adds to a range before it divides by it; ours adds nothing."""

PAPERS = (
    ("Ronneberger, Fischer, Brox: U-Net, MICCAI 2015", "10.1007/978-3-319-24574-4_28"),
    ("Ouyang et al.: BioImage Model Zoo, 2022", "10.1101/2022.06.07.495102"),
)


@dataclass(frozen=True)
class Credit:
    """The makers of a model and the licence to use it.

    Attributes:
        name: of the model; 5 to 64 letters, digits, spaces and _ + - ( ).
        authors: people.
        license: SPDX identifier, such as CC-BY-4.0.
    """

    name: str = ""
    authors: tuple[str, ...] = ()
    license: str = "CC-BY-4.0"


def write_package(module: Exported, path: Path, credit: Credit, model: Path) -> float:
    """Write a package with TorchScript and ONNX weights, and run bioimageio.core's own test on it.

    The description says how much smaller the output of an unpadded network is, and a halo otherwise, see `halo`. Card,
    weights and calibration of the model are attached, from which `import` makes its folder again.

    Args:
        module: the network.
        path: the zip.
        credit: name, authors, license.
        model: the model folder.

    Returns:
        The largest difference of the two kinds of weights, see `exported.compare`.

    Raises:
        PipelineError: a package is not installed, the description is not legal, or the test fails.
    """
    import_all(KIND, *onnx_file.PACKAGES, "bioimageio.core", "bioimageio.spec")
    from bioimageio.spec import save_bioimageio_package

    _check(credit)
    with TemporaryDirectory(prefix="unet_pipeline-") as folder:
        parts = Path(folder)
        difference = max(
            write_torchscript(module, parts / "weights.pt"),
            write_onnx(module, parts / "weights.onnx"),
        )
        described = _described(module, parts, credit, model)
        save_bioimageio_package(described, output_path=parts / "package.zip")
        _test(parts / "package.zip", path)
        shutil.copyfile(parts / "package.zip", path)
    return difference


def symmetric_halo(geometry: Geometry) -> int:
    """Return how many output pixels to drop on each side so that what is left is exact and a multiple of the stride.

    An unpadded network's output is exact everywhere; dropping 2 px at depth 4 (16 k + 4 px) makes tiles step by
    multiples of 16 px, and so seamless. A padded one's is exact from `crop_px` on.
    """
    over = geometry.before + geometry.after - geometry.lost
    least = 0 if geometry.lost else max(geometry.crop_px, over - geometry.crop_px)
    fitting = (drop for drop in range(least, least + geometry.stride) if (2 * drop - over) % geometry.stride == 0)
    return next(fitting, least)


def halo(module: Exported) -> int:
    """Return how many pixels of the output, which are not exact, programs must drop on each side of a part of an image.

    None for an unpadded network; for a padded or mirroring one, all pixels that see beyond the part. A multiple of
    the stride, so that a legal size stays legal when it is enlarged by the halo.
    """
    geometry = module.card.geometry
    if module.same_size:
        return geometry.round_up(max(geometry.before, geometry.after))
    return 0 if geometry.lost else geometry.round_up(symmetric_halo(geometry))


def smallest_px(module: Exported) -> int:
    """Return the smallest input size, px, of which something is left beside the halo."""
    least = module.lost_px + 2 * halo(module) + module.card.geometry.stride
    return module.smallest_px + module.card.geometry.round_up(max(0, least - module.smallest_px))


def preprocessing(card: ModelCard) -> list[Any]:
    """Return the steps of bioimage.io that normalise grey values as the model does, per channel.

    With scope "stack", the statistics are those of the image a user applies the package to. Method "range" needs the
    data type of the image, which a package cannot know: it takes values that are 0 to 1 already.
    """
    from bioimageio.spec.model import v0_5 as spec

    if card.normaliser is not None:
        gain = list(card.normaliser.scale)
        offset = [-a * b for a, b in zip(card.normaliser.offset, card.normaliser.scale, strict=True)]
        along = spec.ScaleLinearAlongAxisKwargs(axis=spec.AxisId("channel"), gain=gain, offset=offset)
        whole = spec.ScaleLinearKwargs(gain=gain[0], offset=offset[0])
        return [spec.ScaleLinearDescr(kwargs=whole if len(gain) == 1 else along)]
    plane = tuple(spec.AxisId(name) for name in ("y", "x"))
    if card.normalise.method == "percentile":
        low, high = card.normalise.low, card.normalise.high
        limits = spec.ScaleRangeKwargs(axes=plane, min_percentile=low, max_percentile=high, eps=EPS)
        return [spec.ScaleRangeDescr(kwargs=limits)]
    if card.normalise.method == "zscore":
        return [spec.ZeroMeanUnitVarianceDescr(kwargs=spec.ZeroMeanUnitVarianceKwargs(axes=plane, eps=EPS))]
    return []


def _check(credit: Credit) -> None:
    """Refuse a license that is none before the work begins."""
    from bioimageio.spec.model import v0_5 as spec

    try:
        spec.LicenseId(credit.license)
    except ValueError as error:
        where, fix = "--license", "see https://spdx.org/licenses"
        raise PipelineError(where, "the SPDX identifier of a license", credit.license, "CC-BY-4.0", fix) from error


def _described(module: Exported, parts: Path, credit: Credit, model: Path) -> Any:
    """Return the `ModelDescr`; writes the example and the documentation beside the weights."""
    from bioimageio.spec.model import v0_5 as spec

    card = module.card
    for name, values in zip(("input", "output"), sample(module, smallest_px(module)), strict=True):
        np.save(parts / f"{name}.npy", values)
    (parts / "README.md").write_text(_documentation(module), encoding="utf-8")
    try:
        return spec.ModelDescr(
            name=credit.name or _name(card),
            description=f"U-Net that finds {', '.join(card.classes[1:])} in microscopy images, by unet_pipeline",
            authors=[spec.Author(name=name) for name in credit.authors or ("not stated",)],
            cite=[spec.CiteEntry(text=text, doi=spec.Doi(doi)) for text, doi in PAPERS],
            license=credit.license,
            attachments=[spec.FileDescr(source=file) for file in whole(model)],
            documentation=spec.FileDescr(source=parts / "README.md"),
            tags=["segmentation", "semantic-segmentation", "2d", "unet", "pytorch"],
            inputs=[_input(module, parts)],
            outputs=[_output(module, parts)],
            weights=_weights(parts),
            config=spec.Config(unet_pipeline=facts(module)),
        )
    except ValueError as error:  # of pydantic, too
        raise PipelineError("--format bioimageio", "a description that bioimageio.spec accepts", error) from error


def whole(model: Path) -> list[Path]:
    """Return the files that make a model folder again: card, weights and, where there is one, its calibration.

    Raises:
        PipelineError: if the calibration is that of another model.
    """
    calibration = calibration_in(model)
    if calibration is not None:
        read_calibration(calibration, read_card(model))
    return [model / CARD_FILE, model / WEIGHTS_FILE, *([calibration] if calibration else [])]


def _input(module: Exported, parts: Path) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    card = module.card
    size = spec.ParameterizedSize(min=smallest_px(module), step=card.geometry.stride)
    channels = [f"channel{number}" for number in range(card.architecture.in_channels)]
    return spec.InputTensorDescr(
        id=spec.TensorId(INPUT),
        description="grey values",
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=channels),
            *(spec.SpaceInputAxis(id=spec.AxisId(name), size=size) for name in ("y", "x")),
        ],
        test_tensor=spec.FileDescr(source=parts / "input.npy"),
        # by the halo, where there is one; said in full, for what is left to its default is not written to the file
        pad=spec.ReflectPadding(mode="reflect"),
        preprocessing=preprocessing(card),
    )


def _output(module: Exported, parts: Path) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    halo_px = halo(module)

    def space(name: str) -> Any:
        axis = spec.AxisId(name)
        size = spec.SizeReference(tensor_id=spec.TensorId(INPUT), axis_id=axis, offset=-module.lost_px)
        if halo_px:
            return spec.SpaceOutputAxisWithHalo(id=axis, size=size, halo=halo_px)
        return spec.SpaceOutputAxis(id=axis, size=size)

    return spec.OutputTensorDescr(
        id=spec.TensorId(OUTPUT),
        description=f"{module.output_name} of the classes",
        axes=[spec.BatchAxis(), spec.ChannelAxis(channel_names=list(module.card.classes)), space("y"), space("x")],
        test_tensor=spec.FileDescr(source=parts / "output.npy"),
    )


def _weights(parts: Path) -> Any:
    from bioimageio.spec.model import v0_5 as spec

    version = spec.Version(torch.__version__.split("+")[0])
    onnx = parts / "weights.onnx"
    return spec.WeightsDescr(
        torchscript=spec.TorchscriptWeightsDescr(source=parts / "weights.pt", pytorch_version=version),
        onnx=spec.OnnxWeightsDescr(source=onnx, opset_version=opset(onnx), parent="torchscript"),
    )


def _name(card: ModelCard) -> str:
    words = f"U-Net {' '.join(card.classes[1:])}"
    return re.sub(r"[^A-Za-z0-9_+() -]", "_", words)[:64].ljust(5, "_")


def _documentation(module: Exported) -> str:
    card = module.card
    rows = [f"| {name} | `{text}` |" for name, text in facts(module).items()]
    return "\n".join([
        f"# {_name(card)}", "",
        f"Made with unet_pipeline {__version__}. The output holds {module.output_name} of {', '.join(card.classes)}.",
        f"It is {module.lost_px} px smaller than the input, alike on all sides.",
        "", "## Validation", "",
        "Compare with your own annotation of a few images before you rely on it.", "",
        "| fact | value |", "|---|---|", *rows, "",
    ])  # fmt: skip


def _test(package: Path, path: Path) -> None:
    """Run bioimageio.core's test on the CPU.

    Raises:
        PipelineError: if it does not pass.
    """
    from bioimageio.core import load_description_and_test

    summary = load_description_and_test(package, devices=["cpu"], format_version="discover").validation_summary
    if summary.status != "passed":
        said = [f"{detail.name}: {error.msg}" for detail in summary.details for error in detail.errors]
        raise PipelineError(
            path, "a package that passes bioimageio.core's test", "; ".join(said) or summary.status,
            fix="nothing was written; report this as a bug, or choose another --format",
        )  # fmt: skip
