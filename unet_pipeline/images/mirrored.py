"""Windows that reach beyond an image, filled by mirroring it at its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.planes import Planes


def mirrored(start: int, size: int, length: int) -> npt.NDArray[np.intp]:
    """Return the image indices of a window that may leave the image, mirrored with the edge pixel not repeated: (n,).

    Mirroring repeats with period 2 (length - 1), so windows far larger than the image work too.

    Args:
        start: first index of the window; may be negative.
        size: number of indices.
        length: size of the image along the axis, 1 or more.
    """
    period = max(2 * (length - 1), 1)
    index = np.arange(start, start + size) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros(size, dtype=np.intp)


def read_window(image: Planes, plane: int, y: int, x: int, size: tuple[int, int]) -> npt.NDArray[Any]:
    """Read a window of a plane, mirrored where it leaves the image.

    Args:
        image: the stack; only the part the window needs is read.
        plane: plane of the stack.
        y: first row; may be negative.
        x: first column; may be negative.
        size: (height, width) of the window.

    Returns:
        `(channels, height, width)` in the data type of the image.
    """
    rows, columns = mirrored(y, size[0], image.shape[2]), mirrored(x, size[1], image.shape[3])
    top, left = int(rows.min()), int(columns.min())
    block = image.read(plane, slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    if block.shape[1:] == size and (top, left) == (y, x):  # nothing is mirrored
        return block
    return block[:, (rows - top)[:, None], (columns - left)[None, :]]
