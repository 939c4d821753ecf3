"""How equal the same work is on other numbers of threads and other kinds of machine: `python benchmarks/same_again.py`.

Each variant is a process of its own that trains the default network on the same demo cells and then predicts an image
it has not seen, once with its own weights and once with those of the first variant. Other processors are stood in for
by forbidding torch, oneDNN and NumPy the wider vector instructions of this one. Prints a table; takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

NARROW = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"


@dataclass(frozen=True)
class Variant:
    """A way to do the same work."""

    name: str
    threads: int = 1
    device: str = "cpu"
    environment: dict[str, str] = field(default_factory=dict)


AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "NPY_DISABLE_CPU_FEATURES": NARROW}
SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "NPY_DISABLE_CPU_FEATURES": NARROW}
VARIANTS = [
    Variant("1 thread"),
    Variant("1 thread, again"),
    Variant("2 threads", threads=2),
    Variant("2 threads, again", threads=2),
    Variant("4 threads", threads=4),
    Variant("processor with AVX2 only", environment=AVX2),
    Variant("processor with SSE4.1 only", environment=SSE),
]
GPU = [Variant("GPU", device="cuda"), Variant("GPU, again", device="cuda")]


def work(folder: Path, reference: Path | None, steps: int, threads: int, device: str) -> None:
    """Train and predict, and keep logits, labels and weights in `folder/result.npz`."""
    import safetensors.numpy
    import tifffile

    from unet_pipeline.config.checks import from_dict
    from unet_pipeline.stacks.demo import cells
    from unet_pipeline.stacks.ingest import Source, ingest
    from unet_pipeline.stacks.stack import Stack
    from unet_pipeline.stacks.weigh import weigh
    from unet_pipeline.train.train import train_model

    config = from_dict({"train": {"steps": steps}, "compute": {"threads": threads, "device": device}})
    stacks = {}
    for number, name in enumerate(("learn", "val", "unseen")):
        grey, ids = cells((384, 384), np.random.default_rng([7, number]), 30.0)
        tifffile.imwrite(folder / f"{name}.tif", grey.astype(np.float32), photometric="minisblack")
        tifffile.imwrite(folder / f"{name}_.tif", ids, photometric="minisblack")
        record = folder / name / "ingest.json"
        ingest(Source(name, str(folder / f"{name}.tif"), str(folder / f"{name}_.tif")), config, record)
        stacks[name] = Stack.open(record)
        weigh(stacks[name], config, record.with_name("weigh.json"))
    train_model([folder / "learn" / "weigh.json"], [folder / "val" / "weigh.json"], config, folder / "model")
    model = reference / "model" if reference else folder / "model"
    np.savez(
        folder / "result.npz",
        given=_logits(model, stacks["unseen"], config),
        own=_logits(folder / "model", stacks["unseen"], config),
        boundary=np.asarray(_boundary(folder / "learn")),
        weights=np.concatenate([part.ravel() for part in _tensors(safetensors.numpy, folder)]),
    )


def _tensors(library, folder: Path) -> list[npt.NDArray]:
    tensors = library.load_file(folder / "model" / "weights.safetensors")
    return [tensors[name] for name in sorted(tensors)]


def _boundary(folder: Path) -> npt.NDArray:
    import zarr

    return zarr.open_group(folder / "weights.zarr", mode="r")["boundary"][:]


def _logits(model: Path, stack, config) -> npt.NDArray[np.float32]:
    """Logits (classes, y, x) of the mirrored plane in one pass."""
    from unet_pipeline.config.sections import Predict
    from unet_pipeline.predict.forward import Forward

    forward = Forward.load(model, stack, Predict(), config.compute)
    margin, stride = forward.card.geometry.before, forward.card.geometry.stride
    window = stack.image.read(0, slice(0, 384), slice(0, 384))
    size = forward.card.geometry.read_px(384) - 384 - margin
    assert 384 % stride == 0
    padded = np.pad(window, ((0, 0), (margin, size), (margin, size)), mode="reflect")
    return forward([forward.window(padded[:, None])])[0, :, 0].cpu().numpy()


def run(variant: Variant, folder: Path, reference: Path | None, steps: int) -> None:
    """Do the work of a variant in a process of its own."""
    folder.mkdir()
    command = [sys.executable, __file__, "--work", str(folder), "--steps", str(steps)]
    command += ["--threads", str(variant.threads), "--device", variant.device]
    command += ["--reference", str(reference)] if reference else []
    subprocess.run(command, check=True, env=os.environ | variant.environment, stderr=subprocess.DEVNULL)


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities (classes, y, x)."""
    shares = np.exp(logits - logits.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0))


def compare(first: Path, other: Path) -> list[str]:
    """The cells of a row: differences of `other` from `first`."""
    a, b = np.load(first / "result.npz"), np.load(other / "result.npz")
    names = ("boundary", "given", "weights", "own")
    difference = {name: float(np.abs(a[name] - b[name]).max()) for name in names}
    equal = {name: np.mean(a[name].argmax(axis=0) == b[name].argmax(axis=0)) for name in ("given", "own")}
    given = float(np.abs(softmax(a["given"]) - softmax(b["given"])).max())
    own = float(np.abs(softmax(a["own"]) - softmax(b["own"])).max())
    return [
        f"{difference['boundary']:.1e}",
        f"{difference['given']:.1e}",
        f"{given:.1e}",
        f"{equal['given']:.6%}",
        f"{difference['weights']:.1e}",
        f"{own:.1e}",
        f"{equal['own']:.4%}",
    ]


def main() -> None:
    """Run all variants and print the table as Markdown."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=100, help="training steps of each variant")
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.work:
        return work(given.work, given.reference, given.steps, given.threads, given.device)
    import torch

    from unet_pipeline.records.provenance import machine

    print(f"{machine()}, Python {platform.python_version()}, torch {torch.__version__}, {given.steps} steps\n")
    columns = ("weight map", "logits", "probabilities", "equal labels", "weights", "probabilities", "equal labels")
    print(f"| against 1 thread | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as base:
        first: Path | None = None
        for number, variant in enumerate(VARIANTS + (GPU if torch.cuda.is_available() else [])):
            folder = Path(base, str(number))
            run(variant, folder, first, given.steps)
            first = first or folder
            print(f"| {variant.name} | {' | '.join(compare(first, folder))} |", flush=True)
    print("\nLargest absolute differences. Weight map: boundary term of weigh. Logits to equal labels: the same model.")
    print("The last three: each variant after its own training.")
    return None


if __name__ == "__main__":
    main()
