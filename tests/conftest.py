"""What all tests share: on CI a test may be skipped only for what no machine of ours can have."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

UNAVOIDABLE = ("UNET_PIPELINE_DATA", "CUDA", "GPU")
"""A reason to skip that names one of these stands: data we may not ship, hardware we may not have."""

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if CI else "here")

os.fsync = lambda file: None  # no test pulls the plug; tests/records/test_power_loss.py watches the calls
gc.disable()  # until all is imported, of which nothing becomes garbage


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real project whose workflow has run once; tests that use it run on one worker."""
    from real_project import project

    space = project(tmp_path_factory.mktemp("real") / "my project")
    ran = space.run()
    assert ran.code == 0, ran.text
    assert "done in" in ran.text, "progress is seen while jobs run"
    return space


@pytest.fixture
def done(finished_project: Any, tmp_path: Path) -> Any:
    """A copy of the finished project, to be changed."""
    from real_project import copied

    return copied(finished_project, tmp_path / "my copy")


@pytest.fixture(scope="session")
def whole_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stages have run from ingest to stitch, called one by one; nobody may change it."""
    from chain import make_model, make_plan, make_stack, run

    folder = tmp_path_factory.mktemp("whole chain")
    run(make_plan(make_stack(folder)), make_model(folder / "model"))
    return folder


@pytest.fixture
def ran(whole_chain: Path, tmp_path: Path) -> Any:
    """A copy of it, to be changed: the plan of its stack, and its model."""
    from unet_pipeline.predict.stack_plan import StackPlan

    shutil.copytree(whole_chain, tmp_path / "ran")
    return StackPlan.open(tmp_path / "ran" / "results" / "cells" / "tiles.json"), tmp_path / "ran" / "model"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the workflows: they take longest, and one worker has them all."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one worker, and all that use the same project to the same: then it is made once.

    The marker `xdist_group` of pytest-xdist 3.8 does nothing under pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            text = (config.rootpath / file).read_text(encoding="utf-8")
            return next((name for name in ("finished_project", "faked: Workspace") if name in text), file)

    return ByFixture(config, log)


def pytest_collection_finish() -> None:
    """Leave what was imported out of later searches for garbage: it never is any, and there is much of it."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not CI or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(word in reason for word in UNAVOIDABLE):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where everything but {', '.join(UNAVOIDABLE)} must be there: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(report)
    return report
