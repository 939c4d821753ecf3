import dataclasses

import pytest
from chain import make_model, make_plan, make_stack, run, settings

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture, geometry
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.predict import tile_size
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import plan
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.tile_size import activation_bytes, automatic_px, check_memory

AUTO = settings(tile={"tile_px": "auto"}, store={"chunk_px": 64, "shard_px": 128})
PAPER = Architecture("unet", 4, 64, 1, 2, 0.5)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Architecture("unet", 3, 16, 1, 2, 0.5), 1024),
        (PAPER, 1024),
        (dataclasses.replace(PAPER, base_channels=128), 512),
        (dataclasses.replace(PAPER, depth=6, base_channels=256), 64),
        (dataclasses.replace(PAPER, network="resnet50", depth=5, padded=True), 512),
    ],
    ids=["usual", "paper", "wide", "largest", "resnet50"],
)
def test_the_size_follows_from_the_network(network, expected):
    sizes = geometry(network)
    assert automatic_px(network, sizes) == expected
    assert expected % sizes.stride == 0


def test_an_estimate_holds_for_what_was_measured():
    """Peak of one pass above what the process held before, in float32 on a CPU (depth, channels, tile px, MB)."""
    for depth, channels, px, measured in ((4, 64, 512, 461), (3, 16, 1024, 498)):
        network = Architecture("unet", depth, channels, 1, 2, 0.5)
        read = (geometry(network).read_px(px),) * 2
        assert activation_bytes(network, read, 3) < measured * 1e6 < activation_bytes(network, read)


def test_every_job_takes_the_size_of_the_plan(tmp_path, monkeypatch):
    """The memory that is free has no say, and jobs leave no note."""
    stack_plan, model = make_plan(make_stack(tmp_path), AUTO, 2), make_model(tmp_path / "model")
    assert stack_plan.plan.keep == (100, 128), "rows in one shard, columns in two"
    shapes, real = set(), Forward.__call__
    monkeypatch.setattr(
        Forward, "__call__", lambda self, windows: shapes.update(one.shape for one in windows) or real(self, windows)
    )
    before = set(stack_plan.record.parent.iterdir())
    for region, free in enumerate((10**12, 10**9)):
        monkeypatch.setattr(tile_size, "available_bytes", lambda free=free: free)
        predict(stack_plan, region, model, AUTO, stack_plan.region_record(region))
    assert shapes == {(1, *stack_plan.plan.read)}
    assert {path.name for path in set(stack_plan.record.parent.iterdir()) - before} == {"regions"}


def test_tiles_beyond_the_memory_are_one_clear_error(monkeypatch):
    planned = plan((1, 4096, 4096), unpadded(4), 1024, (4096, 4096), 1)
    monkeypatch.setattr(tile_size, "available_bytes", lambda: 5 * 10**8)
    with pytest.raises(PipelineError, match=r"tile\.tile_px: expected 1199 MB or more .* 500 MB free") as caught:
        check_memory(planned, PAPER)
    assert caught.value.nearest == 256
    for enough in (None, 2 * 10**9):
        monkeypatch.setattr(tile_size, "available_bytes", lambda enough=enough: enough)
        check_memory(planned, PAPER)


def test_a_job_asks_for_its_memory_before_it_begins(tmp_path, monkeypatch):
    stack_plan, model = make_plan(make_stack(tmp_path), AUTO), make_model(tmp_path / "model")
    monkeypatch.setattr(tile_size, "available_bytes", lambda: 1000)
    with pytest.raises(PipelineError, match=r"tile\.tile_px: .* MB or more for a tile of 100 x 128 px, got 0 MB free"):
        run(stack_plan, model, AUTO)
