"""Prove: show on the user's own model and image that tiling does not change the result.

The reference is one pass of the network over the whole mirrored plane. Tile sizes, shards and regions must give
the same logits within a stated tolerance: kernels are chosen by the shape of a pass and by the processor, and each adds
up in its own order. The paper's own step, the full output of a tile, is measured beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.mirrored import read_window
from unet_pipeline.images.planes import Planes
from unet_pipeline.machine.progress import Progress
from unet_pipeline.predict.forward import Forward, describe_compute
from unet_pipeline.predict.plan import Plan, plan, read_tile
from unet_pipeline.records.layout import CARD_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import write_record
from unet_pipeline.records.score_records import Difference, ProveRecord
from unet_pipeline.stacks.stack import Stack

TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}
"""Largest difference in float32 by the kind of device, in standard deviations of the logits."""
HALF_TOLERANCE = 0.1
"""The same in bfloat16 and float16, whose rounding alone moves logits by 0.05."""

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Crop:
    """A part of one plane as an image of its own, so that the whole pass fits memory: `(1, channels, y, x)`."""

    image: Planes
    plane: int
    shape: tuple[int, int, int, int]

    def read(self, plane: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return `(channels, rows, columns)`."""
        return self.image.read(self.plane, rows, columns)


def prove(
    model: Path, stack: Stack, config: Config, output: Path | None, plane: int = 0, crop_px: int = 1024
) -> ProveRecord:
    """Compare tilings with one whole pass and say whether all are seamless.

    Args:
        model: model folder.
        stack: an ingested stack.
        config: sections predict (precision, mirror) and compute are used.
        output: where to write the findings, `prove.json`; None writes nothing.
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
    crop = Crop(stack.image, plane, (1, stack.channels, min(grid.height, crop_px), min(grid.width, crop_px)))
    tilings = list(_tilings(crop, forward))
    with Progress(len(tilings) + 2, f"prove {stack.name}") as progress:
        whole = whole_pass(crop, forward)
        progress.advance()
        rows = []
        for name, planned in tilings:
            rows.append(difference(tiled_pass(crop, planned, forward), whole, name))
            progress.advance()
        paper = difference(paper_pass(crop, forward), whole, _paper_name(forward))
        progress.advance()
    tolerance = TOLERANCE[forward.device.type] if forward.precision == "float32" else HALF_TOLERANCE
    record = ProveRecord(
        stack=stack.name,
        crop=crop.shape[2:],
        seamless=all(row.largest_difference_std <= tolerance for row in rows),
        tolerance_std=tolerance,
        rows=tuple(rows),
        paper_step=paper,
        compute=describe_compute(forward, config.compute),
        provenance=provenance(sections_of(config, "prove"), [stack.record, model / CARD_FILE]),
    )
    if output:
        write_record(output, record)
    return record


def _tilings(crop: Crop, forward: Forward) -> Iterator[tuple[str, Plan]]:
    """Yield plans that differ in tile size, shard size and regions, all legal."""
    geometry, (height, width) = forward.card.geometry, crop.shape[2:]
    stride = geometry.stride
    largest = geometry.round_up(max(height, width))
    whole, part = (largest, largest), (geometry.round_up(max(1, height // 2)), geometry.round_up(max(1, width // 3)))
    sizes = sorted({geometry.round_up(max(stride, largest // count)) for count in (2, 3, 5, 8)})
    # an output that is stretched to the input's size leaves one tiling alone
    pairs = [(largest, whole)] if geometry.whole_plane else product(sizes, sorted({whole, part}))
    for tile_px, shard in pairs:
        planned = plan((1, height, width), geometry, tile_px, shard, regions=3)
        keep, shards = planned.keep, planned.shard_count
        yield f"tiles of {keep[0]} x {keep[1]} px, {shards} shard(s), 3 regions", planned


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
                logits = forward([forward.window(read_tile(crop, tile, planned))])[0].cpu().numpy()
                result[:, *tile.write] = logits[:, *tile.local(planned.geometry)]
    return result


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


def describe(found: ProveRecord) -> str:
    """Return the findings as a table for people."""
    lines = [f"{'difference (std)':>17} {'flips per Mpx':>14}  tiling"]
    for row in [*found.rows, found.paper_step]:
        lines.append(f"{row.largest_difference_std:>17.3g} {row.flipped_per_mpx:>14,.1f}  {row.tiling}")
    words = "seamless: every tiling equals one whole pass within the tolerance" if found.seamless else "NOT seamless"
    return "\n".join([*lines, f"{words} (tolerance {found.tolerance_std:g} std, {found.compute.device})"])
