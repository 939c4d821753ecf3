"""Machine code is made when it is first needed, once for a machine, wherever the package lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

JOIN = """
import sys
import numpy as np
from unet_pipeline.objects import fragments
assert "numba" not in sys.modules
print(fragments.join(4, np.array([1 << 32 | 3], np.int64)).tolist())
code = fragments.join
print(sum(code.stats.cache_hits.values()), sum(code.stats.cache_misses.values()), code._cache.cache_path)
"""


def joined(package: Path, home: Path, **more: str) -> tuple[str, int, int, str]:
    """What `join` of the package in a folder gives, whether its code was found or made, and where it is kept."""
    env = os.environ | {"PYTHONPATH": str(package), "XDG_CACHE_HOME": str(home), **more}
    ran = subprocess.run([sys.executable, "-c", JOIN], cwd=home, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    answer, counts = ran.stdout.splitlines()
    found, made, place = counts.split(maxsplit=2)
    return answer, int(found), int(made), place


@pytest.mark.slow
def test_a_second_clone_finds_the_machine_code_of_the_first(tmp_path: Path) -> None:
    answer, found, made, place = joined(ROOT, tmp_path)
    assert (found, made) == (0, 1)
    assert Path(place).is_relative_to(tmp_path / "unet_pipeline" / "numba")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "unet_pipeline", clone / "unet_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    assert joined(clone, tmp_path) == (answer, 1, 0, place)
    module = clone / "unet_pipeline" / "objects" / "fragments.py"
    module.write_text(module.read_text() + "\n# changed\n")
    *_, made, other = joined(clone, tmp_path)
    assert (made, other != place) == (1, True), "another content, another place"
    assert joined(ROOT, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "own"))[3].startswith(str(tmp_path / "own"))


@pytest.mark.slow
def test_without_a_place_that_can_be_written_it_works_all_the_same(tmp_path: Path) -> None:
    """An installation and a home that are read-only; files stand for them, as root may write anywhere."""
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "unet_pipeline", clone / "unet_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "unet_pipeline" / "objects" / "__pycache__").touch()
    (home / "unet_pipeline").touch()
    (home / "numba").touch()
    env = {"HOME": str(home / "numba"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = JOIN.replace("code._cache.cache_path", "type(code._cache).__name__")
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(clone), "XDG_CACHE_HOME": str(home)} | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1].endswith("NullCache")
