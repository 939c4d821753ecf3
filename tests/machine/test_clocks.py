"""Nodes whose clocks differ: what a run makes, and what the next one thinks of it. docs/slurm.md says the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from faked_project import FIRST, project
from workspace import Workspace, fake_checkout

HOUR = 3600
SKEWED = """
import os, time
offset = {offset}
for file in files:
    os.utime(file, (time.time() + offset, time.time() + offset))
"""


@pytest.mark.slow
def test_records_dated_by_clocks_that_differ_are_made_once(tmp_path: Path) -> None:
    """Some stages run on nodes an hour ahead of the others or behind them."""
    offsets = {"ingest": HOUR, "train": HOUR, "tile": -HOUR, "predict": -HOUR, "stitch": HOUR}
    checkout = fake_checkout(tmp_path / "check out")
    main = checkout / "unet_pipeline" / "__main__.py"
    skew = SKEWED.format(offset=f"{offsets!r}.get(verb, 0)")
    main.write_text(
        main.read_text().replace("print(json.dumps([verb, *rest]))", skew + "print(json.dumps([verb, *rest]))")
    )
    space = project(tmp_path / "p", checkout)
    ran = space.run("--latency-wait", "1")
    assert ran.code == 0, ran.text
    assert ran.jobs == FIRST
    assert space.would_run() == set()


@pytest.mark.slow
def test_an_image_newer_than_its_results_is_read_again_only_if_it_is_too_large_to_compare(tmp_path: Path) -> None:
    """Both profiles compare up to 1 GB by content; beyond that a time of the future counts."""
    space: Workspace = project(tmp_path / "p", fake_checkout(tmp_path / "check out"))
    (space.folder / "my images" / "d.tif").write_bytes(os.urandom(4_000_000))
    assert space.run().code == 0
    later = time.time() + HOUR
    for name in ("c", "d"):
        os.utime(space.folder / "my images" / f"{name}.tif", (later, later))
    assert space.would_run() == set()
    jobs = space.would_run("--max-checksum-file-size", "1000000")
    assert "ingest d" in jobs
    assert "ingest c.1" not in jobs
