"""The layout of `results/`: every name once. The rules of the workflow keep literal paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# In the folder of a stack: a record of each step, and what it vouches for.
INGEST_FILE = "ingest.json"
WEIGH_FILE = "weigh.json"
TILES_FILE = "tiles.json"
REGIONS = "regions"
"""Folder of the records of predict, one for each region."""
STITCH_FILE = "stitch.json"
MEASURE_FILE = "measure.json"
METRICS_FILE = "metrics.json"
PROVE_FILE = "prove.json"

IMAGE = "image.ome.zarr"
WEIGHTS = "weights.zarr"
SEGMENTATION = "segmentation.ome.zarr"

INSTANCES = "instances"
CLASSES = "classes"
"""Names of labels, in a store and of their TIFF files."""

TIFFS: Mapping[str, str] = {CLASSES: "classes.tif", INSTANCES: "instances.tif"}
"""Labels as TIFF, by their name, where `stitch.tiff` asks for them."""

TABLES: Mapping[str, str] = {"parquet": "objects.parquet", "csv": "objects.csv"}
"""Tables of objects, of a stack and, beside the page, of all stacks, by the words of `measure.formats`."""

OBJECT_FILES: Mapping[str, str] = {**TABLES, "geojson": "objects.geojson"}
"""What `measure` writes of a stack, by the words of `measure.formats`: tables, and outlines."""

CONFUSION_FILE = "confusion.csv"
"""Beside metrics.json, which holds its checksum."""

# In the folder of a model.
CARD_FILE = "model.json"
CALIBRATE_FILE = "calibrate.json"
"""Beside the card of a model: how objects are made of its probabilities."""
WEIGHTS_FILE = "weights.safetensors"
HISTORY_FILE = "history.tsv"
PLANES_FILE = "planes.tsv"
"""Table beside a model: the part, training or validation, of each plane."""

CHECKPOINT = Path(".training") / "state.safetensors"
"""The checkpoint in the model folder. It stays after the training: a model whose files were lost or damaged is then
restored without training again."""

FORMER = CHECKPOINT.parent / "former"
"""Folder in the model folder: the model that was there before, until the new one is complete."""

# In the working directory.
RESULTS = "results"
DEMO = tuple(
    f"demo/{name}{kind}.tif"
    for name in ("train_a", "train_b", "val", "unseen", "small", "new")
    for kind in ("", "_labels")
)
"""The files that the rule `demo` makes."""

# In the folder of all results.
MODEL = "model"
PREVIOUS_MODEL = f"{MODEL}.previous"
"""Folder of the model of before; see `previous_model`."""
FOLDS = "folds"
"""Folder of the models of a cross-validation."""
LOGS = "logs"
BENCHMARKS = "benchmarks"
"""Folder of the measurements that Snakemake takes of each job."""
PICTURES = "pictures"
REPORT_FILE = "report.html"
REPORT_RECORD = "report.json"
"""Vouches for the page and its pictures."""
REPORT_LIST = "report.sha256"

TAKEN = (
    MODEL, PREVIOUS_MODEL, FOLDS, LOGS, BENCHMARKS, PICTURES, REPORT_FILE, REPORT_RECORD, REPORT_LIST,
    *TABLES.values(),
)  # fmt: skip
"""Names under `results/` that the workflow itself uses."""

STORES: Mapping[str, tuple[str, ...]] = {
    INGEST_FILE: (IMAGE,),
    WEIGH_FILE: (WEIGHTS,),
    TILES_FILE: (),
    STITCH_FILE: (SEGMENTATION, *TIFFS.values()),
    MEASURE_FILE: tuple(OBJECT_FILES.values()),
}
"""Records that come with a list of files, and what lies beside them that must hold no other file."""

PLAIN = (METRICS_FILE, PROVE_FILE)
"""Records that vouch for themselves alone."""

FLOW = (
    INGEST_FILE, WEIGH_FILE, CARD_FILE, CALIBRATE_FILE, TILES_FILE, REGIONS, STITCH_FILE, MEASURE_FILE, METRICS_FILE,
    PROVE_FILE, REPORT_RECORD,
)  # fmt: skip
"""Records by their names, each after those that it is made from."""

VOUCHING: Mapping[str, str] = {
    **{product: record for record, products in STORES.items() for product in products},
    WEIGHTS_FILE: CARD_FILE,
    HISTORY_FILE: CARD_FILE,
    CONFUSION_FILE: METRICS_FILE,
    REPORT_FILE: REPORT_RECORD,
}
"""Stores and other products, and the record that vouches for each."""


def list_path(record: Path) -> Path:
    """Return the place of the list of a record: `results/a/stitch.sha256` of `results/a/stitch.json`."""
    return record.with_suffix(".sha256")


def calibration_in(model: Path) -> Path | None:
    """Return the calibration in the folder of a model; None where there is none."""
    file = model / CALIBRATE_FILE
    return file if file.is_file() else None


def previous_model(folder: Path) -> Path:
    """Return the place of the model that a model folder held before: `results/model.previous` of `results/model`."""
    return folder.with_name(f"{folder.name}.previous")


def region_path(folder: Path, region: int) -> Path:
    """Return the place of the record of a region, in the folder of its stack."""
    return folder / REGIONS / f"{region}.json"


def journal_path(record: Path) -> Path:
    """Return the place of the journal of a region: `regions/.3.json.shards` of `regions/3.json`."""
    return record.with_name(f".{record.name}.shards")


def measured_path(results: Path, stack: str, region: int) -> Path:
    """Return the file of Snakemake's measurements of the job that predicted a region."""
    return results / BENCHMARKS / "predict" / stack / f"{region}.tsv"
