"""What lies where in `results/`."""

from __future__ import annotations

from collections.abc import Mapping

IMAGE = "image.ome.zarr"
WEIGHTS = "weights.zarr"
SEGMENTATION = "segmentation.ome.zarr"

INSTANCES = "instances"
CLASSES = "classes"
"""Names of labels, in a store and of their TIFF files."""

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
HISTORY_FILE = "history.tsv"
PLANES_FILE = "planes.tsv"
"""Beside a model: which plane was in which part."""

CONFUSION_FILE = "confusion.csv"
"""Beside metrics.json, which holds its checksum."""

FOLDS = "folds"
"""Folder of the models of a cross-validation."""

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
"""Records that vouch for themselves alone."""

LAST = ("metrics.json", "prove.json", "stitch.json", "tiles.json", "weigh.json", "ingest.json")
"""Records of a stack's folder, those first that stand at the end of the flow."""

BESIDE = {
    WEIGHTS_FILE: CARD_FILE,
    HISTORY_FILE: CARD_FILE,
    "classes.tif": "stitch.json",
    "instances.tif": "stitch.json",
    CONFUSION_FILE: "metrics.json",
}
"""Other products, and the record that vouches for each."""
