"""Pass 1 over the blocks of a class volume: what each settles by itself, and the graph of what they leave open."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.objects.box import Box, plane_boxes
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.fragments import Classes, Keys, Place, contacts, number
from unet_pipeline.objects.settling import Nodes, settle

MAX_OBJECTS = 2**32 - 1


class Spool:
    """Arrays of int64, kept in the order they come: in a file without a name, or in memory."""

    def __init__(self, folder: Path | None) -> None:
        """Begin a file in a folder; None keeps all in memory."""
        self.file = None if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._arrays: list[NDArray[np.int64]] = []
        self._ends = [0]

    def __enter__(self) -> Spool:
        """Nothing to do: the file is open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file, which removes it."""
        if self.file is not None:
            self.file.close()

    def add(self, values: NDArray[np.int64]) -> None:
        """Keep the next array (n,); raises PipelineError where the disk has no room."""
        if self.file is None:
            self._arrays.append(values)
            return
        try:
            self.file.seek(self._ends[-1])
            self.file.write(values.tobytes())
            self.file.flush()
        except OSError as error:
            fix = "free space or choose another disk (--directory)"
            raise PipelineError("numbers of objects", f"room for {values.nbytes} bytes", error, fix=fix) from error
        self._ends.append(self._ends[-1] + values.nbytes)

    def get(self, index: int) -> NDArray[np.int64]:
        """Return an array (n,) that was kept; for one thread at a time, and not while another is added."""
        if self.file is None:
            return self._arrays[index]
        self.file.seek(self._ends[index])
        return np.frombuffer(self.file.read(self._ends[index + 1] - self._ends[index]), np.int64)


class Survey:
    """Settles each block and keeps what the neighbouring blocks need.

    Attributes:
        becomes: of each block, what its fragments become: 0 background, n > 0 the n-th object of the block, -n the node
            n of the volume.
        area, first: of each block, those of its objects.
        checksums: of each block, CRC-32 of its classes.
        filled_px: pixels of holes in objects that lie inside of blocks.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        block_px: tuple[int, int],
        deep: bool,
        options: ComponentOptions,
        folder: Path | None,
    ) -> None:
        """Begin.

        Args:
            shape: planes, height, width of the volume.
            block_px: height and width of the blocks.
            deep: note the contacts between planes.
            options: what counts as one instance.
            folder: for files that last as long as this; None keeps all in memory.
        """
        self.shape, self.block_px, self.deep, self.options = shape, block_px, deep, options
        # a hole of 4-connected instances is 8-connected background: filling holes needs the corners too
        self.corners = options.corners_join or options.fill_holes
        kept = shape[0] if deep else 1
        # last rows of the blocks above and of this row of blocks, by turns; last columns of the blocks to the left
        self.rows = np.zeros((2, kept, shape[2] + 2), np.uint32)
        self.columns = np.zeros((kept, block_px[0]), np.uint32)
        self.below = np.zeros((0, 0), np.uint32)  # the same block, one plane before
        self.count = self.objects = self.filled_px = 0
        self.becomes, self.area, self.first = Spool(folder), Spool(folder), Spool(folder)
        self.parts: list[Nodes] = []
        self.straight: list[Keys] = []
        self.diagonal: list[Keys] = []
        self.joins: list[Keys] = []
        self.beside: list[Keys] = []
        self.checksums: list[int] = []

    def blocks(self) -> Iterator[Box]:
        """Run through the blocks: plane after plane, or across planes through all planes of a block, then the next."""
        by_plane = [list(plane.divided(*self.block_px)) for plane in plane_boxes(self.shape)]
        # only the same block one plane before is kept, so across planes a block's planes come one after the other
        return (block for group in (zip(*by_plane, strict=True) if self.deep else by_plane) for block in group)

    def add(self, block: Box, classes: Classes) -> None:
        """Take the classes (y, x) of the next block; raises PipelineError beyond MAX_OBJECTS components."""
        labels, count = number(classes, self.options.fill_holes)
        place = Place(block, self.shape, self.deep, self.corners, self.options.fill_holes)
        settled = settle(place.measured(classes, labels, count), self.options)
        becomes = np.where(settled.becomes < 0, settled.becomes - self.count, settled.becomes)
        self.becomes.add(becomes)
        self.area.add(settled.area)
        self.first.add(settled.first)
        self.parts.append(settled.nodes)
        before = self.count << 32 | self.count  # nodes of blocks before, in both halves of a key
        self.joins.append(settled.joins + before)
        self.beside.append(settled.beside + before)
        self.checksums.append(zlib.crc32(classes.data))
        self.filled_px += settled.filled_px
        self.count += len(settled.nodes.area)
        self.objects += len(settled.area)
        if self.count + self.objects > MAX_OBJECTS:
            raise PipelineError(block, f"at most {MAX_OBJECTS} components", "more", fix="label the stack in parts")
        self._touch(block, labels, np.where(becomes < 0, -becomes, 0).astype(np.uint32))

    def _touch(self, block: Box, labels: NDArray[np.uint32], node: NDArray[np.uint32]) -> None:
        """Note which nodes touch those of the neighbours above, left and one plane before."""
        kept, turn = (block.plane if self.deep else 0), block.rows.start // self.block_px[0] % 2
        columns = self.columns[kept, : labels.shape[0]]
        # the kept row has a pixel more at each side than the plane: corner contacts reach beyond the block's columns
        if block.rows.start:
            row = np.pad(node[labels[0]], 1)  # with the pixels that share a corner with the block
            self._note(np.stack([self.rows[1 - turn, kept, block.columns.start : block.columns.stop + 2], row]))
        if block.columns.start:
            self._note(np.stack([columns, node[labels[:, 0]]], axis=1))
        if self.deep:
            nodes = node[labels]
            if block.plane:
                self.straight.append(contacts(self.below, nodes, 0, 0))
            self.below = nodes
        self.rows[turn, kept, block.columns.start + 1 : block.columns.stop + 1] = node[labels[-1]]
        columns[:] = node[labels[:, -1]]

    def _note(self, nodes: NDArray[np.uint32]) -> None:
        self.straight += [contacts(nodes, nodes, 0, 1), contacts(nodes, nodes, 1, 0)]
        if self.corners:
            self.diagonal += [contacts(nodes, nodes, 1, 1), contacts(nodes, nodes, 1, -1)]

    def nodes(self) -> Nodes:
        """Return all nodes, counted from 1."""
        columns = ([getattr(part, name) for part in self.parts] for name in Nodes.__annotations__)
        made: list[NDArray[Any]] = [np.concatenate([np.zeros(1, column[0].dtype), *column]) for column in columns]
        area, filled, first, class_index, is_open = made
        return Nodes(area, filled, first, class_index, is_open)

    def edges(self) -> tuple[Keys, Keys]:
        """Return the pairs (n,) of nodes that join foreground, and those that join background."""
        straight, diagonal, joins, beside = (
            np.concatenate([np.zeros(0, np.int64), *keys])
            for keys in (self.straight, self.diagonal, self.joins, self.beside)
        )
        foreground, background = self.options.contacts(straight, diagonal)
        return np.concatenate([foreground, joins]), np.concatenate([background, beside])
