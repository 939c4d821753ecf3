"""A journal of the finished shards of a region, beside its record.

A job that is cut off (wall-time limit, preemption, a killed Snakemake) goes on where it was instead of starting over;
so does one that had finished without Snakemake having seen it.
"""

from __future__ import annotations

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.objects.box import Box
from unet_pipeline.records.claim import Claim
from unet_pipeline.records.layout import journal_path
from unet_pipeline.records.record import write_record
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import Finished, ShardWritten


class Journal:
    """Finished shards of one region, as long as the work stays the same."""

    def __init__(self, claim: Claim, key: str) -> None:
        """Open the journal of a region, empty where there is none, where it is damaged or of other work.

        Args:
            claim: of the job that writes it.
            key: names all that the bytes of a shard depend on.
        """
        self._claim, self._key, self._path = claim, key, journal_path(claim.output)
        self._entries = self._read()

    def _read(self) -> dict[int, ShardWritten]:
        try:
            noted = open_record(self._path, Finished)
        except PipelineError:
            return {}
        return {entry.shard: entry for entry in noted.shards} if noted.key == self._key else {}

    def finished(self, number: int, shard: Box, array: PlaneArray) -> ShardWritten | None:
        """Return the entry of a shard whose file still is what was written, else None."""
        entry = self._entries.get(number)
        return entry if entry and array.shard_sha256(*shard.corner) == entry.probabilities else None

    def add(self, entry: ShardWritten) -> None:
        """Note a shard that was written.

        Args:
            entry: its number and the SHA-256 of its files.

        Raises:
            PipelineError: if another job has taken over, or the disk is full.
        """
        self._entries[entry.shard] = entry
        noted = Finished(key=self._key, shards=tuple(self._entries.values()))
        write_record(self._path, noted, self._claim.check)
