"""Projects as small as can be, and what of them must be equal."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import tifffile
from chain import draw
from real_project import TABLE, TINY, write
from workspace import Workspace, fake_checkout

GATE = """
import os, time
from pathlib import Path
print(json.dumps({name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURMD_NODENAME")}))
if verb in Path("hold").read_text().split():
    Path(f"started {verb}").touch()
    while verb in Path("hold").read_text().split():
        time.sleep(0.1)
"""
"""A faked stage says where it runs, and waits while the file `hold` names it."""


CONFIG = TINY | {"train": TINY["train"] | {"steps": 400, "validate_every": 100}}
"""Training long enough to be met while it runs."""


def drawn(folder: Path) -> Workspace:
    """A project with real pictures and real stages."""
    space = Workspace(folder)
    space.config = CONFIG
    images = folder / "my images"
    (images / "new").mkdir(parents=True)
    write(images, "learn", (96, 96), 1, 1)
    write(images, "val", (64, 64), 1, 2)
    write(images, "unseen", (70, 101), 2, 3)
    for plane, grey in enumerate(draw(2, (40, 57), 4)[0]):
        tifffile.imwrite(images / "new" / f"plane {plane}.tif", grey.astype(np.uint16) * 100)
    space.table(*TABLE)
    return space


class Faked(Workspace):
    """A project with faked stages, which can be held so that a test meets them running."""

    def __init__(self, folder: Path, stacks: int) -> None:
        checkout = fake_checkout(folder / "check out")
        main = checkout / "unet_pipeline" / "__main__.py"
        main.write_text(main.read_text().replace("read = [", f"{GATE}\nread = [", 1))
        super().__init__(folder / "my project", checkout)
        rows = ["stack | image | labels | role", "learn | learn.tif | learn_.tif | train"]
        rows += [f"s{number} | s{number}.tif | s{number}_.tif | test" for number in range(stacks)]
        for name in re.findall(r"\S+\.tif", " ".join(rows)):
            (self.folder / name).write_text(name)
        self.table(*rows)
        self.hold()

    def hold(self, *verbs: str) -> None:
        """Let these stages wait, and no others."""
        (self.folder / "hold").write_text(" ".join(verbs))

    def started(self, verb: str) -> bool:
        return (self.folder / f"started {verb}").exists()

    def finished(self) -> bool:
        return (self.folder / "results" / "report.html").exists()

    def places(self, rule: str) -> list[dict[str, str | None]]:
        """What the jobs of a rule said of where they ran."""
        path = self.folder / "results" / "logs" / rule
        logs = path.rglob("*.log") if path.is_dir() else [path.with_suffix(".log")]
        return [json.loads(log.read_text().splitlines()[0]) for log in logs]


def arrays(space: Workspace) -> dict[str, bytes]:
    """Every chunk of every store, and the weights: what must come out the same whatever happened."""
    results = space.folder / "results"
    files = [path for path in results.rglob("*") if path.is_file() and ".zarr/" in path.as_posix()]
    files += [results / "model" / "weights.safetensors", results / "model" / "history.tsv"]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def shards(space: Workspace) -> dict[str, list]:
    """Checksums of all predicted shards, by record."""
    results = space.folder / "results"
    return {
        str(path.relative_to(results)): json.loads(path.read_text())["shards"]
        for path in sorted(results.glob("*/regions/*.json"))
    }


def forget(space: Workspace, *patterns: str) -> None:
    """Remove results, so that their jobs run again."""
    for pattern in patterns:
        found = list((space.folder / "results").glob(pattern))
        assert found, pattern
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
