"""What is compared: presets, what they are without one of their parts, and the peer; all under one budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from unet_pipeline.config.files import load_merged
from unet_pipeline.config.keys import plain
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError, nearest_name

PRESETS = Path(__file__).parents[2] / "workflow" / "presets"
PEERS = ("monai", "stardist")
ABLATIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "no weight map": {"weigh": {"w0": 0.0}},
    "no gap": {"weigh": {"gap_px": 0}},
    "no elastic": {"augment": {"elastic_std_px": 0.0}},
}
"""The ablation the paper never printed: what is left out, as keys of the configuration."""

DEFAULT = "default"
"""The row that is config.yaml itself."""
SAME: Mapping[str, Mapping[str, Any]] = {
    "ingest": {"sizes": "same"},
    "model": {"resize_output": False, "encoder_weights": None},
    "train": {"hold_out": 0.0, "freeze_steps": 0},
    "watch": {"tensorboard": False, "samples": False},
}
"""What no row may do: see other pixels, choose by other planes, bring weights not at hand, or write as it learns."""

VALIDATIONS = 6
"""How often a training looks at the validation planes, and how often the peer does."""


@dataclass(frozen=True)
class Budget:
    """What every training may cost, and what keeps a small machine's trainings small.

    Attributes:
        seconds: of the steps of a training, by `clock`; None: `steps` count.
        steps: updates by one tile of `tile_px`; every preset sees as many pixels of output as these have.
        width: most channels of a network's first level; None: the preset's.
        tile_px: largest training tile, px of output; None: the preset's.
        planes: most planes of a fold that are tested, evenly chosen; None: all.
        device: auto, cpu or cuda.
        threads: CPU threads of a run.
    """

    seconds: float | None = 360.0
    steps: int = 0
    width: int | None = None
    tile_px: int | None = None
    planes: int | None = 8
    device: str = "cpu"
    threads: int = 1

    @property
    def name(self) -> str:
        """What to call it, e.g. "6 min" or "200 steps"."""
        return f"{self.steps} steps" if self.seconds is None else f"{self.seconds / 60:g} min"

    def words(self) -> str:
        """Say the budget in a sentence."""
        size = [] if self.width is None else [f"networks with at most {self.width} channels in the first level"]
        size += [] if self.tile_px is None else [f"training tiles of at most {self.tile_px} px"]
        size += [] if self.planes is None else [f"at most {self.planes} test planes a fold, evenly chosen"]
        how = f"{self.device}, {self.threads} thread(s) a run"
        if self.seconds is None:
            most = f"as many pixels of output as {self.steps} tiles of {self.reference_px} px have"
        else:
            cpu = "of the process's CPU time" if self.clock is time.process_time else "of wall time"
            most = f"{self.seconds:g} s {cpu} for its steps (drawing and changing tiles, learning)"
        return f"Each training gets {most}; {'; '.join([*size, how])}."

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds: of the process on one CPU thread, which hardly feel what else runs; else of the wall."""
        return time.process_time if (self.device, self.threads) == ("cpu", 1) else time.perf_counter

    @property
    def reference_px(self) -> int:
        """Edge of the tile that `steps` counts."""
        return self.tile_px or 384


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: of the row.
        preset: whose configuration it starts from; for a peer what gives the targets and the objects.
        changes: keys that differ from the preset.
        peer: the peer's name, or empty for this package.
    """

    name: str
    preset: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peer: str = ""


def variants(presets: list[str], ablated: str, peers: list[str]) -> list[Variant]:
    """Return the rows: each preset, the ablations of one of them (none with an empty name), and the peers."""
    rows = [Variant(name, name) for name in presets]
    if ablated:
        rows += [Variant(f"{ablated}, {what}", ablated, changes) for what, changes in ABLATIONS.items()]
    return rows + [Variant(name, presets[0], peer=name) for name in peers]


@cache
def load_preset(name: str) -> dict[str, Any]:
    """Return the whole configuration of a preset, or config.yaml's as `DEFAULT`, as plain values.

    Raises:
        PipelineError: there is no such preset; the nearest name is given.
    """
    if name == DEFAULT:
        return as_plain(load_merged([]))
    known = sorted([DEFAULT, *(path.stem for path in PRESETS.glob("*.yaml"))])
    if name not in known:
        raise PipelineError("comparison: presets", f"names of {', '.join(known)}", name, nearest_name(name, known))
    return as_plain(load_merged([str(PRESETS / f"{name}.yaml")]))


def as_plain(config: Config) -> dict[str, Any]:
    """Return every section of a configuration as plain values."""
    return {section.name: plain(getattr(config, section.name)) for section in fields(config)}


def merged(config: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the keys of `changes` over it, section by section; the last counts."""
    result = dict(config)
    for change in changes:
        for name, section in change.items():
            result[name] = {**result[name], **section} if isinstance(section, Mapping) else section
    return result


def sized(config: Mapping[str, Any], budget: Budget, plane_px: tuple[int, int]) -> dict[str, Any]:
    """Return a configuration cut down to the budget, still with the preset's own number of steps.

    Args:
        config: of the preset and the data set.
        budget: what the training may cost.
        plane_px: height and width of a plane: it is predicted in one tile.
    """
    model, train = dict(config["model"]), dict(config["train"])
    if budget.width is not None:
        model["base_channels"] = min(model["base_channels"], budget.width)
    if budget.tile_px is not None:
        train["tile_px"] = min(train["tile_px"], budget.tile_px)
    compute = {**config["compute"], "device": budget.device, "threads": budget.threads}
    edge = -(-max(plane_px) // 64) * 64  # a multiple of every pooling stride
    return merged(config, {"model": model, "train": train, "compute": compute, "tile": {"tile_px": edge, "regions": 1}})


def with_steps(config: Mapping[str, Any], steps: int, seed: int = 0) -> dict[str, Any]:
    """Return a configuration whose training has this many steps, and what counts in steps in proportion."""
    train = dict(config["train"])
    share = steps / train["steps"]
    train |= {"steps": steps, "seed": seed, "warmup": min(train["warmup"], steps // 10)}
    train["validate_every"] = max(1, -(-steps // VALIDATIONS))
    if train.get("freeze_steps"):
        train["freeze_steps"] = round(train["freeze_steps"] * share)
    return merged(config, {"train": train})


def steps_for(config: Mapping[str, Any], budget: Budget, step_seconds: float | None) -> int:
    """Return how many steps the budget buys, at least 1.

    Args:
        config: sized by the budget.
        budget: what the training may cost.
        step_seconds: what a step takes; None where the budget is in pixels.
    """
    if budget.seconds is not None and step_seconds is not None:
        return max(1, round(budget.seconds / step_seconds))
    seen = config["train"]["batch"] * config["train"]["tile_px"] ** 2
    return max(1, round(budget.steps * budget.reference_px**2 / seen))
