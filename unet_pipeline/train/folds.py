"""The labelled planes divided into training and validation: a share held out, or the folds of a cross-validation.

Planes are drawn by `train.seed` alone, stack by stack, so that each stack gives its part; a stack that is added at the
end of the table moves no plane of the others from one fold to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unet_pipeline.config.sections import IGNORE, Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.train.training_stack import TrainingStack

STRIP_PX = 512
"""Rows read at a time when a plane is searched for annotated pixels."""

DRAW = 2015
"""Sets the random numbers of the division apart from those of tiles, which are drawn by the same seed."""

StackPlane = tuple[int, int]
"""Index of a stack, and a plane of it."""


@dataclass(frozen=True)
class Division:
    """The training stacks, divided.

    Attributes:
        train: the stacks with the planes tiles are drawn from; those left without one are not in it.
        validate: the stacks with the planes held out; empty without a division.
        held_out: planes of each stack that is given, in ascending order; empty without a division.
    """

    train: tuple[TrainingStack, ...]
    validate: tuple[TrainingStack, ...] = ()
    held_out: tuple[tuple[int, ...], ...] = ()

    def text(self) -> str:
        """Return the content of `planes.tsv`: columns stack, plane (from 0) and part (train or validate)."""
        rows = [
            (stack.name, plane, part)
            for part, stacks in (("train", self.train), ("validate", self.validate))
            for stack in stacks
            for plane in stack.used
        ]
        lines = ["\t".join(map(str, row)) for row in sorted(rows)]
        return "\n".join(["stack\tplane\tpart", *lines]) + "\n"


def check_fold(options: Train, fold: int | None) -> None:
    """Refuse a fold that the configuration does not have, or none where it has several.

    Raises:
        PipelineError: naming the nearest.
    """
    last = options.folds - 1
    if last and (fold is None or not 0 <= fold <= last):
        nearest = min(max(fold or 0, 0), last)
        expected = f"0 to {last}, the fold that is held out (train.folds is {options.folds})"
        raise PipelineError("--fold", expected, "none" if fold is None else fold, nearest)
    if not last and fold is not None:
        raise PipelineError(
            "--fold", "no fold where train.folds is 1", fold, fix="leave --fold out, or set train.folds"
        )


def divide(
    stacks: Sequence[TrainingStack], options: Train, fold: int | None = None, validated: bool = False
) -> Division:
    """Divide the labelled planes of training stacks as `train.folds` or `train.hold_out` says.

    Args:
        stacks: with role train; all their planes may be used.
        options: section `train`.
        fold: which fold is held out, from 0; None without cross-validation.
        validated: whether other stacks validate, so that `train.hold_out: auto` holds nothing out.

    Returns:
        The division; where nothing is held out the stacks as they are.

    Raises:
        PipelineError: more folds than labelled planes, or a share that leaves no plane for training.
    """
    check_fold(options, fold)
    if fold is None and not options.held_out_share(sum(len(stack.used) for stack in stacks), validated):
        return Division(tuple(stacks))
    planes = [labelled(stack) for stack in stacks]
    # neighbouring planes of a volume are alike, and a network of volumes sees them: whole runs of planes are held out
    deep = any(stack.deep for stack in stacks)
    places = in_runs(planes, options.seed) if deep else shuffled(planes, options.seed)
    share = options.held_out_share(len(places), validated)
    if fold is None and not share:  # of some planes nothing is annotated
        return Division(tuple(stacks))
    check_planes(len(places), options)
    if fold is not None:
        chosen = set((cut if deep else dealt)(places, options.folds)[fold])
    else:
        chosen = set(places[: count_of(len(places), share)] if deep else drawn(places, share))
    held_out = [tuple(p for p in each if (index, p) in chosen) for index, each in enumerate(planes)]
    kept = [tuple(p for p in each if (index, p) not in chosen) for index, each in enumerate(planes)]
    return Division(_with_planes(stacks, kept), _with_planes(stacks, held_out), tuple(held_out))


def _with_planes(stacks: Sequence[TrainingStack], planes: Sequence[tuple[int, ...]]) -> tuple[TrainingStack, ...]:
    return tuple(replace(stack, planes=some) for stack, some in zip(stacks, planes, strict=True) if some)


def check_planes(labelled_planes: int, options: Train) -> None:
    """Refuse a division that needs more labelled planes than there are in the stacks with role train."""
    if options.folds > max(labelled_planes, 1):
        expected = f"at most {labelled_planes}, the labelled planes of the stacks with role train"
        raise PipelineError("train.folds", expected, options.folds, max(labelled_planes, 1))
    if labelled_planes < 2:
        where, got = ("train.folds", options.folds) if options.folds > 1 else ("train.hold_out", options.hold_out)
        expected = "two labelled planes or more in the stacks with role train, to train on one and hold one out"
        raise PipelineError(where, expected, f"{labelled_planes} with {where} {got}", 1 if options.folds > 1 else 0)


def labelled(stack: TrainingStack) -> tuple[int, ...]:
    """Return the used planes of a stack that have an annotated pixel, ascending."""
    return tuple(sorted(plane for plane in stack.used if _annotated(stack, plane)))


def _annotated(stack: TrainingStack, plane: int) -> bool:
    height, width = stack.size
    strips = (slice(row, min(row + STRIP_PX, height)) for row in range(0, height, STRIP_PX))
    return any(bool((stack.target.read_label(plane, rows, slice(0, width)) != IGNORE).any()) for rows in strips)


def shuffled(planes: Sequence[Sequence[int]], seed: int) -> list[StackPlane]:
    """Return (stack, plane) of all planes: stack after stack, the planes of each in an order drawn by the seed."""
    return [
        (index, each[int(number)])
        for index, each in enumerate(planes)
        for number in np.random.default_rng([seed, DRAW, index]).permutation(len(each))
    ]


def in_runs(planes: Sequence[Sequence[int]], seed: int) -> list[StackPlane]:
    """Return (stack, plane) of all planes in order, from a plane on that the seed draws; then those before it."""
    places = [(index, plane) for index, each in enumerate(planes) for plane in each]
    first = int(np.random.default_rng([seed, DRAW]).integers(max(1, len(places))))
    return places[first:] + places[:first]


def cut(places: Sequence[StackPlane], parts: int) -> list[list[StackPlane]]:
    """Cut a list of planes into parts that differ by one plane at most."""
    count = min(max(parts, 2), len(places))
    return [list(places[n * len(places) // count : (n + 1) * len(places) // count]) for n in range(count)]


def dealt(places: Sequence[StackPlane], folds: int) -> list[list[StackPlane]]:
    """Deal shuffled planes out like cards: folds that differ by one plane at most, of each stack and in all."""
    return [list(places[fold::folds]) for fold in range(folds)]


def count_of(planes: int, share: float) -> int:
    """Return how many of two or more planes are a share: at least one, and never all."""
    return min(max(round(share * planes), 1), planes - 1)


def drawn(places: Sequence[StackPlane], share: float) -> list[StackPlane]:
    """Return a share of two or more shuffled planes, evenly over the stacks: at least one, and never all."""
    count = count_of(len(places), share)
    return [places[number * len(places) // count] for number in range(count)]
