"""Whether a training ends before its last step, because its validations no longer find anything better.

What decides is in every checkpoint, so a training that was interrupted ends at the same step as one that was not.
"""

from __future__ import annotations

from unet_pipeline.config.sections import Train
from unet_pipeline.train.learner import Learner, State


def settled(learner: Learner, state: State) -> bool:
    """Return whether the last `train.patience` validations gave nothing better; the same in all processes."""
    options = learner.settings.train
    if options.patience is None:
        return False
    # the small steps of the warm-up, and those with a frozen encoder, say nothing of what is to come
    since = max(state.best_step, options.warmup, options.freeze_steps)
    vain = sum(row.step > since and row.validation_loss is not None for row in state.history)
    # asked of all: a process that went on alone would wait for the gradients of the others
    return learner.group.any(vain >= options.patience, learner.device)


def why_settled(options: Train, state: State) -> str:
    """Say why the training ended early."""
    kind = "score" if options.select == "score" else "loss"
    return f"{options.patience} validations without a better {kind} than that of step {state.best_step}"
