"""The plan of a stack, read from its record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import PlaneArray, Repair, Vouch, open_array, unlisted
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.predict.plan import AlongZ, Plan
from unet_pipeline.records.checksums import Vouched
from unet_pipeline.records.files import Check, digest, unclaimed
from unet_pipeline.records.layout import SEGMENTATION, STITCH_FILE, region_path
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import GeometryPlanned, StitchRecord, TileRecord
from unet_pipeline.stacks.stack import Stack


@dataclass(frozen=True)
class StackPlan:
    """The plan of one stack, as `tiles.json` says it.

    Attributes:
        record: path of `tiles.json`.
        stack: the stack it belongs to.
        plan: regions, shards and tiles.
        classes: class names; the channels of the probabilities.
        digest: names the plan; every region record repeats it.
        out_of_fold: whether each plane is predicted by the member of a cross-validation that has not seen it.
        vouch: called with each file of the store before it is read; see `of_stitched`.
    """

    record: Path
    stack: Stack
    plan: Plan
    classes: tuple[str, ...]
    digest: str
    out_of_fold: bool = False
    vouch: Vouch = unlisted

    @classmethod
    def open(cls, record: Path) -> StackPlan:
        """Open a plan by the record that `tile` wrote.

        Raises:
            PipelineError: if the record is missing or is not one of tile's.
        """
        tiled = open_record(record, TileRecord)
        stack, stored = Stack.open(record.parent / tiled.ingest), tiled.plan
        if stored.shape != stack.grid.shape:
            expected = f"a plan of {stack.grid.shape} planes, rows and columns, as {stack.record} has"
            raise PipelineError(record, expected, stored.shape, fix=how_to_remake(record))
        along_z = AlongZ()
        if stored.along_z:
            along_z = AlongZ(_geometry(stored.along_z.geometry), stored.along_z.keep, stored.along_z.shard)
        geometry = _geometry(stored.geometry)
        planned = Plan(stored.shape, geometry, stored.keep, stored.shard, stored.regions, along_z)
        return cls(record, stack, planned, tiled.classes, tiled.digest, tiled.out_of_fold)

    @classmethod
    def of_stitched(cls, record: Path, stitched: StitchRecord) -> StackPlan:
        """Open the plan of a stitched stack; each file is held against the record's list when it is first read.

        Args:
            record: `stitch.json`.
            stitched: its content.

        Raises:
            PipelineError: as `open`, or if the list is not what the record vouches for.
        """
        plan = cls.open(record.parent / stitched.tiles)
        return replace(plan, vouch=Vouched(record, stitched.files, plan.owner).check)

    @property
    def store(self) -> Path:
        """The store the prediction jobs fill."""
        return self.record.parent / SEGMENTATION

    def work(self, card: ModelCard, options: Predict) -> str:
        """Return the digest of all that a shard's bytes depend on but the machine; `stitch` accepts no other.

        That is the plan, which names image and version, the model with its constants, and section `predict`.
        """
        return digest([self.digest, card.identity, asdict(options)])

    def region_record(self, region: int) -> Path:
        """Return the place of a region's record."""
        return region_path(self.record.parent, region)

    def owner(self, file: Path) -> Path | None:
        """Return the record that vouches for a file of the store; None for a file of several steps."""
        if file.name == "zarr.json":
            return self.record
        array = self.probabilities()
        for number in range(self.plan.shard_count):
            shard = self.plan.shard_at(number)
            if file == array.shard_file(*shard.corner):
                return self.region_record(self.plan.region_of(number))
        return None

    def probabilities(self, writable: bool = False, check: Check = unclaimed) -> PlaneArray:
        """Open the probabilities at full size, one channel per class."""
        return self._open("0", writable, check, self._repair_region)

    def labels(self, name: str, writable: bool = False, check: Check = unclaimed) -> PlaneArray:
        """Open "classes" (uint8) or "instances" (uint32) at full size."""
        return self._open(f"labels/{name}/0", writable, check, self._repair_stitch)

    def _open(self, name: str, writable: bool, check: Check, repair: Repair) -> PlaneArray:
        if not ngff.belongs(self.store, self.digest):
            raise PipelineError(
                self.store, f"the store of {self.record}", "another or none", fix=how_to_remake(self.record)
            )
        return open_array(self.store, name, writable, check, repair, how_to_remake(self.record), self.vouch)

    def _repair_region(self, plane: int, row: int, column: int) -> str:
        return how_to_remake(self.region_record(self.plan.region_of(self.plan.shard_number(plane, row, column))))

    def _repair_stitch(self, plane: int, row: int, column: int) -> str:
        return how_to_remake(self.record.with_name(STITCH_FILE))


def _geometry(stored: GeometryPlanned) -> Geometry:
    return Geometry(stored.stride, stored.before, stored.after, stored.lost, stored.crop_px, stored.whole_plane)
