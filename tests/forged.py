"""What the tests of forged files and forged text share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz.worker import _peak, _reset_peak, _resident

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes

SMALL = 160 * 2**20
"""Bytes of memory a refusal may take: two blocks of 64 MiB, below which claims go unchecked, and what is around."""


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def look(path: Path) -> None:
    """Open a stack and read a corner of its first and last plane."""
    with open_planes(str(path)) as planes:
        for plane in (0, planes.shape[0] - 1):
            planes.read(plane, slice(0, 32), slice(0, 32))


def refused(path: Path, word: str) -> None:
    """Check that a file is refused for a reason, within bounded memory."""
    held = _resident()
    _reset_peak()
    with pytest.raises(PipelineError, match=word) as caught:
        look(path)
    assert _peak() - held < SMALL
    assert len(str(caught.value)) < 5000
