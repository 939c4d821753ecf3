"""Two processes, as torchrun starts them, against one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.numpy
import torch
from chain import make_stack, settings
from places import ROOT
from synthetic_training import settings as training_settings
from torch import nn

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.history import Row
from unet_pipeline.train.learner import State
from unet_pipeline.train.patience import settled
from unet_pipeline.train.processes import GradientSum, Group, present_group

WORK = """
import io, json, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from synthetic_training import ARCHITECTURE, CARD, discs, every, settings
import unet_pipeline.train.loop as loop
from unet_pipeline.model.card import ModelCard
from unet_pipeline.machine.progress import Progress
from unet_pipeline.train.loop import train

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
card = replace(CARD, architecture=replace(ARCHITECTURE, dropout=0.0))
options = settings(batch=4, steps=24, validate_every=6, validate_tiles=5, **json.loads(sys.argv[4]))
loop.Cadence = every(int(sys.argv[3]))
if steps < 24:
    real = loop.write_checkpoint
    def stop(path, checkpoint, check):
        real(path, checkpoint, check)
        if checkpoint.state["step"] == steps:
            os._exit(3)
    loop.write_checkpoint = stop
with Progress(24, "train", io.StringIO()) as progress:
    result = train([discs(0)], [discs(2, (1, 50, 50))], card, np.array([1, 2]), options, folder, "d", progress)
assert "torch._dynamo" not in sys.modules, "torch's compiler, which takes seconds to import, and compiles nothing here"
sys.stdout.write(f"resumed {result.resumed_step}\\n")  # one write: lines of two processes do not mix
"""


SUMS = """
import sys
import torch
from torch import distributed, nn
from unet_pipeline.train.processes import GradientSum, joined, present_group

group = present_group()
torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Linear(4, 3), nn.Linear(3, 1))
with joined(group, torch.device("cpu")):
    gradients, sent, real = GradientSum(group, network, bucket_bytes=100), [], distributed.all_reduce
    distributed.all_reduce = lambda tensor, **more: (sent.append(tensor.numel()), real(tensor, **more))[1]
    for step, frozen in enumerate((False, True, False)):  # an encoder that does not learn at first
        network[0].requires_grad_(not frozen)
        network.zero_grad()
        sent.clear()
        image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(10 * step + group.rank))
        loss = network[2](network[1](network[0](image))).square().mean()  # the linear layers learn nothing
        loss.backward()
        own = {name: one.grad.clone() for name, one in network.named_parameters() if one.grad is not None}
        gradients.finish()
        for name, one in network.named_parameters():
            if name in own:
                real(own[name])
                assert torch.equal(one.grad, own[name]), name
            else:
                assert one.grad is None
        assert set(own) == {f"{layer}.{what}" for layer in (range(1, 3) if frozen else range(3)) for what in
                            ("weight", "bias")}, own
        assert sum(sent) == sum(one.numel() for one in own.values()), sent
sys.stdout.write("equal\\n")
"""


def run(
    folder: Path, processes: int, steps: int = 24, every: int = 6, train: str = "{}"
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder.parent / "work.py"
    script.write_text(WORK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        *(launcher if processes > 1 else [sys.executable]),
        str(script),
        str(folder),
        str(steps),
        str(every),
        train,
    ]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def history(folder: Path) -> list[list[float]]:
    rows = (folder / "history.tsv").read_text().splitlines()[1:]
    return [[float(cell) for cell in row.split("\t") if cell] for row in rows]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "model"
    assert run(folder, 1).returncode == 0
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "model"
    ran = run(folder, 2)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_with_the_whole_batch(one: Path, two: Path) -> None:
    for mine, other in zip(history(two), history(one), strict=True):
        assert mine == pytest.approx(other, rel=1e-4)
    weights = [safetensors.numpy.load_file(folder / "weights.safetensors") for folder in (two, one)]
    for name, values in weights[0].items():
        assert values == pytest.approx(weights[1][name], rel=1e-3, abs=1e-5), name
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint_and_end_with_the_same_bytes(two: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "killed", 2, steps=12).returncode != 0
    ran = run(tmp_path / "killed", 2)
    assert ran.stdout.count("resumed 12") == 2, ran.stderr
    for name in ("weights.safetensors", "history.tsv", "model.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
def test_two_processes_end_together_where_nothing_gets_better(tmp_path: Path) -> None:
    """Steps of no length: the second validation finds what the first one found."""
    ran = run(tmp_path / "model", 2, train='{"learning_rate": 1e-30, "patience": 1}')
    assert ran.returncode == 0 and ran.stdout.count("resumed 0") == 2, ran.stderr
    training = read_card(tmp_path / "model").training
    assert (training["steps"], training["selected_step"]) == (12, 6)


@pytest.mark.slow
def test_gradients_sent_in_buckets_are_the_sums_of_all_processes(tmp_path: Path) -> None:
    """Bit for bit, also of layers that do not learn for some steps, or never."""
    (tmp_path / "sums.py").write_text(SUMS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(tmp_path / "sums.py")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.count("equal") == 2, ran.stderr


def test_buckets_leave_while_earlier_layers_are_still_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `backward` is at when each bucket is sent, on one process that is told it is one of two."""
    network = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    events: list[object] = []

    def sent(tensor: torch.Tensor, async_op: bool) -> SimpleNamespace:
        events.append(tensor.numel())
        return SimpleNamespace(wait=lambda: events.append("waits"))

    monkeypatch.setattr("torch.distributed.all_reduce", sent)
    for number, layer in enumerate(network):
        layer.weight.register_post_accumulate_grad_hook(lambda grad, number=number: events.append(f"layer {number}"))
    gradients = GradientSum(Group(0, 2), network, bucket_bytes=128)
    network(torch.rand(2, 4)).sum().backward()
    assert events == ["layer 3", "layer 2", 32, "layer 1", "layer 0", 32]
    gradients.finish()
    assert events[6:] == ["waits", "waits"]


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert [list(Group(rank, 2).share(4)) for rank in (0, 1)] == [[0, 2], [1, 3]]
    with pytest.raises(PipelineError, match=r"train\.batch: expected a multiple of 2.*got 5"):
        Group(0, 2).share(5)
    with pytest.raises(PipelineError, match="nearest legal value: 4"):
        Group(0, 4).share(1)


def test_processes_end_together_when_any_of_them_finds_that_nothing_gets_better() -> None:
    """Else one would wait for the gradients of another that has ended."""

    class Asked(Group):
        def any(self, flag: bool, device: torch.device) -> bool:
            asked.append(flag)
            return True

    asked: list[bool] = []
    given = training_settings(patience=2)
    learner = SimpleNamespace(settings=given, group=Asked(1, 2), device=torch.device("cpu"))
    assert settled(learner, State(6, [Row(6, 0.1, 0.5, 0.5)]))  # type: ignore[arg-type]
    assert asked == [False]
    learner.settings = training_settings()
    assert not settled(learner, State())  # type: ignore[arg-type]
    assert asked == [False], "without patience no process waits for another"


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert present_group() == Group(0, 1)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert present_group() == Group(5, 8)


@pytest.mark.slow
def test_the_verb_starts_its_processes(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    weigh(stack, settings(), stack.record.with_name("weigh.json"))
    model = {"depth": 2, "base_channels": 4, "batch_norm": False}
    config = {"model": model, "train": {"tile_px": 32, "steps": 4, "batch": 2, "warmup": 0}}
    command = [sys.executable, "-m", "unet_pipeline", "train", "--config", json.dumps(config), "--processes", "2"]
    command += ["--train", str(stack.record.with_name("weigh.json")), "--output", str(tmp_path / "model")]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("train: 4/4 (100%)") == 1, "one process speaks for all"
    assert read_card(tmp_path / "model").training["processes"] == 2
    command[command.index(json.dumps(config))] = json.dumps(config | {"train": {"tile_px": 32, "steps": 4, "batch": 1}})
    ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode != 0
    assert "train.batch: expected a multiple of 2" in ran.stderr
