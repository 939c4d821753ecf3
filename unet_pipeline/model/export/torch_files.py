"""TorchScript and torch.export: files that torch itself runs without this package."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from unet_pipeline.model.export.exported import Exported, compare, export_program, facts, traced_example


def write_torchscript(module: Exported, path: Path) -> float:
    """Write a TorchScript archive, read it back and compare.

    Args:
        module: the network.
        path: the file; `facts` lie in it as extra files.

    Returns:
        The largest difference, see `compare`.

    Raises:
        PipelineError: if what was read back computes something else.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format of many other programs, deprecated or not
        # the network looks at sizes only to refuse them
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        with torch.no_grad():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, traced_example(module), check_trace=False
            )
        torch.jit.save(traced, str(path), _extra_files=facts(module))
        exported = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return compare("torchscript", module, exported)


def write_program(module: Exported, path: Path) -> float:
    """Write a torch.export archive (.pt2), read it back and compare.

    Args:
        module: the network.
        path: the file; `facts` lie in it as extra files.

    Returns:
        The largest difference, see `compare`.

    Raises:
        PipelineError: if what was read back computes something else.
    """
    with path.open("wb") as file:
        torch.export.save(export_program(module), file, extra_files=facts(module))
    with path.open("rb") as file:
        exported = torch.export.load(file).module()
    return compare("torch-export", module, exported)
