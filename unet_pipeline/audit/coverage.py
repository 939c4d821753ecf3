"""Coverage: the proof that region records cover a volume exactly once and that its files are what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.machine.parallel import ahead, cores
from unet_pipeline.machine.progress import Progress
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import Coverage, PredictRecord, ShardWritten


def check_coverage(
    stack_plan: StackPlan, records: Sequence[Path], work: str | None = None
) -> tuple[Coverage, dict[Path, str]]:
    """Prove that the records cover the volume exactly once and that every file still is what was written.

    Args:
        stack_plan: the plan of the stack.
        records: the region records, in any order.
        work: what the regions must be made from (`StackPlan.work`); None takes any work, of one model.

    Returns:
        What the record of stitch says of it, and the SHA-256 of each shard's file.

    Raises:
        PipelineError: if they do not; names the record whose region must be made again.
    """
    seen: dict[int, Path] = {}
    sums: dict[Path, str] = {}
    models, formats = set(), dict[str, Path]()
    with Progress(stack_plan.plan.shard_count, f"check {stack_plan.stack.name}") as progress:
        for path in records:
            region = _open_region(stack_plan, path, work)
            models.add(region.model)
            formats.setdefault(region.compute.precision, path)
            for entry in region.shards:
                _check_once(path, entry.shard, seen)
            for found in _checked(stack_plan, path, region.shards):
                sums |= found
                progress.advance()
    _check_whole(stack_plan, seen, models)
    _check_format(stack_plan, formats)
    return Coverage(len(seen), len(records), True, next(iter(models), None)), sums


def check_region(stack_plan: StackPlan, path: Path) -> dict[Path, str]:
    """Return the SHA-256 of each shard's file of one region.

    Raises:
        PipelineError: if its record is damaged or of another plan, or a file is not what it vouches for.
    """
    sums: dict[Path, str] = {}
    for found in _checked(stack_plan, path, _open_region(stack_plan, path, None).shards):
        sums |= found
    return sums


def _open_region(stack_plan: StackPlan, path: Path, work: str | None) -> PredictRecord:
    region = open_record(path, PredictRecord)
    if region.plan != stack_plan.digest:
        raise PipelineError(
            path, f"a record of plan {stack_plan.digest}", f"plan {region.plan}", fix=how_to_remake(path)
        )
    if work not in (None, region.made_by):
        expected = f"a region made with this model and section predict ({work})"
        raise PipelineError(path, expected, region.made_by, fix=how_to_remake(path))
    if path.name != stack_plan.region_record(region.region).name:
        expected = f"the record of region {path.stem}"
        raise PipelineError(path, expected, f"that of region {region.region}", fix=how_to_remake(path))
    expected_shards = list(stack_plan.plan.region(region.region))
    got = [entry.shard for entry in region.shards]
    if got != expected_shards:
        expected = f"shards {expected_shards[:4]}... of region {region.region}"
        raise PipelineError(path, expected, got[:4], fix=how_to_remake(path))
    return region


def _check_once(path: Path, shard: int, seen: dict[int, Path]) -> None:
    if shard in seen:
        got = f"shard {shard} also in {seen[shard]}"
        raise PipelineError(path, "each shard in one region", got, fix=how_to_remake(path))
    seen[shard] = path


def _checked(stack_plan: StackPlan, path: Path, entries: Sequence[ShardWritten]) -> Iterator[dict[Path, str]]:
    """Yield the SHA-256 of the file of each shard of a record, computed side by side."""
    check = partial(_check_shard, stack_plan, path, stack_plan.probabilities())
    with closing(ahead(check, entries, cores())) as found:
        yield from found


def _check_shard(stack_plan: StackPlan, path: Path, array: PlaneArray, entry: ShardWritten) -> dict[Path, str]:
    shard = stack_plan.plan.shard_at(entry.shard)
    file, found = array.shard_file(*shard.corner), array.shard_sha256(*shard.corner)
    if found is None or found != entry.probabilities:
        got = "no file" if found is None else "a file that was changed since"
        raise PipelineError(file, f"the shard that {path} vouches for", got, fix=how_to_remake(path))
    return {file: found}


def _check_whole(stack_plan: StackPlan, seen: dict[int, Path], models: set[str]) -> None:
    missing = sorted(set(range(stack_plan.plan.shard_count)) - set(seen))
    if missing:
        got = f"{len(missing)} shard(s) in no record, the first {missing[0]}"
        expected = f"all {stack_plan.plan.shard_count} shards"
        raise PipelineError(stack_plan.store, expected, got, fix="give all region records")
    if len(models) > 1:
        expected, got = "regions predicted by one model", f"{len(models)} models"
        raise PipelineError(stack_plan.store, expected, got, fix="rerun predict")


def _check_format(stack_plan: StackPlan, formats: dict[str, Path]) -> None:
    """Refuse a volume in parts of different number formats, between which labels differ: they would be a seam.

    Args:
        stack_plan: the plan of the stack.
        formats: by number format of the convolutions the first record of it.
    """
    if len(formats) > 1:
        got = ", ".join(f"{name} ({path})" for name, path in formats.items())
        fix = "set predict.precision: float32, in which every machine computes, or run all jobs on one kind of machine"
        raise PipelineError(stack_plan.store, "regions computed in one number format", got, fix=fix)
