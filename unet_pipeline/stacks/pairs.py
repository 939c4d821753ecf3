"""Which label file belongs to which image: by name, never by place in a list.

Two folders are sorted each by itself, and cell_2_mask.png may come before cell_mask.png while cell.png comes before
cell_2.png. So what all names of a side begin or end with may be taken away, and what is left must be the same:

    images          labels               without the common end, "_mask"
    cell.png        cell_mask.png        cell
    cell_2.png      cell_2_mask.png      cell_2
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from unet_pipeline.errors import PipelineError

SHOWN = 5
"""Odd names that a message lists."""


def pair_files(images: Sequence[Path], labels: Sequence[Path], wanted: Sequence[int] | None = None) -> list[int]:
    """Find the label file of each image file.

    Names are compared below the folder that all files of a side have in common, without suffix: whole; or else without
    what all of a side begin with, end with, or both, where numbers are left whole; or else so, with numbers as
    numbers (7 is 007) and letters of either case.

    Args:
        images: all files of the stack, one per plane.
        labels: all files of the labels.
        wanted: which images are used, and must have a label; None means all, and then every label has an image too.

    Returns:
        For each wanted image, the number of its label file.

    Raises:
        PipelineError: if names do not tell, or tell two things; lists the odd ones.
    """
    left, right = _names(images), _names(labels)
    for alike in (_exactly, _as_numbers):
        if found := _match(alike(left), alike(right), wanted):
            return found
        ways = [_match(alike(a), alike(b), wanted) for a, b in itertools.product(_shortened(left), _shortened(right))]
        told = {tuple(way) for way in ways if way}
        if len(told) == 1:
            return list(told.pop())
        if told:
            break
    raise _odd_names(images, labels, wanted)


def _match(left: Sequence[str], right: Sequence[str], wanted: Sequence[int] | None) -> list[int] | None:
    """Return the number in `right` of each wanted name in `left`; None if they do not pair one to one."""
    chosen = left if wanted is None else [left[number] for number in wanted]
    place = {name: number for number, name in enumerate(right)}
    pairs = set(left) == set(right) if wanted is None else set(chosen) <= set(right)
    if not pairs or len(set(left)) < len(left) or len(place) < len(right):
        return None
    return [place[name] for name in chosen]


def _names(files: Sequence[Path]) -> list[str]:
    """Return the paths below the folder that they share, without suffix."""
    top = os.path.commonpath([file.parent for file in files])
    return [os.path.relpath(file.with_suffix(""), top) for file in files]


def _shortened(names: Sequence[str]) -> list[Sequence[str]]:
    """Return the names as they are, and without what all begin with, end with, and both in either order."""
    return [
        names,
        _without_start(names),
        _without_end(names),
        _without_end(_without_start(names)),
        _without_start(_without_end(names)),
    ]


def _without_start(names: Sequence[str]) -> list[str]:
    """Remove what all names begin with; a number is not cut in two: t010 and t011 share "t", not "t01"."""
    start = _common(names)
    if any(name[len(start) : len(start) + 1].isdigit() for name in names):
        start = re.sub(r"[0-9]+$", "", start)
    return [name[len(start) :] for name in names]


def _without_end(names: Sequence[str]) -> list[str]:
    """Remove what all names end with; a number is not cut in two."""
    end = _common([name[::-1] for name in names])[::-1]
    if any(name[: len(name) - len(end)][-1:].isdigit() for name in names):
        end = re.sub(r"^[0-9]+", "", end)
    return [name[: len(name) - len(end)] for name in names]


def _common(names: Sequence[str]) -> str:
    """Return what all names begin with: the first and the last in order differ earliest."""
    first, last = min(names), max(names)
    return next((first[:at] for at, letter in enumerate(first) if last[at : at + 1] != letter), first)


def _exactly(names: Sequence[str]) -> Sequence[str]:
    return names


def _as_numbers(names: Sequence[str]) -> list[str]:
    return [re.sub(r"[0-9]+", lambda digits: str(int(digits[0])), name.casefold()) for name in names]


def _odd_names(images: Sequence[Path], labels: Sequence[Path], wanted: Sequence[int] | None) -> PipelineError:
    """Return the error, with the odd names of the way that leaves fewest."""
    ways = itertools.product(*(map(_as_numbers, _shortened(_names(side))) for side in (images, labels)))
    left, right = max(ways, key=lambda way: len(set(way[0]) & set(way[1])))
    used = range(len(images)) if wanted is None else wanted
    alone = [images[number] for number in used if left[number] not in right]
    odd = [] if wanted is not None else [file for file, name in zip(labels, right, strict=True) if name not in left]
    twice = [
        file
        for side, names in ((images, left), (labels, right))
        for file, name in zip(side, names, strict=True)
        if names.count(name) > 1
    ]
    found = [("images without a label", alone), ("labels without an image", odd), ("names that are alike", twice)]
    got = "; ".join(f"{len(files)} {what}: {_listed(files)}" for what, files in found if files)
    fix = (
        "name each label as its image, with one and the same beginning or end added, such as a.png and a_mask.png; "
        "or list the images that have labels in column names"
    )
    where = f"{labels[0].parent} for {images[0].parent}"
    return PipelineError(where, "names that pair each image with one label", got or "names of two meanings", fix=fix)


def _listed(files: Sequence[Path]) -> str:
    more = ", ..." if len(files) > SHOWN else ""
    return ", ".join(file.name for file in files[:SHOWN]) + more
