"""The workflow on a real Slurm: where jobs land, what they are given, and what happens when they or Slurm die."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from projects import Faked, arrays, drawn, forget, shards
from slurm import Cluster, Run, SlurmJob, finish, is_stopped, processes, profile_with, start, until
from workspace import Workspace

pytestmark = pytest.mark.cluster
CPU_NODES = {"cpu1", "cpu2"}


FIRST = "results/s0/ingest.json"
"""What a single Slurm job makes."""


def states(jobs: list[SlurmJob]) -> list[str]:
    return [job.state.split()[0] for job in jobs]


def held(cluster: Cluster, space: Faked, *arguments: str) -> Run:
    """Start a run, and return when its first job runs and waits."""
    space.hold("ingest")
    run = start(cluster, space, *arguments)
    until(lambda: space.started("ingest"), "the first job")
    return run


def test_the_chain_gives_what_it_gives_without_slurm(cluster: Cluster, local: Workspace, tmp_path: Path) -> None:
    space = drawn(tmp_path / "my project")
    run = finish(cluster, space)
    assert shards(space) == shards(local)
    assert arrays(space) == arrays(local)
    assert {job.node for job in run.jobs("train", "calibrate", "predict")} == {"gpu1"}
    assert {job.node for job in run.jobs("prepare", "finish", "report")} <= CPU_NODES
    assert set(states(run.jobs())) == {"COMPLETED"}
    assert len(run.jobs()) == 9, "4 stacks prepared in one job, 3 finished in one, train, calibrate, 4 regions, report"


@pytest.fixture(scope="module")
def many(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Faked, Run]:
    """A run of faked stages on five stacks and one to learn from."""
    space = Faked(tmp_path_factory.mktemp("many"), stacks=5)
    return space, finish(cluster, space, *(f"results/s{number}/metrics.json" for number in range(5)))


def test_jobs_with_a_network_are_given_a_gpu_and_others_wait_for_none(many: tuple[Faked, Run]) -> None:
    space, run = many
    for rule in ("train", "predict"):
        assert {place["SLURMD_NODENAME"] for place in space.places(rule)} == {"gpu1"}
        assert {place["CUDA_VISIBLE_DEVICES"] for place in space.places(rule)} <= {"0", "1"}
        assert {job.partition for job in run.jobs(rule)} == {"gpu"}
        assert all("gres/gpu=1" in job.resources for job in run.jobs(rule))
    for rule in ("ingest", "weigh", "tile", "stitch", "evaluate"):
        assert {place["SLURMD_NODENAME"] for place in space.places(rule)} <= CPU_NODES
        assert {place["CUDA_VISIBLE_DEVICES"] for place in space.places(rule)} == {None}
        assert not [job for job in run.jobs(rule) if "gpu" in job.resources]


def test_small_steps_share_jobs_that_fit_a_node(many: tuple[Faked, Run]) -> None:
    space, run = many
    prepared, finished = run.jobs("prepare"), run.jobs("finish")
    assert (len(prepared), len(finished)) == (2, 2), "6 and 5 stacks, 4 a job"
    for job in prepared + finished:
        assert int(job.cpus) <= 4, "CPUs of members are summed: only four may run side by side"
        assert job.memory == f"{int(job.cpus) * 4000}M"
    assert len({place["SLURM_JOB_ID"] for place in space.places("ingest")}) == 2
    assert len(run.jobs("predict")) == 5, "regions have jobs of their own"


def test_sites_that_want_gres_get_gres(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    assert space.run("results/learn/weigh.json").code == 0
    profile = profile_with(tmp_path / "slurm", "gpu: 1 # becomes sbatch --gpus=1.", 'gpu: 0\n    gres: "gpu:1" #')
    run = start(cluster, space, "results/model/model.json", profile=profile)
    assert run.wait() == 0, run.text
    (place,) = space.places("train")
    assert place["SLURMD_NODENAME"] == "gpu1"
    assert place["CUDA_VISIBLE_DEVICES"] in ("0", "1")


def test_the_account_of_the_profile_is_charged(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    profile = profile_with(tmp_path / "slurm", "# slurm_account: mylab", "slurm_account: lab")
    run = start(cluster, space, FIRST, profile=profile)
    assert run.wait() == 0, run.text
    assert {job.account for job in run.jobs()} == {"lab"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slurm_partition: cpu", "slurm_partition: cpus", "slurm_partition of ingest, tile"),
        ("# slurm_account: mylab", "slurm_account: lap", "nearest legal value: lab"),
        ("mem_mb: attempt * 4000", "mem_mb: attempt * 400000", "mem_mb of ingest, tile"),
        ("runtime: attempt * 120", "runtime: attempt * 99999", "at most 1440 minutes in partition cpu"),
    ],
)
def test_what_slurm_would_refuse_or_never_start_is_one_message(
    cluster: Cluster, tmp_path: Path, old: str, new: str, message: str
) -> None:
    space = Faked(tmp_path, stacks=2)
    profile = profile_with(tmp_path / "slurm", old, new)
    run = start(cluster, space, FIRST, "results/s1/tiles.json", profile=profile)
    assert run.wait() == 1
    assert message in run.text
    assert "profiles/slurm/config.yaml" in run.text
    assert "Traceback" not in run.text
    assert cluster.queue_is_empty()
    assert not (space.folder / "results").exists()


def test_a_job_out_of_memory_is_given_more(cluster: Cluster, copy: Workspace, local: Workspace) -> None:
    forget(copy, "unseen/regions/0.json", "unseen/stitch.json")
    # two Snakemakes want 250 MB, and PyTorch as much again before its libraries; copies would share all that
    profile = profile_with(copy.folder.parent / "slurm", "attempt * 12000", "attempt * 300")
    run = start(cluster, copy, "results/unseen/regions/0.json", "--retries", "3", profile=profile, preloaded=False)
    assert run.wait() == 0, run.text
    jobs = run.jobs("predict")
    assert [job.memory for job in jobs] == [f"{attempt * 300}M" for attempt in range(1, len(jobs) + 1)]
    assert states(jobs)[-1] == "COMPLETED"
    said = (copy.folder / ".snakemake" / "slurm_logs" / "rule_predict" / "unseen_0" / f"{jobs[0].id}.log").read_text()
    assert re.search("oom.kill|memory limit", said), said
    assert shards(copy) == shards(local)


def test_a_job_out_of_time_is_gone_on_with_from_its_last_checkpoint(cluster: Cluster, copy: Workspace) -> None:
    """That of SIGTERM where the site lets the stage hear it (docs/slurm.md), else the last regular one."""
    forget(copy, "model/*.*")
    # Slurm counts whole minutes and looks every half of one: train until it has struck, then no longer
    copy.config = copy.config | {"train": copy.config["train"] | {"steps": 2_000_000}}
    profile = profile_with(copy.folder.parent / "slurm", "runtime: attempt * 720", "runtime: attempt * 1")
    run = start(cluster, copy, "results/model/model.json", "--retries", "1", profile=profile)
    log = copy.folder / "results" / "logs" / "train.log"
    last_words, resumed = re.compile(r"SIGTERM after step (\d+); a checkpoint was written"), "resuming after step "
    heard: set[str] = set()

    def second_attempt() -> bool:
        text = log.read_text() if log.exists() else ""
        heard.update(last_words.findall(text))
        return resumed in text

    until(second_attempt, "the second attempt", seconds=600)
    step = re.search(rf"{resumed}(\d+) of", log.read_text())
    assert step
    if heard:
        assert {step[1]} == heard
    assert int(step[1]) >= 1, "compute.checkpoint_minutes"
    assert states(run.jobs("train"))[0] == "TIMEOUT"


def test_a_cancelled_job_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    run = held(cluster, space, FIRST)
    cluster.ask("scancel", *cluster.running())
    space.hold()
    assert run.wait() == 0, run.text
    assert states(run.jobs()) == ["CANCELLED", "COMPLETED"]


def test_a_job_cancelled_too_often_is_a_clear_failure_and_the_next_run_ends_the_work(
    cluster: Cluster, tmp_path: Path
) -> None:
    space = Faked(tmp_path, stacks=1)
    run = held(cluster, space, FIRST, "--retries", "0")
    cluster.ask("scancel", *cluster.running())
    assert run.wait() == 1
    assert re.search(r"JOB \d+ ON cpu\d CANCELLED", run.text), run.text
    assert "Traceback" not in run.text
    space.hold()
    finish(cluster, space, FIRST)


def test_a_drained_node_ends_its_job_and_gets_no_more(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=2)
    one_by_one = ("--jobs", "1", "--group-components", "prepare=1")
    run = held(cluster, space, FIRST, "results/s1/ingest.json", *one_by_one)
    (node,) = cluster.running().values()
    cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    space.hold()
    try:
        assert run.wait() == 0, run.text
    finally:
        cluster.resume(node)
    assert states(run.jobs()) == ["COMPLETED", "COMPLETED"]
    assert [job.node for job in run.jobs()] == [node, *(CPU_NODES - {node})]


def test_a_node_that_goes_down_costs_its_job_one_attempt(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    run = held(cluster, space, FIRST)
    (node,) = cluster.running().values()
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    space.hold()
    try:
        assert run.wait() == 0, run.text
    finally:
        cluster.resume(node)
    assert states(run.jobs()) == ["NODE_FAIL", "COMPLETED"]


def test_a_controller_that_is_killed_and_comes_back_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    run = held(cluster, space, FIRST)
    cluster.remember()
    cluster.stop("slurmctld")
    space.hold()
    until(lambda: (space.folder / FIRST).exists(), "the job to end while nobody answers")
    cluster.up()
    assert run.wait() == 0, run.text
    # not by accounting, which a killed controller need not complete
    assert len(re.findall("has been submitted with SLURM jobid", run.text)) == 1, "the job was not tried again"


def test_an_interrupted_snakemake_cancels_its_jobs(cluster: Cluster, tmp_path: Path) -> None:
    space = Faked(tmp_path, stacks=1)
    run = held(cluster, space, FIRST)
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 1
    until(cluster.queue_is_empty, "an empty queue")
    space.hold()
    finish(cluster, space, FIRST)


@pytest.mark.parametrize("verb", ["train", "predict", "stitch"])
def test_jobs_of_a_killed_snakemake_do_no_harm_beside_those_of_its_successor(
    cluster: Cluster, copy: Workspace, local: Workspace, verb: str
) -> None:
    """The worst case: a job is stopped in mid-work, its Snakemake killed; a second run ends; then the job goes on."""
    later = ("unseen/stitch.json", "unseen/regions/*.json", "model/*.*")
    forget(copy, *later[: 1 + ("stitch", "predict", "train").index(verb)])
    target = "results/unseen/stitch.json"
    logs = {"train": "train.log", "predict": "predict/unseen/0.log", "stitch": "stitch/unseen.log"}
    log = copy.folder / "results" / "logs" / logs[verb]
    log.unlink()
    first = start(cluster, copy, target)
    until(lambda: log.exists() and log.stat().st_size, f"{verb} to work")
    (orphan, *_) = processes(copy, verb)
    os.kill(orphan, signal.SIGSTOP)
    until(lambda: is_stopped(orphan), "an orphan in mid-work", seconds=5)
    first.process.kill()
    first.process.wait()
    try:
        second = start(cluster, copy, target)
        assert second.wait() == 0, second.text
    finally:
        os.kill(orphan, signal.SIGCONT)
    until(cluster.queue_is_empty, "the orphans' end")
    assert shards(copy) == shards(local)
    assert arrays(copy) == arrays(local)
    assert not copy.would_run(target)
    finish(cluster, copy)
    assert arrays(copy) == arrays(local)


def test_a_job_that_still_waited_when_its_snakemake_was_killed_removes_nothing(
    cluster: Cluster, copy: Workspace, local: Workspace
) -> None:
    """A job begins by removing its outputs; one that starts after a second run has ended must not come so far."""
    forget(copy, "unseen/stitch.json")
    target = "results/unseen/stitch.json"
    cluster.ask("scontrol", "update", "partitionname=cpu", "state=down")
    try:
        first = start(cluster, copy, target)
        until(lambda: not cluster.queue_is_empty(), "a waiting job")
        (job,) = cluster.ask("squeue", "--noheader", "--format=%i").split()
        first.process.kill()
        first.process.wait()
        cluster.ask("scontrol", "hold", job)
    finally:
        cluster.ask("scontrol", "update", "partitionname=cpu", "state=up")
    finish(cluster, copy, target)
    log = copy.folder / ".snakemake" / "slurm_logs" / "group_finish_stitch" / f"{job}.log"
    log.parent.mkdir(parents=True, exist_ok=True)  # the run's end removed it; without it Slurm does not start the job
    cluster.ask("scontrol", "release", job)
    until(lambda: cluster.ask("sacct", "-nXj", job, "--format=state").split() == ["FAILED"], "the orphan's end")
    assert "left over from a Snakemake that was killed" in log.read_text()
    assert not copy.would_run(target)
    assert arrays(copy) == arrays(local)
