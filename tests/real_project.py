"""A project whose pictures are as small as can be, for tests that run the real stages through Snakemake."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tifffile
from chain import draw
from workspace import Workspace

TINY = {
    "store": {"chunk_px": 32, "shard_px": 64},
    "model": {"depth": 2, "base_channels": 4},
    "train": {
        "steps": 20,
        "tile_px": 32,
        "warmup": 2,
        "validate_every": 10,
        "validate_tiles": 2,
    },
    "tile": {"tile_px": 48},
    "measure": {"formats": ["csv"]},
    "report": {"panel_px": 64},
    "compute": {"threads": 1, "device": "cpu", "checkpoint_minutes": 0},
}
TABLE = (
    "stack   | image                | labels               | role    | regions",
    "learn   | my images/learn.tif   | my images/learn_.tif | train   |",
    "val     | my images/val.tif     | my images/val_.tif   | val     |",
    "unseen  | my images/unseen.tif  | my images/unseen_.tif | test    | 2",
    "new     | my images/new/*.tif   |                      | predict |",
)


def write(folder: Path, name: str, shape: tuple[int, int], planes: int, seed: int) -> None:
    """Write cells and their labels as `{name}.tif` and `{name}_.tif`."""
    image, labels = draw(planes, shape, seed)
    tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / f"{name}_.tif", labels, photometric="minisblack")


def project(folder: Path) -> Workspace:
    """Write pictures, table and configuration; nothing has run yet."""
    space = Workspace(folder)
    space.config = TINY
    images = space.folder / "my images"
    (images / "new").mkdir(parents=True)
    write(images, "learn", (96, 96), 1, 1)
    write(images, "val", (64, 64), 1, 2)
    write(images, "unseen", (70, 101), 2, 3)
    for plane, grey in enumerate(draw(2, (40, 57), 4)[0]):
        tifffile.imwrite(images / "new" / f"plane {plane}.tif", grey.astype(np.uint16) * 100)
    space.table(*TABLE)
    return space


def copied(space: Workspace, folder: Path) -> Workspace:
    """Copy a project with its results, to be changed."""
    shutil.copytree(space.folder, folder)
    copy = Workspace(folder)
    copy.config = space.config
    return copy
