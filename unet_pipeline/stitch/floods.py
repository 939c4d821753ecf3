"""Pieces divided one by one, each within its box: in memory, or in files where that is too large or is needed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.box import Box
from unet_pipeline.objects.flood import OUTSIDE
from unet_pipeline.objects.fragments import LARGEST_CLASS
from unet_pipeline.objects.pieces import Pieces, measure
from unet_pipeline.records.files import reserve
from unet_pipeline.stitch import layers
from unet_pipeline.stitch.layers import Layer

IN_MEMORY_PX = 2**22
"""Largest box that is divided in memory, px: 14 bytes each."""


Divide = Callable[[NDArray[np.uint16], NDArray[np.uint32], NDArray[np.int64]], None]
"""divide(heights, labels, queue): label the pixels of one piece, (planes, y, x), in place."""
Several = Callable[[Pieces], NDArray[np.bool_]]
"""several(pieces): which of them may be several objects, (n,)."""


@dataclass(frozen=True)
class Layers:
    """Three layers of a volume: the pieces, their seeds, and the heights from which they are divided.

    Attributes:
        pieces: uint32.
        seeds: uint32; None where a piece is divided without.
        heights: gives those of a box of one plane, (y, x) uint16.
    """

    pieces: Layer
    seeds: Layer | None
    heights: Callable[[Box], NDArray[np.uint16]]

    def read_pieces(self, box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return pieces and seeds, each (y, x) uint32, of a box of one plane."""
        pieces = self.pieces.read_label(*box.at)
        return pieces, np.zeros_like(pieces) if self.seeds is None else self.seeds.read_label(*box.at)

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint16]]:
        """Return pieces uint32, seeds uint32 and heights uint16, each (y, x), of a box of one plane."""
        pieces, seeds = self.read_pieces(box)
        return pieces, seeds, self.heights(box)


@dataclass
class Floods:
    """Divides a piece when the first block that holds some of it is asked for, and keeps it if others need it too.

    Attributes:
        layers: pieces, seeds and heights.
        across: the pieces that lie in several blocks.
        several: chooses the pieces to divide.
        divide: labels the pixels of a piece.
        seed_count: number of seeds; parts that were not divided are numbered behind them.
        folder: for the files of large and of kept boxes; None keeps them in memory.
    """

    layers: Layers
    across: Pieces
    several: Several
    divide: Divide
    seed_count: int
    folder: Path | None

    def __post_init__(self) -> None:
        """Nothing is divided yet."""
        self._kept = np.full(len(self.across.ids), -1)  # where each lies in the file
        self._arrays: dict[int, NDArray[np.uint32]] = {}
        self._end = 0

    def parts(self, block: Box) -> NDArray[np.uint32]:
        """Return the parts of a block, (y, x) uint32; blocks are those by which `across` was found."""
        here = self.layers.read(block)
        found = measure(here[0], here[1], block)
        place = self.across.places(found.ids)
        # parts that are not divided are numbered behind the seeds, which number those that are: no number comes twice
        parts = np.where(here[0] > 0, here[0] + np.uint32(LARGEST_CLASS + self.seed_count), np.uint32(0))
        several = self.several(found)
        several[place >= 0] = self.several(self.across)[place[place >= 0]]
        for index in np.flatnonzero(several).tolist():
            box = found.box(index) if place[index] < 0 else self.across.box(place[index])
            shared = box.shared_with(block)
            inside, own = shared.counted_from(block).window, shared.counted_from(box)
            flooded = self._flooded(int(found.ids[index]), int(place[index]), box, block, here)[own.at]
            # 0 in the box is another piece, or none
            parts[inside] = np.where(flooded > 0, flooded + np.uint32(LARGEST_CLASS), parts[inside])
        return parts

    def _flooded(
        self, piece: int, place: int, box: Box, block: Box, here: tuple[NDArray[Any], ...]
    ) -> NDArray[np.uint32]:
        """Return the seed of each pixel of a piece, in its box (planes, y, x) uint32, 0 around the piece."""
        if place in self._arrays:
            return self._arrays[place]
        if place >= 0 and self._kept[place] >= 0:
            return self._map("kept", box, np.uint32, int(self._kept[place]))
        large = self.folder is not None and int(np.prod(box.shape)) > IN_MEMORY_PX
        # kept in a file if other blocks will ask for the rest of the piece, or if it is too large for memory
        labels = self._map("labels", box, np.uint32) if large and place < 0 else self._keep(place, box)
        heights = self._map("heights", box, np.uint16) if large else np.empty(box.shape, np.uint16)
        queue = self._map("queue", box, np.int64) if large else np.empty(box.shape, np.int64)
        if place < 0:
            window = box.counted_from(block).window
            _fill(labels[0], heights[0], piece, (here[0][window], here[1][window], here[2][window]))
        else:
            self._read(piece, box, labels, heights)
        self.divide(heights, labels, queue.reshape(-1))
        return labels

    def _read(self, piece: int, box: Box, labels: NDArray[np.uint32], heights: NDArray[np.uint16]) -> None:
        for plane in range(box.planes.start, box.planes.stop):
            for block in Box.of(plane, *box.window).divided(layers.BLOCK_PX, layers.BLOCK_PX):
                at = block.counted_from(box).at
                _fill(labels[at], heights[at], piece, self.layers.read(block))

    def _keep(self, place: int, box: Box) -> NDArray[np.uint32]:
        """Return room for the labels of a piece that stay, where other blocks need them."""
        if place < 0 or self.folder is None:
            labels = np.zeros(box.shape, np.uint32)
            if place >= 0:
                self._arrays[place] = labels
            return labels
        self._kept[place] = self._end
        self._end += int(np.prod(box.shape)) * np.dtype(np.uint32).itemsize
        return self._map("kept", box, np.uint32, int(self._kept[place]))

    def _map(self, name: str, box: Box, dtype: type, offset: int = 0) -> NDArray[Any]:
        """Return an array of a box that lies in a file, from a byte of it on; the file grows as needed."""
        assert self.folder is not None
        path = self.folder / f"{name}.flood"
        fix = "free space or choose another disk (--directory), or set stitch.method: components"
        reserve(path, offset, int(np.prod(box.shape)) * np.dtype(dtype).itemsize, fix)
        return np.memmap(path, dtype, "r+", offset, box.shape)


def _fill(
    labels: NDArray[np.uint32], heights: NDArray[np.uint16], piece: int, layers: tuple[NDArray[Any], ...]
) -> None:
    """Put seeds and heights of one piece, from its layers (pieces, seeds, heights), where they are flooded."""
    own = layers[0] == piece
    labels[...] = np.where(own, layers[1], 0)
    heights[...] = np.where(own, layers[2], OUTSIDE)
