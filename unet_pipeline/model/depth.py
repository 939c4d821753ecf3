"""The depth of `model.depth: auto`: the least with which the network sees as far as objects are large.

It follows from the labels and the size of the planes alone, so that the same stacks always give the same network.
"""

from __future__ import annotations

from dataclasses import replace

from unet_pipeline.config.network_section import AUTO_DEEPEST, Model
from unet_pipeline.model.card import architecture, geometry
from unet_pipeline.model.start import start_card
from unet_pipeline.stacks.object_sizes import ObjectSizes

LEAST = 3
"""The depth of config.yaml: less would save little, and shows a network little of what lies around small objects."""

LARGE = 90
"""Percentile of the diameters that the network should see beyond a pixel."""


def automatic_depth(model: Model, sizes: ObjectSizes, sides: tuple[int, int]) -> tuple[int, str]:
    """Return what `model.depth: auto` comes to, and why.

    Args:
        model: section `model`, of a network without an encoder of torchvision.
        sizes: objects of the stacks that train and validate; there may be none.
        sides: (height, width) of the smallest plane that trains, px.

    Raises:
        PipelineError: if `model.start_from` is no model.
    """
    if model.start_from is not None:
        return start_card(model.start_from).architecture.depth, "as the model has that training starts from"
    return choose_depth(model, sizes, sides, LEAST)


def choose_depth(model: Model, sizes: ObjectSizes, sides: tuple[int, int], least: int) -> tuple[int, str]:
    """Return the least depth that sees `LARGE` per cent of the objects whole around a pixel, and why.

    Args:
        model: section `model`; its depth does not count.
        sizes: as for `automatic_depth`.
        sides: likewise; what a network sees beyond the plane is only mirrored.
        least: no depth below is chosen, unless it would see beyond the plane.
    """
    reach = {depth: reach_px(model, depth) for depth in range(1, max(least, AUTO_DEEPEST) + 1)}
    deepest = max((depth for depth in reach if reach[depth] <= min(sides)), default=1)
    if not len(sizes.diameters_px):
        depth = min(least, deepest)
        return depth, f"no object in the {sizes.planes} planes looked at; depth {depth} sees {reach[depth]} px"
    large = sizes.diameter_px(LARGE)
    depth = next((depth for depth in range(min(least, deepest), deepest) if reach[depth] >= large), deepest)
    most = "" if reach[depth] >= large else ", the most that suits plane and tile"
    return depth, (
        f"nine of ten objects are up to {large:.0f} px across, the smallest plane {min(sides)} px; depth {depth} sees "
        f"{reach[depth]} px around a pixel{most}"
    )


def reach_px(model: Model, depth: int) -> int:
    """Return how far the network of section `model` sees with another depth, px."""
    return geometry(architecture(replace(model, depth=depth, dimensions=2), 1, 2)).before
