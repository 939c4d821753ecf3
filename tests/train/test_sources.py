"""Planes on the device give the tiles that windows of the stack give. torch can pretend to have a GPU."""

import dataclasses

import numpy as np
import pytest
import torch
from synthetic_training import discs
from test_dataset import GEOMETRY, coordinates_stack
from torch._subclasses.fake_tensor import FakeTensorMode

from unet_pipeline.config.sections import IGNORE, Augment
from unet_pipeline.train.dataset import Sampler
from unet_pipeline.train.feed import batches
from unet_pipeline.train.sources import Resident, Windows, sources

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


def sampler(*stacks, source=Windows, options=None):
    return Sampler(tuple(map(source, stacks)), GEOMETRY, 16, options or Augment(), seed=5)


def resident(stack):
    return Resident.load(stack, CPU)


@pytest.mark.parametrize("size", [(200, 160), (40, 35), (1, 90)])
def test_planes_on_the_device_give_the_tiles_of_windows(size):
    stacks = [coordinates_stack(*size, count=3), discs(channels=3)]
    by_window, on_device = sampler(*stacks), sampler(*stacks, source=resident)
    for step in range(20):
        expected, found = by_window.tile(step, 1), on_device.tile(step, 1)
        assert torch.equal(found.target, expected.target)
        # float32 positions: a window's are small, those of a plane up to 200 px, where values rise by 1000 per px
        torch.testing.assert_close(found.image, expected.image, atol=2e-4, rtol=1e-5)
        torch.testing.assert_close(found.boundary, expected.boundary, atol=0.2, rtol=1e-5)


def test_tiles_without_annotated_pixels_are_drawn_again_on_the_device_too():
    stack = coordinates_stack(200, 160)
    stack.target.planes[0][:, 20:] = IGNORE
    source = resident(stack)
    assert not source.annotated
    assert resident(coordinates_stack(40, 40)).annotated
    by_window, on_device = sampler(stack), sampler(stack, source=resident)
    for step in range(10):
        assert torch.equal(on_device.tile(step, 0).target, by_window.tile(step, 0).target)
        assert (on_device.tile(step, 0).target != IGNORE).any()


def test_only_used_planes_are_copied():
    stack = dataclasses.replace(coordinates_stack(40, 40, count=5), planes=(1, 3))
    source = resident(stack)
    assert list(source.images) == list(source.targets) == list(source.boundaries) == [1, 3]


def test_on_a_gpu_all_is_made_there(monkeypatch):
    """FakeTensorMode refuses to mix devices, as a GPU does, and to ask for a value, for which a GPU would be waited."""
    pinned = []
    monkeypatch.setattr(torch, "Generator", lambda device: torch._C.Generator(CPU))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(tuple(self.shape)) or self)
    plain = coordinates_stack(60, 50)
    here = resident(plain)
    shapes = [part.shape for part in sampler(plain, options=Augment()).tile(0, 0)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        planes = {part: {0: getattr(here, part)[0].to(GPU)} for part in ("images", "targets", "boundaries")}
        there = dataclasses.replace(here, device=GPU, **planes)
        tile = Sampler((there,), GEOMETRY, 16, Augment(), 5).tile(0, 0)
    assert pinned == [(2, 3, 3), (3, 1, 1, 1), (3, 1, 1, 1)], "from other memory the copy would wait for the GPU"
    assert [part.device for part in tile] == [GPU] * 3
    assert [part.shape for part in tile] == shapes
    assert [part.dtype for part in tile] == [torch.float32, torch.uint8, torch.float32]


def test_stacks_go_to_the_gpu_where_they_fit_a_quarter_of_it(monkeypatch):
    stack, loaded = coordinates_stack(100, 80, count=2), []
    bytes_needed = 2 * 100 * 80 * (3 * 4 + 1 + 4)
    monkeypatch.setattr(Resident, "load", lambda stack, device: loaded.append(device) or "there")
    for total, expected in ((4 * bytes_needed, ("there",)), (4 * bytes_needed - 4, (Windows(stack),))):
        properties = type("Properties", (), {"total_memory": total})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert sources([stack], GPU) == expected
    assert sources([stack], CPU) == (Windows(stack),)
    assert loaded == [GPU]


def test_batches_come_in_order_with_their_types():
    tiles = sampler(discs(channels=3))
    found = list(batches(tiles, CPU, range(4, 7), [1, 3], workers=3))
    assert len(found) == 3
    for step, (image, target, boundary) in zip(range(4, 7), found, strict=True):
        expected = tiles.batch(step, [1, 3])
        assert torch.equal(image, expected.image)
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert target.dtype == torch.int64
        assert np.array_equal(target, expected.target)
        assert torch.equal(boundary, expected.boundary)
