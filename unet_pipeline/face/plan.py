"""Plan: before anything runs, what is there, which settings would suit it better, and what a run takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unet_pipeline.config.keys import build, plain
from unet_pipeline.config.network_section import Model
from unet_pipeline.config.sections import Config
from unet_pipeline.face.advice import Advice, advise
from unet_pipeline.face.cost import Cost, measure_cost, stored_bytes
from unet_pipeline.images.ngff import Grid
from unet_pipeline.machine.progress import tell
from unet_pipeline.model.card import architecture, read_card
from unet_pipeline.model.voxels import Voxel
from unet_pipeline.stacks.boundary_settings import gap_of, sigma_of
from unet_pipeline.stacks.graph import Graph
from unet_pipeline.stacks.ingest import Source, grid_of, open_image, open_labels
from unet_pipeline.stacks.object_sizes import ObjectSizes, look_at_objects
from unet_pipeline.stacks.table import StackRow
from unet_pipeline.train.automatic import settle
from unet_pipeline.train.folds import check_planes

LINE = "{:<16} {:<8} {:>6} {:>16} {:>8} {:<8} {}"
"""A line of the table of stacks."""

BETWEEN = 0.8
"""Share of a training's time that its steps take; the rest reads, validates and writes checkpoints."""


@dataclass(frozen=True)
class Found:
    """A stack as it lies on disk.

    Attributes:
        row: of the table.
        shape: (planes, channels, height, width).
        dtype: of the grey values.
        sizes: of its labelled objects, where it trains or validates; else None.
        grid: its planes, their size and that of a voxel.
    """

    row: StackRow
    shape: tuple[int, int, int, int]
    dtype: np.dtype[np.generic]
    sizes: ObjectSizes | None
    grid: Grid

    @property
    def pixels(self) -> int:
        """Pixels of all planes."""
        planes, _, height, width = self.shape
        return planes * height * width


def plan(graph: Graph, minutes: float | None = None) -> str:
    """Look at the stacks of a table, and return what was found, what is advised and what a run takes, for people.

    Args:
        graph: configuration and table, checked.
        minutes: that training may take on this machine, from which the number of steps follows; None: as configured.

    Raises:
        PipelineError: for whatever the first steps of the workflow would refuse, as far as a few planes show it.
    """
    found = [_look(row, graph.config) for row in graph.used]
    lines = [*_stacks(found)]
    seen = [one.sizes for one in found if one.sizes is not None]
    training = [one for one in found if one.row.role == "train"] or found
    sides = min(one.shape[2] for one in training), min(one.shape[3] for one in training)
    sizes, advised = ObjectSizes.merge(seen), []
    given = _with_model(graph.config)
    voxels = _voxels(found, given)
    config, said = settle(given, sizes, sides, voxels)
    if seen:
        lines += ["", *_objects(sizes, config)]
    if seen and config.model.folder is None:
        planes, validated = sum(one.shape[0] for one in training), bool(graph.with_role("val"))
        lines += [*_validation(graph, planes), *(f"{name} comes to {text}" for name, text in said.items())]
        advised = [one for one in advise(config, sizes, planes, validated, sides) if one.key not in said]
        config, _ = settle(with_advice(given, advised), sizes, sides, voxels)
    folder, channels = config.model.folder, found[0].shape[1]
    network = (
        architecture(config.model, channels, len(config.labels.classes))
        if folder is None
        else read_card(Path(folder)).architecture
    )
    tell("plan: measures how long a step and a tile take here")
    cost = measure_cost(network, config)
    if minutes is not None and folder is None:
        advised += _steps(config, cost, minutes)
        config = with_advice(config, advised)
    if seen and folder is None:
        lines += ["", *_advice(advised), *_preset(config, cost)]
    lines += ["", *_costs(found, graph, config, cost)]
    return "\n".join(lines)


def _look(row: StackRow, config: Config) -> Found:
    """Open a stack as ingest would, and look at a few planes of its labels if it is learned from."""
    source = Source(
        row.stack,
        row.image,
        row.labels,
        row.axes,
        row.label_axes,
        planes=row.planes,
        label_planes=row.label_planes,
        names=row.names,
        series=int(row.series) if row.series else None,
        pixel_um=float(row.pixel_um) if row.pixel_um else None,
        step=float(row.step) if row.step else None,
    )
    image = open_image(source, config.ingest)
    sizes = None
    if row.labels and row.role in ("train", "val"):
        sizes = look_at_objects(open_labels(source, config.ingest, image), config.labels, row.labels)
    return Found(row, image.shape, image.dtype, sizes, grid_of(source, image))


def _with_model(config: Config) -> Config:
    """Return the configuration with the depths of the model that it names: they are open no more."""
    if config.model.folder is None:
        return config
    network = read_card(Path(config.model.folder)).architecture
    model = replace(config.model, depth=network.depth, dimensions=network.dimensions)
    return replace(config, model=replace(model, z_levels=network.z_levels or "auto"))


def _voxels(found: Sequence[Found], config: Config) -> list[Voxel]:
    """Return the voxels by which a network of volumes is built; refuses stacks, predicted ones too, that are none."""
    if config.model.dimensions == 2:
        return []
    voxels = [(one.row.role, Voxel.of(one.row.stack, one.grid)) for one in found]
    return [voxel for role, voxel in voxels if role in ("train", "val")]


def _stacks(found: Sequence[Found]) -> Iterator[str]:
    head = ("stack", "role", "planes", "height x width", "channels", "type", "objects looked at")
    yield LINE.format(*head).rstrip()
    for one in found:
        planes, channels, height, width = one.shape
        seen = f"{len(one.sizes.diameters_px):,} in {one.sizes.planes} planes" if one.sizes else ""
        size = f"{height:,} x {width:,}"
        yield LINE.format(one.row.stack, one.row.role, planes, size, channels, one.dtype.name, seen).rstrip()


def _objects(sizes: ObjectSizes, config: Config) -> Iterator[str]:
    low, median, high = (sizes.diameter_px(percent) for percent in (10, 50, 90))
    yield (
        f"objects: {median:.0f} px across in the median, {low:.0f} to {high:.0f} px without the smallest and largest "
        f"tenth; {100 * sizes.contact_share:.0f} % of their outlines lie along another"
    )
    auto = [
        ("sigma", sigma_of(sizes), config.weigh.sigma),
        ("gap_px", gap_of(sizes, config.labels), config.weigh.gap_px),
    ]
    if found := [f"{name} {value:g} px" for name, value, now in auto if now == "auto"]:
        yield f"so section weigh comes to {' and '.join(found)}, for each stack by its own objects"
    if sizes.empty:
        yield f"{sizes.empty} of the {sizes.planes} planes looked at have no object"


def _validation(graph: Graph, planes: int) -> Iterator[str]:
    """Say what chooses weights and objects, and refuse more folds than there are planes."""
    train, stacks = graph.config.train, graph.with_role("val")
    share = train.held_out_share(planes, bool(stacks))
    if share or train.folds > 1:
        check_planes(planes, train)
    drawn = [f"{100 * share:.3g} % of the {planes} planes of the stacks that train"] if share else []
    named = [", ".join(stacks)] if stacks else []
    if train.folds > 1:
        yield f"weights and objects are chosen by each of {train.folds} folds in turn"
    elif drawn or named:
        yield f"weights and objects are chosen by {' and '.join(drawn + named)}, which the network does not learn from"


def _steps(config: Config, cost: Cost, minutes: float) -> list[Advice]:
    """Return how many steps a training of some minutes has: a number to keep, as another machine would find another."""
    steps = max(1, int(60 * minutes * BETWEEN / (cost.step_s * max(1, config.train.folds))))
    why = f"what {minutes:g} minutes buy at {cost.step_s:.2g} s a step{_folds(config)}, reading and validating too"
    return [Advice("train.steps", config.train.steps, steps, why)]


def _advice(advised: Sequence[Advice]) -> Iterator[str]:
    if not advised:
        yield "the configuration suits these objects"
        return
    yield "these keys would suit them better:"
    for one in advised:
        yield f"  {one.key}: {one.advised}    # now {one.now}: {one.why}"
    sections: dict[str, list[str]] = {}
    for one in advised:
        section, _, name = one.key.partition(".")
        sections.setdefault(section, []).append(f"{name}: {one.advised}")
    yield "in config.yaml, or in a file for Snakemake's --configfile:"
    for section, keys in sections.items():
        yield f"  {section}: {{{', '.join(keys)}}}"


def _preset(config: Config, cost: Cost) -> Iterator[str]:
    """Name the preset for trainings on a CPU, where nothing was said that speaks for another network."""
    model = config.model
    if cost.device == "cpu" and model == replace(Model(), depth=model.depth, dropout=model.dropout):
        yield (
            "on a CPU the preset `fast` finds more in a training of the same minutes (benchmarks/real_data.md): "
            "--configfile workflow/presets/fast.yaml"
        )


def with_advice(config: Config, advised: Sequence[Advice]) -> Config:
    """Return the configuration with what is advised."""
    for one in advised:
        section, _, name = one.key.partition(".")
        old = getattr(config, section)
        config = replace(config, **{section: build(type(old), plain(old) | {name: one.advised}, section)})
    return config


def _costs(found: Sequence[Found], graph: Graph, config: Config, cost: Cost) -> Iterator[str]:
    predicted = [one for one in found if one.row.stack in graph.predicted]
    mpx = sum(one.pixels for one in predicted) / 1e6
    yield f"with that, on {cost.where} of this machine, if it has nothing else to do than just now:"
    if config.model.folder is None:
        most = "" if config.train.patience is None else "at most "
        steps = f"{most}{config.train.steps:,} steps{_folds(config)}"
        train_s = cost.step_s * config.train.steps * max(1, config.train.folds)
        yield f"  train    {_minutes(train_s)} ({steps}), and the reading and validating between"
    if predicted:
        yield f"  predict  {_minutes(cost.predict_s_per_mpx * mpx)} ({mpx:,.3g} Mpx in {len(predicted)} stacks)"
    total = sum(
        stored_bytes(
            one.pixels, one.shape[1], one.dtype.itemsize, config, one.row.role in ("train", "val"), one in predicted
        )
        for one in found
    )
    yield f"  disk     {total / 1e9:,.3g} GB at most, before compression"


def _folds(config: Config) -> str:
    return f", {config.train.folds} networks" if config.train.folds > 1 else ""


def _minutes(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds > 7200
        else f"{seconds / 60:.0f} min"
        if seconds > 90
        else f"{seconds:.0f} s"
    )
