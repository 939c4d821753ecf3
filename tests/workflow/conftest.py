"""Projects whose stages are faked, for what Snakemake decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faked_project import FIRST, project
from workspace import Workspace, fake_checkout


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project nothing was run in."""
    base = tmp_path_factory.mktemp("fresh")
    return project(base / "my project", fake_checkout(base / "check out"))


@pytest.fixture(scope="session")
def faked_run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project whose workflow has run with faked stages; tests that use it run on one worker."""
    base = tmp_path_factory.mktemp("finished")
    space = project(base / "my project", fake_checkout(base / "check out"))
    ran = space.run()
    assert ran.code == 0, ran.text
    assert ran.jobs == FIRST
    return space


@pytest.fixture
def faked(faked_run: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, to be changed."""
    shutil.copytree(faked_run.folder, tmp_path / "my copy")  # copies times too
    return Workspace(tmp_path / "my copy", faked_run.checkout)
