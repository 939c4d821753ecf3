"""What Slurm would refuse is refused before a run starts, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.cluster import (
    Node,
    Partition,
    Request,
    Site,
    check,
    count_gpus,
    read_minutes,
    read_partitions,
    request,
    survey,
)

SINFO = """cpu*|1-00:00:00|8|32000|(null)
cpu*|1-00:00:00|16|24000|(null)
gpu|infinite|8|64000|gpu:a100:4(S:0-1),shard:16
"""
SITE = Site(read_partitions(SINFO), frozenset({"lab", "Teaching"}), True, 300.0)
TRAIN = Request("train", "gpu", "lab", cpus=2, mem_mb=8000, minutes=720, gpus=1)
GROUP = Request("ingest, tile", "cpu", "", cpus=4, mem_mb=16000, minutes=240, gpus=0)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1-00:00:00", 1440),
        ("2-03:04:30", 3064.5),
        ("12:00:00", 720),
        ("30:00", 30),
        ("0:30", 0.5),
        ("infinite", math.inf),
        ("n/a", math.inf),
    ],
)
def test_times_of_slurm(text: str, minutes: float) -> None:
    assert read_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("(null)", 0),
        ("", 0),
        ("gpu", 1),
        ("gpu:2", 2),
        ("gpu:a100:4", 4),
        ("gpu:a100", 1),
        ("gpu:1g.10gb:7(S:0)", 7),
        ("gpu:a100:4(S:0-1),shard:16", 4),
        ("gpu:a100:2,gpu:v100:1", 3),
        ("mps:400", 0),
        ("notgpu:3", 0),
    ],
)
def test_gpus_of_generic_resources(text: str, gpus: int) -> None:
    assert count_gpus(text) == gpus


def test_nodes_are_gathered_by_partition() -> None:
    assert SITE.partitions == {
        "cpu": Partition(True, 1440.0, (Node(8, 32000, 0), Node(16, 24000, 0))),
        "gpu": Partition(False, math.inf, (Node(8, 64000, 4),)),
    }


def test_a_request_is_what_the_plugin_will_ask_for() -> None:
    resources = {"slurm_partition": "gpu", "slurm_account": "lab", "mem_mb": 8000, "runtime": 720, "gpu": 1}
    assert request("train", 2, resources) == TRAIN
    by_gres = {**resources, "gpu": 0, "gres": "gpu:a100:1"}
    assert request("train", 2, by_gres) == TRAIN
    per_cpu = {"mem_mb_per_cpu": 1000, "mem_mb": 5}
    assert request("x", 3, per_cpu) == Request("x", "", "", 3, 3000, 0, 0)
    with pytest.raises(PipelineError, match="GPUs asked for in one way"):
        request("train", 2, {**resources, "gres": "gpu:1"})


def test_what_fits_is_let_through() -> None:
    check([TRAIN, GROUP, replace(TRAIN, partition="cpu,gpu"), replace(GROUP, partition="")], SITE, "squeue")
    check([replace(GROUP, account="TEACHING")], SITE, "squeue")
    check([TRAIN], replace(SITE, remembers_s=2.0), "sacct")
    check([replace(TRAIN, account="anything")], replace(SITE, accounts=None), "squeue")
    check([GROUP], replace(SITE, accounts=frozenset(), account_needed=False), "squeue")


@pytest.mark.parametrize(
    ("wanted", "message", "nearest"),
    [
        (replace(TRAIN, partition="gpus"), "slurm_partition of train: expected one of cpu, gpu, got 'gpus'", "gpu"),
        (replace(TRAIN, partition="cpu,gpux"), "got 'gpux'", "gpu"),
        (replace(TRAIN, account="lap"), "slurm_account of train: expected one of your accounts: Teaching, lab", "lab"),
        (replace(TRAIN, account="lab,lap"), "got 'lap'", "lab"),
        (replace(TRAIN, gpus=5), "gpu or gres of train: expected at most 4 GPUs of a node in partition gpu", "4"),
        (replace(TRAIN, mem_mb=64001), "mem_mb of train: expected at most 64000 MB", "64000"),
        (replace(TRAIN, cpus=9), "threads of train: expected at most 8 CPUs", "8"),
        (replace(TRAIN, partition="cpu"), "gpu or gres of train: expected at most 0 GPUs", "0"),
        (
            replace(GROUP, minutes=1441),
            "runtime of ingest, tile: expected at most 1440 minutes in partition cpu",
            "1440",
        ),
        (replace(GROUP, partition="", minutes=1441), "in partition cpu", "1440"),
        (replace(GROUP, cpus=16, mem_mb=32000), "resources of ingest, tile: expected what one node", "None"),
    ],
)
def test_what_slurm_would_refuse_or_keep_waiting_is_named(wanted: Request, message: str, nearest: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check([TRAIN, wanted], SITE, "squeue")
    assert message in str(caught.value)
    assert str(caught.value.nearest) == nearest
    assert "profiles/slurm/config.yaml" in caught.value.fix
    assert ("small_steps" in caught.value.fix) == (", " in wanted.job)


def test_an_account_is_missed_where_one_is_needed() -> None:
    with pytest.raises(PipelineError, match="slurm_account of ingest, tile: expected one of your accounts: none"):
        check([GROUP], replace(SITE, accounts=frozenset()), "squeue")


def test_a_slurm_that_forgets_too_soon_is_named() -> None:
    with pytest.raises(PipelineError, match="slurm-status-command: sacct"):
        check([TRAIN], replace(SITE, remembers_s=60.0), "squeue")


def commands(folder: Path, **texts: str) -> Path:
    """Stand-ins for Slurm's commands: each prints its text, or fails with it if it starts with `error`."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text + "\n")
        end = "cat '{0}' >&2; exit 1" if text.startswith("error") else "cat '{0}'"
        (folder / name).write_text(f"#!/bin/sh\n{end.format(folder / f'{name}.txt')}\n")
        (folder / name).chmod(0o755)
    return folder


def test_slurm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "MinJobAge               = 300 sec\nAccountingStorageEnforce = associations,limits\n"
    folder = commands(tmp_path / "bin", sbatch="", sinfo=SINFO.strip(), scontrol=config, sacctmgr="lab\nTeaching\nlab")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    assert survey() == SITE
    commands(tmp_path / "no accounts", sacctmgr="error: no accounting")
    monkeypatch.setenv("PATH", f"{tmp_path / 'no accounts'}:{folder}:/usr/bin:/bin")
    assert survey() == replace(SITE, accounts=None)


def test_a_slurm_that_is_away_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = commands(tmp_path / "bin", sbatch="", sinfo="error: unable to contact slurm controller")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    with pytest.raises(PipelineError, match="unable to contact slurm controller"):
        survey()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="login node"):
        survey()
