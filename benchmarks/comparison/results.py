"""What a finished run leaves: its scores, its size and its seconds, in `run.json`."""

from __future__ import annotations

import json
import math
import re
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unet_pipeline.records.files import digest, sha256_file
from unet_pipeline.records.layout import CARD_FILE, WEIGHTS_FILE
from unet_pipeline.records.record import read_json

RUN = "run.json"
SCORES = ("v_rand", "v_info", "seg", "ap50")
NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")
UNITS = {"s": 1, "min": 60, "h": 3600}


def result_of(results: Path) -> dict[str, Any]:
    """Return the result of a run of this package from the folder `results` of its workflow."""
    metrics = read_json(results / "test" / "metrics.json")
    train = read_json(results / "model" / CARD_FILE)["training"]["provenance"]["config"]["train"]
    logs = results / "logs"
    return {
        "scores": scores_of(metrics),
        "parameters": parameters(results / "model" / WEIGHTS_FILE),
        "steps": train["steps"],
        "seen_px": train["steps"] * train["batch"] * train["tile_px"] ** 2,
        "seconds": {"train": done_in(logs / "train.log"), "predict": done_in(logs / "predict" / "test" / "0.log")},
        "test_px": metrics["pixels"]["of"],
    }


def done_in(log: Path) -> float | None:
    """Return the seconds that a step says it took, at the end of its log; None if it went on with an earlier one."""
    text = log.read_text(encoding="utf-8")
    found = re.findall(r", done in ((?:[\d.]+ (?:s|min|h) ?)+)$", text, re.MULTILINE)
    if not found or "resuming after" in text:
        return None
    words = found[-1].split()
    return sum(float(number) * UNITS[unit] for number, unit in zip(words[::2], words[1::2], strict=True))


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that `work` takes by a clock."""
    began = clock()
    work()
    return clock() - began


def parameters(weights: Path) -> int:
    """Return how many numbers of a safetensors file are learned: all but the running statistics of batch norm."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(length))
    kept = (name for name in head if name != "__metadata__" and not name.endswith(NOT_LEARNED))
    return sum(math.prod(head[name]["shape"]) for name in kept)


def scores_of(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the scores of the table from `metrics.json`: V_rand and V_info thinned where they are, else plain."""
    found, isbi = metrics["instances"], metrics["isbi"]
    partition = isbi if isbi and "v_rand" in isbi else found
    ap50 = found["ap"]["0.50"]["average_precision"]
    values = (partition["v_rand"]["value"], partition["v_info"]["value"], found["seg"], ap50)
    return dict(zip(SCORES, values, strict=True))


def code_digest() -> str:
    """Name the state of the package's code; a table says when its runs come from several."""
    import unet_pipeline

    root = Path(str(unet_pipeline.__file__)).parent
    return digest([[str(path.relative_to(root)), sha256_file(path)] for path in sorted(root.rglob("*.py"))])[:12]
