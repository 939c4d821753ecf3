"""The configuration: one frozen dataclass per section, and the single source of keys, ranges, defaults and meanings.

`config.yaml` shows the same defaults with the same comments and `workflow/schemas/config.schema.yaml` is
generated from here; a test holds the three together. A section knows nothing of the others, so that a rule
can be given only the sections it depends on and reruns only when those change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.schema import build, json_schema, key, plain

LARGEST, MOST_ALIASES, DEEPEST = 2**20, 32, 32
"""Bounds of a configuration file: bytes, YAML aliases, and levels of nesting."""

IGNORE = 255
"""The class index of pixels nobody annotated: weight 0 in training, left out of every score."""

Precision = Literal["float32", "bfloat16", "float16"]
Mirror = Literal["none", "flips", "all"]


@dataclass(frozen=True)
class Labels:
    """What the pixel values of label images mean."""

    kind: Literal["instances", "classes"] = key(
        "instances", "instances: 0 is background, every other value one object; classes: values as in `values`"
    )
    classes: tuple[str, ...] = key(("background", "cell"), "class names; the first is the background, at most 32")
    values: dict[int, str] = key(
        {}, "for kind classes: which label value is which class, e.g. {0: background, 255: cell}"
    )
    ignore: int | None = key(None, "label value of pixels nobody annotated; null: there is none", 0, 2**32 - 1)


@dataclass(frozen=True)
class Store:
    """How Zarr arrays are cut and compressed."""

    chunk_px: int = key(512, "edge of a chunk, the unit of reading, px; a multiple of 16", 16, 8192)
    shard_px: int = key(4096, "edge of a shard, the file one job writes, px; a multiple of chunk_px", 16, 65536)
    compression: int = key(3, "Zstandard level; higher is smaller and slower", 0, 19)


@dataclass(frozen=True)
class Normalise:
    """How grey values become the numbers the network sees. Never measured on a tile: that would make seams."""

    method: Literal["percentile", "zscore", "range", "none"] = key(
        "percentile", "percentile: low..high to 0..1; zscore: mean 0, std 1; range: the data type's to 0..1; none"
    )
    low: float = key(1.0, "percentile that becomes 0", 0, 100)
    high: float = key(99.8, "percentile that becomes 1", 0, 100)
    scope: Literal["stack", "model"] = key(
        "stack", "stack: each stack by its own statistics; model: all by those of the training stacks"
    )


@dataclass(frozen=True)
class Weigh:
    """The paper's boundary weight map, Ronneberger 2015 eq. 2."""

    w0: float = key(10.0, "height of the boundary term; 0 turns it off", 0, 1000)
    sigma: float = key(5.0, "width of the boundary term, in `unit`", 0.01, 1000)
    unit: Literal["px", "um"] = key("px", "unit of sigma; um needs the stack's pixel size")
    gap_px: int = key(1, "pixels this near to another object become background, so touching objects part", 0, 32)
    formula: Literal["paper", "release"] = key(
        "paper", "paper: exp(-(d1+d2)^2/(2 sigma^2)); release: without the 2, as the authors' later code"
    )


@dataclass(frozen=True)
class Model:
    """The network; the paper's is depth 4, base_channels 64, dropout 0.5."""

    folder: str | None = key(None, "a finished model folder to use instead of training; null trains one")
    depth: int = key(3, "number of poolings; the pooling stride is 2^depth px", 1, 6)
    base_channels: int = key(16, "channels of the first level; doubled at each pooling", 1, 256)
    dropout: float = key(0.5, "dropout probability at the end of the contracting path", 0, 0.95)


@dataclass(frozen=True)
class Augment:
    """Random changes of a training tile; label and weight follow the image."""

    elastic_std_px: float = key(10.0, "standard deviation of the displacements, px; 0 turns it off", 0, 100)
    elastic_grid: int = key(3, "displacements are drawn on a grid of this many points a side, bicubic between", 2, 64)
    elastic_span_px: int = key(256, "side of the area the grid spans, px, whatever the tile size", 16, 8192)
    rotate: bool = key(True, "any rotation in the plane")
    flip: bool = key(True, "mirror images")
    scale: float = key(0.1, "size changes by a factor up to 1 ± scale", 0, 0.9)
    brightness: float = key(0.1, "added to the normalised values: uniform in ± brightness", 0, 10)
    contrast: float = key(0.2, "normalised values are multiplied by 1 ± contrast", 0, 0.95)
    noise: float = key(0.03, "standard deviation of added Gaussian noise, up to, in normalised values", 0, 10)


@dataclass(frozen=True)
class Train:
    """Stochastic gradient descent on the weighted pixel-wise cross-entropy."""

    steps: int = key(1600, "number of weight updates", 1, 10_000_000)
    batch: int = key(1, "tiles per update; the paper takes one large tile", 1, 1024)
    tile_px: int = key(160, "output tile, px; a multiple of 2^depth", 2, 16384)
    learning_rate: float = key(0.005, "peak learning rate", 1e-9, 10)
    warmup: int = key(50, "steps over which the learning rate rises from 0", 0, 1_000_000)
    schedule: Literal["constant", "cosine"] = key("cosine", "cosine falls to 0 at the last step")
    momentum: float = key(0.99, "momentum; 0.99 makes many past tiles count, as in the paper", 0, 0.9999)
    weight_decay: float = key(0.0, "L2 penalty on the kernels", 0, 1)
    clip: float = key(1.0, "largest norm of a gradient; 0 turns clipping off", 0, 1e6)
    class_weights: Literal["balanced", "none"] = key("balanced", "w_c of eq. 2: inverse class frequency, or 1")
    precision: Precision = key("float32", "number format of the convolutions")
    validate_every: int = key(150, "steps between validations", 1, 10_000_000)
    validate_tiles: int = key(8, "tiles a validation takes, evenly over the validation planes", 1, 100_000)
    checkpoint_every: int = key(100, "steps between checkpoints an interrupted training resumes from", 1, 10_000_000)
    select: Literal["best", "last"] = key("best", "which weights are kept: lowest validation loss, or the last")
    seed: int = key(0, "seed of everything random", 0, 2**31 - 1)
    hold_out: float = key(0.0, "share of the labelled training planes that validate instead of training", 0, 0.9)
    folds: int = key(1, "cross-validation: models trained, each without its share of the planes; 1 trains one", 1, 20)


@dataclass(frozen=True)
class Tile:
    """How an image is cut for prediction; changes speed and memory, never the result."""

    tile_px: int | Literal["auto"] = key(
        "auto", "kept output of one network pass, px; a multiple of 2^depth, or auto: measured and remembered", 2, 16384
    )
    regions: int = key(1, "prediction jobs of a stack (column `regions` of the table overrides)", 1, 100_000)


@dataclass(frozen=True)
class Predict:
    """The forward pass and what is stored of it."""

    precision: Precision = key("float32", "number format of the convolutions")
    batch: int = key(1, "tiles per network pass", 1, 1024)
    probabilities: Literal["uint8", "float16"] = key("uint8", "stored probabilities: 0..255, or 0..1 in half precision")
    mirror: Mirror = key("none", "mirrorings to average over: none, flips (4), or all (8, with transposes)")


@dataclass(frozen=True)
class Stitch:
    """From classes to objects and files."""

    min_area_px: int = key(30, "smaller objects are removed, px (voxels with connect: volume)", 0, 1_000_000_000)
    fill_holes: bool = key(True, "background enclosed by one object becomes that object")
    grow_px: int = key(1, "objects grow into the background by this much; give weigh.gap_px back", 0, 64)
    connect: Literal["planes", "volume"] = key("planes", "objects within a plane, or also from plane to plane")
    tiff: bool = key(False, "also write classes.tif and instances.tif")


@dataclass(frozen=True)
class Evaluate:
    """Which scores are computed where labels exist."""

    isbi: bool = key(False, "ISBI 2012 scores (thinned V_rand, V_info; warping, Rand, pixel error), planes <= 16 Mpx")


@dataclass(frozen=True)
class Report:
    """The page."""

    panel_px: int = key(384, "largest side of a shown crop, px of the image", 64, 4096)
    planes: int = key(1, "planes shown of each stack", 1, 16)


@dataclass(frozen=True)
class Compute:
    """How the machine is used. A change here reruns nothing."""

    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto: CUDA where there is a GPU, else the CPU")
    threads: int = key(2, "CPU threads of a training or prediction job; recorded: it moves float32 sums", 1, 1024)
    compile: bool = key(False, "let torch compile the network of a prediction; where that fails it runs as it is")
    processes: int = key(1, "training processes on one machine, a GPU each; they divide train.batch", 1, 64)


@dataclass(frozen=True)
class Config:
    """All sections. `stacks` names the table of stacks."""

    stacks: str = key("stacks.tsv", "table of the stacks, one row each")
    labels: Labels = Labels()
    store: Store = Store()
    normalise: Normalise = Normalise()
    weigh: Weigh = Weigh()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    tile: Tile = Tile()
    predict: Predict = Predict()
    stitch: Stitch = Stitch()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    compute: Compute = Compute()

    def section(self, *names: str) -> dict[str, Any]:
        """Return the named sections as plain values, for a rule's param."""
        return {name: plain(getattr(self, name)) for name in names}


def load(source: str) -> Config:
    """Read a configuration; absent keys take defaults.

    Args:
        source: a YAML file; or JSON text that starts with `{`, as a rule passes its own sections.

    Raises:
        PipelineError: unreadable, or for the reasons of `from_dict`.
    """
    if source.lstrip().startswith("{"):
        return _from_json(source)
    return from_dict(_read_yaml(source))


def load_merged(sources: Sequence[str] | None) -> Config:
    """Read one configuration from several YAML files, as Snakemake merges them: later keys win, section by section.

    Args:
        sources: the files; None takes `config.yaml` of the working directory or, where there is none, the defaults.

    Raises:
        PipelineError: unreadable, or for the reasons of `from_dict`.
    """
    merged: dict[str, Any] = {}
    for source in sources if sources is not None else [str(path) for path in [Path("config.yaml")] if path.exists()]:
        merged = _merge(merged, _read_yaml(source))
    return from_dict(merged)


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, part in new.items():
        both = isinstance(part, Mapping) and isinstance(old.get(name), Mapping)
        merged[name] = _merge(old[name], part) if both else part
    return merged


def _read_yaml(source: str) -> dict[str, Any]:
    try:
        value = _from_yaml(source, read_small(Path(source), LARGEST))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PipelineError(source, "a readable YAML file", error, fix="correct the file or the path") from error
    if not isinstance(value, dict | None):
        raise PipelineError(source, "sections with keys", repr(value)[:60], fix="correct the file")
    return value or {}


def _from_yaml(source: str, data: bytes) -> Any:
    text = data.decode("utf-8-sig")
    _check_events(source, text)
    return yaml.safe_load(text)


def _check_events(source: str, text: str) -> None:
    """Refuse what would keep the loader busy: aliases of aliases, which grow when merged, and deep nesting."""
    aliases = depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MOST_ALIASES or depth > DEEPEST:
            expected = f"at most {MOST_ALIASES} aliases (*name) and {DEEPEST} levels"
            raise PipelineError(source, expected, "more", fix="write the values out, as config.yaml does")


def _from_json(text: str) -> Config:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PipelineError(
            "--config", "JSON text, or a YAML file", error, fix="quote the text for the shell"
        ) from error
    return from_dict(value, whole=False)


def from_dict(value: Mapping[str, Any], whole: bool = True) -> Config:
    """Check plain values against the sections and build the configuration.

    Args:
        value: sections by name.
        whole: whether absent sections mean their defaults. If not, `value` is the sections of one rule, and keys are
            held against each other only where both sections are there.

    Raises:
        PipelineError: unknown section or key (nearest name given), wrong type, value out of range, or keys that
            contradict each other.
    """
    config = build(Config, value, "config")
    _check_together(config, {f.name for f in fields(Config)} if whole else set(value))
    return config


def _check_together(config: Config, given: set[str]) -> None:
    store, labels = config.store, config.labels
    _check_multiple("store.chunk_px", store.chunk_px, 16, "16")
    _check_multiple("store.shard_px", store.shard_px, store.chunk_px, "store.chunk_px")
    _check_labels(labels)
    if config.normalise.low >= config.normalise.high:
        raise PipelineError(
            "normalise.low", f"less than normalise.high ({config.normalise.high})", config.normalise.low
        )
    if config.train.folds > 1 and config.train.hold_out > 0:
        raise PipelineError("train.hold_out", "0 with train.folds above 1", config.train.hold_out, 0)
    if config.model.folder is None and "model" in given:
        stride = 2**config.model.depth
        edges = {
            "train.tile_px": config.train.tile_px,
            "tile.tile_px": config.tile.tile_px,
            "store.shard_px": store.shard_px,
        }
        for name, edge_px in edges.items():
            if name.split(".")[0] in given and edge_px != "auto":
                _check_multiple(name, edge_px, stride, "the pooling stride 2^model.depth")


def _check_labels(labels: Labels) -> None:
    if not 2 <= len(labels.classes) <= 32 or len(set(labels.classes)) != len(labels.classes):
        raise PipelineError("labels.classes", "2 to 32 different names", list(labels.classes))
    if labels.kind == "instances" and len(labels.classes) != 2:
        raise PipelineError(
            "labels.classes", "two names (background and the objects) with kind: instances", list(labels.classes),
            fix="use kind: classes with values for more classes",
        )  # fmt: skip
    if labels.kind == "classes" and set(labels.values.values()) != set(labels.classes):
        raise PipelineError(
            "labels.values", f"a label value for each of {list(labels.classes)}", labels.values,
            fix="with kind: classes say which value is which class, e.g. {0: background, 255: cell}",
        )  # fmt: skip
    if labels.ignore is not None and labels.ignore in labels.values:
        raise PipelineError("labels.ignore", "a value that is no class", labels.ignore)


def _check_multiple(where: str, value: int, of: int, of_name: str) -> None:
    if value % of:
        nearest = max(of, round(value / of) * of)
        raise PipelineError(where, f"a multiple of {of_name} ({of})", value, nearest)


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the configuration, generated from the sections."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Configuration of unet_pipeline"}
    return head | json_schema(Config)
