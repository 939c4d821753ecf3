"""Train: labelled stacks become a model folder; resumes where an interrupted training stopped."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.machine.progress import Progress, tell
from unet_pipeline.model.card import ModelCard, architecture
from unet_pipeline.model.former import kept_aside
from unet_pipeline.model.normalise import Normaliser, from_statistics, merge
from unet_pipeline.model.start import Start, open_start
from unet_pipeline.records.checksums import Vouched
from unet_pipeline.records.claim import claim
from unet_pipeline.records.files import Check, digest, refuse_link, sha256_bytes, sha256_file, write_text
from unet_pipeline.records.layout import CARD_FILE, CHECKPOINT, HISTORY_FILE, PLANES_FILE, WEIGHTS, WEIGHTS_FILE
from unet_pipeline.records.provenance import provenance
from unet_pipeline.records.record import how_to_remake
from unet_pipeline.records.stack_records import WeighRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.start_files import check_start_files, refuse_own_start, start_files
from unet_pipeline.stacks.weight_map import class_weights
from unet_pipeline.train.automatic import look, settle
from unet_pipeline.train.folds import Division, divide
from unet_pipeline.train.learner import Settings
from unet_pipeline.train.loop import TrainResult, train
from unet_pipeline.train.losses import Loss
from unet_pipeline.train.processes import present_group
from unet_pipeline.train.training_stack import TrainingStack


@dataclass(frozen=True)
class Weighed:
    """A stack whose targets and boundary weights are computed.

    Attributes:
        record: path of `weigh.json`.
        weighed: its content.
        stack: the stack.
    """

    record: Path
    weighed: WeighRecord
    stack: Stack

    @classmethod
    def open(cls, record: Path) -> Weighed:
        """Open a stack by the record that weigh wrote.

        Raises:
            PipelineError: if the record is missing or is not one of weigh's.
        """
        weighed = open_record(record, WeighRecord)
        stack = Stack.open(record.parent / weighed.ingest)
        if weighed.ingest_id != stack.ingested.id:
            expected = f"weights of the ingested stack {stack.ingested.id}"
            raise PipelineError(
                record, expected, f"weights of another ({weighed.ingest_id})", fix=how_to_remake(record)
            )
        return cls(record, weighed, stack)

    def pixels(self, name: str) -> int:
        """Return how many pixels of the target are of a class.

        Raises:
            PipelineError: if the stack was weighed with other classes.
        """
        counts = self.weighed.class_counts
        if name not in counts:
            raise PipelineError(
                self.record, f"pixels of class {name}", f"classes {list(counts)}", fix=how_to_remake(self.record)
            )
        return counts[name]

    def training_stack(self, normaliser: Normaliser, deep: bool = False) -> TrainingStack:
        """Return the stack as training sees it; `deep` by a network of volumes.

        Raises:
            PipelineError: if the store is not the one the record vouches for.
        """
        store, fix = self.record.parent / WEIGHTS, how_to_remake(self.record)
        if not ngff.belongs(store, self.weighed.id):
            raise PipelineError(store, f"the store that {self.record} vouches for", "another or none", fix=fix)
        vouched = Vouched(self.record, self.weighed.files)
        target, boundary = (
            open_array(store, name, repair=lambda *place: fix, vouch=vouched.check) for name in ("target", "boundary")
        )
        return TrainingStack(
            self.stack.name, self.stack.image, normaliser, target, boundary, deep=deep, cubes=self.stack.grid.is_cubic
        )


def train_model(
    training: Sequence[Path], validation: Sequence[Path], config: Config, folder: Path, fold: int | None = None
) -> TrainResult:
    """Train a network on weighed stacks and write the model folder.

    Args:
        training: `weigh.json` of each training stack.
        validation: `weigh.json` of each stack on which the kept weights are chosen; may be empty.
        config: sections labels, normalise, model, augment, train, compute and watch are used.
        folder: the model folder, `results/model` or, in a cross-validation, `results/folds/{fold}`.
        fold: which part of the labelled planes validates instead of training, from 0; None with `train.folds` 1.

    The class weights and, with scope "model", the constants of the normalisation come from all planes of the training
    stacks, also from those held out: they are equal in all folds, as an ensemble wants them.

    A model that is the start (`model.start_from`) gives its layers, never its constants of normalisation: with scope
    "model" they are those of these stacks, which may have another exposure or camera. Scaled by them the grey values
    lie in the range that the layers have learned; scaled by the former ones they might lie far outside.

    Raises:
        PipelineError: stacks that differ in channels, a class without pixels, a division of the planes that cannot be
            made, or what `train` raises.
    """
    weighed, held_out = [Weighed.open(path) for path in training], [Weighed.open(path) for path in validation]
    channels = _channels([*weighed, *held_out])
    given, (config, settled) = config, _settled(config, weighed, held_out, folder)
    common = _common_normaliser(weighed, config)
    card = _card(config, channels, common)
    start = open_start(config, card)
    stacks, checks = (_scaled(group, common, config) for group in (weighed, held_out))
    divided = divide(stacks, config.train, fold, validated=bool(checks))
    start = _doubted(start, config, held_out, weighed, divided)
    balance = _class_weights(weighed, config)
    sections = sections_of(given, "train")
    files = [*training, *validation, *start_files(config.model)]
    made_by = {
        **_stacks_record(weighed, held_out),
        "class_weights": dict(zip(card.classes, balance.tolist(), strict=True)),
        **_division_record(divided, weighed, fold),
        **({} if start is None else {"started_from": start.record()}),
        **({"auto": settled} if settled else {}),
        "provenance": asdict(provenance(sections, files)),
    }
    key = digest([sections, fold, [sha256_file(path) for path in files]])
    card, settings = replace(card, training=made_by), _settings(config, start)
    validate = [*divided.validate, *checks]
    if not present_group().first:  # the first process writes and speaks for all
        with Progress(config.train.steps, "train", io.StringIO()) as unheard:
            return train(divided.train, validate, card, balance, settings, folder, key, unheard)
    products = [folder / name for name in (WEIGHTS_FILE, HISTORY_FILE, PLANES_FILE, CHECKPOINT)]
    refuse_link((folder / CHECKPOINT).parent)
    name = "train" if fold is None else f"train fold {fold}"
    with (
        claim(folder / CARD_FILE, *products) as mine,
        Progress(config.train.steps, name) as progress,
        # of a cross-validation the ensemble is kept, which holds the networks of all folds
        kept_aside(folder, progress.say) if fold is None else nullcontext(),
    ):
        _list_planes(folder, divided, mine.check)
        progress.say(_validated_by(divided, checks))
        return train(divided.train, validate, card, balance, settings, folder, key, progress, mine.check)


def _card(config: Config, channels: int, common: Normaliser | None) -> ModelCard:
    """Return the card of the model as it is known before the training."""
    classes = config.labels.classes
    network = architecture(config.model, channels, len(classes))
    return ModelCard(network, classes, config.normalise, common, Loss.of(config.train).activation)


def _settings(config: Config, start: Start | None) -> Settings:
    encoder = Path(config.model.encoder_weights) if config.model.encoder_weights else None
    objects = config.labels.kind != "classes"
    return Settings(config.train, config.augment, config.compute, config.watch, objects, encoder, start)


def _class_weights(weighed: Sequence[Weighed], config: Config) -> npt.NDArray[Any]:
    """Return w_c (classes,) float64 of all training stacks, and say which classes none of them shows."""
    classes = config.labels.classes
    counts = np.array([[one.pixels(name) for name in classes] for one in weighed]).sum(axis=0)
    if config.train.class_weights == "balanced":
        return class_weights(counts)
    if absent := ", ".join(name for name, pixels in zip(classes, counts, strict=True) if not pixels):
        tell(f"warning: no training stack has a pixel of {absent}, so the model will not find any")
    return np.ones(len(classes))


def _stacks_record(weighed: Sequence[Weighed], held_out: Sequence[Weighed]) -> dict[str, Any]:
    """Return what `model.json` says of the stacks: their names, and the widest gap, which objects are to grow back."""
    return {
        "stacks": [one.stack.name for one in weighed],
        "validation_stacks": [one.stack.name for one in held_out],
        "gap_px": max(one.weighed.gap_px for one in weighed),
    }


def _division_record(divided: Division, weighed: Sequence[Weighed], fold: int | None) -> dict[str, Any]:
    """Return what `model.json` says of the planes that were held out; nothing where none were."""
    if not divided.held_out:
        return {}
    places = [
        {"stack": one.stack.name, "id": one.stack.ingested.id, "planes": list(planes)}
        for one, planes in zip(weighed, divided.held_out, strict=True)
        if planes
    ]
    record = {"held_out": places, "planes_sha256": sha256_bytes(divided.text().encode())}
    return record if fold is None else {"fold": fold, **record}


def _validated_by(divided: Division, checks: Sequence[TrainingStack]) -> str:
    """Say what the kept weights are chosen by."""
    drawn = ", ".join(f"{len(stack.used)} of {stack.name}" for stack in divided.validate)
    named = ", ".join(stack.name for stack in checks)
    parts = [f"planes held out, listed in planes.tsv ({drawn})" if drawn else "", named]
    return f"validated by {' and '.join(part for part in parts if part) or 'nothing'}"


def _list_planes(folder: Path, divided: Division, check: Check) -> None:
    """Write `planes.tsv`, or remove what an earlier training with another division left."""
    if divided.held_out:
        write_text(folder / PLANES_FILE, divided.text(), check)
    else:
        check()
        (folder / PLANES_FILE).unlink(missing_ok=True)


def _settled(
    config: Config, weighed: Sequence[Weighed], held_out: Sequence[Weighed], folder: Path
) -> tuple[Config, dict[str, str]]:
    """Check what training starts from, then settle the keys that say `auto`; the first process says what they are."""
    check_start_files(config.model)
    refuse_own_start(config.model, [folder])
    stacks = ([one.stack for one in group] for group in (weighed, held_out))
    config, settled = settle(config, *look(config, *stacks))
    for name, said in settled.items() if present_group().first else ():
        tell(f"train: {name} comes to {said}")
    return config, settled


def _doubted(
    start: Start | None, config: Config, held_out: Sequence[Weighed], weighed: Sequence[Weighed], divided: Division
) -> Start | None:
    """Say, in the first process, what is doubtful about the start; planes that it has seen do not judge it."""
    if start is None:
        return None
    judges = [one.stack.name for one in held_out]
    judges += [one.stack.name for one, planes in zip(weighed, divided.held_out, strict=False) if planes]
    for doubt in start.doubts(config.normalise, judges) if present_group().first else ():
        tell(f"warning: {doubt}")
    return replace(start, judged=not start.seen(judges))


def _channels(weighed: Sequence[Weighed]) -> int:
    channels = [one.stack.channels for one in weighed]
    if len(set(channels)) != 1:
        got = ", ".join(f"{one.stack.name}: {one.stack.channels}" for one in weighed)
        raise PipelineError("stacks", "training stacks with the same number of channels", got)
    return channels[0]


def _common_normaliser(weighed: Sequence[Weighed], config: Config) -> Normaliser | None:
    """Return the constants of the whole training set with scope "model", None where each stack brings its own."""
    if config.normalise.scope == "stack":
        return None
    merged = merge([one.stack.ingested.statistics for one in weighed])
    return from_statistics(config.normalise, merged, weighed[0].stack.dtype)


def _scaled(weighed: Sequence[Weighed], common: Normaliser | None, config: Config) -> list[TrainingStack]:
    """Return stacks as training sees them, scaled by the constants that all have or by their own."""
    deep = config.model.dimensions == 3
    return [one.training_stack(common or _own_normaliser(one, config), deep) for one in weighed]


def _own_normaliser(one: Weighed, config: Config) -> Normaliser:
    return from_statistics(config.normalise, one.stack.ingested.statistics, one.stack.dtype)
