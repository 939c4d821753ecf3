import pytest
import torch
from chain import make_model, make_plan, make_stack, settings

from unet_pipeline.config.sections import Compute
from unet_pipeline.predict import predict as module
from unet_pipeline.predict.predict import predict
from unet_pipeline.records.layout import journal_path
from unet_pipeline.records.record import read_json


class Killed(Exception):
    """Stands for whatever ends a job at any moment."""


@pytest.fixture
def made(tmp_path):
    return make_plan(make_stack(tmp_path), regions=1), make_model(tmp_path / "model")


@pytest.fixture
def computed(monkeypatch):
    """Shards the network was run for; the job is killed before the one in `stop`."""
    seen, real = [], module.predict_shard

    def counted(window, plan, shard, *rest):
        if len(seen) in computed_stop:
            computed_stop.clear()
            raise Killed
        seen.append(shard)
        return real(window, plan, shard, *rest)

    computed_stop: set[int] = set()
    monkeypatch.setattr(module, "predict_shard", counted)
    return seen, computed_stop


def go(made, config=None):
    stack_plan, model = made
    output = stack_plan.region_record(0)
    predict(stack_plan, 0, model, config or settings(), output)
    return read_json(output)["shards"]


def test_a_job_that_was_cut_off_goes_on_where_it_was(made, computed):
    seen, stop = computed
    stop.add(5)
    with pytest.raises(Killed):
        go(made)
    assert not made[0].region_record(0).exists()
    shards = go(made)
    assert len(seen) == len(set(map(str, seen))) == made[0].plan.shard_count == 12, "no shard twice"
    made[0].region_record(0).unlink()
    assert go(made) == shards
    assert len(seen) == 12, "a finished region whose record was lost costs no shard"


def test_a_damaged_or_lost_shard_is_computed_again(made, computed):
    shards = go(made)
    array = made[0].probabilities()
    file = array.shard_file(0, 0, 64)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    array.shard_file(1, 64, 0).unlink()
    computed[0].clear()
    assert go(made) == shards
    assert [(shard.plane, shard.rows.start, shard.columns.start) for shard in computed[0]] == [(0, 0, 64), (1, 64, 0)]


@pytest.mark.slow
def test_other_work_starts_from_nothing(made, computed, tmp_path):
    stack_plan, model = made
    journal = journal_path(stack_plan.region_record(0))

    def starts_anew(model, config):
        computed[0].clear()
        go((stack_plan, model), config)
        return len(computed[0]) == 12

    assert starts_anew(model, settings())
    assert not starts_anew(model, settings())
    model = make_model(tmp_path / "other", seed=4)
    assert starts_anew(model, settings()), "another model"
    assert starts_anew(model, settings(predict={"precision": "bfloat16"})), "another key of predict"
    threads = settings(compute={"threads": 2, "device": "cpu"})
    assert starts_anew(model, threads), "other threads"
    journal.write_text(journal.read_text().replace('"shard": 3', '"shard": 4'))
    assert starts_anew(model, threads), "a journal that lies"


def test_several_readers_and_writers_lose_no_shard_and_change_none(made):
    alone = go(made)
    record = made[0].region_record(0)
    for left in (record, journal_path(record)):
        left.unlink(missing_ok=True)
    together = go(made, settings(compute={"io_threads": 3}))
    assert together == alone
    assert len(together) == made[0].plan.shard_count


def test_more_readers_are_for_gpus(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 12)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [module.io_threads(Compute(), one) for one in (cpu, gpu)] == [1, 3]
    assert module.io_threads(Compute(io_threads=2), cpu) == 2
