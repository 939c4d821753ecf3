"""What a user reads when a job fails, in a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from workspace import Workspace


def test_a_failed_job_says_once_what_is_wrong(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "my project")
    tifffile.imwrite(space.folder / "whole.tif", np.zeros((64, 64), np.uint8))
    (space.folder / "cut.tif").write_bytes((space.folder / "whole.tif").read_bytes()[:1000])
    space.table("stack | image | labels | role", "cut | cut.tif | whole.tif | train")
    target = "results/cut/ingest.json"
    ran = space.run(target)
    assert ran.code == 1
    assert ran.text.count("error: cut.tif: expected") == ran.text.count("what to do:") == 1, ran.text
    assert "log: results/logs/ingest/cut.log" in ran.text
    assert "--config" not in ran.text and "Traceback" not in ran.text and "message: None" not in ran.text
    assert "--config" in space.run(target, "--printshellcmds").text
