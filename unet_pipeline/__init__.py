"""Seamless U-Net segmentation of microscopy stacks too large for memory.

What a notebook wants stands here, each name with an example in its help:

* `boundary_weight_map(labels)`: the weights of Ronneberger et al. 2015,
* `open_stack(path)`: planes of any format as NumPy arrays,
* `Model.load(folder)`: a trained network with its card,
* `predict(image, model)`: a `Segmentation` of probabilities, classes and instances,
* `score(result, reference)`: SEG, AP, V_rand and the other scores of `evaluate`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unet_pipeline.errors import PipelineError
    from unet_pipeline.face.open_stack import OpenStack, open_stack
    from unet_pipeline.face.score import score
    from unet_pipeline.face.segmentation import Model, Segmentation, predict
    from unet_pipeline.face.weights import boundary_weight_map

__version__ = "0.2.0"

__all__ = [
    "Model", "OpenStack", "PipelineError", "Segmentation",
    "boundary_weight_map", "open_stack", "predict", "score",
]  # fmt: skip

_HOMES = {
    "PipelineError": "errors",
    "boundary_weight_map": "face.weights",
    **dict.fromkeys(("OpenStack", "open_stack"), "face.open_stack"),
    **dict.fromkeys(("Model", "Segmentation", "predict"), "face.segmentation"),
    "score": "face.score",
}
"""The module of each name."""

# The function `predict` has the name of a subpackage, and the first import of a subpackage sets it as an attribute of
# its parent, over whatever has that name. So the subpackage, whose own file is empty, is imported here and removed from
# the names: later imports find it among the loaded modules and set nothing. `from unet_pipeline.predict.plan import
# Plan` works before and after as ever; only the chain of attributes `unet_pipeline.predict.plan` leads nowhere.
import_module("unet_pipeline.predict")
del globals()["predict"]

if not TYPE_CHECKING:  # a checker of types would believe in any name

    def __getattr__(name: str) -> object:
        """Import what is shown here when it is first asked for: a stage must not wait for what it does not use."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(f"unet_pipeline.{_HOMES[name]}"), name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
