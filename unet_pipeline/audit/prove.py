"""Prove: show on the user's own model and image that tiling does not change the result.

Two things are measured, on what is stored as well as on logits:

- **With one tile size** every split into shards and regions must store the same bytes.
- **Between tile sizes, and against one pass of the network over the whole mirrored plane**, logits must be equal within
  a stated tolerance. Kernels are chosen by the shape of a pass and by the processor, and each adds up in its own order,
  so more cannot be asked. If no logit differs by more than d, a label can change only where the logits of two classes
  lie within 2 d.

The paper's own step, the full output of a tile, is measured beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.geometry import ALONE, Geometry
from unet_pipeline.objects.box import Box
from unet_pipeline.objects.decided import decided
from unet_pipeline.predict.crop import Crop, predict_crop
from unet_pipeline.predict.forward import Forward, describe_compute
from unet_pipeline.predict.plan import AlongZ, Plan, plan, read_box, read_tile
from unet_pipeline.predict.predict import stored
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import write_record
from unet_pipeline.records.score_records import Difference, ProveRecord
from unet_pipeline.stacks.stack import Stack

TOLERANCE = {
    ("cpu", "float32"): 1e-4,
    ("cuda", "float32"): 1e-4,
    ("cpu", "bfloat16"): 0.1,
    ("cuda", "bfloat16"): 0.1,
    ("cuda", "float16"): 0.02,
}
"""Largest difference by device and number format, in standard deviations of the logits.

Rounding to bfloat16 alone moves logits by 0.05; float16 is eight times finer.
"""

PLANE_PX, VOLUME_PX = 1024, 64
"""Largest edge of what is looked at, px."""
PAPER_PX, VOLUME_STEP_PX = 388, 28
"""Full outputs in the papers: 388 px (Ronneberger et al. 2015), 28 planes (Çiçek et al. 2016)."""

Logits = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]
"""Probabilities (classes, z, y, x) as stored."""


def prove(
    model: Path, stack: Stack, config: Config, output: Path | None, plane: int = 0, crop_px: int | None = None
) -> ProveRecord:
    """Compare splits with each other and tilings with one whole pass, and say whether all are seamless.

    Args:
        model: model folder.
        stack: an ingested stack.
        config: sections predict and compute are used.
        output: path of `prove.json`; None writes nothing.
        plane: which plane; of a network of volumes the first of those used.
        crop_px: the upper left part of the plane, at most this large, is used; of a network of volumes as many planes,
            too. None takes 1024 px, or 64 with a network of volumes.

    Returns:
        The findings, as `prove.json` holds them.

    Raises:
        PipelineError: the plane does not exist, or the model does not fit the stack.
    """
    grid = stack.grid
    if not 0 <= plane < grid.planes:
        raise PipelineError("--plane", f"0 to {grid.planes - 1}", plane, min(max(plane, 0), grid.planes - 1))
    forward = Forward.load(model, stack, config.predict, config.compute)
    crop = _crop(stack, plane, crop_px, forward.dimensions == 3)
    tilings, dtype = list(_tilings(crop, forward)), np.dtype(config.predict.probabilities)
    with Progress(len(tilings) + 2, f"prove {stack.name}") as progress:
        whole = whole_pass(crop, forward)
        stored_whole = stored_of(whole, forward, dtype)
        progress.advance()
        rows = []
        for name, splits in tilings:
            logits = tiled_pass(crop, splits[0], forward)
            first, *others = (predict_crop(crop, planned, forward, dtype) for planned in splits)
            row = with_stored(difference(logits, whole, name), first, stored_whole)
            differences = sum(int((first != one).sum()) for one in others)
            rows.append(replace(row, splits=len(others), split_differences=differences))
            progress.advance()
        step_px = VOLUME_STEP_PX if forward.dimensions == 3 else PAPER_PX
        logits = paper_pass(crop, forward, step_px)
        stored_logits = stored_of(logits, forward, dtype)
        paper = with_stored(difference(logits, whole, _paper_name(forward, step_px)), stored_logits, stored_whole)
        progress.advance()
    tolerance = TOLERANCE[forward.device.type, forward.precision]
    record = ProveRecord(
        stack=stack.name,
        crop=(*crop.shape[:1], *crop.shape[2:])[-forward.dimensions :],
        seamless=all(row.largest_difference_std <= tolerance and row.split_differences == 0 for row in rows),
        tolerance_std=tolerance,
        rows=tuple(rows),
        paper_step=paper,
        compute=describe_compute(forward, config.compute),
        provenance=provenance(sections_of(config, "prove"), [stack.record, model / CARD_FILE]),
    )
    if output:
        write_record(output, record)
    return record


def _crop(stack: Stack, plane: int, crop_px: int | None, volumes: bool) -> Planes:
    """Return the part of a stack that is looked at, in memory."""
    grid, most = stack.grid, crop_px or (VOLUME_PX if volumes else PLANE_PX)
    planes = slice(plane, min(plane + (most if volumes else 1), grid.planes))
    part = Box(planes, *(slice(0, min(length, most)) for length in (grid.height, grid.width)))
    return Crop(stack.image, part).in_memory()


def _tilings(crop: Planes, forward: Forward) -> Iterator[tuple[str, list[Plan]]]:
    """Yield tile sizes, all legal, each with plans that split the plane otherwise: in one shard, and in several."""
    geometry, (deep, _, height, width) = forward.card.geometry, crop.shape
    stride, shape = geometry.stride, (deep, height, width)
    largest = geometry.round_up(max(height, width))
    parts = (geometry.round_up(max(1, height // 2)), geometry.round_up(max(1, width // 3)))
    # an output that is stretched to the input's size leaves one tiling alone
    sizes = [largest] if geometry.whole_plane else {geometry.round_up(max(stride, largest // n)) for n in (2, 3, 5)}
    for tile_px in sorted(sizes):
        along_z, z_parts = _along_z(forward, deep, tile_px / largest)
        whole = plan(shape, geometry, tile_px, (largest, largest), regions=1, along_z=along_z)
        kept = replace(whole.along_z, shard=z_parts)
        others = [] if geometry.whole_plane else [Plan(shape, geometry, whole.keep, parts, 3, kept)]
        yield f"tiles of {' x '.join(str(size) for size in whole.keeps[-forward.dimensions :])} px", [whole, *others]


def _along_z(forward: Forward, planes: int, share: float) -> tuple[AlongZ, int]:
    """Return a division along z into tiles of about a share of the planes, and the planes of smaller shards."""
    if forward.dimensions == 2:
        return AlongZ(), 1
    sizes = forward.card.geometry_z
    most = sizes.round_up(planes)
    return AlongZ(sizes, sizes.round_up(max(1, int(share * most))), most), sizes.round_up(max(1, planes // 2))


def whole_pass(crop: Planes, forward: Forward) -> Logits:
    """Return the logits (classes, z, y, x) of one pass over the crop, mirrored at its edges."""
    sizes, shape = _sizes(forward), (crop.shape[0], *crop.shape[2:])
    read = [one.read_px(one.round_up(size)) for one, size in zip(sizes, shape, strict=True)]
    logits = forward([forward.window(read_box(crop, [-one.before for one in sizes], read))])[0]
    inside = (slice(one.crop_px, one.crop_px + size) for one, size in zip(sizes, shape, strict=True))
    values: Logits = logits[:, *inside].cpu().numpy()
    return values


def tiled_pass(crop: Planes, planned: Plan, forward: Forward) -> Logits:
    """Return the logits (classes, z, y, x), tile by tile, region by region as prediction jobs go."""
    result = np.full((len(forward.card.classes), *planned.shape), np.nan, np.float32)
    for region in range(planned.regions):
        for number in planned.region(region):
            for tile in planned.tiles(planned.shard_at(number)):
                logits = forward([forward.window(read_tile(crop, tile, planned))])[0, :, *planned.block].cpu().numpy()
                result[:, *tile.write.axes] = logits[:, *tile.part]
    return result


def stored_of(logits: Logits, forward: Forward, dtype: np.dtype[Any]) -> Stored:
    """Return what would be stored of logits (classes, z, y, x)."""
    return stored(torch.from_numpy(logits), forward, dtype).numpy()


def paper_pass(crop: Planes, forward: Forward, output_px: int = PAPER_PX) -> Logits:
    """Return the logits (classes, z, y, x) of the paper's tiling: it steps by a full output and changes pooling phase.

    For padded networks that is tiling without a margin: zeros at every tile's edge.
    """
    sizes, shape = _sizes(forward), (crop.shape[0], *crop.shape[2:])
    steps = [paper_step(one, output_px) for one in sizes]
    read = [step + one.lost for step, one in zip(steps, sizes, strict=True)]
    result = np.full((len(forward.card.classes), *shape), np.nan, np.float32)
    for corner in product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True))):
        origin = [first - one.lost // 2 for first, one in zip(corner, sizes, strict=True)]
        logits = forward([forward.window(read_box(crop, origin, read))])[0].cpu().numpy()
        kept = [min(step, size - first) for step, size, first in zip(steps, shape, corner, strict=True)]
        place = (slice(first, first + size) for first, size in zip(corner, kept, strict=True))
        result[:, *place] = logits[:, *(slice(0, size) for size in kept)]
    return result


def _sizes(forward: Forward) -> tuple[Geometry, Geometry, Geometry]:
    """Return the sizes of the network along z, y and x."""
    return forward.card.geometry_z, forward.card.geometry, forward.card.geometry


def paper_step(geometry: Geometry, output_px: int = PAPER_PX) -> int:
    """Return the output size a network makes that is nearest to the paper's 388 px."""
    rest = (geometry.before + geometry.after - geometry.lost) % geometry.stride
    return max(1, round((output_px - rest) / geometry.stride)) * geometry.stride + rest if geometry != ALONE else 1


def _paper_name(forward: Forward, output_px: int) -> str:
    geometry = forward.card.geometry
    return f"the paper's step: full outputs of {paper_step(geometry, output_px)} px (stride {geometry.stride} px)"


def difference(result: Logits, whole: Logits, tiling: str = "") -> Difference:
    """Compare logits (classes, z, y, x): largest difference in standard deviations of the whole, flipped labels."""
    spread = float(whole.std()) or 1.0
    flips = int((result.argmax(axis=0) != whole.argmax(axis=0)).sum())
    largest, per_mpx = float(np.abs(result - whole).max()) / spread, round(flips / whole[0].size * 1e6, 1)
    return Difference(tiling, largest, flips, per_mpx)


def with_stored(row: Difference, result: Stored, whole: Stored) -> Difference:
    """Add how stored probabilities (classes, z, y, x) differ: their number, the largest, and the likeliest classes."""
    scale = 255.0 if result.dtype == np.uint8 else 1.0
    return replace(
        row,
        stored_changed=int((result != whole).sum()),
        stored_difference=float(np.abs(result.astype(np.float64) - whole).max()) / scale,
        stored_flipped=int((decided(result, None) != decided(whole, None)).sum()),
    )


def describe(found: ProveRecord) -> str:
    """Return the findings as a table for people."""
    lines = [f"{'logits (std)':>13} {'labels/Mpx':>11} {'stored':>9} {'splits':>7}  tiling"]
    for row in [*found.rows, found.paper_step]:
        split = f"{row.split_differences:>7,}" if row.splits else " " * 7
        lines.append(
            f"{row.largest_difference_std:>13.3g} {row.flipped_per_mpx:>11,.1f} "
            f"{row.stored_difference:>9.3g} {split}  {row.tiling}"
        )
    labels, limit = sum(row.stored_flipped for row in found.rows), f"{found.tolerance_std:g} std"
    words = (
        f"seamless: with one tile size every split stores the same bytes; every tile size equals one whole pass within "
        f"{limit} ({labels} stored labels differ)"
        if found.seamless
        else f"NOT seamless: splits differ, or a tile size differs from one whole pass by more than {limit}"
    )
    legend = [
        "logits, labels, stored: against one pass over the whole image; largest difference, labels that differ,",
        "largest difference of stored probabilities (0 to 1). splits: stored values that differ between splits",
    ]
    return "\n".join([*lines, *legend, f"{words}, {found.compute.device}"])
