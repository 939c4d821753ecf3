"""Processes on one machine take different GPUs, and let them go however they end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from unet_pipeline.machine.caches import user_cache
from unet_pipeline.machine.gpus import free_gpu
from unet_pipeline.machine.jobs import gpus_here

WORK = """
import pathlib, sys
from unet_pipeline.machine.gpus import free_gpu
print(free_gpu(["GPU-a", "GPU-b"], pathlib.Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_processes_hold_different_gpus_until_they_end(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    jobs, found = [], []
    for _ in range(3):
        job = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert job.stdout is not None
        found.append(job.stdout.readline().strip())
        jobs.append(job)
    assert found == ["0", "1", "None"]
    jobs[0].kill()
    jobs[0].wait(30)
    assert free_gpu(["GPU-a", "GPU-b"], tmp_path) == 0, "the lock went with the process"
    for job in jobs[1:]:
        job.communicate("", timeout=30)
    assert free_gpu(["GPU-b"], tmp_path) == 0


def test_where_no_lock_can_be_made_none_is_held(tmp_path: Path) -> None:
    trap = tmp_path / f"unet_pipeline-{os.getuid()}-GPU-a.lock"
    trap.symlink_to(tmp_path / "elsewhere")
    assert free_gpu(["GPU-a"], tmp_path) is None
    assert not (tmp_path / "elsewhere").exists()
    assert free_gpu(["GPU-a"], tmp_path / "absent") is None


def test_the_gpus_of_a_machine_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpus_here() == 0
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\nprintf 'GPU 0: A (UUID: GPU-1)\\n  MIG 1g: x\\nGPU 1: A (UUID: GPU-2)\\n'\n")
    listing.chmod(0o755)
    assert gpus_here() == 2
    for visible, count in {"": 0, "-1": 0, "3": 1, "GPU-1,GPU-2,GPU-3": 3}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus_here() == count


def test_machine_code_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("kind") == tmp_path / "unet_pipeline" / "kind"
    assert (tmp_path / "unet_pipeline" / "kind").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache("kind") == tmp_path / "home" / ".cache" / "unet_pipeline" / "kind"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert user_cache("kind") is None
