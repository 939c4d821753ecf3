"""The Slurm profile names rules that exist, and says what is wrong without Slurm. On a real one: tests/cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from preloaded import python
from real_project import TABLE, TINY, write
from workspace import ROOT, Workspace

PROFILE = ROOT / "profiles" / "slurm"
SETTINGS = yaml.safe_load((PROFILE / "config.yaml").read_text(encoding="utf-8"))
RULES = {path.stem for path in (ROOT / "workflow" / "rules").glob("*.smk")} - {"common"}
WITH_NETWORK = {"train", "calibrate", "predict", "prove"}


def test_its_rules_exist_and_all_small_steps_are_counted() -> None:
    assert set(SETTINGS["set-resources"]) | set(SETTINGS["groups"]) <= RULES
    small = {rule for rule, resources in SETTINGS["set-resources"].items() if "small_steps" in resources}
    assert small == set(SETTINGS["groups"]), "a member that is not counted is not capped"
    assert SETTINGS["resources"]["small_steps"] >= 1
    assert SETTINGS["set-resource-scopes"] == {"small_steps": "local"}
    assert set(SETTINGS["group-components"]) == set(SETTINGS["groups"].values())


def test_only_networks_ask_for_gpus() -> None:
    asking = {
        rule for rule, resources in SETTINGS["set-resources"].items() if "gpu" in resources or "gres" in resources
    }
    assert asking == WITH_NETWORK
    assert not {"gpu", "gres"} & set(SETTINGS["default-resources"])
    assert not asking & set(SETTINGS["groups"]), "GPUs of a group would add up"


def test_memory_and_time_grow_with_the_attempt() -> None:
    given = [SETTINGS["default-resources"], *SETTINGS["set-resources"].values()]
    formulas = [resources[key] for resources in given for key in ("mem_mb", "runtime") if key in resources]
    assert len(formulas) >= 8
    for formula in formulas:
        first, second = (eval(formula, {"attempt": attempt}) for attempt in (1, 2))
        assert second > first > 0
    assert SETTINGS["retries"] >= 1
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "retries:" not in path.read_text(encoding="utf-8"), "these would be repeated inside the Slurm job too"


@pytest.fixture
def without_slurm(tmp_path: Path) -> dict[str, str]:
    """An environment with all commands of this machine but Slurm's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    slurm = {"sbatch", "sinfo", "squeue", "sacct", "sacctmgr", "scontrol", "srun", "scancel"}
    for place in ("/usr/bin", "/bin"):
        for command in Path(place).iterdir():
            if command.name not in slurm and not (folder / command.name).is_symlink():
                (folder / command.name).symlink_to(command)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SLURM_CONF")}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{folder}"}


def test_without_slurm_there_is_one_message(tmp_path: Path, without_slurm: dict[str, str]) -> None:
    space = Workspace(tmp_path / "p")
    (space.folder / "my images" / "new").mkdir(parents=True)
    for name in ("learn", "val", "unseen", "new/0"):
        write(space.folder / "my images", name, (32, 32), 1, 0)
    space.table(*TABLE)
    (space.folder / "config.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    command = [str(python()), "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--workflow-profile"]
    ran = subprocess.run([*command, str(PROFILE)], cwd=space.folder, env=without_slurm, capture_output=True, text=True,
                         timeout=120, check=False)  # fmt: skip
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1
    assert said.count("sbatch: expected Slurm's commands on this machine") == 1, said
    assert "what to do: run Snakemake on a login node" in said
    assert "Traceback" not in said
    assert not (space.folder / "results").exists()
