"""Training by a budget of time: how many steps it buys, and what the training then took."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from comparison.clock import timed
from comparison.variants import Budget, merged, steps_for, with_steps
from unet_pipeline.config.checks import from_dict
from unet_pipeline.train.train import train_model

MOST_STEPS = 2000
"""Of a trial."""
TRIAL_S = 1.5
"""Seconds of steps that a trial takes at least."""


def learn(about: Mapping[str, Any], weighed: Path, validating: Path, model: Path) -> dict[str, Any]:
    """Train as `python -m unet_pipeline train` does; return steps, output pixels learned from, and seconds.

    Args:
        about: from `Run.about`.
        weighed: `weigh.json` of what trains.
        validating: likewise, of what chooses the weights.
        model: folder of the model.
    """
    config, budget = about["config"], Budget(**about["budget"])

    def train(steps: int, folder: Path, less: Mapping[str, Any]) -> float:
        chosen = from_dict(merged(with_steps(config, steps, about["seed"]), less))
        return timed(lambda: train_model([weighed], [validating], chosen, folder), budget.clock)

    def trial(steps: int) -> float:
        with tempfile.TemporaryDirectory() as place:
            return train(steps, Path(place), {"train": {"validate_every": MOST_STEPS, "validate_tiles": 1}})

    step_seconds = None if budget.seconds is None else pace(trial)
    steps = steps_for(config, budget, step_seconds)
    shutil.rmtree(model, ignore_errors=True)  # one that was cut off is not resumed: its first part would not be timed
    seconds = train(steps, model, {})
    return {
        "steps": steps,
        "seen_px": steps * config["train"]["batch"] * config["train"]["tile_px"] ** 2,
        "seconds": seconds,
    }


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
