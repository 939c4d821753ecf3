"""Copies to a GPU and back: the same bits as on a CPU, and the order in which streams wait, on stand-ins for them."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch._subclasses.fake_tensor import FakeTensorMode

from unet_pipeline.errors import PipelineError
from unet_pipeline.model import copies
from unet_pipeline.model.copies import Arriving, Beside, mark, sent, sent_normalised
from unet_pipeline.model.normalise import Normaliser

CPU = torch.device("cpu")
TYPES = ("u1", "i1", "<u2", "<i2", ">u2", "f2", "u4", "i4", "f4", "f8", "?")


@given(
    raw=st.sampled_from(TYPES).flatmap(lambda name: arrays.arrays(name, (2, 3, 4))),
    offset=st.floats(-7e4, 7e4),
    scale=st.floats(1e-6, 10),
)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_the_device_normalises_to_the_bits_of_the_cpu(
    raw: npt.NDArray[np.generic], offset: float, scale: float
) -> None:
    normaliser = Normaliser((offset, -offset / 3), (scale, 1 / scale))
    before = raw.copy()
    there = sent_normalised(raw, normaliser, CPU)
    assert there.dtype == torch.float32
    np.testing.assert_array_equal(there.numpy(), normaliser(raw))
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_every_value_of_small_integers(dtype: npt.DTypeLike) -> None:
    limits, normaliser = np.iinfo(dtype), Normaliser((1234.567,), (1 / 4321.0,))
    raw = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(1, 16, -1)[:, :, ::-1]  # strides as of mirroring
    np.testing.assert_array_equal(sent_normalised(raw, normaliser, CPU).numpy(), normaliser(raw))


@pytest.mark.parametrize(("name", "travels"), [("u1", torch.uint8), ("u2", torch.int16), ("f4", torch.float32)])
def test_small_numbers_travel_as_they_are_and_all_else_is_done_there(
    monkeypatch: pytest.MonkeyPatch, name: str, travels: torch.dtype
) -> None:
    """FakeTensorMode refuses to mix devices, as a GPU does."""
    pinned: list[torch.dtype] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.dtype) or self)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = sent_normalised(np.ones((1, 4, 5), name), Normaliser((1.0,), (2.0,)), torch.device("cuda", 0))
    assert (there.device, there.dtype, there.shape) == (torch.device("cuda", 0), torch.float32, (1, 4, 5))
    assert pinned[0] == travels


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(PipelineError, match="2 channels, as normalised, got 1 channels"):
        sent_normalised(np.zeros((1, 4, 4), np.uint8), Normaliser((0.0, 0.0), (1.0, 1.0)), CPU)


def test_on_a_cpu_nothing_is_copied() -> None:
    values, beside = torch.rand(1, 2, 3, 4), Beside(CPU)
    assert sent(values, CPU) is values
    assert sent(values, CPU, torch.channels_last).is_contiguous(memory_format=torch.channels_last)
    assert beside.make(lambda: (values,)).take() == (values,)
    assert mark(CPU) is None
    assert np.shares_memory(beside.fetch(values, None), values.numpy())


class Event:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")


class Stream:
    """Notes who waits for what."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: Event) -> None:
        self.log.append(f"{self.name} waits for {event.name}")

    def record_event(self) -> Event:
        self.log.append(f"event after {self.name}")
        return Event(self.log, f"event of {self.name}")


def test_streams_wait_for_one_another_and_the_caller_for_its_own_copy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    network = Stream(log, "network")
    made = iter(["up", "down"])

    @contextmanager
    def within(stream):
        yield log.append(f"begin {stream.name}")
        log.append(f"end {stream.name}")

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(log, next(made)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: network)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(copies.torch, "empty", lambda *size, pin_memory, **more: empty(*size, **more))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"kept for {stream.name}"))
    up, down, values = Beside(torch.device("cuda", 0)), Beside(torch.device("cuda", 0)), torch.rand(3, 4)
    assert log == ["up waits for network", "down waits for network"]
    log.clear()
    arriving = up.make(lambda: (log.append("made") or values,))
    assert log == ["begin up", "made", "event after up", "end up"], "nobody has waited"
    log.clear()
    assert isinstance(arriving, Arriving)
    (window,) = arriving.take()
    assert window is values
    assert log == ["network waits for event of up", "kept for network"]
    log.clear()
    ready = mark(torch.device("cuda", 0))
    fetched = down.fetch(values, ready)
    np.testing.assert_array_equal(fetched, values.numpy())
    waits = ["event after network", "begin down", "down waits for event of network", "event after down"]
    assert log == [*waits, "host waits for event of down", "end down"]
