"""Progress of long steps on stderr: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from types import TracebackType
from typing import TextIO

from unet_pipeline.errors import printable

BAR = 24
"""Characters of the bar."""

LINE_EVERY_S = 5.0
"""Seconds between lines of a log."""

REDRAW_EVERY_S = 0.1
"""Seconds between redraws on a terminal."""

LATELY_S = 60.0
"""The time left is reckoned from the pace of as many seconds: the first units compile, read and warm up."""


class Progress:
    """Count the units of a long step and show them: `with Progress(planes, "ingest") as progress: progress.advance()`.

    On a terminal one line is redrawn. Elsewhere (a log, a pipe) plain lines appear, at most one in 5 s besides the
    last, which always appears and says how long the step took.
    """

    def __init__(
        self,
        total: int,
        label: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at 0 of `total` units.

        Args:
            total: number of units; 0 is allowed.
            label: what is being done, e.g. "train".
            stream: where to write; stderr by default.
            clock: seconds, monotonic; replaced in tests.
        """
        self.total, self.label, self.done, self.note = total, label, 0, ""
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._bar = self._stream.isatty()
        self._start = self._shown = clock()
        self._marks = deque([(self._start, 0)])

    def __enter__(self) -> Progress:
        """Show the start."""
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show where the step ended, well or not."""
        seconds = _duration(self._clock() - self._start)
        end = f"done in {seconds}" if kind is None else f"stopped after {seconds}"
        self._write(f"{self._state()}, {end}", last=True)

    def skip(self, units: int) -> None:
        """Count units that an earlier run did: they do not enter the estimate of the time left."""
        self.done += units
        self._marks = deque((at, done + units) for at, done in self._marks)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` more; `note` is a short remark shown behind them, e.g. the loss."""
        self.done += units
        self.note = note or self.note
        # the last state is shown once, by the end of the block
        if self.done < self.total and self._clock() - self._shown >= (REDRAW_EVERY_S if self._bar else LINE_EVERY_S):
            self._show()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._write(f"{self.label}: {text}", last=True)

    def _show(self) -> None:
        self._shown = self._clock()
        self._write(f"{self._state()}{self._left()}", last=False)

    def _state(self) -> str:
        share = self.done / self.total if self.total else 1.0
        bar = ""
        if self._bar:
            full = min(BAR, int(share * BAR))
            bar = f"[{'#' * full}{'.' * (BAR - full)}] "
        note = f", {self.note}" if self.note else ""
        return f"{self.label}: {bar}{self.done}/{self.total} ({share:.0%}){note}"

    def _left(self) -> str:
        now = self._clock()
        while len(self._marks) > 1 and self._marks[1][0] <= now - LATELY_S:
            self._marks.popleft()
        began, before = self._marks[0]
        if now - self._marks[-1][0] >= LINE_EVERY_S:
            self._marks.append((now, self.done))
        if self.done == before or self.done >= self.total:
            return ""
        return f", {_duration((now - began) / (self.done - before) * (self.total - self.done))} left"

    def _write(self, text: str, last: bool) -> None:
        # on a terminal: back to the start of the line, clear it, and only the last text gets a line of its own
        safe = printable(text)
        line = f"\r\x1b[K{safe}" + ("\n" if last else "") if self._bar else f"{safe}\n"
        self._stream.write(line)
        self._stream.flush()


@contextmanager
def unheard() -> Iterator[None]:
    """Let steps within a step say nothing."""
    with redirect_stderr(io.StringIO()):
        yield


def tell(text: str) -> None:
    """Write a line for people, outside any progress."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    """Return e.g. "0.4 s", "12 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes_rest = divmod(minutes, 60)
    return f"{hours} h {minutes_rest:02d} min" if hours else f"{minutes} min {rest:02d} s"
