import dataclasses
import json

import pytest
from chain import make_model, make_plan, make_stack, settings

from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.geometry import unpadded
from unet_pipeline.predict import predict as predict_module
from unet_pipeline.predict import tile_size
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import plan
from unet_pipeline.predict.tile_size import SHARE, Trials, choose_plan

AUTO = settings(tile={"tile_px": "auto"}, store={"chunk_px": 64, "shard_px": 128})
EDGE = 6144
"""A shard of this size is divided evenly by every usual tile size."""


def trials(seconds_per_px, planes=20):
    """Trials on a machine that needs so many seconds for a px kept, by tile size; and the sizes it was asked."""
    plans = {px: plan((planes, EDGE, EDGE), unpadded(4), px, (EDGE, EDGE), 1) for px in tile_size.SIZES_PX}
    asked = []

    def seconds(planned):
        asked.append(planned.keep[0])
        return seconds_per_px(planned.keep[0]) * planned.keep[0] ** 2

    return Trials(plans, range(planes), 1, seconds, usual=2048), asked


def test_larger_tiles_are_tried_while_they_are_faster():
    made, asked = trials(lambda px: 1e-6 * (1 + 188 / px) ** 2)
    assert made.fastest() == 2048, "where a px read always costs the same, the largest wastes least"
    assert asked == [1024, 1536, 2048]
    made, asked = trials(lambda px: 1e-6 * (1 + 188 / px) ** 2 * (1 if px <= 1536 else 2))
    assert made.fastest() == 1536
    assert asked == [1024, 1536, 2048]


def test_smaller_tiles_are_tried_where_larger_are_slower():
    made, asked = trials(lambda px: px * 1e-9, planes=60)
    assert made.fastest() == 256
    assert asked == [1024, 1536, 768, 512, 384, 256]


def test_a_hair_faster_is_not_faster():
    made, asked = trials(lambda px: 1e-6 if px == 1024 else 0.98e-6)
    assert made.fastest() == 1024
    assert asked == [1024, 1536, 768]


def test_rates_are_those_of_the_job():
    made, _ = trials(lambda px: 1e-6)
    made.fastest()
    assert made.rates == {"1024": 1_000_000, "1536": 1_000_000, "768": 1_000_000}


@pytest.mark.parametrize("edge", [512, 4096, 7168, 8192, 12288])
def test_measuring_takes_no_more_than_its_share(edge):
    plans = {px: plan((1, edge, edge), unpadded(4), px, (edge, edge), 1) for px in tile_size.SIZES_PX}
    spent = []

    def seconds(planned):
        each = 1e-6 * planned.read[0] * planned.read[1]
        spent.append(tile_size.PASSES * each)
        return each

    made = Trials(plans, range(1), 1, seconds, usual=1536)
    best = made.fastest()
    assert bool(spent) == (edge > 7168), "3 passes are a twentieth of 60: more than 7 tiles of 1024 px each way"
    if spent:
        assert sum(spent) <= SHARE * edge**2 / min(made.rates.values())
        assert best in plans
    else:
        assert best == 1536


@pytest.mark.parametrize(
    ("base_channels", "expected"),
    [(1, 2048), (16, 2048), (64, 768), (1024, 256)],
    ids=["tiny", "usual", "paper", "huge"],
)
def test_unmeasured_tiles_are_large_and_take_modest_memory(tmp_path, monkeypatch, base_channels, expected):
    stack_plan = make_plan(make_stack(tmp_path), AUTO)
    forward = Forward.load(make_model(tmp_path / "model"), stack_plan.stack, Predict(), AUTO.compute)
    architecture = dataclasses.replace(forward.card.architecture, depth=4, base_channels=base_channels)
    forward = dataclasses.replace(forward, card=dataclasses.replace(forward.card, architecture=architecture))
    planned = plan((1, EDGE, EDGE), unpadded(4), 1024, (EDGE, EDGE), 1)
    monkeypatch.setattr(tile_size, "available_bytes", lambda: 10**15)
    chosen, found = choose_plan(dataclasses.replace(stack_plan, plan=planned), [0], forward, 1, lambda: None)
    assert (chosen.keep, found) == ((expected, expected), "")


def test_little_work_is_not_measured(tmp_path):
    stack_plan = make_plan(make_stack(tmp_path), AUTO)
    assert stack_plan.auto
    forward = Forward.load(make_model(tmp_path / "model"), stack_plan.stack, Predict(), AUTO.compute)
    chosen, found = choose_plan(stack_plan, [0, 1], forward, 1, lambda: None)
    assert (chosen, found) == (stack_plan.plan, "")
    assert not stack_plan.record.with_name("tile_px.json").exists()


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A plan whose jobs measure although they are small; returns a function that chooses, and the sizes it timed."""
    monkeypatch.setattr(tile_size, "SIZES_PX", (32, 64, 96))
    monkeypatch.setattr(tile_size, "PLANNED_PX", 64)
    monkeypatch.setattr(tile_size, "SHARE", 1e9)
    timed = []

    def seconds(planned, forward, batch):
        timed.append(planned.keep)
        return planned.read[0] * planned.read[1] * 1e-6

    monkeypatch.setattr(tile_size, "_seconds", seconds)
    stack_plan = make_plan(make_stack(tmp_path), AUTO)
    forward = Forward.load(make_model(tmp_path / "model"), stack_plan.stack, Predict(), AUTO.compute)
    return stack_plan, timed, lambda batch=1: choose_plan(stack_plan, [0, 1], forward, batch, lambda: None)


def test_a_choice_is_remembered_for_the_same_work(measured):
    stack_plan, timed, choose = measured
    chosen, found = choose()
    assert timed
    assert "are the fastest here" in found
    memo = json.loads(stack_plan.record.with_name("tile_px.json").read_text())
    assert memo["tile_px"] in (32, 64, 96)
    timed.clear()
    assert choose() == (chosen, "")
    assert timed == []
    choose(batch=2)
    assert timed, "another batch is other work"


@pytest.mark.parametrize("text", ["", "{", '{"tile_px": "64"}', "[]"])
def test_a_spoilt_note_is_measured_again(measured, text):
    stack_plan, timed, choose = measured
    choose()
    timed.clear()
    stack_plan.record.with_name("tile_px.json").write_text(text)
    choose()
    assert timed


def test_an_interrupted_measurement_leaves_nothing(measured, monkeypatch):
    stack_plan, _, choose = measured
    before = sorted(stack_plan.record.parent.iterdir())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tile_size, "_seconds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        choose()
    assert sorted(stack_plan.record.parent.iterdir()) == before


def test_the_size_changes_no_shard(measured, tmp_path, monkeypatch):
    stack_plan, _, _ = measured
    model = make_model(tmp_path / "model")
    records = []
    for px in (32, 64, 96):
        monkeypatch.setattr(predict_module, "choose_plan", lambda *_, px=px: (
            plan(stack_plan.plan.shape, stack_plan.plan.geometry, px, stack_plan.plan.shard, 1), "",
        ))  # fmt: skip
        output = stack_plan.record.parent / "regions" / f"{px}" / "0.json"
        output.parent.mkdir(parents=True)
        predict_module.predict(stack_plan, 0, model, AUTO, output)
        records.append(json.loads(output.read_text())["shards"])
    assert records[0] == records[1] == records[2]


def test_sizes_that_do_not_fit_the_memory_are_left_out(measured, monkeypatch):
    stack_plan, timed, choose = measured
    choose()
    assert {keep for keep in timed if keep[0] > 32}, "without a limit larger ones are timed"
    timed.clear()
    largest = stack_plan.plan.geometry.read_px(32)
    monkeypatch.setattr(Forward, "bytes_of", lambda self, read, batch: max(read))
    monkeypatch.setattr(tile_size, "available_bytes", lambda: largest / tile_size.ROOM)
    stack_plan.record.with_name("tile_px.json").unlink()
    chosen, _ = choose()
    assert timed
    assert all(max(keep) <= 32 for keep in [*timed, chosen.keep])


def test_memory_for_smaller_tiles_only(measured, monkeypatch):
    stack_plan, _, choose = measured
    stride = stack_plan.plan.geometry.stride
    monkeypatch.setattr(Forward, "bytes_of", lambda self, read, batch: read[0])
    smallest = stack_plan.plan.geometry.read_px(stride)
    monkeypatch.setattr(tile_size, "available_bytes", lambda: smallest / tile_size.ROOM)
    chosen, _ = choose()
    assert chosen.keep == (stride, stride)


def test_no_memory_for_any_legal_tile_is_one_clear_error(measured, monkeypatch):
    _, _, choose = measured
    monkeypatch.setattr(tile_size, "available_bytes", lambda: 1000)
    with pytest.raises(PipelineError, match=r"tile\.tile_px: expected .* MB for the smallest tile, got 0 MB free"):
        choose()
