"""What the shapes of instances tell about how a label image was saved: rims of other ids, and ids of many pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.halo_blocks import row_bands

RIM_SHARE = {"instances": 0.4, "pieces": 0.2}
"""Share of edges with a rim above which labels are refused, by `labels.kind`."""
PIECES_RIM_SHARE, LOSSY_SHARE = 0.06, 0.02
"""The same where ids have many pieces, too, and where the file is a JPEG."""
FEWEST_RIMS = 12
"""Fewer rims than this tell nothing."""
PIECES_PER_ID = 2.0
"""Ids of more pieces than this, in the mean over ids and blocks, are likely to be classes or spoilt."""
# Measured, in the order: edges with a rim | pieces of an id
#   seven annotated sets                   | 0 to 0.0021 | 1.0 to 2.0
#   drawn cells, 8 to 40 px across         | 0.004 to 0.011 | 1.0
#   sheets of cells 20, 10, 5, 3 px across | 0.06, 0.12, 0.25, 0.39 | 1.0 to 1.1
#   six of the sets after JPEG of quality 100, 99 and 95 | 0.12 to 0.15, 0.18 to 0.25, 0.28 to 0.43 | 3.7 and more
#   the same interpolated by 0.5 to 2      | 0.65 to 1 | 14 and more
# The seventh set has hardly any background, so hardly an edge.
SMALL_ID = 2**24
"""Ids below it are counted in a table, larger ones by sorting."""

Ids = npt.NDArray[np.uint32]


@dataclass
class LabelShapes:
    """Counts over the blocks of instance ids, (rows, columns) each.

    ```
    0 0 0 0 0        0 0 0 0 0 0
    0 7 7 7 0        0 2 4 4 2 0      edges: steps between background and an id, along rows and columns
    0 7 7 7 0        0 5 7 7 5 0      rims: edges whose id is one pixel thick, with another id behind it
    0 0 0 0 0        0 0 0 0 0 0
      as drawn        interpolated
    ```

    Attributes:
        pairs: neighbouring pixels along rows that are both of an id.
        unlike: those of two ids.
        edges, rims: see the drawing.
        ids: ids in each block, summed.
        pieces: 4-connected pieces less their holes in each block, summed.
        only: the one id that all blocks have, 0 before the first, None where there are two.
    """

    pairs: int = 0
    unlike: int = 0
    edges: int = 0
    rims: int = 0
    ids: int = 0
    pieces: int = 0
    only: int | None = 0
    _seen: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))

    def add(self, ids: Ids, rims: bool = True) -> None:
        """Take in a block.

        Args:
            ids: (rows, columns).
            rims: whether to look for rims: not where labels were made much smaller, which leaves nothing but rims.
        """
        for band in row_bands(ids):
            left, right = band[:, :-1], band[:, 1:]
            both = (left > 0) & (right > 0)
            self.pairs += int(both.sum())
            self.unlike += int((both & (left != right)).sum())
            if rims:
                self._add_rims(band)
        self.pieces += _pieces(ids)
        self._add_ids(ids)

    def _add_rims(self, band: Ids) -> None:
        for lines in (band, band.T):
            before, here, after = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
            self.edges += int(((lines[:, 1:] > 0) != (lines[:, :-1] > 0)).sum())
            for outside, inside in ((before, after), (after, before)):
                self.rims += int(((outside == 0) & (here > 0) & (inside > 0) & (here != inside)).sum())

    def _add_ids(self, ids: Ids) -> None:
        if not ids.size or not (largest := int(ids.max())):
            return
        if largest < SMALL_ID:
            if largest >= len(self._seen):
                self._seen = np.zeros(1 << largest.bit_length(), np.bool_)
            self._seen[ids.ravel()] = True
            self._seen[0] = False
            found: npt.NDArray[Any] = np.flatnonzero(self._seen)
            self._seen[found] = False
        else:
            found = np.unique(ids[ids > 0])
        self.ids += len(found)
        if self.only is not None:
            self.only = int(found[0]) if len(found) == 1 and self.only in (0, int(found[0])) else None

    @property
    def grey(self) -> float:
        """Share of neighbouring pixels of ids that differ, 0 to 1."""
        return self.unlike / max(self.pairs, 1)

    @property
    def rimmed(self) -> float:
        """Share of edges with a rim, 0 to 1; 0 where there are few."""
        return self.rims / max(self.edges, 1) if self.rims >= FEWEST_RIMS else 0.0

    @property
    def pieces_per_id(self) -> float:
        """Mean number of pieces of an id in a block, less their holes."""
        return self.pieces / max(self.ids, 1)


def _pieces(ids: Ids) -> int:
    """Return the pieces less their holes of all ids, by Euler's formula: pixels - equal neighbours + equal squares.

    Source: S. B. Gray, Local properties of binary images in two dimensions, IEEE Trans. Computers C-20 (1971).
    """
    total = 0
    rows = max(1, 2**20 // max(1, ids.shape[1]))
    for top in range(0, ids.shape[0], rows):
        # One row more than the band: pairs and squares that reach into the next one belong to this.
        here, below = ids[top : top + rows], ids[top + 1 : top + rows + 1]
        across = (here[:, :-1] == here[:, 1:]) & (here[:, 1:] > 0)
        down = (here[: len(below)] == below) & (below > 0)
        squares = across[: len(below)] & down[:, :-1] & (below[:, :-1] == below[:, 1:])
        total += int(np.count_nonzero(here)) - sum(int(np.count_nonzero(one)) for one in (across, down))
        total += int(np.count_nonzero(squares))
    return total
