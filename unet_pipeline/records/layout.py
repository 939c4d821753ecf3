"""What lies where in results/."""

from __future__ import annotations

from collections.abc import Mapping

IMAGE = "image.ome.zarr"


WEIGHTS = "weights.zarr"


INSTANCES = "instances"


CLASSES = "classes"


SEGMENTATION = "segmentation.ome.zarr"


CARD_FILE = "model.json"


WEIGHTS_FILE = "weights.safetensors"


HISTORY_FILE = "history.tsv"


PLANES_FILE = "planes.tsv"
"""Beside a model: which plane was in which part."""


TAKEN = ("model", "folds", "logs", "benchmarks", "pictures", "report.html")
"""Names under `results/` that the workflow itself uses."""


STORES: Mapping[str, tuple[str, ...]] = {
    "ingest.json": (IMAGE,),
    "weigh.json": (WEIGHTS,),
    "tiles.json": (),
    "stitch.json": (SEGMENTATION, "classes.tif", "instances.tif"),
}
"""Records that come with a list of files, and what lies beside them that must hold no other file."""


PLAIN = ("metrics.json", "prove.json")


CONFUSION_FILE = "confusion.csv"  # beside metrics.json, which holds its checksum
"""Records that vouch for themselves alone."""


FOLDS = "folds"
"""Folder of the models of a cross-validation."""


LAST = ("metrics.json", "prove.json", "stitch.json", "tiles.json", "weigh.json", "ingest.json")
"""Records of a stack's folder, those first that stand at the end of the flow."""


BESIDE = {
    "weights.safetensors": "model.json",
    "history.tsv": "model.json",
    "classes.tif": "stitch.json",
    "instances.tif": "stitch.json",
    "confusion.csv": "metrics.json",
}
"""Other products, and the record that vouches for each."""
