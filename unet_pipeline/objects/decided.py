"""The class of each pixel, decided from the probabilities as they are stored: no network is needed to decide anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST_UINT8 = 255


def as_stored(probability: float, dtype: np.dtype[Any]) -> Any:
    """Return a probability, 0..1, as an array of this type stores it: uint8 is 255 times it, rounded."""
    return np.uint8(round(probability * LARGEST_UINT8)) if dtype == np.uint8 else dtype.type(probability)


def decided(probabilities: npt.NDArray[Any], threshold: float | None) -> npt.NDArray[np.uint8]:
    """Return the class of each pixel, ([z,] y, x) uint8.

    Args:
        probabilities: (classes, [z,] y, x) uint8 0..255, or float 0..1.
        threshold: the likeliest object class where its probability, as it is stored, reaches this, else background
            (class 0); None takes the likeliest class. Of equally likely classes the first counts.
    """
    if threshold is None:
        return np.asarray(probabilities.argmax(axis=0), np.uint8)
    objects = probabilities[1:]
    which = 1 + objects.argmax(axis=0)
    surely = objects.max(axis=0) >= as_stored(threshold, probabilities.dtype)
    return np.asarray(np.where(surely, which, 0), np.uint8)
