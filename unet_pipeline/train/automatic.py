"""What the keys of a training that say `auto` come to: settled by its stacks, before the network is built.

The values follow from labels, planes and configuration alone, never from a stopwatch or the memory that happens to be
free: another machine, and every rerun, trains the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from unet_pipeline.config.network_section import ENCODER_DEPTH
from unet_pipeline.config.sections import Config, Train
from unet_pipeline.model.card import Architecture, architecture, geometry, training_tile
from unet_pipeline.model.card import sizes as axes_of
from unet_pipeline.model.depth import automatic_depth
from unet_pipeline.model.voxels import Voxel, automatic_z_levels
from unet_pipeline.stacks.object_sizes import ObjectSizes, look_at_stack
from unet_pipeline.stacks.stack import Stack

LEAST_PX, USEFUL = 128, 0.4
"""The smallest tile, and the least share of the pixels read that a step learns from: about those of the preset `fast`
and of config.yaml, as other tiles were hardly measured."""
STEP_PX, MOST_TILES = 50_000, 8
"""Pixels that a step learns from, at least: likewise; and the most tiles, as small ones would be ever more."""
STEP_BYTES = 2.8e9
"""What a step keeps for its gradients, at most by the estimate below: a training stays below 3 GB."""
VALUES = 24
"""Values kept for the gradients, a pixel read and channel of the first level; counted: 7 to 22."""


def settle(
    config: Config, sizes: ObjectSizes, sides: tuple[int, int], voxels: Sequence[Voxel] = ()
) -> tuple[Config, dict[str, str]]:
    """Return the configuration with no such key left open, and what each came to and why, by the name of the key.

    Args:
        config: sections labels, model and train are used.
        sizes: objects of the stacks that train and validate, of all folds; there may be none.
        sides: (height, width) of the smallest plane that trains, px.
        voxels: of the stacks that train and validate.

    Raises:
        PipelineError: if `model.start_from` is no model, or the length of voxels along z matters and is not known.
    """
    said, model = {}, config.model
    if model.depth == "auto" and model.network not in ENCODER_DEPTH:
        depth, why = automatic_depth(model, sizes, sides)
        model, said["model.depth"] = replace(model, depth=depth), f"{depth}: {why}"
    if model.dimensions == 3 and model.z_levels == "auto" and voxels:
        levels, said["model.z_levels"] = automatic_z_levels(model.most_poolings, voxels)
        model = replace(model, z_levels=levels)
    train, network = config.train, architecture(model, 1, len(config.labels.classes))
    if train.tile_px == "auto":
        train = replace(train, tile_px=_tile_px(train, network, min(sides)))
        said["train.tile_px"] = f"{train.tile_px}: {_why_tile(train, network)}"
    if train.batch == "auto":
        train = replace(train, batch=_tiles(train, network))
        gigabytes = _step_bytes(train.tiles, train, network) / 1e9
        learned = f"{train.tiles * math.prod(training_tile(network, train)):,} px to learn from in a step"
        said["train.batch"] = f"{train.batch}: {learned}, which keeps about {gigabytes:.1g} GB"
    return config.with_sections(model=model, train=train), said


def look(
    config: Config, training: Sequence[Stack], validation: Sequence[Stack]
) -> tuple[ObjectSizes, tuple[int, int], list[Voxel]]:
    """Return what `settle` asks of ingested stacks; objects are looked at only where a key depends on them."""
    wanted = config.model.depth == "auto" and config.model.start_from is None
    sizes = ObjectSizes.merge(look_at_stack(stack) for stack in ((*training, *validation) if wanted else ()))
    sides = min(stack.grid.height for stack in training), min(stack.grid.width for stack in training)
    deep = config.model.dimensions == 3
    return sizes, sides, [Voxel.of(one.name, one.grid) for one in (*training, *validation)] if deep else []


def _tile_px(train: Train, network: Architecture, side: int) -> int:
    """Return the smallest tile of which enough is learned from; less where plane or memory are smaller."""
    stride = geometry(network).stride
    tiles = _least_tiles(network) if train.batch == "auto" else train.batch
    edge_px = -(-LEAST_PX // stride) * stride
    while _useful(_with(train, edge_px), network) < USEFUL:
        edge_px += stride
    edge_px = min(edge_px, max(side // stride * stride, stride))
    while edge_px > stride and _step_bytes(tiles, _with(train, edge_px), network) > STEP_BYTES:
        edge_px -= stride
    return edge_px


def _with(train: Train, edge_px: int) -> Train:
    return replace(train, tile_px=edge_px)


def _read(train: Train, network: Architecture) -> tuple[int, ...]:
    """Return the size that a tile reads, (y, x) or (z, y, x), px."""
    axes = zip(axes_of(network), training_tile(network, train), strict=True)
    return tuple(one.training_px(edge_px) for one, edge_px in axes)


def _why_tile(train: Train, network: Architecture) -> str:
    read = " x ".join(map(str, _read(train, network)))
    return f"{100 * _useful(train, network):.0f} % of the {read} px that a tile reads are learned from"


def _useful(train: Train, network: Architecture) -> float:
    return math.prod(training_tile(network, train)) / math.prod(_read(train, network))


def _tiles(train: Train, network: Architecture) -> int:
    """Return the fewest tiles that are enough for a step, or as many as take a modest amount of memory."""
    least = _least_tiles(network)
    tiles = min(max(math.ceil(STEP_PX / math.prod(training_tile(network, train))), least), MOST_TILES)
    return next((n for n in range(tiles, least, -1) if _step_bytes(n, train, network) <= STEP_BYTES), least)


def _least_tiles(network: Architecture) -> int:
    return 2 if network.batch_norm else 1


def _step_bytes(tiles: int, train: Train, network: Architecture) -> int:
    """Return about how much a step keeps for its gradients in float32, bytes."""
    channels = network.base_channels / network.pixels_per_position
    return math.ceil(tiles * math.prod(_read(train, network)) * VALUES * 4 * channels)
