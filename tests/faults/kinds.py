"""The kinds of faults: each does one thing to a copy of a finished project and says whether all came out the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import tifffile
from disks import frozen, small_disk
from same_tree import differing, tree
from stages import Job, snakemake, start
from trial import PATIENCE_S, Lost, Trial


def killed_at_a_write(trial: Trial) -> None:
    """SIGKILL just before a job changes a file, then the job again."""
    job = trial.any_job()
    trial.ended(start(trial.folder, job.command, trial.log, trial.chance.randint(1, trial.changes[job.name])))
    trial.outputs_are_whole(job)
    job.forget(trial.folder, whole=False)
    trial.finish(job)


def _stopped(trial: Trial, number: signal.Signals) -> None:
    job = trial.any_job()
    process = start(trial.folder, job.command, trial.log)
    trial.moment(job)
    process.send_signal(number)
    trial.ended(process)
    trial.outputs_are_whole(job)
    job.forget(trial.folder, whole=False)
    trial.finish(job)


def killed_at_any_time(trial: Trial) -> None:
    """SIGKILL at a random moment, then the job again."""
    _stopped(trial, signal.SIGKILL)


def terminated(trial: Trial) -> None:
    """SIGTERM at a random moment, as at a wall-time limit, then the job again."""
    _stopped(trial, signal.SIGTERM)


def orphan_beside_its_rerun(trial: Trial) -> None:
    """The same job twice at once; the first one was left over by a killed Snakemake."""
    job = trial.any_job()
    orphan = start(trial.folder, job.command, trial.log, run=trial.run())
    trial.moment(job)
    run = trial.run()
    job.forget(trial.folder, whole=False)
    trial.finish(job, run)
    trial.ended(orphan, 0, 1)


def orphan_of_other_settings(trial: Trial) -> None:
    """A job of an older configuration, on a slow machine, still runs beside the new one, or after it."""
    job = trial.any_job()
    orphan = start(trial.folder, job.with_other_settings(), trial.log, run=trial.run())
    trial.moment(job)
    orphan.send_signal(signal.SIGSTOP)
    run = trial.run()
    job.forget(trial.folder, whole=False)
    rerun = start(trial.folder, job.command, trial.log, run=run)
    trial.moment(job)
    if trial.chance.random() < 0.5:
        trial.ended(rerun, 0)
    orphan.send_signal(signal.SIGCONT)
    trial.ended(rerun, 0)
    trial.ended(orphan, 0, 1)


def orphan_from_the_queue(trial: Trial) -> None:
    """A job of an older configuration that waited in the queue of a cluster starts beside the new one, or after it."""
    job = trial.any_job()
    former, last = trial.run(), trial.run()
    rerun = start(trial.folder, job.command, trial.log, run=last)
    trial.moment(job)
    orphan = start(trial.folder, job.with_other_settings(), trial.log, run=former)
    trial.ended(rerun, 0)
    trial.ended(orphan, 1)


def twice_by_hand(trial: Trial) -> None:
    """The same job started twice without Snakemake: one of them makes it."""
    job = trial.any_job()
    both = [start(trial.folder, job.command, trial.log)]
    time.sleep(trial.chance.uniform(0, 0.5))
    both.append(start(trial.folder, job.command, trial.log))
    if sum(trial.ended(process, 0, 1) for process in both) > 1:
        raise Lost("both failed")


def full_disk(trial: Trial) -> None:
    """The disk is full after so many bytes; then there is room again."""
    job = trial.any_job()
    with small_disk(trial, int(10 ** trial.chance.uniform(2, 5.5))) as make_room:
        if trial.ended(start(trial.folder, job.command, trial.log), 0, 1):
            trial.said_once()
        make_room()
        trial.outputs_are_whole(job)
        job.forget(trial.folder, whole=False)
        trial.finish(job)


def read_only(trial: Trial) -> None:
    """The results cannot be written; then they can."""
    job = trial.any_job()
    with frozen(trial):
        trial.ended(start(trial.folder, job.command, trial.log), 1)
        trial.said_once()
    trial.finish(job)


def flipped_byte(trial: Trial) -> None:
    """A byte of a result changes on the disk: verify names it, and what it says mends it."""
    _damaged(trial, lambda data, place: data[:place] + bytes([data[place] ^ 1 << trial.chance.randrange(8)])
             + data[place + 1 :])  # fmt: skip


def cut_short(trial: Trial) -> None:
    """A file of the results loses its end."""
    _damaged(trial, lambda data, place: data[:place])


def lost_file(trial: Trial) -> None:
    """A file of the results is gone, a record in the middle among them."""
    _damaged(trial, lambda data, place: None)


def _damaged(trial: Trial, damage: Callable[[bytes, int], bytes | None]) -> None:
    results = trial.folder / "results"
    names = [name for name in sorted(trial.expected) if not name.endswith(".shards")]
    file = results / trial.chance.choice([name for name in names if (results / name).stat().st_size])
    data = file.read_bytes()
    damaged = damage(data, trial.chance.randrange(len(data)))
    file.unlink() if damaged is None else file.write_bytes(damaged)
    trial.note(f"# damaged {file.relative_to(trial.folder)}")
    if damaged is None and ".training" in file.parts:  # which may be removed when a model is finished
        file.write_bytes(data)
        return
    _mended(trial, file)


def _mended(trial: Trial, file: Path) -> None:
    """Let verify name a file, then run what it prints; a file that is of no use is removed."""
    text = trial.refuse(("verify", "results"))
    if str(file.relative_to(trial.folder)) not in text:
        raise Lost(f"not named: {file.name}")
    remedies = dict.fromkeys(re.findall(r"--forcerun ([^`]+)`", text))
    if remedies:
        trial.workflow("--forcerun", *remedies)
        return
    file.unlink()
    gone = file.relative_to(trial.folder / "results").as_posix()
    trial.expected = {name: total for name, total in trial.expected.items() if name != gone}


READERS = {
    "unseen/image.ome.zarr/0/c/0/0": "predict unseen 0",
    "unseen/image.ome.zarr/labels/instances/0/c": "evaluate unseen",
    "learn/image.ome.zarr/0/c": "train",
    "learn/image.ome.zarr/labels/instances/0/c": "weigh learn",
    "learn/weights.zarr/target/c": "train",
    "learn/weights.zarr/boundary/c": "train",
    "unseen/segmentation.ome.zarr/0/c": "stitch unseen",
    "unseen/segmentation.ome.zarr/labels/instances/0/c": "evaluate unseen",
}
"""Folders of shards, and a job that reads all of them."""


def _shards(trial: Trial) -> tuple[list[Path], Job]:
    """Choose an array; return its shards, shuffled, and a job that reads it, as if it had never run."""
    folder = trial.chance.choice(sorted(READERS))
    shards = sorted(path for path in (trial.folder / "results" / folder).rglob("*") if path.is_file())
    trial.chance.shuffle(shards)
    job = trial.jobs[READERS[folder]]
    job.forget(trial.folder, whole=True)
    trial.note(f"# {job.name} reads {shards[0].relative_to(trial.folder)}")
    return shards, job


def _refused_then_mended(trial: Trial, job: Job) -> None:
    """Run a job on harmed shards: it must say so, and what it says must mend them."""
    remedy = re.search(r"--forcerun ([^`]+)`", trial.refuse(job.command))
    if remedy is None:
        raise Lost("no remedy")
    trial.workflow("--forcerun", remedy[1])


def lost_shard(trial: Trial) -> None:
    """A shard is gone, which a reader of Zarr takes for zeros."""
    shards, job = _shards(trial)
    shards[0].unlink()
    _refused_then_mended(trial, job)


def exchanged_shards(trial: Trial) -> None:
    """Two shards of an array have each other's content, and decode well."""
    shards, job = _shards(trial)
    one, two = next((one, two) for one, two in combinations(shards, 2) if one.read_bytes() != two.read_bytes())
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    _refused_then_mended(trial, job)


def restored_shard(trial: Trial) -> None:
    """A shard is gone while a job reads, as on a share that is not mounted, and back when it runs again."""
    shards, job = _shards(trial)
    away = shards[0].rename(trial.folder / "away")
    trial.refuse(job.command)
    away.rename(shards[0])
    trial.workflow()


def replaced_image(trial: Trial) -> None:
    """An image is replaced by another of its shape, and put back after a run: nothing of the other may be left."""
    image = trial.folder / "my images" / trial.chance.choice(["unseen.tif", "learn.tif"])
    before = image.read_bytes()
    tifffile.imwrite(image, tifffile.imread(image)[..., ::-1, ::-1], photometric="minisblack")
    trial.workflow()
    if not differing(trial.expected, tree(trial.folder / "results")):
        raise Lost("another image, and the same results")
    image.write_bytes(before)
    trial.workflow()
    shutil.rmtree(trial.folder / "results" / "model.previous", ignore_errors=True)


def _forget_much(trial: Trial) -> None:
    """Remove results so that a good part of the workflow must run again.

    Snakemake does not miss what nothing needs that must run: so something goes that only the last steps make.
    """
    results = trial.folder / "results"
    for name in trial.chance.choice([("unseen",), ("new",), ("unseen", "model"), ("new", "model", "learn")]):
        shutil.rmtree(results / name)
    (results / "report.html").unlink()


def _snakemake_ended(trial: Trial, end: Callable[[subprocess.Popen[bytes]], None]) -> None:
    _forget_much(trial)
    process = snakemake(trial.folder, trial.log)
    started(trial, process)
    time.sleep(trial.chance.uniform(0, 12))
    end(process)
    trial.workflow()
    _no_job_left(trial)


def started(trial: Trial, process: subprocess.Popen[bytes]) -> None:
    """Wait until Snakemake runs jobs, or has ended."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if "Select jobs to execute" in trial.log.read_text(encoding="utf-8", errors="replace"):
            return
        time.sleep(0.1)


def _no_job_left(trial: Trial) -> None:
    """Wait for the orphans to end: what they write then must not matter either."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        folders = [_folder(path) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        if trial.folder not in folders:
            return
        time.sleep(0.1)
    raise Lost("an orphan never ended")


def _folder(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


def snakemake_killed_alone(trial: Trial) -> None:
    """Snakemake is killed with -9, its jobs live on, and it is started again at once."""

    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    _snakemake_ended(trial, end)


def snakemake_and_jobs_killed(trial: Trial) -> None:
    """Everything is killed with -9, as when the machine goes down."""

    def end(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    _snakemake_ended(trial, end)


def snakemake_asked_to_stop(trial: Trial) -> None:
    """Snakemake gets SIGINT (Ctrl-C) or SIGTERM."""

    def end(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(trial.chance.choice([signal.SIGINT, signal.SIGTERM]))
        trial.ended(process)

    _snakemake_ended(trial, end)


def two_snakemakes(trial: Trial) -> None:
    """Two Snakemakes on one project: one works, the other says so and leaves, or finds nothing left to do."""
    _forget_much(trial)
    both = []
    for _ in range(2):
        both.append(snakemake(trial.folder, trial.log))
        time.sleep(trial.chance.uniform(0, 6))
    if sum(trial.ended(process, 0, 1) for process in both) > 1:
        raise Lost("both failed")


OF_A_JOB = (killed_at_a_write, killed_at_any_time, terminated, orphan_beside_its_rerun, orphan_of_other_settings,
            orphan_from_the_queue, full_disk)  # fmt: skip
OF_THE_REST = (twice_by_hand, read_only, flipped_byte, cut_short, lost_file, lost_shard, exchanged_shards,
               restored_shard, replaced_image, snakemake_killed_alone, snakemake_and_jobs_killed,
               snakemake_asked_to_stop, two_snakemakes)  # fmt: skip
