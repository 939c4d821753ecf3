"""The tile size of `tile.tile_px: auto`, and whether a job has the memory for its tiles.

Kernels are chosen by the shape of a pass, so another tile size may change the last bits of a result. The size
therefore follows from the network alone, never from a measurement or the memory that happens to be free: `tile` writes
it into the plan, and every job, on every kind of machine and at every rerun, takes it from there.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Literal

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.memory import available_bytes
from unet_pipeline.model.card import Architecture, geometry_z
from unet_pipeline.model.card import geometry as plane_geometry
from unet_pipeline.model.geometry import Geometry
from unet_pipeline.predict.plan import Plan

SIZES_PX: tuple[int, ...] = tuple(2**power for power in range(10, 0, -1))
"""Sizes to choose from, largest first; each divides the usual shards. Sizes above 1024 px gain 6 % at most on a CPU."""
SIZES_PLANES: tuple[int, ...] = tuple(2**power for power in range(8))
"""Numbers of planes to choose from, in strides."""
MODEST_BYTES = 2.8e9
"""Activations of a tile of `auto`, at most by the estimate below: a job stays below 3 GB."""


def automatic_px(architecture: Architecture, geometry: Geometry) -> int:
    """Return the tile size for a network: the largest up to 1024 px whose activations take a modest amount of memory.

    Args:
        architecture: of the network.
        geometry: of the network; the size is a multiple of its stride.
    """
    legal = [px for px in SIZES_PX if px % geometry.stride == 0]
    return next((px for px in legal if _bytes_of(px, architecture, geometry) <= MODEST_BYTES), legal[-1])


def automatic_volume(
    architecture: Architecture, tile_px: int | Literal["auto"], tile_planes: int | Literal["auto"], planes: int
) -> tuple[int, int]:
    """Return (kept planes, kept px) of the tiles of a volume: those of which the largest part of what is read is kept.

    Args:
        architecture: of a network of volumes.
        tile_px: height and width that are set, px, or auto.
        tile_planes: planes that are set, or auto.
        planes: of the stack; a tile of auto keeps no more than cover them.
    """
    along_z, geometry = geometry_z(architecture), plane_geometry(architecture)
    legal = [px for px in SIZES_PX if px % geometry.stride == 0] if tile_px == "auto" else [tile_px]
    most = along_z.round_up(planes)
    depths = [min(along_z.stride * n, most) for n in SIZES_PLANES] if tile_planes == "auto" else [tile_planes]

    def read(size: tuple[int, int]) -> tuple[int, int, int]:
        return along_z.read_px(size[0]), geometry.read_px(size[1]), geometry.read_px(size[1])

    sizes = list(product(depths, legal))
    fits = [size for size in sizes if activation_bytes(architecture, read(size)) <= MODEST_BYTES]
    smallest = min(sizes, key=lambda size: math.prod(read(size)))
    return max(fits or [smallest], key=lambda size: size[0] * size[1] ** 2 / math.prod(read(size)))


def _bytes_of(px: int, architecture: Architecture, geometry: Geometry) -> int:
    return activation_bytes(architecture, (geometry.read_px(px),) * 2)


def activation_bytes(architecture: Architecture, read: tuple[int, ...], values: int = 7) -> int:
    """Return about how much memory a pass over one window of `read` ([planes,] height, width) takes in float32, bytes.

    The most is taken at full size on the way up: skip, up-convolution, both together, and a convolution's result.
    Probabilities that are averaged (mirrorings, members of an ensemble) are added up in float64.

    Args:
        architecture: of the network.
        read: planes, height and width of the window, px.
        values: values a px and base channel; measured: 3.8 (depth 4, 64 channels) to 6.4 (depth 3, 16 channels).
    """
    averaged = 3 * 8 * architecture.classes  # the sum, what is added, and a step between
    channels = architecture.base_channels / architecture.pixels_per_position
    return math.ceil(math.prod(read) * (values * 4 * channels + averaged))


def check_memory(plan: Plan, architecture: Architecture) -> None:
    """Refuse tiles that this machine's memory cannot hold, before the system ends the job without a word.

    Raises:
        PipelineError: if even the least that a pass may take is more than what is free.
    """
    free = available_bytes()
    if free is None or (need := activation_bytes(architecture, plan.read, 3)) <= free:
        return
    geometry = plan.geometry
    legal = [px for px in SIZES_PX if px % geometry.stride == 0 and px < max(plan.keep)]
    fits = (px for px in legal if _bytes_of(px, architecture, geometry) <= free)
    fix = "give the job more memory, or set tile.tile_px lower"
    got = f"{free / 1e6:.0f} MB free"
    kept = " x ".join(str(size) for size in plan.keeps if size > 1)
    expected = f"{need / 1e6:.0f} MB or more for a tile of {kept} px"
    raise PipelineError("tile.tile_px", expected, got, next(fits, None), fix)
