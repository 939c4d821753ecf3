"""The memory that this process may still take: of the machine, and of the control group a scheduler put it in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes() -> int | None:
    """Return the bytes that can be taken without swapping or being killed; None where the system does not tell."""
    room = [*_machine(), *_groups()]
    return max(min(room), 0) if room else None


def _machine() -> Iterator[int]:
    with suppress(OSError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _groups() -> Iterator[int]:
    """Yield the room in each limited control group this process is in, version 1 or 2, and in those above it."""
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                yield from _rooms(GROUPS, name, V2)
            elif "memory" in controllers.split(","):
                yield from _rooms(GROUPS / "memory", name, V1)


def _rooms(root: Path, name: str, files: tuple[str, str, str]) -> Iterator[int]:
    place = root / name.lstrip("/")
    for folder in (place, *place.parents):
        if folder.is_relative_to(root):
            with suppress(OSError, ValueError):  # ValueError: "max", no limit
                limit, used, reclaimable = files
                taken = int((folder / used).read_text()) - _statistic(folder / "memory.stat", reclaimable)
                yield int((folder / limit).read_text()) - taken


def _statistic(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    return next((int(value) for key, value in lines if key == name), 0)
