"""What every job pays before its work, and a training beside it: `python benchmarks/starts.py`."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from figures import Figure, publish, sized, step

from unet_pipeline.model.card import Architecture
from unet_pipeline.model.models import build
from unet_pipeline.train.checkpoint import write_checkpoint
from unet_pipeline.train.learner import State, snapshot

MISSING = ["--ingest", "nowhere.json", "--output", "nowhere/out.json"]
VERBS = {
    "ingest": ["--stack", "s", "--image", "nowhere.tif", "--output", "nowhere/ingest.json"],
    "weigh": MISSING,
    "tile": MISSING,
    "stitch": ["--tiles", "nowhere.json", "--regions", "nowhere.json", "--output", "nowhere/stitch.json"],
    "evaluate": ["--stitch", "nowhere.json", "--output", "nowhere/metrics.json"],
    "report": ["--model", "nowhere", "--stacks", "nowhere", "--output", "nowhere/report.html"],
    "train": ["--train", "nowhere.json", "--output", "nowhere"],
    "predict": ["--tiles", "nowhere.json", "--region", "0", "--model", "nowhere", "--output", "nowhere/0.json"],
}
"""Each up to its first look at its input."""
WITH_NETWORK = ("train", "predict")
BASE = sized(64, 4)


def cpu_seconds(*command: str) -> float:
    """Return the CPU time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd="/", capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts(rounds: int) -> list[Figure]:
    """Time the start of each verb, over that of the library it cannot do without; medians, taken in turn."""
    step("starts of the verbs")
    commands = {library: ("-c", f"import {library}") for library in ("numpy", "torch")}
    commands |= {verb: ("-m", "unet_pipeline", verb, *options) for verb, options in VERBS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            taken = cpu_seconds(*command)
            if turn:  # the first fills the caches
                times[name].append(taken)
    spent = {name: statistics.median(taken) for name, taken in times.items()}
    over = {verb: "torch" if verb in WITH_NETWORK else "numpy" for verb in VERBS}
    return [
        Figure(f"starts: {verb}, over {over[verb]}", spent[verb] - spent[over[verb]], None, "CPU s", 0.5, at_most=True)
        for verb in VERBS
    ]


def checkpoint(rounds: int) -> Figure:
    """Time what a training waits for a checkpoint of the paper's network with Adam, and the writing beside it."""
    step("a checkpoint")
    network = build(Architecture("unet", 4, BASE, 1, 2, 0.5)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learner = SimpleNamespace(network=network, optimiser=optimiser, scaler=torch.amp.GradScaler("cpu"), digest="bench")
    waits, writes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            taken = snapshot(learner, State(best=best))
            waits.append(time.perf_counter() - began)
            write_checkpoint(Path(folder) / "state.safetensors", taken)
            writes.append(time.perf_counter() - began - waits[-1])
        size = (Path(folder) / "state.safetensors").stat().st_size
    name = f"starts: a checkpoint of {size / 1e6:.0f} MB, what training waits, against writing it"
    return Figure(name, statistics.median(waits), statistics.median(writes), "s", 5, larger=False)


if __name__ == "__main__":
    publish("starts", [*starts(sized(7, 1)), checkpoint(sized(3, 1))])
