"""What a finished run leaves: its scores, its size and its seconds, in `run.json`."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet_pipeline.model.calibration import read_calibration
from unet_pipeline.records.files import digest, sha256_file
from unet_pipeline.records.layout import CALIBRATE_FILE, WEIGHTS_FILE
from unet_pipeline.records.record import read_json

RUN = "run.json"
SCORES = ("seg", "ap50", "v_rand", "v_info")
NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")


def result_of(results: Path, trained: Path) -> dict[str, Any]:
    """Return the result of a run of this package.

    Args:
        results: the folder of that name of its workflow.
        trained: what `learn` returned.
    """
    model = results / "model"
    return {
        "scores": scores_of(read_json(results / "test" / "metrics.json")),
        "parameters": parameters(model / WEIGHTS_FILE),
        "objects": str(read_calibration(model / CALIBRATE_FILE, None).chosen),
        **read_json(trained),
    }


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
    values = (found["seg"], ap50, partition["v_rand"]["value"], partition["v_info"]["value"])
    return dict(zip(SCORES, values, strict=True))


def code_digest() -> str:
    """Name the state of the package's code; a table says when its runs come from several."""
    import unet_pipeline

    root = Path(str(unet_pipeline.__file__)).parent
    return digest([[str(path.relative_to(root)), sha256_file(path)] for path in sorted(root.rglob("*.py"))])[:12]
