"""One trained network on one device: windows of grey values in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from unet_pipeline.config.sections import Compute, Mirror, Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.allocator import keep_pages
from unet_pipeline.model.averaging import LAYOUTS, Ensemble, Network, check_mirror, dense, mirrored_mean
from unet_pipeline.model.card import ModelCard
from unet_pipeline.model.copies import Arriving, Beside, sent_normalised
from unet_pipeline.model.device import (
    PRECISIONS,
    Compiled,
    autocast,
    choose_device,
    explain_memory,
    usable_precision,
)
from unet_pipeline.model.fused import fuse
from unet_pipeline.model.models import load_model
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.records.fields import ComputeUsed
from unet_pipeline.stacks.stack import Stack

CPU = torch.device("cpu")
FULL = ("tile.tile_px", "lower tile.tile_px or predict.batch in config.yaml")
"""The key that takes a GPU's memory, and how to take less; for `explain_memory`."""


@dataclass(frozen=True)
class Forward:
    """A network in evaluation mode, ready to be applied to windows of one stack.

    Attributes:
        network: maps (n, channels, [z,] y, x) to logits (n, classes, [z',] y', x').
        card: of the model.
        normaliser: makes the network's input of grey values of the stack; never measured on a tile.
        device: where it runs.
        precision: number format of the convolutions.
        mirror: which mirrorings of a window are averaged (see `averaging`).
        members: the networks of an ensemble, one by one; empty of a single network.
        batch: windows a GPU computes in one pass; a CPU takes one after the other.
        up, down: what copies windows to a GPU, and its results back.
    """

    network: Network
    card: ModelCard
    normaliser: Normaliser
    device: torch.device
    precision: str
    mirror: Mirror = "none"
    members: tuple[Network, ...] = ()
    batch: int = 1
    up: Beside = Beside(CPU)
    down: Beside = Beside(CPU)

    @property
    def dimensions(self) -> int:
        """2: it sees planes; 3: volumes."""
        return self.card.architecture.dimensions

    @classmethod
    def load(cls, model: Path, stack: Stack, options: Predict, compute: Compute) -> Forward:
        """Load a model folder for one stack.

        Raises:
            PipelineError: missing or altered model, another channel count, CUDA asked for and absent.
        """
        # before the first pass: the number of threads decides the order of float32 sums
        torch.set_num_threads(compute.threads)
        keep_pages()
        device = choose_device(compute)
        precision = usable_precision(device, options.precision, "predict.precision")
        network, card = load_model(model, device)
        card.check_image(stack.channels, f"stack {stack.name}")
        check_mirror(card.geometry, options.mirror)
        network = network.to(memory_format=LAYOUTS[card.architecture.dimensions])  # type: ignore[call-overload]
        if device.type == "cuda" and not compute.compile:  # the compiler does that, and more
            fuse(network, PRECISIONS[precision])
        normaliser = card.normaliser_of(stack.ingested.statistics, stack.dtype)
        parts = network.members if isinstance(network, Ensemble) else ()
        whole, *members = [Compiled(one) if compute.compile else one for one in (network, *parts)]
        return cls(
            network=whole,
            card=card,
            normaliser=normaliser,
            device=device,
            precision=precision,
            mirror=options.mirror,
            members=tuple(members),
            batch=options.batch,
            up=Beside(device),
            down=Beside(device),
        )

    def without(self, stack: Stack, plane: int) -> Forward:
        """Return the member of a cross-validation that has not seen a plane; all of them if none has seen its labels.

        Raises:
            PipelineError: if the model is no ensemble of the folds of this stack.
        """
        held_out = [
            [place for place in one.get("held_out", ()) if place.get("id") == stack.ingested.id]
            for one in self.card.training.get("members", ())
        ]
        if len(held_out) != len(self.members) or not any(held_out):
            fix = "predict it without --out-of-fold (tile), or by the ensemble of its folds (train.folds)"
            raise PipelineError(f"stack {stack.name}", "a model that held out its planes", "another", fix=fix)
        unseen = [any(plane in place.get("planes", ()) for place in places) for places in held_out]
        return replace(self, network=self.members[unseen.index(True)]) if any(unseen) else self

    def arriving(self, raw: npt.NDArray[Any]) -> Arriving:
        """Send grey values (channels, z, y, x) to the device, normalised: one part, as `window` returns it.

        Any thread may call it; the network goes on meanwhile.
        """
        with explain_memory(*FULL):
            if self.device.type == "cpu":
                return Arriving((torch.from_numpy(self.normaliser(raw)),))
            return self.up.make(lambda: (sent_normalised(raw, self.normaliser, self.device),))

    def window(self, raw: npt.NDArray[Any]) -> torch.Tensor:
        """Return grey values (channels, z, y, x) of the stack as the network wants them: float32, on the device."""
        return self.arriving(raw).take()[0]

    def __call__(self, windows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return float32 logits (n, classes, z', y', x') of windows (channels, z, y, x), on the device.

        To a network of planes each window is one plane.

        With mirroring or an ensemble these are the logits of the mean probability. Kernels are chosen by the shape of a
        pass, the number of windows included. So windows of one size get passes of one shape, however many there are:
        one window on a CPU, to which more bring nothing; `batch` on a GPU, the last repeated where there are fewer.

        Raises:
            PipelineError: if the GPU has too little memory; names the key to lower.
        """
        size = 1 if self.device.type == "cpu" else self.batch
        groups = [list(windows[start : start + size]) for start in range(0, len(windows), size)]
        with explain_memory(*FULL), _exact(), torch.inference_mode():
            return torch.cat([self._pass(group + group[-1:] * (size - len(group)))[: len(group)] for group in groups])

    def _pass(self, windows: Sequence[torch.Tensor]) -> torch.Tensor:
        batch, planar = torch.stack(tuple(windows)), self.dimensions == 2
        batch = dense(batch.squeeze(2) if planar else batch)
        with autocast(self.device, self.precision):
            logits = mirrored_mean(self.network, batch, self.mirror, self.card.activation).float()
        return logits.unsqueeze(2) if planar else logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of logits, both (classes, ..., y, x) float32."""
        return logits.softmax(dim=0) if self.card.activation == "softmax" else logits.sigmoid()


def _exact() -> AbstractContextManager[None]:
    """Return the context in which cuDNN gives the same bits again: no kernel chosen by a race, no TF32."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def describe_compute(forward: Forward, compute: Compute) -> ComputeUsed:
    """Return all that kernels are chosen by: device, threads, precision, version of torch, instructions."""
    cuda = forward.device.type == "cuda"
    return ComputeUsed(
        device=torch.cuda.get_device_name(forward.device) if cuda else "cpu",
        threads=compute.threads,
        precision=forward.precision,
        torch=str(torch.__version__),
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
