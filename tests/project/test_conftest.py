"""On CI a skipped test is a failure, unless its reason names what no machine of ours need have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def outcome(folder: Path, reason: str, ci: str) -> str:
    """The closing line of pytest on two small files, one of which skips while it is imported."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "test_cases.py").write_text(CASES.format(reason=reason))
    (folder / "test_import.py").write_text(AT_IMPORT.format(reason=reason))
    plugins = [word for name in ("napari", "napari-plugin-engine", "npe2", "zarr") for word in ("-p", f"no:{name}")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        *plugins,
        str(folder),
    ]
    ran = subprocess.run(
        command, cwd=folder, env=os.environ | {"CI": ci}, capture_output=True, text=True, check=False, timeout=100
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("reason", "ci", "expected"),
    [
        ("no chromium", "", "3 skipped, 1 xfailed"),
        ("no chromium", "true", "1 failed, 1 xfailed, 2 errors"),
        ("no CUDA device", "true", "3 skipped, 1 xfailed"),
        ("set UNET_PIPELINE_DATA", "true", "3 skipped, 1 xfailed"),
    ],
)
def test_avoidable_skips_fail_on_ci(tmp_path: Path, reason: str, ci: str, expected: str) -> None:
    assert outcome(tmp_path, reason, ci).startswith(expected)
