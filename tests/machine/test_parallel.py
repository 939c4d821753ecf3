import threading
import time

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.parallel import ahead, behind


def test_reading_ahead_keeps_order_and_overlaps():
    started = [threading.Event() for _ in range(6)]

    def read(item):
        started[item].set()
        return item * 10

    found = []
    for value in ahead(read, range(6)):
        if value < 50:
            assert started[value // 10 + 1].wait(30), "the next item is read while this one is worked on"
        found.append(value)
    assert found == [item * 10 for item in range(6)]


def test_a_failed_read_reaches_the_caller():
    def fail(item):
        raise PipelineError("file", "pixels", "nothing")

    with pytest.raises(PipelineError, match="pixels"):
        list(ahead(fail, range(3)))


def test_reading_ahead_is_bounded_and_ends_with_its_consumer():
    started = []
    items = ahead(lambda number: started.append(number) or number, range(1000), more=2)
    assert next(items) == 0
    items.close()
    assert len(started) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_keeps_the_order_whatever_the_timing():
    def slow_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    assert list(ahead(slow_first, range(30), workers=4)) == [number * number for number in range(30)]


def test_works_ahead_but_not_without_bound():
    started = []
    results = ahead(lambda number: started.append(number) or number, range(1000), workers=2, more=3)
    assert next(results) == 0
    time.sleep(0.1)
    assert 1 < len(started) <= 5
    results.close()
    assert len(started) <= 6


def test_hands_on_errors_and_ends_its_threads():
    def fail(number):
        if number == 3:
            raise ValueError("tile 3")
        return number

    results = ahead(fail, range(10), workers=2)
    seen = []
    with pytest.raises(ValueError, match="tile 3"):
        seen.extend(results)
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
