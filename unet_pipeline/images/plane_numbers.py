"""Numbers of planes and of files: which planes are wanted, and the order in which people count names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unet_pipeline.errors import PipelineError


def parse_planes(where: object, text: str | None, count: int) -> Sequence[int]:
    """Return the plane numbers that `text` selects, in its order.

    Args:
        where: the file or table row, for messages.
        text: such as "0-17,20": numbers from 0 and inclusive ranges; None or blank selects all planes.
        count: number of planes there are.

    Raises:
        PipelineError: for anything else, a number out of range, a range that runs backwards, or a plane named twice.
    """
    if text is None or not text.strip():
        return range(count)
    chosen: dict[int, None] = {}
    for part in text.split(","):
        for plane in _parse_range(where, part.strip(), count):
            if plane in chosen:
                raise PipelineError(f"{where}: planes", "each plane once", f"plane {plane} twice in {text!r}")
            chosen[plane] = None
    return tuple(chosen)


def _parse_range(where: object, part: str, count: int) -> range:
    match = re.fullmatch(r"([0-9]{1,18})\s*(?:-\s*([0-9]{1,18}))?", part)
    if match is None:
        raise PipelineError(f"{where}: planes", "numbers and ranges such as '0-17,20'", repr(part))
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if max(first, last) >= count:
        got = f"{max(first, last)} in {part!r}"
        raise PipelineError(f"{where}: planes", f"plane numbers from 0 to {count - 1}", got, nearest=count - 1)
    if first > last:
        raise PipelineError(f"{where}: planes", "ranges that run upwards", repr(part), nearest=f"{last}-{first}")
    return range(first, last + 1)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts names as people count: img2 before img10, whatever the case."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], name
