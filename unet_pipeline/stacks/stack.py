"""A stack after ingest: its image, its reference, and their facts.

Every later stage opens a stack by its record, `ingest.json`; paths in it are relative to the record, so that a
results folder can be moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.plane_array import PlaneArray, open_array
from unet_pipeline.images.planes import Planes
from unet_pipeline.records.checksums import Vouched
from unet_pipeline.records.layout import IMAGE
from unet_pipeline.records.provenance import possible_paths
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.stack_records import IngestRecord
from unet_pipeline.records.steps import open_record


@dataclass(frozen=True)
class Stack:
    """An ingested stack.

    Attributes:
        record: path of `ingest.json`.
        ingested: its content.
    """

    record: Path
    ingested: IngestRecord

    @classmethod
    def open(cls, record: Path) -> Stack:
        """Open a stack by the record that ingest wrote.

        Raises:
            PipelineError: if the record is missing or is not one of ingest's.
        """
        return cls(record, open_record(record, IngestRecord))

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.ingested.stack

    @property
    def grid(self) -> ngff.Grid:
        """Size and scale."""
        size = self.ingested.grid
        return ngff.Grid(size.planes, size.height, size.width, size.plane_axis, size.pixel_um, size.step)

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return self.ingested.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the image."""
        return np.dtype(self.ingested.dtype)

    @property
    def labelled(self) -> bool:
        """Whether there is a reference."""
        return self.ingested.labels is not None

    @property
    def store(self) -> Path:
        """The OME-Zarr store of the image or, for an image used in place, of the reference alone."""
        return self.record.parent / IMAGE

    @cached_property
    def _vouched(self) -> Vouched:
        return Vouched(self.record, self.ingested.files)

    def vouch(self, file: Path) -> None:
        """Hold a file of the store against its checksum before it is first read.

        Raises:
            PipelineError: if it is not what the record vouches for.
        """
        self._vouched.check(file)

    @cached_property
    def image(self) -> Planes:
        """The grey values, read lazily."""
        place = self.ingested.image
        if not place.in_place:
            stored = self._open("0")
            self._check_image(self.store, stored.shape, stored.dtype)
            return stored
        found = self._in_place()
        image = open_planes(str(found), axes=place.axes or None, planes=place.planes or None)
        self._check_image(found, image.shape, image.dtype)
        return image

    def _check_image(self, place: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        planes, height, width = self.grid.shape
        expected = f"{(planes, self.channels, height, width)} {self.dtype}"
        if f"{tuple(shape)} {dtype}" != expected:
            what = f"an image of {expected}, as {self.record} says"
            raise PipelineError(place, what, f"{tuple(shape)} {dtype}", fix=how_to_remake(self.record))

    def _in_place(self) -> Path:
        """Find the image that is used in place: seen from the project folder, which may have moved since."""
        source = self.ingested.image.source
        found = next((path for path in possible_paths(source, self.record) if path.exists()), None)
        if found is None:
            fix = f"put it back, or correct its row of the table, delete {self.record} and run the workflow again"
            raise PipelineError(source, f"the image that {self.record} was made from", "none there", fix=fix)
        return found

    def reference(self, name: str) -> PlaneArray:
        """Open the reference: "instances" (uint32) or "classes" (uint8, 255 where nobody annotated).

        Raises:
            PipelineError: if the stack has no labels.
        """
        if not self.labelled:
            raise PipelineError(
                self.record, "a labelled stack", f"{self.name} without labels", fix="fill column labels"
            )
        labels = self._open(f"labels/{name}/0")
        if (labels.shape[0], *labels.shape[2:]) != self.grid.shape:
            expected = f"labels of the size {self.grid.shape} that {self.record} says"
            raise PipelineError(self.store, expected, labels.shape, fix=how_to_remake(self.record))
        return labels

    def _open(self, name: str) -> PlaneArray:
        fix = how_to_remake(self.record)
        if not ngff.belongs(self.store, self.ingested.id):
            raise PipelineError(self.store, f"the store that {self.record} vouches for", "another or none", fix=fix)
        return open_array(self.store, name, repair=lambda plane, row, column: fix, vouch=self.vouch)
