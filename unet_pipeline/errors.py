"""The one exception users see: where it went wrong, what was expected, what was found, and what to do."""

from __future__ import annotations

import codecs
import difflib
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path

LONGEST = 2000
"""Characters of a part of a message."""


class PipelineError(Exception):
    """A mistake in the input, the configuration or the surroundings that the user can mend.

    Args:
        where: the file, the configuration key (`section.key`) or the table row at fault.
        expected: what would have been legal, in words.
        got: what was found.
        nearest: the nearest legal value, where there is one.
        fix: what to do next, as an instruction.
    """

    def __init__(self, where: object, expected: str, got: object, nearest: object = None, fix: str = "") -> None:
        """Keep the parts, so that tests and callers need not parse the message."""
        self.where, self.expected, self.got = brief(where), expected, brief(got)
        self.nearest, self.fix = nearest, fix
        super().__init__(printable(self._message()))

    def _message(self) -> str:
        lines = [f"{self.where}: expected {self.expected}, got {self.got}"]
        if self.nearest is not None:
            lines.append(f"  nearest legal value: {self.nearest}")
        if self.fix:
            lines.append(f"  what to do: {self.fix}")
        return "\n".join(lines)


UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line end, marks that turn the direction of writing, halves of characters."""


def printable(text: str) -> str:
    """Return text that a terminal shows as it stands; a record or a file name may hold escape sequences."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def brief(value: object) -> str:
    """Return `value` in words of bounded length: what is found in a file may be large, or nested without end."""
    nested = isinstance(value, list | tuple | dict | set) and type(value).__str__ is object.__str__
    if not nested:
        text = str(value)
    else:
        short = reprlib.Repr()
        short.maxlevel, short.maxstring, short.maxother = 4, 200, 200
        short.maxdict = short.maxlist = short.maxtuple = short.maxset = 40
        text = short.repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


def read_small(path: Path, largest: int) -> bytes:
    """Read a file that people write; never a pipe or a device, which may have no end.

    Raises:
        PipelineError: if it is no regular file, larger than `largest` bytes, or a path that no file can have.
        OSError: if it cannot be read.
    """
    try:
        size = path.stat().st_size
    except ValueError as error:  # a NUL in the path
        raise PipelineError(repr(str(path)), "the path of a file", error) from error
    if not path.is_file() or size > largest:
        got = f"{size} bytes" if path.is_file() else "a folder, a pipe or a device"
        raise PipelineError(path, f"a regular file of at most {largest} bytes", got)
    return path.read_bytes()


def read_text(path: Path, largest: int) -> str:
    """Read a text file that people write; a byte order mark of UTF-8 is left out.

    Raises:
        PipelineError: if it is not UTF-8, naming the line; or as `read_small`.
        OSError: if it cannot be read.
    """
    data = read_small(path, largest)
    fix = "save it as UTF-8 (Excel: Text (Tab delimited) or CSV UTF-8; LibreOffice: character set Unicode (UTF-8))"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data[:100].count(0) > len(data[:100]) / 4:
        raise PipelineError(f"{path} line 1", "text as UTF-8", "UTF-16, as Excel's Unicode Text is", fix=fix)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"the byte {data[error.start]:#04x}: another character set, such as Latin-1"
        raise PipelineError(f"{path} line {line}", "text as UTF-8", got, fix=fix) from error


def nearest_name(name: str, legal: Iterable[str]) -> str | None:
    """Return the legal name most like `name`, or None when nothing is alike."""
    return next(iter(difflib.get_close_matches(name, list(legal), n=1, cutoff=0.5)), None)
