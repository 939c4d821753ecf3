"""A training of seconds that may be killed at a step, for the tests of the loop."""

import io

import numpy as np
from synthetic_training import CARD, discs, settings

from unet_pipeline.machine.progress import Progress
from unet_pipeline.records.files import unclaimed
from unet_pipeline.train.loop import train

STACKS = [discs(0), discs(1, (1, 40, 90), name="second")]
VALIDATION = [discs(2, (1, 50, 50), name="held out")]
FILES = ("weights.safetensors", "model.json", "history.tsv")


class Killed(Exception):
    """Stands for whatever ends a job at any moment."""


class Hooked(Progress):
    """A progress that acts at a step."""

    def __init__(self, at=None, act=None):
        self.text = io.StringIO()
        super().__init__(0, "train", self.text)
        self.at, self.act = at, act

    def advance(self, units=1, note=""):
        super().advance(units, note)
        if self.done == self.at:
            self.act()


def kill():
    raise Killed


def run(
    folder,
    options=None,
    at=None,
    act=kill,
    digest="d",
    validation=VALIDATION,
    stacks=STACKS,
    card=CARD,
    weights=(1, 2),
    check=unclaimed,
):
    progress = Hooked(at, act)
    weights, options = np.array(weights, float), options or settings()
    result = train(stacks, validation, card, weights, options, folder, digest, progress, check)
    return result, progress.text.getvalue()


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}
