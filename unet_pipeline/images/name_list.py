"""Lists of the files of a folder to read, one name a line, such as ImageSets/Segmentation/train.txt of Pascal VOC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unet_pipeline.errors import PipelineError, nearest_name, read_text

LARGEST = 2**26
"""Largest size of a list, bytes."""
ONE_A_LINE = "one name a line, without folder and suffix, such as 2007_000032"


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read a list of file names.

    Args:
        path: UTF-8 text; one name a line, without folder and suffix. Blank lines, white space around a name and line
            ends of Windows do not matter.

    Returns:
        The names in the order of the list, which is that of the planes.

    Raises:
        PipelineError: if the list cannot be read, is empty, holds a path, or a name twice.
    """
    lines = _read_lines(Path(path))
    first: dict[str, int] = {}
    for number, name in lines:
        if bad := next((letter for letter in ("/", "\\", "\0", "\t") if letter in name), None):
            got = f"{name!r}, which has {bad!r} in it"
            raise PipelineError(f"{path} line {number}", ONE_A_LINE, got, fix="name the folder in the table of stacks")
        if name in (".", ".."):
            raise PipelineError(f"{path} line {number}", ONE_A_LINE, repr(name))
        if name in first:
            got = f"{name!r} a second time (first in line {first[name]})"
            raise PipelineError(f"{path} line {number}", "each name once", got, fix="remove one of the lines")
        first[name] = number
    if not first:
        raise PipelineError(path, ONE_A_LINE, "an empty list", fix="check that this is the list")
    return tuple(first)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        text = read_text(path, LARGEST)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        fix = "check column names of the table of stacks"
        raise PipelineError(path, "a readable list of names (UTF-8 text)", error, fix=fix) from error
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def pick(names: Iterable[str], files: Iterable[Path], where: str, source: str) -> list[Path]:
    """Return the file of each name, in the order of the names.

    Args:
        names: from `read_names`.
        files: those there are; a file is called what stands before the last dot of its name.
        where: the list, for messages.
        source: the folder or glob, for messages.

    Raises:
        PipelineError: if a name has no file, or several.
    """
    names, found = tuple(names), _by_name(files)
    if missing := [name for name in names if name not in found]:
        got = f"none for {len(missing)} of {len(names)} names, the first {missing[0]!r}"
        fix = f"check that list and folder belong together; the list has {ONE_A_LINE}"
        nearest = nearest_name(missing[0], list(found)[:10_000])
        raise PipelineError(source, f"an image for each name in {where}", got, nearest, fix)
    several = Counter({name: len(found[name]) for name in names})
    name, count = several.most_common(1)[0]
    if count > 1:
        got = f"{count} called {name!r}: {', '.join(file.name for file in found[name][:3])}"
        fix = "use a glob of one kind, such as folder/*.png"
        raise PipelineError(source, f"one image for each name in {where}", got, fix=fix)
    return [found[name][0] for name in names]


def listed(names: Iterable[str], files: Iterable[str]) -> list[str]:
    """Return the files that the names match, perhaps none; `pick` checks them when the stack is read."""
    wanted = set(names)
    return [file for file in files if Path(file).stem in wanted]


def _by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.stem, []).append(file)
    return found
