"""The time of a training step, by which a budget of seconds becomes a number of steps."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from comparison.datasets import CELLS
from comparison.results import timed
from comparison.variants import as_plain, merged, with_steps
from unet_pipeline.config.checks import from_dict
from unet_pipeline.stacks.demo import cells
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh

MOST_STEPS = 2000
"""Of a trial."""
TRIAL_S = 1.5
"""Seconds of steps that a trial takes at least."""
EDGE_PX = 512
"""Of the drawn plane that trials learn from."""

Train = Callable[[int, Path], object]
"""Trains so many steps into a folder."""


def measure(kind: Mapping[str, Any]) -> float:
    """Return the seconds of a training step of a kind, by trials on drawn cells.

    The fastest of three short trainings counts, because other work can only slow one down; on one CPU thread by
    processor time, which hardly feels what else runs (wall time was seen ten times as long).

    Args:
        kind: from `Run.kind`: the peer's name or "", and sections model, train and compute.
    """
    config = merged(as_plain(from_dict({})), {name: kind[name] for name in ("model", "train", "compute")})
    config = merged(config, {"labels": CELLS})
    alone = (config["compute"]["device"], config["compute"]["threads"]) == ("cpu", 1)
    clock = time.process_time if alone else time.perf_counter
    with tempfile.TemporaryDirectory() as place:
        weighed = drawn_stack(Path(place), config)
        train = _peers(kind, config, weighed) if kind["peer"] else _ours(config, weighed)
        return pace(lambda steps: timed(lambda: _anew(train, steps, Path(place, "trial")), clock))


def drawn_stack(folder: Path, config: Mapping[str, Any]) -> Path:
    """Draw a plane of cells, ingest and weigh it; return `weigh.json`."""
    grey, ids = cells((EDGE_PX, EDGE_PX), np.random.default_rng(0), 30.0)
    image = np.clip(40 + 150 * grey, 0, 255).astype(np.uint8)
    for name, plane in (("image", image), ("labels", ids.astype(np.uint16))):
        tifffile.imwrite(folder / f"{name}.tif", plane[None], photometric="minisblack")
    checked, record = from_dict(config), folder / "drawn" / "ingest.json"
    ingest(Source("drawn", str(folder / "image.tif"), str(folder / "labels.tif")), checked, record)
    weigh(Stack.open(record), checked, record.with_name("weigh.json"))
    return record.with_name("weigh.json")


def _ours(config: Mapping[str, Any], weighed: Path) -> Train:
    from unet_pipeline.train.train import train_model

    def train(steps: int, folder: Path) -> None:
        train_model([weighed], [weighed], from_dict(with_steps(config, steps, validations=1)), folder)

    return train


def _peers(kind: Mapping[str, Any], config: Mapping[str, Any], weighed: Path) -> Train:
    from comparison.peer import Peer, planes_of  # only who has MONAI can

    peer, planes = Peer(config, 0), planes_of(weighed.with_name("ingest.json"))
    return lambda steps, folder: peer.train(planes, planes, steps, 1)


def _anew(train: Train, steps: int, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    train(steps, folder)


def pace(seconds_of: Callable[[int], float]) -> float:
    """Return seconds per step from the fastest trainings of a few and of many steps; the first of all warms up.

    Many are as many as make a difference of `TRIAL_S`, so that it stands out of what other work adds to either.
    """
    few, many = 2, 6
    seconds_of(few)
    once = _fastest(seconds_of, few)
    while (more := _fastest(seconds_of, many) - once) < TRIAL_S and many < MOST_STEPS:
        many = few + math.ceil((many - few) * min(8.0, max(2.0, 1.3 * TRIAL_S / max(more, 0.05))))
    return more / (many - few) if more > 0 else once / few


def _fastest(seconds_of: Callable[[int], float], steps: int) -> float:
    return min(seconds_of(steps) for _ in range(3))
