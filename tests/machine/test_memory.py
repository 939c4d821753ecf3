import subprocess
import sys

import pytest

from unet_pipeline.machine import memory

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB free; returns a function that makes a control group."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {8 * GB // 1024} kB\n")

    def group(name, files, limit, used, stat):
        folder = tmp_path / "groups" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, value in zip(files, (limit, used), strict=True):
            (folder / file).write_text(f"{value}\n")
        (folder / "memory.stat").write_text(stat)

    def inside(text):
        (tmp_path / "proc" / "self" / "cgroup").write_text(text)

    return group, inside


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_without_limits_it_is_what_the_machine_has(machine):
    group, inside = machine
    assert memory.available_bytes() == 8 * GB // 1024 * 1024
    group("job", V2, "max", 3 * GB, "")
    inside("0::/job\n")
    assert memory.available_bytes() == 8 * GB // 1024 * 1024


def test_the_limit_of_a_group_counts_and_files_kept_in_memory_do_not(machine):
    group, inside = machine
    group("slurm/job", V2, 4 * GB, 3 * GB, f"anon 7\ninactive_file {2 * GB}\n")
    inside("0::/slurm/job\n")
    assert memory.available_bytes() == 3 * GB


def test_the_limit_of_a_group_above_counts(machine):
    group, inside = machine
    group("slurm", V2, 2 * GB, GB, "")
    group("slurm/job/step", V2, "max", GB, "")
    inside("0::/slurm/job/step\n")
    assert memory.available_bytes() == GB


def test_groups_of_version_1(machine):
    group, inside = machine
    group("memory/slurm/job", V1, 5 * GB, 4 * GB, f"total_inactive_file {GB}\n")
    inside("4:cpu,cpuacct:/\n9:hugetlb,memory:/slurm/job\n0::/\n")
    assert memory.available_bytes() == 2 * GB


def test_a_group_beyond_its_limit_leaves_nothing(machine):
    group, inside = machine
    group("job", V2, GB, 2 * GB, "")
    inside("0::/job\n")
    assert memory.available_bytes() == 0


def test_a_system_that_does_not_tell(machine, tmp_path):
    (tmp_path / "proc" / "meminfo").unlink()
    assert memory.available_bytes() is None


@pytest.mark.slow
def test_what_a_process_takes_is_no_longer_there():
    code = "from unet_pipeline.machine.memory import available_bytes as a; n = a(); x = b'1' * 10**9; print(n - a())"
    taken = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert 0.5e9 < taken < 2e9, "a rough check on the real machine, where others work too"
