"""Settings that follow from the objects of the labels: rules of thumb, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from unet_pipeline.config.network_section import ENCODER_DEPTH
from unet_pipeline.config.sections import AUTO_PLANES, Config
from unet_pipeline.model.depth import choose_depth, reach_px
from unet_pipeline.stacks.boundary_settings import gap_of, sigma_of
from unet_pipeline.stacks.object_sizes import ObjectSizes

SMALL_SHARE = 0.1
"""Least area over the median one."""


@dataclass(frozen=True)
class Advice:
    """A key that another value would suit, with the reason."""

    key: str
    now: object
    advised: object
    why: str


def advise(
    config: Config, sizes: ObjectSizes, labelled_planes: int, validated: bool, sides: tuple[int, int]
) -> list[Advice]:
    """Return what should be set otherwise, in the order of the configuration.

    Args:
        config: as it is.
        sizes: objects of the stacks that train and validate; at least one.
        labelled_planes: of the stacks that train.
        validated: whether a stack has role val.
        sides: (height, width) of the smallest plane that trains, px.
    """
    validating = list(_validation(config, labelled_planes, validated))
    found = [*_weigh(config, sizes), *_depth(config, sizes, sides), *validating]
    if not validating and not _validates(config, labelled_planes, validated):
        found += _least_area(config, sizes)
    return [one for one in found if one.now != one.advised]


def _weigh(config: Config, sizes: ObjectSizes) -> Iterator[Advice]:
    """Advise `auto` where what was set by hand is far from it."""
    options, labels = config.weigh, config.labels
    if labels.kind == "classes":
        return
    if options.sigma != "auto" and options.unit == "px" and options.w0 > 0:
        sigma_px = sigma_of(sizes)
        # within a third the weights hardly differ
        far = abs(sigma_px - options.sigma) > options.sigma / 3
        yield Advice("weigh.sigma", options.sigma, "auto" if far else options.sigma, f"it is {sigma_px:g} px here")
    if options.gap_px != "auto":
        gap_px = gap_of(sizes, labels)
        advised = options.gap_px if gap_px == options.gap_px else "auto"
        yield Advice("weigh.gap_px", options.gap_px, advised, f"it is {gap_px} px here")


def _depth(config: Config, sizes: ObjectSizes, sides: tuple[int, int]) -> Iterator[Advice]:
    model = config.model
    if model.depth == "auto" or model.network in ENCODER_DEPTH or model.start_from or model.resize_output:
        return
    # what was set by hand is never called too deep: that costs time, no object
    found, why = choose_depth(model, sizes, sides, model.depth)
    chosen, seen = max(found, model.depth), reach_px(model, model.depth)
    why = f"{why}; depth {model.depth} sees {seen} px; a step then costs more, so not for trainings of minutes on a CPU"
    yield Advice("model.depth", model.depth, chosen, why)
    stride = replace(model, depth=chosen).stride
    tile_px = max(stride, round(config.train.tile_edge_px / stride) * stride)
    yield Advice(
        "train.tile_px", config.train.tile_px, tile_px, f"a multiple of the stride of depth {chosen}, {stride} px"
    )


def _validates(config: Config, labelled_planes: int, validated: bool) -> bool:
    return validated or config.train.folds > 1 or config.train.held_out_share(labelled_planes, validated) > 0


def _validation(config: Config, labelled_planes: int, validated: bool) -> Iterator[Advice]:
    if _validates(config, labelled_planes, validated):
        return
    if labelled_planes >= AUTO_PLANES:
        why = f"no stack validates: 15 of 100 of the {labelled_planes} labelled planes then choose weights and objects"
        yield Advice("train.hold_out", config.train.hold_out, "auto", why)
    elif labelled_planes > 1:
        why = f"no stack validates, and {labelled_planes} planes are too few to give one away: train as many networks"
        yield Advice("train.folds", config.train.folds, labelled_planes, why)


def _least_area(config: Config, sizes: ObjectSizes) -> Iterator[Advice]:
    if config.stitch.min_area_px == "auto":
        median_px = math.pi / 4 * sizes.diameter_px(50) ** 2
        area = max(1, round(SMALL_SHARE * median_px))
        why = f"a tenth of the median area, {median_px:.0f} px, as nothing validates by which it could be calibrated"
        yield Advice("stitch.min_area_px", "auto (30)", area, why)
