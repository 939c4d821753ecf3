"""From classes to objects: divided or not, sifted by area, filled, numbered, grown; on disk or in memory."""

from __future__ import annotations

import numpy as np

from unet_pipeline.config.object_settings import ObjectSettings
from unet_pipeline.images.halo_blocks import halo_blocks
from unet_pipeline.machine.progress import Progress
from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.components import ComponentSummary
from unet_pipeline.objects.distances import grow
from unet_pipeline.stitch.layers import BLOCK_PX, Layer, Volume
from unet_pipeline.stitch.watershed import divide, label_blocks


def parts_of(volume: Volume, settings: ObjectSettings) -> Layer:
    """Return what becomes objects where it is connected: the classes, or the parts they are divided into."""
    return volume.classes if settings.method == "components" else divide(volume, settings)


def make_objects(
    volume: Volume, parts: Layer, settings: ObjectSettings, target: Layer, block_px: int = BLOCK_PX
) -> ComponentSummary:
    """Write the objects: connected parts, sifted by area, filled, then grown.

    Args:
        volume: what they are made of.
        parts: from `parts_of`, with the same threshold, method, seed, neck, smoothing and holes.
        settings: how they are made.
        target: uint32 labels to write.
        block_px: edge of a block of work; the result does not depend on it.

    Returns:
        The objects, counted before growing.
    """
    chosen = ComponentOptions(
        across_planes=volume.deep, min_area_px=settings.min_area_px, fill_holes=settings.fill_holes
    )
    name, folder = f"objects {volume.name}", volume.scratch.folder
    if not settings.grow_px:
        return label_blocks(parts.read_label, target, chosen, name, folder)
    # growing reads beyond its shard, so it cannot work in place
    components = volume.scratch.layer("0")
    summary = label_blocks(parts.read_label, components, chosen, name, folder)
    _grow(components, target, settings.grow_px, block_px, volume.name)
    return summary


def _grow(source: Layer, target: Layer, radius_px: int, block_px: int, name: str) -> None:
    shards = list(target.shards())
    with Progress(len(shards), f"grow {name}") as progress:
        for shard in shards:
            grown = np.empty(shard.size, np.uint32)
            for block in halo_blocks(shard, block_px, radius_px, source.shape[2:]):
                grown[block.place] = grow(source.read_label(*block.outer.at), radius_px)[block.local]
            target.write(*shard.at, grown)
            progress.advance()
