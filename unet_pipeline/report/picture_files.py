"""Pictures as PNG files beside the page, for slides, papers and other programs; on request.

    pictures/{stack}/plane-{number}-{kind}.png      kinds overlay, mask, cutout and panels, of the planes the page shows
    pictures/loss.png, dice.png, learning_rate.png  kind curves

A plane longer than `LARGEST_PX` is cut to a window of that size around what the page shows. One pixel of a picture is
one of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from unet_pipeline.config.result_sections import Report as ReportOptions
from unet_pipeline.config.sections import IGNORE
from unet_pipeline.images import pictures
from unet_pipeline.images.overlays import beside, cut_out, mask_png, overlay, rgb_png
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.files import Check, atomic_path, refuse_link
from unet_pipeline.records.layout import CLASSES, INSTANCES
from unet_pipeline.report.curves import dice_curve, loss_curve, rate_curve
from unet_pipeline.report.panels import shown_normaliser, views
from unet_pipeline.report.results import ModelResult, StackResult
from unet_pipeline.report.training_section import kept_step
from unet_pipeline.report.views import View

LARGEST_PX = 2048
"""Longest side of a picture, px: whatever the plane, a picture takes little memory and opens anywhere."""

KINDS = ("overlay", "mask", "cutout", "panels")
CURVES = ("loss", "dice", "learning_rate")


def write_pictures(
    model: ModelResult, results: Sequence[StackResult], options: ReportOptions, folder: Path, check: Check
) -> list[Path]:
    """Write the files `report.pictures` asks for, and remove those of an earlier page.

    Args:
        model: the model of the run, for the curves.
        results: all stacks; those that were not predicted have no pictures.
        options: section `report`.
        folder: `results/pictures`.
        check: called before each file gets its name, so that a job that was taken over stops.

    Returns:
        The files.
    """
    written = []
    _remove(folder)
    if "curves" in options.pictures:
        for name, png in _curves(model):
            written.append(_write(folder / f"{name}.png", png, check))
    kinds = [kind for kind in KINDS if kind in options.pictures]
    for result in results if kinds else ():
        if result.plan is None:
            continue
        for view in views(result, options):
            window = widened(view, result.stack.grid.shape[1:])
            for kind, png in _drawn(result, result.plan, window, kinds):
                path = folder / result.folder.name / f"plane-{view.plane}-{kind}.png"
                written.append(_write(path, png, check))
    return written


def widened(view: View, size: tuple[int, int], side_px: int = LARGEST_PX) -> View:
    """Return the window of at most `side_px` a side around a view, inside a plane of (height, width) `size`."""
    rows, columns = (
        _around(part, length, side_px) for part, length in zip((view.rows, view.columns), size, strict=True)
    )
    return View(view.plane, rows, columns)


def _around(part: slice, length: int, side_px: int) -> slice:
    size = min(side_px, length)
    start = min(max(0, (part.start + part.stop - size) // 2), length - size)
    return slice(start, start + size)


def _drawn(result: StackResult, plan: StackPlan, view: View, kinds: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    stack = result.stack
    image = pictures.as_grey(shown_normaliser(stack)(stack.image.read(view.plane, view.rows, view.columns)))
    classes = _read(plan.labels(CLASSES), view)
    if "overlay" in kinds:
        yield "overlay", rgb_png(overlay(image, classes, _read(plan.labels(INSTANCES), view)))
    if "mask" in kinds:
        yield "mask", mask_png(classes, IGNORE)
    if "cutout" in kinds:
        yield "cutout", rgb_png(cut_out(image, classes))
    if "panels" in kinds:
        reference = [_read(stack.reference(CLASSES), view)] if stack.labelled else []
        yield "panels", rgb_png(beside([image, *(pictures.as_classes(one, IGNORE) for one in (*reference, classes))]))


def _read(array: PlaneArray, view: View) -> npt.NDArray[Any]:
    return array.read_label(view.plane, view.rows, view.columns)


def _curves(model: ModelResult) -> Iterator[tuple[str, bytes]]:
    if (history := model.history) is None:
        return
    yield "loss", loss_curve(history, history.kept(kept_step(model)), keyed=True)
    if history.dice:
        yield "dice", dice_curve(history, keyed=True)
    if history.column("learning_rate"):
        yield "learning_rate", rate_curve(history)


def _write(path: Path, png: bytes, check: Check) -> Path:
    with atomic_path(path, check) as partial:
        partial.write_bytes(png)
    return path


def _remove(folder: Path) -> None:
    """Remove what an earlier page wrote, and nothing else that may lie there."""
    for place in [folder, *folder.glob("*")]:
        refuse_link(place)
    ours = [folder / f"{name}.png" for name in CURVES]
    for path in [*ours, *(path for kind in KINDS for path in folder.glob(f"*/plane-*-{kind}.png"))]:
        path.unlink(missing_ok=True)
    for empty in [*folder.glob("*/"), folder]:
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
