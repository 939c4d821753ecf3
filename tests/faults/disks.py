"""Disks of a trial's own: with little room, or that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trial import Trial, Untried


@contextmanager
def small_disk(trial: Trial, room: int) -> Iterator[Callable[[], None]]:
    """Put the results on a disk of their own with so many bytes left; yields what makes room again."""
    results = trial.folder / "results"
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in results.rglob("*"))

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,size=1g", str(results)], check=True)

    if not _mount(results, f"size={used + room}"):
        raise Untried("needs the right to mount a file system: run as root")
    try:
        yield grow
    finally:
        _unmount(results)


@contextmanager
def frozen(trial: Trial) -> Iterator[None]:
    results = trial.folder / "results"
    if _mount(results, "size=1g"):
        try:
            subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
            yield
            subprocess.run(["mount", "-o", "remount,rw", str(results)], check=True)
        finally:
            _unmount(results)
        return
    if os.geteuid() == 0:
        raise Untried("needs the right to mount a file system, since no mode of a file stops root")
    folders = [results, *(path for path in results.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def _mount(results: Path, options: str) -> bool:
    """Put the results on a file system in memory; False where that is not allowed."""
    aside = results.with_name("aside")
    results.rename(aside)
    results.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", options, "faults", str(results)]
    done = os.geteuid() == 0 and subprocess.run(line, capture_output=True, check=False).returncode == 0
    if not done:
        results.rmdir()
        aside.rename(results)
        return False
    shutil.copytree(aside, results, dirs_exist_ok=True)
    shutil.rmtree(aside)
    return True


def _unmount(results: Path) -> None:
    """Take the results from memory back to the disk."""
    aside = results.with_name("aside")
    shutil.copytree(results, aside)
    subprocess.run(["umount", str(results)], check=True)
    results.rmdir()
    aside.rename(results)
