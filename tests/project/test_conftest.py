"""On CI a skipped test is a failure, unless its reason names what no machine of ours need have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from places import ROOT

CASES = """
import pytest

def test_in_a_test():
    pytest.skip({reason!r})

@pytest.mark.skipif(True, reason={reason!r})
def test_by_a_mark():
    pass

@pytest.mark.xfail(reason="expected", strict=True)
def test_expected_to_fail():
    assert False
"""
AT_IMPORT = "import pytest\npytest.skip({reason!r}, allow_module_level=True)\n"
REASONS = {"here": "no chromium", "hardware": "no CUDA device", "data": "set UNET_PIPELINE_DATA"}


def outcomes(folder: Path, ci: str) -> dict[str, Counter[str]]:
    """What pytest counts for each reason, in a file whose tests skip and in one that skips while it is imported."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    for name, reason in REASONS.items():
        (folder / f"test_{name}_cases.py").write_text(CASES.format(reason=reason))
        (folder / f"test_{name}_import.py").write_text(AT_IMPORT.format(reason=reason))
    plugins = [word for name in ("napari", "napari-plugin-engine", "npe2", "zarr") for word in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", *plugins]
    subprocess.run(
        [*command, "--junitxml", str(folder / "said.xml"), str(folder)],
        cwd=folder, env=os.environ | {"CI": ci}, stdout=subprocess.DEVNULL, check=False, timeout=100,
    )  # fmt: skip
    found: dict[str, Counter[str]] = {name: Counter() for name in REASONS}
    for case in ElementTree.parse(folder / "said.xml").iter("testcase"):
        (name,) = (name for name in REASONS if f"test_{name}_" in f"{case.get('classname')} {case.get('name')}")
        kinds = (outcome.get("type", outcome.tag) for outcome in case)  # a module that skips has no type
        found[name].update(kind.removeprefix("pytest.").removesuffix("ped") for kind in kinds)
    return found


@pytest.mark.slow
def test_avoidable_skips_fail_on_ci(tmp_path: Path) -> None:
    skipped = {"skip": 3, "xfail": 1}
    assert outcomes(tmp_path, "") == dict.fromkeys(REASONS, skipped)
    assert outcomes(tmp_path, "true") == {
        "here": {"failure": 1, "error": 2, "xfail": 1},
        "hardware": skipped,
        "data": skipped,
    }
