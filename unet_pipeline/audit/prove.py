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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import read_window
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.decided import decided
from unet_pipeline.predict.crop import Crop, predict_crop
from unet_pipeline.predict.forward import Forward, describe_compute
from unet_pipeline.predict.plan import Plan, plan, read_tile
from unet_pipeline.predict.predict import stored
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import write_record
from unet_pipeline.records.score_records import Difference, ProveRecord
from unet_pipeline.stacks.stack import Stack

TOLERANCE = {
    ("cpu", "float32"): 1e-4,
    ("cuda", "float32"): 1e-3,
    ("cpu", "bfloat16"): 0.1,
    ("cuda", "bfloat16"): 0.1,
    ("cuda", "float16"): 0.02,
}
"""Largest difference by device and number format, in standard deviations of the logits.

Rounding to bfloat16 alone moves logits by 0.05; float16 is eight times finer.
"""

Logits = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]
"""Probabilities (classes, y, x) as stored."""


def prove(
    model: Path, stack: Stack, config: Config, output: Path | None, plane: int = 0, crop_px: int = 1024
) -> ProveRecord:
    """Compare splits with each other and tilings with one whole pass, and say whether all are seamless.

    Args:
        model: model folder.
        stack: an ingested stack.
        config: sections predict and compute are used.
        output: path of `prove.json`; None writes nothing.
        plane: which plane.
        crop_px: the upper left part of the plane, at most this large, is used.

    Returns:
        The findings, as `prove.json` holds them.

    Raises:
        PipelineError: the plane does not exist, or the model does not fit the stack.
    """
    grid = stack.grid
    if not 0 <= plane < grid.planes:
        raise PipelineError("--plane", f"0 to {grid.planes - 1}", plane, min(max(plane, 0), grid.planes - 1))
    forward = Forward.load(model, stack, config.predict, config.compute)
    crop = Crop(stack.image, plane, *(slice(0, min(length, crop_px)) for length in (grid.height, grid.width)))
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
        logits = paper_pass(crop, forward)
        stored_logits = stored_of(logits, forward, dtype)
        paper = with_stored(difference(logits, whole, _paper_name(forward)), stored_logits, stored_whole)
        progress.advance()
    tolerance = TOLERANCE[forward.device.type, forward.precision]
    record = ProveRecord(
        stack=stack.name,
        crop=crop.shape[2:],
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


def _tilings(crop: Crop, forward: Forward) -> Iterator[tuple[str, list[Plan]]]:
    """Yield tile sizes, all legal, each with plans that split the plane otherwise: in one shard, and in several."""
    geometry, (height, width) = forward.card.geometry, crop.shape[2:]
    stride, shape = geometry.stride, (1, height, width)
    largest = geometry.round_up(max(height, width))
    parts = (geometry.round_up(max(1, height // 2)), geometry.round_up(max(1, width // 3)))
    # an output that is stretched to the input's size leaves one tiling alone
    sizes = [largest] if geometry.whole_plane else {geometry.round_up(max(stride, largest // n)) for n in (2, 3, 5)}
    for tile_px in sorted(sizes):
        whole = plan(shape, geometry, tile_px, (largest, largest), regions=1)
        others = [] if geometry.whole_plane else [Plan(shape, geometry, whole.keep, parts, regions=3)]
        yield f"tiles of {whole.keep[0]} x {whole.keep[1]} px", [whole, *others]


def whole_pass(crop: Planes, forward: Forward) -> Logits:
    """Return the logits (classes, y, x) of one pass over plane 0, mirrored at its edges."""
    geometry, (height, width) = forward.card.geometry, crop.shape[2:]
    size = geometry.read_px(geometry.round_up(height)), geometry.read_px(geometry.round_up(width))
    logits = forward([forward.window(read_window(crop, 0, -geometry.before, -geometry.before, size))])[0]
    inside = slice(geometry.crop_px, geometry.crop_px + height), slice(geometry.crop_px, geometry.crop_px + width)
    values: Logits = logits[:, *inside].cpu().numpy()
    return values


def tiled_pass(crop: Planes, planned: Plan, forward: Forward) -> Logits:
    """Return the logits (classes, y, x) of plane 0, tile by tile, region by region as prediction jobs go."""
    result = np.full((len(forward.card.classes), *crop.shape[2:]), np.nan, np.float32)
    for region in range(planned.regions):
        for number in planned.region(region):
            for tile in planned.tiles(planned.shard_at(number)):
                logits = forward([forward.window(read_tile(crop, tile, planned))])[0, :, *planned.block].cpu().numpy()
                result[:, *tile.write] = logits[:, *tile.part]
    return result


def stored_of(logits: Logits, forward: Forward, dtype: np.dtype[Any]) -> Stored:
    """Return what would be stored of logits (classes, y, x)."""
    return stored(torch.from_numpy(logits), forward, dtype).numpy()


def paper_pass(crop: Planes, forward: Forward, output_px: int = 388) -> Logits:
    """Return the logits (classes, y, x) of the paper's tiling: it steps by a full output and changes pooling phase.

    For padded networks that is tiling without a margin: zeros at every tile's edge.
    """
    geometry, (height, width) = forward.card.geometry, crop.shape[2:]
    step = paper_step(forward, output_px)
    size, margin = (step + geometry.lost, step + geometry.lost), geometry.lost // 2
    result = np.full((len(forward.card.classes), height, width), np.nan, np.float32)
    for y in range(0, height, step):
        for x in range(0, width, step):
            window = forward.window(read_window(crop, 0, y - margin, x - margin, size))
            logits = forward([window])[0].cpu().numpy()
            rows, columns = min(step, height - y), min(step, width - x)
            result[:, y : y + rows, x : x + columns] = logits[:, :rows, :columns]
    return result


def paper_step(forward: Forward, output_px: int = 388) -> int:
    """Return the output size the network makes that is nearest to the paper's 388 px."""
    geometry = forward.card.geometry
    rest = (geometry.before + geometry.after - geometry.lost) % geometry.stride
    return round((output_px - rest) / geometry.stride) * geometry.stride + rest


def _paper_name(forward: Forward) -> str:
    return f"the paper's step: full outputs of {paper_step(forward)} px (stride {forward.card.geometry.stride} px)"


def difference(result: Logits, whole: Logits, tiling: str = "") -> Difference:
    """Compare logits (classes, y, x): largest difference in standard deviations of the whole pass, flipped labels."""
    spread = float(whole.std()) or 1.0
    flips = int((result.argmax(axis=0) != whole.argmax(axis=0)).sum())
    largest, per_mpx = float(np.abs(result - whole).max()) / spread, round(flips / whole[0].size * 1e6, 1)
    return Difference(tiling, largest, flips, per_mpx)


def with_stored(row: Difference, result: Stored, whole: Stored) -> Difference:
    """Add how stored probabilities (classes, y, x) differ: their number, the largest, and the likeliest classes."""
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
