"""The cluster, started once; and a project that was finished on this machine without it, to compare with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import drawn
from slurm import STARTED, Cluster, until
from workspace import Workspace, hear_interrupts


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Slurm on this host, stopped at the end whatever happens."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("tests/cluster/up starts Slurm daemons: that needs root on Debian or Ubuntu")
    hear_interrupts()
    # not below pytest's folder, which only root may enter: the database is another user's
    found = Cluster(Path(os.environ.get("UNET_PIPELINE_CLUSTER") or tempfile.mkdtemp()))
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """End what a test leaves running: Snakemakes, then their jobs."""
    yield
    for run in STARTED:
        run.process.kill()
        run.process.wait()
    STARTED.clear()
    cluster.ask("scancel", "--me")
    until(cluster.queue_is_empty, "an empty queue")


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small project whose workflow has run on this machine, undisturbed."""
    space = drawn(tmp_path_factory.mktemp("local") / "my project")
    ran = space.run()
    assert ran.code == 0, ran.text
    return space


@pytest.fixture
def copy(local: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished project, to be damaged."""
    shutil.copytree(local.folder, tmp_path / "my copy")
    space = Workspace(tmp_path / "my copy")
    space.config = local.config
    return space
