"""The former model of a folder stays whole until another has taken its place, and is kept beside it then.

Snakemake removes the outputs of a job before it starts. So the model that lies there is set aside before the first job,
by hard links that take no room:

```
results/model/                    whole | being trained                | the new one
results/model/.training/former/         | the former one               |
results/model.previous/                 | the one before, if there was | the former one
```
A training that was cut off and goes on finds no model to set aside. One that ends with the model of before, because
nothing it depends on had changed, keeps the one before that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, read_card
from unet_pipeline.records.claim import remove, replacing, sweep
from unet_pipeline.records.files import Check, refuse_link, sha256_file, unclaimed
from unet_pipeline.records.layout import (
    CALIBRATE_FILE,
    CARD_FILE,
    FORMER,
    HISTORY_FILE,
    PLANES_FILE,
    WEIGHTS_FILE,
    previous_model,
)

FILES = (WEIGHTS_FILE, HISTORY_FILE, PLANES_FILE, CALIBRATE_FILE, CARD_FILE)
"""What is kept of a model, the card last."""


def set_aside(folder: Path) -> Path | None:
    """Set the model of a folder aside, if it is whole, before its files are removed.

    Returns:
        Where the former model lies; None where there is none.

    Raises:
        PipelineError: if the place cannot be written, or is a link.
    """
    refuse_link((folder / FORMER).parent)
    aside, card = folder / FORMER, whole(folder)
    kept = whole(aside)
    if card is not None and not _same(card, kept):
        _link(folder, aside)
    return None if card is None and kept is None else aside


def keep_former(folder: Path, card: ModelCard, check: Check = unclaimed) -> None:
    """Put the former model into its last place, just before the files of the new one are written; or drop an equal one.

    Args:
        folder: the model folder.
        card: of the new model, with the SHA-256 of its weights.
        check: called before anything is replaced.

    Raises:
        PipelineError: from `check`, or if the place cannot be written.
    """
    aside = folder / FORMER
    former = whole(aside)
    if former is not None and not _same(former, card):
        _link(aside, previous_model(folder), check)
    check()
    remove(aside)


@contextmanager
def kept_aside(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say where the former model of a folder lies, when the block begins and when it fails."""
    aside = set_aside(folder)
    if aside is not None:
        say(f"the former model stays in {aside} until this one is complete, then in {previous_model(folder)}")
    try:
        yield
    except BaseException:
        if aside is not None and aside.exists():
            say(f"the former model is whole, in {aside}: name that folder in model.folder to use it")
        raise


def whole(folder: Path) -> ModelCard | None:
    """Return the card of the model in a folder; None where there is none, or its files are not what was written."""
    try:
        card = read_card(folder)
        return card if sha256_file(folder / WEIGHTS_FILE) == card.weights_sha256 else None
    except (PipelineError, OSError):
        return None


def _same(one: ModelCard, other: ModelCard | None) -> bool:
    """Return whether two models give the same answers."""
    return other is not None and replace(one, training={}) == replace(other, training={})


def _link(source: Path, target: Path, check: Check = unclaimed) -> None:
    """Let a folder hold the files of a model; copies where the file system has no hard links."""
    sweep(target)
    with replacing(target, check) as partial:
        partial.mkdir()
        for name in FILES:
            if (source / name).is_file():
                try:
                    os.link(source / name, partial / name)
                except OSError:
                    shutil.copy2(source / name, partial / name)
