"""ONNX: one file that onnxruntime, OpenCV, TensorRT and others run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.export.exported import Exported, compare, export_program, facts, import_all

INPUT = "image"
LARGEST = 2**31 - 2**24
"""Bytes of weights: an ONNX file has at most 2 GiB, of which the graph takes a little."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(module: Exported, path: Path) -> float:
    """Write an ONNX file, free in the number of images, height and width, and compare it with onnxruntime.

    Args:
        module: the network.
        path: the file; `facts` are its metadata.

    Returns:
        The largest difference, see `compare`.

    Raises:
        PipelineError: a package is not installed, the network is too large, or onnxruntime computes something else.
    """
    import_all("onnx", *PACKAGES)
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    if size > LARGEST:
        raise PipelineError("--format onnx", f"at most {LARGEST} bytes of weights", size, fix="choose torchscript")
    path.write_bytes(_named(_converted(module), module).SerializeToString())
    return compare("onnx", module, _session(path))


def opset(path: Path) -> int:
    """Return the version of ONNX's operators that a file needs."""
    import onnx

    return next(int(each.version) for each in onnx.load(path, load_external_data=False).opset_import if not each.domain)


def _converted(module: Exported) -> Any:
    """Return the network as an ONNX `ModelProto`."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.onnx.export(
                export_program(module), (), dynamo=True, verbose=False,
                input_names=[INPUT], output_names=[module.output_name],
            )  # fmt: skip
    finally:
        logger.setLevel(level)
    assert program is not None  # it is without `dynamo` that a file is written instead
    return program.model_proto


def _named(model: Any, module: Exported) -> Any:
    """Give the axes their names, and the file the facts about the model."""
    lost = module.lost_px
    tensors = ((model.graph.input[0], ""), (model.graph.output[0], f" - {lost}" if lost else ""))
    for tensor, less in tensors:
        axes = tensor.type.tensor_type.shape.dim
        axes[0].dim_param, axes[2].dim_param, axes[3].dim_param = "n", f"y{less}", f"x{less}"
    del model.graph.value_info[:]  # sizes in between, under torch's own names for y and x
    for name, text in facts(module).items():
        model.metadata_props.add(key=name, value=text)
    return model


def _session(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {INPUT: image.numpy()})[0])
