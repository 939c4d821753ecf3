"""What the tests of forged files and forged text share."""

from __future__ import annotations

import os
from pathlib import Path

SMALL = 160 * 2**20
"""Bytes of memory a refusal may take: two blocks of 64 MiB, below which claims go unchecked, and what is around."""


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)
