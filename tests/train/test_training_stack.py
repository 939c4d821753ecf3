import dataclasses

import numpy as np
import pytest
from synthetic_training import discs

from unet_pipeline.errors import PipelineError
from unet_pipeline.train.training_stack import MemoryPlanes, check_stacks, in_memory


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, source):
        self.source, self.shape, self.reads = source, source.shape, []

    def read(self, plane, rows, columns):
        self.reads.append((plane, rows, columns))
        return self.source.read(plane, rows, columns)

    def read_label(self, plane, rows, columns):
        self.reads.append((plane, rows, columns))
        return self.source.read_label(plane, rows, columns)


def counted(stack):
    return dataclasses.replace(
        stack, image=Counting(stack.image), target=Counting(stack.target), boundary=Counting(stack.boundary)
    )


def test_in_memory_reads_each_used_plane_once_and_gives_the_same_values():
    stack = dataclasses.replace(counted(discs(shape=(4, 30, 20), channels=2)), planes=(1, 3))
    (held,) = in_memory([stack])
    before = len(stack.image.reads), len(stack.target.reads), len(stack.boundary.reads)
    part = slice(3, 17), slice(5, 9)
    for plane in (1, 3):
        np.testing.assert_array_equal(held.image.read(plane, *part), stack.image.source.read(plane, *part))
        np.testing.assert_array_equal(
            held.target.read_label(plane, *part), stack.target.source.read_label(plane, *part)
        )
        np.testing.assert_array_equal(
            held.boundary.read_label(plane, *part), stack.boundary.source.read_label(plane, *part)
        )
    assert before == (3, 2, 2)  # one pixel of the image is read to learn its size
    assert (len(stack.image.reads), len(stack.target.reads), len(stack.boundary.reads)) == before
    assert {plane for plane, _, _ in stack.target.reads} == {1, 3}
    assert held.image.shape == stack.image.shape
    assert held.image.read(1, *part).dtype == np.uint8


def test_sets_above_the_limit_are_left_where_they_are():
    stacks = [discs(shape=(2, 30, 20)), discs(shape=(1, 50, 40))]
    decoded = (2 * 30 * 20 + 50 * 40) * (1 + 1 + 4)
    assert in_memory(stacks, decoded - 1) == tuple(stacks)
    assert all(isinstance(stack.image, MemoryPlanes) for stack in in_memory(stacks, decoded))
    assert in_memory(stacks, decoded)[0] is not stacks[0]


def test_stacks_that_cannot_be_trained_on_are_refused():
    check_stacks([discs()], 1)
    with pytest.raises(PipelineError, match="role train"):
        check_stacks([], 1)
    with pytest.raises(PipelineError, match="stack rgb: expected 1 channels, as the network, got 3"):
        check_stacks([discs(), discs(channels=3, name="rgb")], 1)
    with pytest.raises(PipelineError, match="stack bare: expected annotated planes"):
        check_stacks([dataclasses.replace(discs(name="bare"), planes=())], 1)
