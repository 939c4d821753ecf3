"""Train: stochastic gradient descent on the weighted cross-entropy, one visible loop, resumed where it was cut off.

A step depends on nothing but the weights, the momentum and (seed, step): tiles and dropout are functions of the
step. A resumed training therefore equals an unbroken one bit for bit, on the same machine with the same number of
threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unet_pipeline.config.keys import plain
from unet_pipeline.config.sections import Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.allocator import keep_pages
from unet_pipeline.machine.parallel import behind
from unet_pipeline.machine.progress import Progress
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.copies import Beside, mark
from unet_pipeline.model.device import autocast, explain_memory
from unet_pipeline.model.models import save_model
from unet_pipeline.records.files import Check, sha256_bytes, unclaimed, write_text
from unet_pipeline.records.layout import HISTORY_FILE
from unet_pipeline.train.checkpoint import Cadence, Checkpoint, write_checkpoint
from unet_pipeline.train.feed import Batch
from unet_pipeline.train.guards import Termination, reproducible
from unet_pipeline.train.history import Row, history_text
from unet_pipeline.train.learner import Learner, Settings, State, prepare, resume, snapshot
from unet_pipeline.train.losses import pixel_weight, total
from unet_pipeline.train.optimisers import learning_rate, peak_rate
from unet_pipeline.train.patience import settled, why_settled
from unet_pipeline.train.processes import joined
from unet_pipeline.train.training_stack import TrainingStack, check_stacks
from unet_pipeline.train.validation import Score

ROWS = 500
"""Rows of the history besides the validations: a row averages the loss over steps / ROWS steps."""

CHECK_EVERY_ON_GPU = 20
"""Steps between looks at the losses on a GPU: each look waits for it."""


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        card: the model's card as written; `card.training` holds the record.
        history: the rows of `history.tsv`.
        resumed_step: steps that an earlier, interrupted run had done; 0 if none.
        seconds: wall time of this run; not in any file, so that the same training gives the same bytes.
    """

    card: ModelCard
    history: tuple[Row, ...]
    resumed_step: int
    seconds: float


def train(
    stacks: Sequence[TrainingStack],
    validation_stacks: Sequence[TrainingStack],
    card: ModelCard,
    class_weights: npt.NDArray[np.floating[Any]],
    settings: Settings,
    folder: Path,
    digest: str,
    progress: Progress,
    check: Check = unclaimed,
) -> TrainResult:
    """Train a network and write `weights.safetensors`, `model.json` and `history.tsv` into `folder`.

    An interrupted training with the same digest and settings is resumed from `folder/.training`; so is a finished one
    whose files were lost, which then costs no step.

    Args:
        stacks: where tiles are drawn from.
        validation_stacks: where the weights that are kept are chosen; may be empty, then the last are kept.
        card: architecture, class names and normalisation; what `card.training` holds is kept beside this record.
        class_weights: (classes,) w_c of the loss, finite, >= 0, not all 0.
        settings: sections train, augment, compute and watch.
        folder: the model folder.
        digest: names the inputs and the configuration; a checkpoint with another one is not used.
        progress: counts steps.
        check: called before anything is written, so that a job that was taken over stops.

    Raises:
        PipelineError: stacks that do not fit the network, a loss that is not finite, CUDA asked for and absent, a full
            GPU or disk, or SIGTERM (after a checkpoint).
    """
    started = time.monotonic()
    keep_pages()
    check_stacks(stacks, card.architecture.in_channels)
    if validation_stacks:
        check_stacks(validation_stacks, card.architecture.in_channels)
    fix = "lower train.tile_px or train.batch, or set train.precision: bfloat16"
    with (
        reproducible(settings.compute.threads),
        explain_memory("train.tile_px", fix),
        Termination() as termination,
    ):
        learner = prepare(stacks, validation_stacks, card, class_weights, settings, folder, digest)
        state = resume(learner, progress)
        resumed_step = state.step
        learner.observer.begin(state.history, check)
        with closing(learner.observer), joined(learner.group, learner.device):
            _judge_start(learner, state, progress)
            _loop(learner, state, progress, termination, check)
        if state.best and state.best_step == 0:
            progress.say("no validation was better than that of the model it started from: its weights are kept")
        _check_weights(state, learner)
        if not learner.group.first:
            return TrainResult(card, tuple(state.history), resumed_step, time.monotonic() - started)
        check()
        text = history_text(state.history, card.classes)
        record = {**_record(learner, state), "history_sha256": sha256_bytes(text.encode())}
        write_text(folder / HISTORY_FILE, text, check)
        learner.network.load_state_dict(state.best or learner.network.state_dict())
        card = save_model(folder, learner.network, replace(card, training={**record, **card.training}), check)
    return TrainResult(card, tuple(state.history), resumed_step, time.monotonic() - started)


def _loop(learner: Learner, state: State, progress: Progress, termination: Termination, check: Check) -> None:
    """Update the weights, log, validate and write checkpoints, until `train.steps` or what `train.patience` says."""
    if settled(learner, state):  # resumed at its end, for files that were lost
        return
    options, group = learner.settings.train, learner.group
    every, cadence, stopped = look_every(learner.device), Cadence(learner.settings.compute.checkpoint_minutes), False
    with closing(learner.batches(state.step)) as batches, behind(_writer(learner, check)) as write_soon:
        for batch in batches:
            # the loss stays on the device: reading it here would make every step wait for the GPU
            state.unread.append(_update(learner, state.step, batch))
            state.step += 1
            last = state.step == options.steps
            look = state.step % every == 0
            # all processes stop after the same step: one that went on alone would wait for the others' gradients
            stop = (look or group.size == 1) and group.any(termination.requested, learner.device)
            # the last step is always validated: its weights may be the best
            validate = bool(learner.validation_tiles) and (last or state.step % options.validate_every == 0)
            row = last or validate or _row_due(state.step, options)
            # a checkpoint after the last step lets a model whose files were lost be written again without training
            keep = cadence.due() or last or stop
            # before the weights are judged or kept, the losses are read, and found finite
            if last or validate or keep or look:
                _read_losses(learner, state)
                if row:
                    score = learner.validation.score(learner.network, learner.class_weights) if validate else None
                    _add_row(learner, state, state.step, score)
            if validate and not last and settled(learner, state):
                progress.say(f"ends after step {state.step} of {options.steps}: {why_settled(options, state)}")
                last = keep = True
            # after the row, so that a resumed training goes on behind it and does not write it twice
            if keep and group.first:
                check()
                _check_weights(state, learner)
                # written beside the next steps; a checkpoint that is due before the last is on the disk waits for it
                write_soon(snapshot(learner, state), mark(learner.device))
            if stopped := stop and not last:
                break
            progress.advance(1, _note(state))
            if last:
                break
    if stopped:  # the checkpoint is on the disk by now
        raise _terminated(state.step, options.steps)


def look_every(device: torch.device) -> int:
    """Return the steps between looks at the losses."""
    return 1 if device.type == "cpu" else CHECK_EVERY_ON_GPU


def _update(learner: Learner, step: int, batch: Batch) -> torch.Tensor:
    """Learning rate, forward, backward, clip, step; return the loss of the whole batch, on the device."""
    image, target, boundary = batch
    options, network, optimiser, scaler = learner.settings.train, learner.network, learner.optimiser, learner.scaler
    learner.enter(step)
    for parameters in optimiser.param_groups:
        parameters["lr"] = learning_rate(options, step)
    # seeded anew in each step, so that a resumed training drops the same units as an unbroken one
    torch.manual_seed(dropout_seed(options.seed, step, learner.group.rank))
    with autocast(learner.device, options.precision):
        logits = network(image)
    loss = _loss(learner, logits, target, boundary)
    # float16 gradients of a small loss would round to 0: the scaler enlarges the loss, and `scaler.step` undoes it
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    # summed before clipping: the norm that is clipped is that of the whole batch
    learner.gradients.finish()
    if options.clip > 0:
        # the limit is meant for the true gradients
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), options.clip)
    # skips the update where a scaled gradient overflowed; `update` then lowers the scale
    scaler.step(optimiser)
    scaler.update()
    optimiser.zero_grad()
    return learner.group.sum(loss.detach())


def _loss(learner: Learner, logits: torch.Tensor, target: torch.Tensor, boundary: torch.Tensor) -> torch.Tensor:
    """Return this process's part of the loss of the whole batch."""
    weight = pixel_weight(target, boundary, learner.class_weights)
    numerators, denominators = learner.loss.sums(logits, target, weight)
    # divided by the sum over all processes: the parts, and so the gradients, then add up to those of the whole batch
    return total(numerators, learner.group.sum(denominators))


def _writer(learner: Learner, check: Check) -> Callable[[Checkpoint, torch.cuda.Event | None], None]:
    """Return what writes a snapshot that is complete when the event happens, in a thread beside the training."""
    down = Beside(learner.device)

    def write(taken: Checkpoint, ready: torch.cuda.Event | None) -> None:
        tensors = {name: torch.from_numpy(down.fetch(tensor, ready)) for name, tensor in taken.tensors.items()}
        write_checkpoint(learner.checkpoint, Checkpoint(tensors, taken.state), check)

    return write


def dropout_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of torch's random state for a step, of the process `rank`."""
    entropy = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _row_due(step: int, options: Train) -> bool:
    return step % max(1, options.steps // ROWS) == 0


def _read_losses(learner: Learner, state: State) -> None:
    """Move the losses off the device, stop at one that is not finite, and add the rows of the steps before this one."""
    options, values = learner.settings.train, torch.stack(state.unread).tolist()
    state.unread.clear()
    for step, value in enumerate(values, start=state.step - len(values) + 1):
        if not math.isfinite(value):
            raise _diverged(f"a loss of {value} at step {step}", learning_rate(options, step - 1), options)
        state.losses.append(value)
        if step < state.step and _row_due(step, options):
            _add_row(learner, state, step, None)


def _check_weights(state: State, learner: Learner) -> None:
    """Stop before weights that are not finite replace the last good checkpoint."""
    if not all(bool(torch.isfinite(parameter).all()) for parameter in learner.network.parameters()):
        options = learner.settings.train
        rate = learning_rate(options, state.step - 1)
        raise _diverged(f"weights that are not finite after step {state.step}", rate, options)


def _diverged(what: str, rate: float, options: Train) -> PipelineError:
    clip = "" if options.clip > 0 else ", set train.clip: 1.0"
    half = ", or choose train.precision: bfloat16" if options.precision == "float16" else ""
    return PipelineError(
        "train.learning_rate", "a finite loss", f"{what}, learning rate {rate:.3g}", f"{peak_rate(options) / 3:.2g}",
        f"lower train.learning_rate or train.momentum{clip}{half}; the last checkpoint was left as it is",
    )  # fmt: skip


def _judge_start(learner: Learner, state: State, progress: Progress) -> None:
    """Score the model that training starts from before the first step: what follows has to be better to be kept."""
    if learner.settings.train.select != "last" and not learner.validation_tiles:
        all_steps = "" if learner.settings.train.patience is None else ", and train.patience ends nothing"
        progress.say(
            f"no plane with annotated pixels validates: the last weights are kept, not the best{all_steps}; give a "
            "stack role val, or set train.hold_out or train.folds"
        )
    start = learner.settings.start
    if state.step == 0 and start is not None and start.judged and not start.new_head and learner.validation_tiles:
        _append(learner, state, Row(0, 0.0, None), learner.validation.score(learner.network, learner.class_weights))


def _add_row(learner: Learner, state: State, step: int, score: Score | None) -> None:
    """Add the row of a step, for the updates since the last one."""
    mean = math.fsum(state.losses) / len(state.losses)
    state.losses.clear()
    _append(learner, state, Row(step, learning_rate(learner.settings.train, step - 1), mean), score)


def _append(learner: Learner, state: State, row: Row, score: Score | None) -> None:
    """Add a row to the history, and keep the weights if they are the best so far."""
    options = learner.settings.train
    if score is not None:
        if not math.isfinite(score.loss):
            raise _diverged(f"a validation loss of {score.loss} after step {row.step}", row.learning_rate, options)
        row = replace(row, validation_loss=score.loss, dice=score.dice, validation_score=score.value)
        value = _value(score, options)
        if options.select != "last" and value > state.best_value:
            state.best_value, state.best_step = value, state.step
            state.best = {name: tensor.detach().clone() for name, tensor in learner.network.state_dict().items()}
    state.history.append(row)
    learner.observer.add(row, lambda: learner.validation.sample(learner.network, learner.device))


def _value(score: Score, options: Train) -> tuple[float, ...]:
    """Return what is to be large; of equal scores the lower loss is better, as it is where there is no score."""
    return (score.value or 0.0, -score.loss) if options.select == "score" else (-score.loss,)


def _note(state: State) -> str:
    if not state.history:
        return ""
    checked = next((row.validation_loss for row in reversed(state.history) if row.validation_loss is not None), None)
    trained = next((row.train_loss for row in reversed(state.history) if row.train_loss is not None), None)
    named = (("loss", trained), ("validation", checked))
    return ", ".join(f"{name} {value:.4f}" for name, value in named if value is not None)


def _terminated(step: int, steps: int) -> PipelineError:
    fix = f"run the same command again: it goes on after step {step}"
    return PipelineError("train", f"{steps} steps", f"SIGTERM after step {step}; a checkpoint was written", fix=fix)


def _record(learner: Learner, state: State) -> dict[str, Any]:
    """Return the training record of `model.json`: nothing in it differs when the same training is run again."""
    options, device = learner.settings.train, learner.device
    chosen = next(row for row in state.history if row.step == (state.best_step if state.best else state.step))
    ended = {"ended": why_settled(options, state)} if state.step < options.steps else {}
    return {
        "steps": state.step,
        **ended,
        "selected": "best" if state.best else "last",
        "selected_step": chosen.step,
        "train_loss": chosen.train_loss,
        "validation_loss": chosen.validation_loss,
        "validation_score": chosen.validation_score,
        "validation_dice": list(chosen.dice),
        "validation_tiles": learner.validation_tiles,
        "class_weights": learner.class_weights.tolist(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": learner.settings.compute.threads,
        "processes": learner.group.size,
        "settings": {"train": plain(options), "augment": plain(learner.settings.augment)},
        "digest": learner.digest,
    }
