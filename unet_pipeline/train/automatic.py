"""What the keys of a training that say `auto` come to: settled by its stacks, before the network is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unet_pipeline.config.sections import ENCODER_DEPTH, Config
from unet_pipeline.model.depth import automatic_depth
from unet_pipeline.stacks.object_sizes import ObjectSizes, look_at_stack
from unet_pipeline.stacks.stack import Stack


def settle(config: Config, training: Sequence[Stack], validation: Sequence[Stack]) -> tuple[Config, dict[str, str]]:
    """Return the configuration with no such key left open, and what each came to and why, by the name of the key.

    Args:
        config: sections model and train are used.
        training: the stacks with role train, whole: all folds of a cross-validation come to the same.
        validation: those with role val.
    """
    model = config.model
    if model.depth != "auto" or model.network in ENCODER_DEPTH:
        return config, {}
    looked_at = () if model.start_from else (*training, *validation)
    sizes = ObjectSizes.merge(look_at_stack(stack) for stack in looked_at)
    sides = min(stack.grid.height for stack in training), min(stack.grid.width for stack in training)
    depth, why = automatic_depth(model, sizes, sides)
    return replace(config, model=replace(model, depth=depth)), {"model.depth": f"{depth}: {why}"}
