import io
import re

import pytest

from unet_pipeline.machine.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def run(stream, steps, seconds_each, total=None):
    clock = Clock()
    with Progress(total or steps, "train", stream, clock) as progress:
        for step in range(steps):
            clock.seconds += seconds_each
            progress.advance(1, f"loss {step}")
    return stream.getvalue()


def test_a_log_gets_a_plain_line_at_most_every_5_seconds_and_one_at_the_end():
    lines = run(io.StringIO(), 100, 0.5).splitlines()
    assert len(lines) <= 2 + 50 / 5
    assert len(lines) > 5
    assert not any("\r" in line or "\x1b" in line for line in lines)
    assert lines[-1] == "train: 100/100 (100%), loss 99, done in 50 s"


def test_a_log_of_a_short_step_is_two_lines():
    assert run(io.StringIO(), 10_000, 1e-4).splitlines() == [
        "train: 0/10000 (0%)",
        "train: 10000/10000 (100%), loss 9999, done in 1.0 s",
    ]


def test_a_terminal_gets_one_line_that_is_redrawn():
    text = run(Terminal(), 100, 0.5)
    assert text.count("\n") == 1
    assert text.count("\r") > 50
    assert "[############............] 50/100 (50%), loss 49, 25 s left" in text


def test_the_time_left_ignores_what_an_earlier_run_did():
    stream, clock = io.StringIO(), Clock()
    with Progress(100, "train", stream, clock) as progress:
        progress.skip(50)
        clock.seconds += 10
        progress.advance(1)
        assert re.search(r"51/100 \(51%\), 8 min 10 s left", stream.getvalue())
        assert progress.done == 51


def test_the_time_left_follows_the_pace_of_the_last_minute():
    clock, stream = Clock(), io.StringIO()
    with Progress(1000, "train", stream, clock) as progress:
        clock.seconds += 100  # the first step compiles
        progress.advance()
        assert stream.getvalue().splitlines()[-1].endswith("27 h 45 min left")
        for _ in range(199):
            clock.seconds += 0.5
            progress.advance()
        assert stream.getvalue().splitlines()[-1].endswith("191/1000 (19%), 6 min 44 s left"), (
            "809 steps of half a second"
        )


def test_an_error_is_not_reported_as_done():
    stream = io.StringIO()
    with pytest.raises(ValueError), Progress(3, "stitch", stream) as progress:
        progress.advance()
        raise ValueError
    assert "1/3 (33%), stopped after" in stream.getvalue()


def test_a_said_line_stays_on_a_terminal():
    stream = Terminal()
    Progress(3, "train", stream).say("resuming")
    assert stream.getvalue().endswith("train: resuming\n")


def test_nothing_to_do_is_done():
    stream = io.StringIO()
    with Progress(0, "weigh", stream):
        pass
    assert "0/0 (100%)" in stream.getvalue()
