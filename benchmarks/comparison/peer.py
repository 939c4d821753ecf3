"""A peer under the same budget, on the same planes: its own network, training and prediction.

Of this package it takes what is no part of the comparison: the planes of the fold and, in the end, the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from comparison.clock import Clock, timed
from comparison.planes import Found, Plane, read_planes
from comparison.results import scores_of
from comparison.scoring import metrics_of
from comparison.variants import Budget
from unet_pipeline.config.checks import from_dict


class Peer(Protocol):
    """Another system, made of the configuration of a run, a seed and the planes to learn from."""

    step_px: int
    """Pixels of output that a step learns from."""

    def train(self, learn: Sequence[Plane], check: Sequence[Plane], clock: Clock) -> None:
        """Train until the clock's budget is used; it is told of each step."""

    def choose(self, check: Sequence[Plane]) -> str:
        """Choose by validation planes how objects are made; return it in words."""

    def objects(self, plane: Plane) -> Found:
        """Find the objects of a plane, of which only the image is looked at."""

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""


def run_peer(about: Mapping[str, Any], table: Path) -> dict[str, Any]:
    """Train, choose how objects are made, predict and score; return what `result_of` returns of a run of this package.

    Args:
        about: from `Run.about`.
        table: of the stacks train, val and test.
    """
    config, budget = from_dict(about["config"]), Budget(**about["budget"])
    planes = read_planes(table, config)
    peer: Peer = import_module(f"comparison.peer_{about['peer']}").make(config, about["seed"], planes["train"])
    clock = Clock(budget, peer.step_px)
    seconds = timed(lambda: peer.train(planes["train"], planes["val"], clock), budget.clock)
    objects = peer.choose(planes["val"])
    found = [peer.objects(plane) for plane in planes["test"]]
    return {
        "scores": scores_of(metrics_of(found, planes["test"], config)),
        "parameters": peer.parameters,
        "objects": objects,
        "steps": clock.steps,
        "seen_px": clock.seen_px,
        "seconds": seconds,
    }
