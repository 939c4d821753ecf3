"""The measures of all objects of a stack, added up block by block in a file: memory does not grow with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.measures import Part, joined
from unet_pipeline.records.files import reserve


class Sums:
    """A record for each object, of the type `measures.fields`, at the place that its id says."""

    def __init__(self, path: Path, count: int, kind: np.dtype[Any]) -> None:
        """Make the file.

        Args:
            path: the file, which the caller removes.
            count: number of objects; their ids are 1 to that.
            kind: from `measures.fields`.

        Raises:
            PipelineError: there is no room for it on the disk.
        """
        self._path, self.count, self.kind = path, count, kind
        reserve(path, 0, max(1, count * kind.itemsize), "free space or choose another disk (--directory)")

    def _mapped(self) -> NDArray[Any]:
        # mapped anew each time: pages that were touched would count as memory of this process as long as they are
        return np.memmap(self._path, self.kind, "r+", 0, (self.count,))

    def add(self, ids: NDArray[np.uint32], part: Part) -> None:
        """Add what was measured of some objects, (n,) each once.

        Raises:
            PipelineError: if an id is larger than the number of objects.
        """
        if not len(ids):
            return
        if ids.max() > self.count:
            raise PipelineError(self._path, f"ids of objects from 1 to {self.count}", ids.max(), fix="run stitch again")
        mapped, places = self._mapped(), ids.astype(np.int64) - 1
        mapped[places] = joined(mapped[places], part)

    def set_hulls(self, ids: NDArray[np.uint32], areas: NDArray[np.int64]) -> None:
        """Set the pixels in the hull of some objects, each (n,)."""
        if len(ids):
            self._mapped()["hull"][ids.astype(np.int64) - 1] = areas

    def lowest_rows(self, ids: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the row below each of some objects, (n,), as far as they were measured."""
        rows: NDArray[np.int64] = np.array(self._mapped()["stop"][ids.astype(np.int64) - 1, 1])
        return rows

    @property
    def none(self) -> Part:
        """The sums of no object."""
        return np.zeros(0, self.kind)

    def of(self, ids: NDArray[np.uint32]) -> Part:
        """Return a copy of what is known of some objects, (n,)."""
        return np.array(self._mapped()[ids.astype(np.int64) - 1]) if len(ids) else self.none

    def part(self, start: int, stop: int) -> Part:
        """Return a copy of what is known of the objects from one place up to another."""
        return np.array(self._mapped()[start:stop])
