"""The parts of a training: network, optimiser, tiles; and the way of its state to the checkpoint and back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unet_pipeline.config.keys import plain
from unet_pipeline.config.sections import Augment, Compute, Train, Watch
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.model.averaging import LAYOUTS
from unet_pipeline.model.card import ModelCard, training_tile
from unet_pipeline.model.device import choose_device, usable_precision
from unet_pipeline.model.models import build, take_layers
from unet_pipeline.model.networks.encoders import EncoderUNet
from unet_pipeline.model.networks.pretrained import load_encoder
from unet_pipeline.model.package import model_folder
from unet_pipeline.model.start import WHERE, Start
from unet_pipeline.records.files import digest as digest_of
from unet_pipeline.records.layout import CHECKPOINT
from unet_pipeline.train.checkpoint import Checkpoint, read_checkpoint
from unet_pipeline.train.dataset import Deep, Sampler, ValidationTile, validation_tiles
from unet_pipeline.train.feed import Batch, batches, readers
from unet_pipeline.train.history import Row
from unet_pipeline.train.losses import Loss
from unet_pipeline.train.observer import Observer
from unet_pipeline.train.optimisers import buffers, optimiser, peak_rate, restore
from unet_pipeline.train.processes import GradientSum, Group, present_group
from unet_pipeline.train.sources import sources
from unet_pipeline.train.training_stack import TrainingStack, in_memory
from unet_pipeline.train.validation import Validation


@dataclass(frozen=True)
class Settings:
    """The sections of the configuration that training uses, and what it starts from.

    Attributes:
        objects: whether labels are objects, whose score then chooses the weights.
        encoder_weights: file of an encoder's weights; None: random ones.
        start: finished model whose layers are taken; None: random weights.
    """

    train: Train = Train()
    augment: Augment = Augment()
    compute: Compute = Compute()
    watch: Watch = Watch()
    objects: bool = True
    encoder_weights: Path | None = None
    start: Start | None = None


@dataclass
class State:
    """The values a step changes besides the weights and the optimiser's; all of them are in the checkpoint.

    Attributes:
        step: weight updates done.
        history: rows so far.
        losses: of the updates since the last row.
        unread: losses still on the device, after those of `losses`.
        best_value, best_step: what `Train.select` makes as large as can be, and its step.
        best: weights of that step, by name; empty if the last weights are to be kept.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    unread: list[torch.Tensor] = field(default_factory=list)
    best_value: tuple[float, ...] = ()
    best_step: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Learner:
    """The parts of a training that stay the same objects throughout."""

    settings: Settings
    device: torch.device
    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    class_weights: torch.Tensor
    sampler: Sampler
    loss: Loss
    validation: Validation
    checkpoint: Path
    digest: str
    group: Group
    gradients: GradientSum
    validation_tiles: int
    observer: Observer = field(default_factory=Observer)

    def enter(self, step: int) -> None:
        """Make ready for a step: in the first `freeze_steps` the encoder keeps its weights and its batch statistics."""
        if isinstance(self.network, EncoderUNet):
            # set in every step, not once at its turn, so that a training resumed on either side of the turn is right
            encoder = self.network.encoder
            learns = step >= self.settings.train.freeze_steps
            encoder.requires_grad_(learns)
            # evaluation mode too, else batch normalisation would go on averaging the statistics of a frozen encoder
            self.network.train()
            encoder.train(learns)

    def batches(self, first: int) -> Generator[Batch, None, None]:
        """Yield this process's part of the batches of steps `first`, `first` + 1, ..."""
        options, workers = self.settings.train, self.validation.workers
        frozen = min(options.freeze_steps, options.steps)
        # two runs of steps, because a frozen encoder leaves room for larger batches; a resumed training begins in one
        for start, stop, batch in (
            (first, frozen, options.freeze_batch),
            (max(first, frozen), options.steps, options.tiles),
        ):
            if start < stop:
                share = self.group.share(batch)
                # closed with this generator, so that no thread goes on reading after an error
                with closing(batches(self.sampler, self.device, range(start, stop), share, workers)) as made:
                    yield from made


def prepare(
    stacks: Sequence[TrainingStack],
    validation_stacks: Sequence[TrainingStack],
    card: ModelCard,
    class_weights: npt.NDArray[np.floating[Any]],
    settings: Settings,
    folder: Path,
    digest: str,
) -> Learner:
    """Build the network and everything around it.

    The arguments are those of `train.train`; `class_weights` is (classes,).

    Raises:
        PipelineError: a device, precision, tile size or class weights that do not fit.
    """
    group, device = present_group(), choose_device(settings.compute)
    settings = _resolved(settings, device)
    options, edge_px = settings.train, settings.train.tile_edge_px
    deep = _deep(card, options)
    # refuse batches that the processes cannot divide before anything is built
    group.share(options.tiles)
    if options.freeze_steps:
        group.share(options.freeze_batch, "train.freeze_batch")
    weights = _checked_weights(class_weights, card)
    network = _synchronised(_network(card, settings, group.first).to(device), group, device)
    network = network.to(memory_format=LAYOUTS[card.architecture.dimensions])  # type: ignore[call-overload]
    tiles = _validation_tiles(validation_stacks, options, card, group, deep.planes if deep else 1)
    validation = _validation(tiles, card, settings, device, group, deep)
    content = [digest, plain(options), plain(settings.augment), plain(card.architecture), weights.tolist()]
    return Learner(
        settings,
        device,
        network.train(),
        optimiser(network, options),
        torch.amp.GradScaler(device.type, enabled=options.precision == "float16"),
        weights.to(device),
        Sampler(sources(in_memory(stacks), device), card.geometry, edge_px, settings.augment, options.seed, deep),
        validation.loss,
        validation,
        folder / CHECKPOINT,
        digest_of(content),
        group,
        GradientSum(group, network),
        len(tiles),
        Observer(settings.watch if group.first else None, folder, card.classes),
    )


def _deep(card: ModelCard, options: Train) -> Deep | None:
    """Return the sizes along z of the tiles; None of a network of planes."""
    planes, *_ = size = training_tile(card.architecture, options)
    if len(size) == 2:
        return None
    return Deep(card.geometry_z, planes)


def _resolved(settings: Settings, device: torch.device) -> Settings:
    """Return the settings with the number format and the learning rate that are used.

    Both enter the digest: a checkpoint of another arithmetic is not resumed.
    """
    precision = usable_precision(device, settings.train.precision, "train.precision")
    rate = peak_rate(settings.train, settings.start is not None)
    return replace(settings, train=replace(settings.train, precision=precision, learning_rate=rate))


def _validation_tiles(
    stacks: Sequence[TrainingStack], options: Train, card: ModelCard, group: Group, planes: int
) -> list[ValidationTile]:
    """Return the tiles that choose the weights; the first process says which classes none of them shows."""
    tiles, absent = validation_tiles(
        stacks, options.tile_edge_px, options.validate_tiles, card.architecture.classes, planes
    )
    if tiles and absent and group.first:
        names = ", ".join(card.classes[index] for index in sorted(absent))
        fix = "raise train.validate_tiles, or validate on planes that show every class"
        tell(f"warning: none of the {len(tiles)} validation tiles shows {names}, so weights are chosen without: {fix}")
    return tiles


def _network(card: ModelCard, settings: Settings, first: bool) -> nn.Module:
    """Return the network as training starts from it; the first process says which weights were loaded."""
    network = build(card.architecture, settings.train.seed)
    if settings.start is not None:
        taken, new = settings.start.layers()
        with model_folder(settings.start.folder) as folder:
            take_layers(network, folder, settings.start.card, taken)
        if first:
            head = f"; new, for other classes: {', '.join(new)}" if new else ""
            tell(f"{WHERE}: {settings.start.folder}: {len(taken)} layers taken{head}")
    if settings.encoder_weights is not None:
        if not isinstance(network, EncoderUNet):
            raise PipelineError("model.encoder_weights", "a network with an encoder of torchvision", "network: unet")
        found = load_encoder(network.encoder, settings.encoder_weights)
        if first:
            tell(f"model.encoder_weights: {found}")
    return network


def _synchronised(network: nn.Module, group: Group, device: torch.device) -> nn.Module:
    """Let batch normalisation see the batches of all processes: one process with the whole batch would do the same."""
    if group.size == 1 or not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules()):
        return network
    if device.type != "cuda":
        fix = "train in one process, or without batch normalisation"
        raise PipelineError("compute.processes", "1 with batch normalisation on a CPU", group.size, 1, fix)
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return synchronised


def _validation(
    tiles: Sequence[ValidationTile],
    card: ModelCard,
    settings: Settings,
    device: torch.device,
    group: Group,
    deep: Deep | None,
) -> Validation:
    """Return this process's share of the validation."""
    options, share = settings.train, tiles[group.rank :: group.size]
    workers = readers(settings.compute, device)
    return Validation(
        share,
        card.geometry.validating(options.tile_edge_px),
        options.tile_edge_px,
        options.tiles,
        options.precision,
        workers,
        group,
        Loss.of(options),
        settings.objects,
        None if deep is None else replace(deep, geometry=deep.geometry.validating(deep.planes)),
    )


def _checked_weights(class_weights: npt.NDArray[np.floating[Any]], card: ModelCard) -> torch.Tensor:
    weights = np.asarray(class_weights, dtype=np.float32)
    classes = card.architecture.classes
    if weights.shape != (classes,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise PipelineError("train.class_weights", f"{classes} finite weights >= 0, not all 0", weights.tolist())
    return torch.from_numpy(weights.copy())


def snapshot(learner: Learner, state: State) -> Checkpoint:
    """Return a copy, on the device, of a state whose losses have been read: training may go on while it is written."""
    # all that the next step depends on besides the seed: weights, what the optimiser remembers, and the scale of the
    # loss; tiles and dropout are functions of the step and need no state
    remembered = buffers(learner.network, learner.optimiser)
    parts = {"model": learner.network.state_dict(), "optimiser": remembered}
    tensors = {
        f"{part}.{name}": value.detach().clone() for part, named in parts.items() for name, value in named.items()
    }
    # no step changes the best weights: they are a copy already
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    values = {
        "digest": learner.digest,
        "step": state.step,
        "history": [asdict(row) for row in state.history],
        "losses": list(state.losses),
        "best_value": state.best_value,
        "best_step": state.best_step,
        "scaler": learner.scaler.state_dict(),
    }
    return Checkpoint(tensors, values)


def resume(learner: Learner, progress: Progress) -> State:
    """Return the state of an interrupted training, its weights and optimiser put back, or the state at step 0.

    A checkpoint that is damaged or belongs to something else is not used, and `progress` says so.
    """
    if not learner.checkpoint.exists():
        return State()
    try:
        checkpoint = read_checkpoint(learner.checkpoint)
    except PipelineError as error:
        progress.say(f"starting from step 0, the checkpoint cannot be used: {error}")
        return State()
    # the digest covers the configuration and the inputs; the shapes show a network that this version builds otherwise
    shapes = {f"model.{name}": tensor.shape for name, tensor in learner.network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items() if name.startswith("model.")}
    if checkpoint.state["digest"] != learner.digest or found != shapes:
        progress.say("starting from step 0, the checkpoint belongs to another configuration or to other inputs")
        return State()
    state = _restore(learner, checkpoint)
    progress.say(f"resuming after step {state.step} of {learner.settings.train.steps}")
    progress.skip(state.step)
    return state


def _restore(learner: Learner, checkpoint: Checkpoint) -> State:
    values = checkpoint.state
    learner.network.load_state_dict(_named(checkpoint, "model"))
    restore(learner.network, learner.optimiser, _named(checkpoint, "optimiser"))
    learner.scaler.load_state_dict(values["scaler"])
    best = {name: tensor.to(learner.device, copy=True) for name, tensor in _named(checkpoint, "best").items()}
    history = [Row(**{**row, "dice": tuple(row["dice"])}) for row in values["history"]]
    best_value = tuple(values.get("best_value", ()))
    return State(values["step"], history, values["losses"], [], best_value, values["best_step"], best)


def _named(checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
    head = f"{part}."
    return {name.removeprefix(head): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(head)}
