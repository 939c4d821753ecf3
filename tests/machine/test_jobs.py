"""The shell of a job: it finds this package before any other of its name, and stops at the first error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine import jobs
from unet_pipeline.machine.jobs import check_gpu, check_supported, gpus, job_prefix


def ran(folder: Path, command: str, python: Path | None) -> subprocess.CompletedProcess[str]:
    package = folder / "check out {1}"
    for place, name in ((package, "meant"), (folder / "here", "here"), (folder / "other", "other")):
        place.mkdir(parents=True, exist_ok=True)
        (place / "which_one.py").write_text(f"print('{name}')\n")
    script = f"cd here; export PYTHONPATH={folder}/other; {job_prefix(package, python)} {command}"
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_job_imports_from_the_folder_of_the_workflow(tmp_path: Path) -> None:
    assert ran(tmp_path, "python -m which_one | tee log", Path(sys.executable)).stdout == "meant\n"
    assert (tmp_path / "here" / "log").read_text() == "meant\n"


def test_an_error_before_the_log_ends_the_job(tmp_path: Path) -> None:
    found = ran(tmp_path, "python -c 'raise SystemExit(3)' | tee log; echo went on", Path(sys.executable))
    assert (found.returncode, found.stdout) == (3, "")


def test_an_environment_brings_its_own_python(tmp_path: Path) -> None:
    for python, before in ((Path("/some where/python"), True), (None, False)):
        path = ran(tmp_path, 'echo "$PATH"', python).stdout
        assert path.startswith("/some where:") is before


def test_auto_holds_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (gpus("auto"), gpus("cpu"), gpus("cuda")) == (0, 0, 1)
    (tmp_path / "nvidia-smi").touch(0o755)
    assert (gpus("auto"), gpus("cpu")) == (1, 0)


def test_ways_to_run_that_lose_software_or_volumes_are_refused() -> None:
    for methods in (
        (),
        ("apptainer",),
        ("conda", "apptainer"),
    ):  # both: for containers of a workflow that imports this one
        check_supported(set(methods), None)
    with pytest.raises(
        PipelineError, match=r"--software-deployment-method: expected none, conda or apptainer, got env"
    ):
        check_supported({"env-modules"}, None)
    with pytest.raises(PipelineError, match=r"--default-storage-provider: expected none, .* got s3"):
        check_supported(set(), "s3")


def test_the_gpu_of_a_machine_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver is enough where an environment brings torch; else that of the jobs' own Python is asked."""
    python = tmp_path / "python"
    monkeypatch.setattr(jobs, "has_driver", lambda: False)
    with pytest.raises(PipelineError, match="got none: no driver"):
        check_gpu(None)
    monkeypatch.setattr(jobs, "has_driver", lambda: True)
    check_gpu(None)
    for said, refused in (("False 2.9.0+cpu", True), ("True 2.9.0", False), ("", False)):
        python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo {said}\n')
        python.chmod(0o755)
        if refused:
            with pytest.raises(PipelineError, match=r"got none \(torch 2.9.0\+cpu\)"):
                check_gpu(python)
        else:
            check_gpu(python)
