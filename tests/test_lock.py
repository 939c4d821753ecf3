import subprocess
import sys
import time

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.lock import lock

HOLDER = """
import subprocess, sys, pathlib
from unet_pipeline.lock import lock
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
