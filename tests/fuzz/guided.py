"""Coverage-guided fuzzing with Atheris (libFuzzer): inputs that reach new code are kept and changed further."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

from fuzz import tree
from fuzz.mutate import mutate_tree

if TYPE_CHECKING:
    from fuzz.worker import Worker

INSTRUMENTED = ("unet_pipeline", "tifffile", "zarr", "numcodecs", "PIL", "yaml")
COMPILED = ("objects.fragments", "objects.distances", "evaluate.isbi", "evaluate.warping")
"""Modules that Numba compiles: it knows nothing of counters."""


def instrument(target: str) -> None:
    """Import what a target needs of the library, with counters in it; must come before any other import of it."""
    heavy = ["unet_pipeline.train.train", "unet_pipeline.predict.predict"] if target in ("model", "records") else []
    exclude = [f"unet_pipeline.{name}" for name in COMPILED]
    with atheris.instrument_imports(include=list(INSTRUMENTED), exclude=exclude):
        for name in ["unet_pipeline.images.open", "unet_pipeline.stacks.table", "unet_pipeline.stacks.ingest", *heavy]:
            importlib.import_module(name)


def run_guided(worker: Worker, one: Callable[[tree.Tree], None], rng: random.Random, home: Path) -> None:
    """Hand the loop to libFuzzer; it never returns."""
    corpus = home / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(worker.seeds):
        (corpus / f"seed{number}").write_bytes(tree.pack(seed))

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        given = tree.unpack(data) or dict(rng.choice(worker.seeds))
        changed = tree.pack(mutate_tree(given, random.Random(seed), worker.corpus))
        return changed if len(changed) <= max_size else tree.pack(rng.choice(worker.seeds))

    def test_one(data: bytes) -> None:
        if given := tree.unpack(data):
            one(given)

    flags = ["fuzz", str(corpus), "-max_len=4000000", "-len_control=0", "-timeout=3600", "-rss_limit_mb=0",
             "-print_final_stats=0", "-verbosity=0", f"-seed={rng.randrange(2**31)}"]  # fmt: skip
    atheris.Setup(flags, test_one, custom_mutator=mutate)
    atheris.Fuzz()
