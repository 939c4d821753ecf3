"""The configuration: one frozen dataclass per section, and the single source of keys, ranges, defaults and meanings.

`config.yaml` shows the same defaults with the same comments and `workflow/schemas/config.schema.yaml` is
generated from here; a test holds the three together. A section knows nothing of the others, so that a rule
can be given only the sections it depends on and reruns only when those change.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

from unet_pipeline.config.keys import json_schema, key, plain
from unet_pipeline.config.network_section import Model
from unet_pipeline.config.result_sections import Evaluate, Measure, Report, Stitch
from unet_pipeline.errors import PipelineError

IGNORE = 255
"""The class index of pixels nobody annotated: weight 0 in training, left out of every score."""

Precision = Literal["float32", "bfloat16", "float16"]
AutoPrecision = Literal["auto", "float32", "bfloat16", "float16"]
Mirror = Literal["none", "flips", "all"]
Loss = Literal[
    "cross_entropy", "focal", "binary_cross_entropy", "dice",
    "cross_entropy+dice", "focal+dice", "binary_cross_entropy+dice",
]  # fmt: skip

ObjectScore = Literal["auto", "seg+ap50", "seg", "ap50", "mean_ap", "v_rand", "mean_iou", "dice"]

AUTO_SHARE, AUTO_PLANES = 0.15, 5
"""What `train.hold_out: auto` holds out, of as many labelled planes or more."""


def _settled(where: str, value: int | Literal["auto"]) -> int:
    if value == "auto":
        raise PipelineError(where, "a number where nothing settles it", value)
    return value


@dataclass(frozen=True)
class Labels:
    """The meaning of the pixel values of label images."""

    kind: Literal["instances", "pieces", "classes"] = key(
        "instances",
        "instances: 0 is background, every other value one object; pieces: every connected piece of a value in a plane "
        "is one; classes: values as in `values`",
    )
    classes: tuple[str, ...] = key(("background", "cell"), "class names; the first is the background, at most 32")
    values: dict[int, str] = key(
        {}, "for kind classes: which label value is which class, e.g. {0: background, 255: cell}"
    )
    ignore: int | None = key(None, "label value of pixels nobody annotated; null: there is none", 0, 2**32 - 1)


@dataclass(frozen=True)
class Ingest:
    """The treatment of planes of different sizes in one stack."""

    sizes: Literal["same", "pad", "square"] = key(
        "same", "same: other sizes are refused; pad: to the largest height and width; square: resized and padded"
    )
    square_px: int = key(512, "with sizes square: side of every plane, px; planes keep their ratio of sides", 16, 8192)
    fill: Literal["grey", "mirror"] = key("grey", "what is put around a smaller plane; its labels are `ignore` there")
    grey: float = key(128.0, "with fill grey: the grey value, in the numbers of the image", 0, 65535)


@dataclass(frozen=True)
class Store:
    """The chunks, shards and compression of Zarr arrays."""

    chunk_px: int = key(512, "edge of a chunk, the unit of reading, px; a multiple of 16", 16, 8192)
    shard_px: int = key(4096, "edge of a shard, the file one job writes, px; a multiple of chunk_px", 16, 65536)
    compression: int = key(1, "Zstandard level; higher is smaller and slower", 0, 19)


@dataclass(frozen=True)
class Normalise:
    """The scaling of grey values for the network. It is never measured on a tile: that would make seams."""

    method: Literal["percentile", "zscore", "range", "fixed", "none"] = key(
        "percentile",
        "percentile: low..high to 0..1; zscore: mean 0, std 1; range: the type's to 0..1; fixed: black..white; none",
    )
    low: float = key(1.0, "percentile that becomes 0", 0, 100)
    high: float = key(99.8, "percentile that becomes 1", 0, 100)
    black: float = key(0.0, "with method fixed: grey value that becomes 0", -1e12, 1e12)
    white: float = key(255.0, "with method fixed: grey value that becomes 1", -1e12, 1e12)
    scope: Literal["stack", "model"] = key(
        "stack", "stack: each stack by its own statistics; model: all by those of the training stacks"
    )


@dataclass(frozen=True)
class Weigh:
    """The paper's boundary weight map, Ronneberger 2015 eq. 2."""

    w0: float = key(10.0, "height of the boundary term; 0 turns it off", 0, 1000)
    sigma: float | Literal["auto"] = key(
        "auto", "width of the boundary term, in `unit`; auto: by the objects of the stack", 0.01, 1000
    )
    unit: Literal["px", "um"] = key("px", "unit of sigma; um needs the stack's pixel size")
    gap_px: int | Literal["auto"] = key(
        "auto", "pixels this near to another object become background, so touching ones part; auto: as sigma", 0, 32
    )
    formula: Literal["paper", "release"] = key(
        "paper", "paper: exp(-(d1+d2)^2/(2 sigma^2)); release: without the 2, as the authors' later code"
    )
    across_planes: bool = key(False, "distances and gaps run across the planes of a z stack too, by pixel_um and step")


@dataclass(frozen=True)
class Augment:
    """Random changes of a training tile; label and weight follow the image."""

    elastic_std_px: float = key(10.0, "standard deviation of the displacements, px; 0 turns it off", 0, 100)
    elastic_grid: int = key(3, "displacements are drawn on a grid of this many points a side, bicubic between", 2, 64)
    elastic_span_px: int = key(256, "side of the area the grid spans, px, whatever the tile size", 16, 8192)
    rotate: Literal["any", "quarter", "none"] = key(
        "any", "rotations in the plane: by any angle, by quarter turns, or none"
    )
    flip: bool = key(True, "mirror images")
    scale: float = key(0.1, "size changes by a factor up to 1 ± scale", 0, 0.9)
    brightness: float = key(0.1, "added to the normalised values: uniform in ± brightness", 0, 10)
    contrast: float = key(0.2, "normalised values are multiplied by 1 ± contrast", 0, 0.95)
    noise: float = key(0.03, "standard deviation of added Gaussian noise, up to, in normalised values", 0, 10)


@dataclass(frozen=True)
class Train:
    """Gradient descent on a loss; the paper's is the weighted pixel-wise cross-entropy, with momentum 0.99."""

    steps: int = key(750, "number of weight updates", 1, 10_000_000)
    batch: int | Literal["auto"] = key(
        2, "tiles per update; the paper takes one large tile; auto: by the network", 1, 1024
    )
    tile_px: int | Literal["auto"] = key(
        160, "output tile, px; a multiple of 2^depth; auto: by the network and the planes", 2, 16384
    )
    tile_planes: int | Literal["auto"] = key(
        "auto",
        "with model.dimensions: 3, planes of the output tile; a multiple of the stride along z, or auto",
        1,
        4096,
    )
    loss: Loss = key("cross_entropy+dice", "what is minimised; sums of two are written with +")
    focal_gamma: float = key(2.0, "focal loss: pixels that are nearly right count (1 - p)^gamma", 0, 10)
    focal_alpha: float | None = key(None, "focal loss: weight of objects, background has 1 - alpha; null: none", 0, 1)
    optimiser: Literal["sgd", "adam", "rmsprop"] = key("adam", "sgd with momentum, Adam, or RMSprop with momentum")
    learning_rate: float | Literal["auto"] = key(
        "auto", "peak learning rate; auto: 0.001, or a fifth of it with model.start_from", 1e-9, 10
    )
    warmup: int = key(50, "steps over which the learning rate rises from 0", 0, 1_000_000)
    schedule: Literal["constant", "cosine", "step"] = key(
        "cosine", "cosine falls to 0 at the last step; step: in stairs"
    )
    stairs: int = key(10, "schedule step: number of stairs, of equal length", 1, 1000)
    stair_factor: float = key(0.6, "schedule step: the learning rate of a stair over that of the one before", 0.001, 1)
    momentum: float = key(0.9, "momentum of sgd and rmsprop, the paper's is 0.99; Adam's beta1", 0, 0.9999)
    weight_decay: float = key(0.0, "L2 penalty on the kernels", 0, 1)
    clip: float = key(1.0, "largest norm of a gradient; 0 turns clipping off", 0, 1e6)
    freeze_steps: int = key(0, "first steps in which the encoder (vgg16, resnet50) keeps its weights", 0, 10_000_000)
    freeze_batch: int = key(1, "tiles per update while the encoder is frozen", 1, 1024)
    class_weights: Literal["balanced", "none"] = key("none", "w_c of eq. 2: inverse class frequency, or 1")
    precision: Precision = key("float32", "number format of the convolutions")
    validate_every: int = key(150, "steps between validations", 1, 10_000_000)
    patience: int | None = key(
        None, "validations without a better one after which training ends before `steps`; null: never", 1, 100_000
    )
    validate_tiles: int = key(8, "tiles a validation takes, evenly over the validation planes", 1, 100_000)
    select: Literal["score", "loss", "last"] = key(
        "score", "which weights are kept: best score of the validation tiles, their lowest loss, or the last"
    )
    seed: int = key(0, "seed of everything random", 0, 2**31 - 1)
    hold_out: float | Literal["auto"] = key(
        "auto", "share of the labelled training planes that validate instead of training; auto: 0.15 or 0", 0, 0.9
    )
    folds: int = key(1, "cross-validation: models trained, each without its share of the planes; 1 trains one", 1, 20)

    @property
    def tiles(self) -> int:
        """Tiles per update, once they are settled (`train/automatic.py`)."""
        return _settled("train.batch", self.batch)

    @property
    def tile_edge_px(self) -> int:
        """The output tile once it is settled, px."""
        return _settled("train.tile_px", self.tile_px)

    def held_out_share(self, labelled_planes: int, validated: bool) -> float:
        """Return the share of the planes that `hold_out` comes to, 0 to 0.9.

        Args:
            labelled_planes: of the stacks with role train.
            validated: whether a stack has role val.
        """
        if self.hold_out != "auto":
            return self.hold_out
        return 0.0 if validated or self.folds > 1 or labelled_planes < AUTO_PLANES else AUTO_SHARE


@dataclass(frozen=True)
class Tile:
    """The division of an image for prediction; it changes speed and memory, and of the result the rounding of sums."""

    tile_px: int | Literal["auto"] = key(
        "auto", "kept output of one network pass, px; a multiple of 2^depth, or auto: by the network", 2, 16384
    )
    tile_planes: int | Literal["auto"] = key(
        "auto", "with model.dimensions: 3, kept planes of a pass; a multiple of the stride along z, or auto", 1, 4096
    )
    regions: int = key(1, "prediction jobs of a stack (column `regions` of the table overrides)", 1, 100_000)


@dataclass(frozen=True)
class Predict:
    """The forward pass and the probabilities that are stored."""

    precision: AutoPrecision = key(
        "auto", "number format of the convolutions; auto: bfloat16 on a GPU that has it, float32 on a CPU"
    )
    batch: int = key(1, "tiles per network pass on a GPU; a CPU takes one by one", 1, 1024)
    probabilities: Literal["uint8", "float16"] = key("uint8", "stored probabilities: 0..255, or 0..1 in half precision")
    skip_below: float | None = key(None, "blocks with no more contrast are background; null: none are", 0, 1000)
    mirror: Mirror = key("none", "mirrorings to average over: none, flips (4), or all (8, with transposes)")


@dataclass(frozen=True)
class Calibrate:
    """The choice of how objects are made, by the score of the validation planes."""

    score: ObjectScore = key("auto", "what is made as large as can be; auto: seg+ap50, of kind classes mean_iou")
    mpx: float = key(2.0, "validation planes are looked at up to this many megapixels, evenly", 0.01, 10_000)


@dataclass(frozen=True)
class Compute:
    """The use of the machine. A change here reruns nothing."""

    device: Literal["auto", "cpu", "cuda"] = key("auto", "auto: CUDA where there is a GPU, else the CPU")
    threads: int = key(2, "CPU threads of a training or prediction job; recorded: it moves float32 sums", 1, 1024)
    io_threads: int | Literal["auto"] = key(
        "auto", "threads of a prediction that read, and as many that write; auto: 1 on a CPU, up to 4 on a GPU", 1, 64
    )
    compile: bool = key(False, "let torch compile the network of a prediction; where that fails it runs as it is")
    checkpoint_minutes: float = key(
        2.0, "minutes between the checkpoints that an interrupted training goes on from; 0: after every step", 0, 1440
    )
    processes: int = key(1, "training processes on one machine, a GPU each; they divide train.batch", 1, 64)
    container: str = key(
        "unet_pipeline.sif", "image that jobs run in with --sdm apptainer: a file, or an address with ://"
    )


@dataclass(frozen=True)
class Watch:
    """The files that a training shows while it runs, beside the model. A change here reruns nothing."""

    tensorboard: bool = key(False, "scalars as TensorBoard event files in results/model/tensorboard")
    samples: bool = key(False, "image, labels and prediction at every validation as PNG in results/model/samples")


@dataclass(frozen=True)
class Config:
    """All sections. `stacks` names the table of stacks."""

    stacks: str = key("stacks.tsv", "table of the stacks, one row each")
    labels: Labels = Labels()
    ingest: Ingest = Ingest()
    store: Store = Store()
    normalise: Normalise = Normalise()
    weigh: Weigh = Weigh()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    tile: Tile = Tile()
    predict: Predict = Predict()
    calibrate: Calibrate = Calibrate()
    stitch: Stitch = Stitch()
    measure: Measure = Measure()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    compute: Compute = Compute()
    watch: Watch = Watch()

    def with_sections(self, **changed: Any) -> Config:
        """Return the configuration with other sections; the rest is not looked at."""
        made = copy(self)
        for name, value in changed.items():
            object.__setattr__(made, name, value)  # it is frozen for its users, not before they have it
        return made

    def section(self, *names: str) -> dict[str, Any]:
        """Return the named sections, or single keys of them ("stitch.connect"), as plain values, for a rule's param."""
        found: dict[str, Any] = {}
        for name in names:
            section, _, one = name.partition(".")
            value = getattr(self, section)
            found[section] = {one: plain(getattr(value, one))} if one else plain(value)
        return found


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the configuration, generated from the sections."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Configuration of unet_pipeline"}
    return head | json_schema(Config)
