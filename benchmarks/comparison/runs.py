"""The runs of the comparison: data set × fold × variant × budget, each a project of its own for the workflow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comparison.datasets import DataSet, data_sets
from comparison.splits import SPLITS, Split, planes_text, read_splits
from comparison.variants import PEERS, SAME, Budget, Variant, load_preset, merged, sized, variants
from unet_pipeline import __version__
from unet_pipeline.config.checks import from_dict
from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.records.files import write_text

ROLES = ("train", "val", "test")
COLUMNS = ("stack", "image", "labels", "role", "axes", "label_axes", "planes")
DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Options:
    """What is compared; see config.yaml beside this file. Lists may be given as words with spaces between."""

    data: tuple[str, ...]
    presets: tuple[str, ...]
    ablate: str
    ablate_on: tuple[str, ...]
    peers: tuple[str, ...]
    folds: tuple[int, ...]
    minutes: tuple[float, ...]
    steps: int
    width: int
    tile_px: int
    planes: int
    device: str
    threads: int
    keep: bool
    root: str
    splits: str

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Options:
        """Check plain values, of a YAML file or of `snakemake --config`.

        Raises:
            PipelineError: an unknown or missing key, or a value of another kind.
        """
        hints = {field.name: str(field.type) for field in fields(cls)}
        for name in values:
            if name not in hints:
                raise PipelineError("comparison", f"keys {', '.join(hints)}", name, nearest_name(name, hints))
        if missing := [name for name in hints if name not in values]:
            raise PipelineError("comparison", f"keys {', '.join(hints)}", f"no {missing[0]}", fix="see config.yaml")
        return cls(**{name: _value(name, hint, values[name]) for name, hint in hints.items()})

    @property
    def budgets(self) -> list[Budget]:
        """What a training may cost: one budget for each of `minutes`, or that of `steps`."""
        size = (self.width or None, self.tile_px or None, self.planes or None, self.device, self.threads)
        if self.steps:
            return [Budget(None, self.steps, *size)]
        return [Budget(60 * minutes, 0, *size) for minutes in self.minutes]

    @property
    def folder(self) -> Path:
        """The folder of data sets."""
        return Path(self.root or os.environ.get("UNET_PIPELINE_DATA") or DATA)

    @property
    def installed(self) -> list[str]:
        """The peers that can run here."""
        return [name for name in self.peers if find_spec(name)]


def _value(name: str, hint: str, value: Any) -> Any:
    """Return a value of the type that `hint` names; a list may be words, and a single one may stand alone."""
    value = "" if value is None else value  # what `--config ablate=` gives
    try:
        if not hint.startswith("tuple"):
            kind = {"str": str, "int": int, "bool": bool}[hint]
            if kind is not str and not isinstance(value, kind):
                raise ValueError(value)
            return kind(value)
        kind = {"str": str, "int": int, "float": float}[hint[len("tuple[") :].split(",")[0]]
        words = value if isinstance(value, list | tuple) else str(value).split()
        return tuple(kind(word) for word in words)
    except (TypeError, ValueError) as error:
        raise PipelineError(f"comparison: {name}", hint.replace("tuple", "list"), repr(value)) from error


@dataclass(frozen=True)
class Run:
    """One run: a variant on a fold of a data set under a budget.

    Attributes:
        data, split, variant, budget: what is run.
        root: the folder of data sets.
    """

    data: DataSet
    split: Split
    variant: Variant
    budget: Budget
    root: Path

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.data.name}, fold {self.split.fold}, {self.variant.name}, {self.budget.name}"

    @property
    def folder(self) -> str:
        """Where it runs, below the working directory: the prefix of its module."""
        parts = (self.variant.name, self.budget.name)
        row, cost = (text.replace(", ", "-").replace(" ", "_") for text in parts)
        return f"{self.data.name}/fold{self.split.fold}/{row}/{cost}"

    @property
    def module(self) -> str:
        """The beginning of the names of its rules."""
        return re.sub(r"\W", "_", self.folder) + "__"

    def config(self) -> dict[str, Any]:
        """Return its configuration; the number of steps is still the preset's.

        Raises:
            PipelineError: unknown preset, or keys that contradict each other.
        """
        _, height, width = self.data.shape(self.root)
        whole = merged(load_preset(self.variant.preset), SAME, self.data.keys, self.variant.changes)
        config = sized(whole, self.budget, (height, width)) | {"stacks": f"{self.folder}/stacks.tsv"}
        from_dict(config)
        return config

    def planes(self) -> dict[str, str]:
        """Return the planes of each role, as a table of stacks says them."""
        test = self.split.test
        if self.budget.planes is not None and len(test) > self.budget.planes:
            test = tuple(test[len(test) * index // self.budget.planes] for index in range(self.budget.planes))
        parts = (self.split.train, self.split.val, test)
        return {role: planes_text(part) for role, part in zip(ROLES, parts, strict=True)}

    def about(self) -> dict[str, Any]:
        """Return all that its scores depend on, beside its images and the code."""
        return {
            "run": self.name,
            "version": __version__,
            "peer": self.variant.peer,
            "config": self.config(),
            "planes": self.planes(),
            "seed": self.split.fold,
            "budget": asdict(self.budget),
        }

    def write_table(self) -> None:
        """Write its table of stacks, if that is not there already."""
        image, labels = (str((self.root / path).resolve()) for path in (self.data.images, self.data.labels))
        axes = self.data.axes
        rows = [(role, image, labels, role, axes, axes, planes) for role, planes in self.planes().items()]
        text = "\n".join("\t".join(row) for row in (COLUMNS, *rows)) + "\n"
        path = Path(self.folder, "stacks.tsv")
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def rows_of(options: Options) -> list[Variant]:
    """Return the rows of the table, without peers that are not installed.

    Raises:
        PipelineError: an unknown preset or peer; the nearest is given.
    """
    for name in options.presets:
        load_preset(name)
    for name in options.peers:
        if name not in PEERS:
            raise PipelineError("comparison: peers", f"of {', '.join(PEERS)}", name, nearest_name(name, PEERS))
    return variants(list(options.presets), options.ablate, options.installed)


def runs_of(options: Options) -> list[Run]:
    """Return the runs, the first fold of everything first, so that an interrupted comparison compares.

    An ablation that changes nothing on a data set is left out.

    Raises:
        PipelineError: unknown names, data that is not there, folds that the splits lack, or no budget.
    """
    rows, folder = rows_of(options), options.folder
    splits = Path(options.splits or SPLITS)
    found = [
        Run(data, split, row, budget, folder)
        for data in data_sets(list(options.data))
        for split in read_splits(data.name, data.shape(folder)[0], splits)
        if split.fold in options.folds
        for row in rows
        for budget in options.budgets
    ]
    found.sort(key=lambda run: run.split.fold)
    if not found:
        raise PipelineError("comparison", f"data, folds that {splits} has, and minutes", "none")
    return [run for run in found if _fits(run) and (not run.variant.changes or _ablates(options, run))]


def _fits(run: Run) -> bool:
    """Return whether its system is meant for such objects: star-convex polygons are no neurites."""
    return run.variant.peer != "stardist" or run.data.keys["labels"]["kind"] == "instances"


def _ablates(options: Options, run: Run) -> bool:
    """Return whether an ablation is wanted on its data set and leaves something out there."""
    whole = Variant(run.variant.preset, run.variant.preset)
    base = Run(run.data, run.split, whole, run.budget, run.root).config() | {"stacks": ""}
    wanted = not options.ablate_on or run.data.name in options.ablate_on
    return wanted and run.config() | {"stacks": ""} != base
