"""The width of the boundary term and of the gaps between objects: as section `weigh` says, or as the objects want it.

Each stack is settled by its own objects, so a new stack costs only its own weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet_pipeline.config.sections import Labels, Weigh
from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.object_sizes import ObjectSizes, look_at_stack
from unet_pipeline.stacks.stack import Stack

SIGMA_SHARE, SIGMA_PX = 12, (3.0, 10.0)
"""Median diameter over sigma, and the range of sigma: the paper's 5 px is for cells of 60 px."""
GAP_SHARE, GAP_PX = 25, (1, 5)
"""The same of the gap, where objects touch along more than `TOUCHING` of their outlines; else the least."""
TOUCHING = 0.1


@dataclass(frozen=True)
class BoundarySettings:
    """The keys of section `weigh` as they are for a stack, none of them open.

    Attributes:
        sigma_px: width of the boundary term, px.
        gap_px: pixels this near to another object become background.
        why: what the values that were found follow from; empty where both are set by hand.
        step_px: distance of planes over the edge of a pixel, where distances run across planes; None: in each alone.
    """

    sigma_px: float
    gap_px: int
    why: str = ""
    step_px: float | None = None


def boundary_settings(stack: Stack, options: Weigh, labels: Labels) -> BoundarySettings:
    """Return the settings of an ingested stack.

    Raises:
        PipelineError: if sigma is given in micrometres, or distances run across planes, and the pixel size is unknown
            or differs between y and x; or across planes that lie in time, or of which the distance is unknown.
    """
    step_px = _planes_apart_px(stack) if options.across_planes else None
    by_hand = SIGMA_PX[0] if options.w0 == 0 else None  # without a boundary term any width will do
    if options.sigma != "auto":
        by_hand = _in_px(options.sigma, options, stack)
    if by_hand is not None and options.gap_px != "auto":
        return BoundarySettings(by_hand, options.gap_px, step_px=step_px)
    sizes = look_at_stack(stack)
    sigma_px = sigma_of(sizes) if by_hand is None else by_hand
    gap_px = gap_of(sizes, labels) if options.gap_px == "auto" else options.gap_px
    why = f"{reason(sizes)}: sigma {sigma_px:g} px, gap {gap_px} px"
    return BoundarySettings(sigma_px, gap_px, why, step_px)


def sigma_of(sizes: ObjectSizes) -> float:
    """Return sigma for objects of these sizes, px."""
    if not len(sizes.diameters_px):
        return SIGMA_PX[0]
    return round(min(max(sizes.diameter_px(50) / SIGMA_SHARE, SIGMA_PX[0]), SIGMA_PX[1]), 1)


def gap_of(sizes: ObjectSizes, labels: Labels) -> int:
    """Return the gap for objects of these sizes, px; none between classes, whose labels part what is to be parted."""
    if labels.kind == "classes":
        return 0
    if sizes.contact_share <= TOUCHING:
        return GAP_PX[0]
    return min(max(round(sizes.diameter_px(50) / GAP_SHARE), GAP_PX[0]), GAP_PX[1])


def reason(sizes: ObjectSizes) -> str:
    """Say what sigma and gap follow from."""
    planes = f"{sizes.planes} plane{'' if sizes.planes == 1 else 's'}"
    if not len(sizes.diameters_px):
        return f"no object in {planes}"
    return (
        f"{len(sizes.diameters_px):,} objects in {planes}, {sizes.diameter_px(50):.0f} px across in the "
        f"median, another along {100 * sizes.contact_share:.0f} % of their outlines"
    )


def _in_px(sigma: float, options: Weigh, stack: Stack) -> float:
    if options.unit == "px":
        return sigma
    fix = "fill column pixel_um of the stack, or give sigma in px (weigh.unit: px)"
    return sigma / _pixel_um(stack, "weigh.unit: um", fix)


def _planes_apart_px(stack: Stack) -> float | None:
    """Return the distance of two planes, px; None where one plane alone has none."""
    where, fix = f"stack {stack.name}", "or set weigh.across_planes: false"
    if stack.grid.plane_axis == "t":
        fix = f"set axes: zyx in the table if planes lie above each other, {fix}"
        raise PipelineError(where, "planes along z with weigh.across_planes", "a time series", fix=fix)
    if stack.grid.planes == 1:
        return None
    pixel_um = _pixel_um(stack, "weigh.across_planes", f"fill column pixel_um of the stack, {fix}")
    if stack.grid.step is None:
        expected = "a known distance of planes for weigh.across_planes"
        raise PipelineError(where, expected, "no step", fix=f"fill column step of the stack, {fix}")
    return stack.grid.step / pixel_um


def _pixel_um(stack: Stack, what: str, fix: str) -> float:
    """Return the edge of a pixel, micrometres, for the key that needs it."""
    pixel = stack.grid.pixel_um
    if pixel is None or abs(pixel[0] / pixel[1] - 1) > 0.01:
        raise PipelineError(f"stack {stack.name}", f"a pixel size, the same in y and x, for {what}", pixel, fix=fix)
    return pixel[0]
