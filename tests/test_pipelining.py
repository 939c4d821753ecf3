import threading

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.pipelining import ahead, behind


def test_reading_ahead_keeps_order_and_overlaps():
    started = [threading.Event() for _ in range(6)]

    def read(item):
        started[item].set()
        return item * 10

    found = []
    for item, value in ahead(read, range(6)):
        if item < 5:
            assert started[item + 1].wait(30), "the next item is read while this one is worked on"
        found.append((item, value))
    assert found == [(item, item * 10) for item in range(6)]


def test_a_failed_read_reaches_the_caller():
    def fail(item):
        raise PipelineError("file", "pixels", "nothing")

    with pytest.raises(PipelineError, match="pixels"):
        list(ahead(fail, range(3)))


def test_reading_ahead_is_bounded_and_ends_with_its_consumer():
    started = []
    items = ahead(lambda number: started.append(number) or number, range(1000), depth=2)
    assert next(items) == (0, 0)
    items.close()
    assert len(started) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_results_are_put_away_in_order_one_at_a_time_while_the_caller_works():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def put(number):
        if number == 0:
            begun.set()
            assert go_on.wait(30)
        done.append(number)

    with behind(put) as soon:
        soon(0)
        assert begun.wait(30), "the caller works on while this is put away"
        assert done == []
        go_on.set()
        for number in range(1, 5):
            soon(number)
            assert done[:number] == list(range(number)), "a call waits for the one before"
    assert done == list(range(5)), "all is put away when the block ends"


def test_a_failure_to_put_away_reaches_the_caller_at_the_next_call_or_at_the_end():
    def fail(number):
        raise PipelineError("disk", "room", number)

    with pytest.raises(PipelineError, match="room, got 0"), behind(fail) as soon:
        soon(0)
        soon(1)
    with pytest.raises(PipelineError, match="room, got 7"), behind(fail) as soon:
        soon(7)


def test_the_callers_own_failure_is_the_one_that_is_told():
    done = []
    with pytest.raises(KeyError), behind(done.append) as soon:
        soon(1)
        raise KeyError
    assert done == [1], "what was begun is finished"
