"""The boundary weight map of labels in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError
from unet_pipeline.face.arrays import as_planes
from unet_pipeline.stacks.weight_map import (
    Formula,
    boundary_term,
    class_weights,
    open_gaps,
    open_volume_gaps,
    volume_boundary_term,
)


def boundary_weight_map(
    labels: npt.NDArray[Any],
    w0: float = 10.0,
    sigma_px: float = 5.0,
    formula: Formula = "paper",
    gap_px: float = 1.0,
    class_balance: Literal["balanced", "none"] | Sequence[float] = "balanced",
    step_px: float | None = None,
) -> npt.NDArray[np.float32]:
    """Return the weight map of Ronneberger et al. 2015, eq. 2, as training uses it; its defaults are the pipeline's.

    Touching instances are parted by a gap first, as in the target of training: the pixels of the gap are background.

    Args:
        labels: (y, x) or (planes, y, x) instances of any integer type, 0 background. Planes are weighted one by one,
            unless `step_px` is given.
        w0: greatest boundary weight, at least 0.
        sigma_px: width of the boundary term, px.
        formula: "paper": exp(-(d1+d2)²/(2σ²)); "release": without the 2, as the authors' later code.
        gap_px: pixels this near to another instance become background; 0 leaves touching instances touching.
        class_balance: w_c. "balanced": by the pixels of both classes in `labels`; "none": 1; or the two weights of
            background and instances, such as those of a whole training set.
        step_px: distance of two planes over the edge of a pixel, above 0: distances and gaps run through the volume, as
            with `weigh.across_planes`. None: in each plane alone.

    Returns:
        float32 of the shape of `labels`: w_c plus the boundary term.

    Raises:
        PipelineError: a parameter out of its range, labels of another shape or type, or a class without a pixel.

    >>> import numpy as np
    >>> labels = np.zeros((5, 9), np.uint8)
    >>> labels[1:4, 1:4], labels[1:4, 5:8] = 1, 2
    >>> weights = boundary_weight_map(labels, class_balance="none")
    >>> print(*(f"{weight:.1f}" for weight in weights[2]))  # 1 within, most where two cells are near
    5.9 1.0 1.0 1.0 10.2 1.0 1.0 1.0 5.9
    """
    planes = as_planes(labels, "labels")
    if step_px is None:
        parted = np.stack([open_gaps(plane, gap_px) for plane in planes])
        term = np.stack([boundary_term(plane, w0, sigma_px, formula) for plane in parted])
    elif not (math.isfinite(step_px) and step_px > 0):
        raise PipelineError("step_px", "a number above 0, or None for planes that are alone", step_px)
    else:
        parted = open_volume_gaps(planes, gap_px, step_px)
        term = volume_boundary_term(parted, step_px, w0, sigma_px, formula)
    balance = _balance(class_balance, [int((parted == 0).sum()), int((parted != 0).sum())])
    term += balance.astype(np.float32)[(parted != 0).astype(np.intp)]
    return term.reshape(np.shape(labels))


def _balance(asked: Literal["balanced", "none"] | Sequence[float], counts: list[int]) -> npt.NDArray[np.float64]:
    """Return w_c of background and instances, (2,), checked."""
    if isinstance(asked, str):
        if asked in ("balanced", "none"):
            return class_weights(counts, "labels") if asked == "balanced" else np.ones(2)
    elif len(asked) == 2 and all(math.isfinite(weight) and weight >= 0 for weight in asked):
        return np.array(asked, np.float64)
    raise PipelineError("class_balance", '"balanced", "none", or two finite weights of at least 0', asked)
