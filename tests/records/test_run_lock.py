import errno
import subprocess
import sys
import time

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.run_lock import RUN, check_run, check_writable, lock

HOLDER = """
import subprocess, sys, pathlib
from unet_pipeline.records.run_lock import lock
lock(pathlib.Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "30"])
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A process that holds the lock and has started a child."""
    path = tmp_path / "my project" / ".snakemake" / "unet_pipeline.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        child = process.stdout.readline().strip()
        yield path, process
        process.kill()
        subprocess.run(["kill", child], check=False)


def test_a_held_lock_names_its_holder_and_the_folder(held):
    path, process = held
    with pytest.raises(PipelineError, match=f"my project: .*process {process.pid} on"):
        lock(path)


def test_a_kill_gives_the_lock_back_although_children_live_on(held):
    path, process = held
    process.kill()
    process.wait()
    for _ in range(100):  # a process that was killed is gone a moment later
        try:
            lock(path)
            break
        except PipelineError:
            time.sleep(0.1)
    else:
        pytest.fail("the lock was not given back")
    assert "process" in path.read_text()


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [".snakemake"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".snakemake").write_text("a file in the way")
    with pytest.raises(PipelineError, match=f"{tmp_path}: expected a working directory that can be written"):
        check_writable(tmp_path)


def test_a_full_disk_is_told_before_any_work(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unet_pipeline.records.run_lock.tempfile.TemporaryFile", full)
    with pytest.raises(PipelineError, match="No space left"):
        check_writable(tmp_path)


def test_a_job_is_left_over_once_another_run_has_begun(tmp_path, monkeypatch):
    path, output = tmp_path / "a:b project" / ".snakemake" / "unet_pipeline.lock", tmp_path / "out.json"
    first = lock(path)
    monkeypatch.setenv(RUN, first)
    check_run(output)
    monkeypatch.chdir(tmp_path)
    second = lock(path)
    with pytest.raises(PipelineError, match="expected the run that started this job") as caught:
        check_run(output)
    assert caught.value.got == second.partition(":")[0]
    monkeypatch.setenv(RUN, second)
    check_run(output)
    path.unlink()
    check_run(output)


def test_a_job_started_by_hand_belongs_to_no_run(tmp_path, monkeypatch):
    monkeypatch.delenv(RUN, raising=False)
    lock(tmp_path / ".snakemake" / "unet_pipeline.lock")
    check_run(tmp_path / "out.json")
