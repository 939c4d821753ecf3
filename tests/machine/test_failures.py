"""What Snakemake tells of a failed job."""

import logging
from enum import Enum

import pytest

from unet_pipeline.machine.failures import briefly

Event = Enum("Event", ["JOB_ERROR", "ERROR", "JOB_INFO"])
TEXT = "RuleException:\nCalledProcessError in file a, line 3:\nCommand 'x\n y' returned non-zero exit status {}."


def record(event=None, text="", **more):
    made = logging.LogRecord("snakemake.logging", logging.ERROR, "", 0, text, (), None)
    made.__dict__.update(more | ({"event": event} if event else {}))
    return made


def test_the_command_line_of_a_job_that_said_what_is_wrong_is_left_out():
    assert not briefly(record(Event.ERROR, TEXT.format(1)))
    told = record(Event.JOB_ERROR, "None", shellcmd="python -m unet_pipeline ingest")
    assert briefly(told)
    assert told.shellcmd == told.msg == ""


@pytest.mark.parametrize(("status", "words"), [(137, "memory ran out"), (127, "exit status 127.")])
def test_how_a_job_ended_that_could_say_nothing(status, words):
    told = record(Event.ERROR, TEXT.format(status))
    assert briefly(told)
    assert words in told.getMessage() and "Command" not in told.getMessage()


@pytest.mark.parametrize("event", [None, Event.ERROR, Event.JOB_INFO])
def test_all_else_is_told_as_it_is(event):
    told = record(event, "MissingOutputException: 100 % {of} them", shellcmd="x")
    assert briefly(told)
    assert (told.getMessage(), told.shellcmd) == ("MissingOutputException: 100 % {of} them", "x")
