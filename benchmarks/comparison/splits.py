"""Which planes train, choose and test in each fold: made once by a seed, then fixed in `benchmarks/splits/*.tsv`."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_numbers import parse_planes
from unet_pipeline.records.files import write_text

SPLITS = Path(__file__).parents[1] / "splits"
SEED = 0
FOLDS = 3
COLUMNS = ("data", "fold", "train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One fold of a data set; each tuple holds plane numbers from 0, ascending; no plane is in two."""

    fold: int
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


def make_splits(
    name: str, planes: int, order: Literal["sequence", "independent"], folds: int = FOLDS, seed: int = SEED
) -> list[Split]:
    """Divide the planes of a data set; every plane is tested in one fold, and in each fold has one part.

    Independent planes are shuffled. A sequence is cut into runs, from a plane that the seed chooses; the planes on both
    sides of the run that is tested choose the weights, so that no plane that trains has a neighbour that is tested.
    A tenth of the planes, at least two, choose.

    Args:
        name: of the data set; each has a shuffling of its own.
        planes: how many there are.
        order: see `DataSet`.
        folds: at least 2.
        seed: of the shuffling, or of the first plane.

    Raises:
        PipelineError: more folds than leave a plane for each part.
    """
    chosen = max(2, round(planes / 10))
    if not 2 <= folds <= planes or planes - -(-planes // folds) - chosen < 1:
        expected = f"2 to {planes} folds of its {planes} labelled planes, which leave {chosen} to choose and 1 to train"
        raise PipelineError(f"{name}: folds", expected, folds)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    circle = rng.permutation(planes) if order == "independent" else np.roll(np.arange(planes), -rng.integers(planes))
    return [_fold(circle, number, folds, chosen) for number in range(folds)]


def _fold(circle: np.ndarray, number: int, folds: int, chosen: int) -> Split:
    begin, end = (len(circle) * (number + more) // folds for more in (0, 1))
    turned = np.roll(circle, -begin)
    test, rest = turned[: end - begin], turned[end - begin :]
    first = (chosen + 1) // 2
    val, train = (
        np.concatenate([rest[:first], rest[len(rest) - (chosen - first) :]]),
        rest[first:][: len(rest) - chosen],
    )
    return Split(number, *(tuple(sorted(part.tolist())) for part in (train, val, test)))


def planes_text(planes: Iterable[int]) -> str:
    """Return plane numbers as a table of stacks says them, e.g. "0-17,20"."""
    runs: list[list[int]] = []
    for plane in planes:
        if runs and plane == runs[-1][1] + 1:
            runs[-1][1] = plane
        else:
            runs.append([plane, plane])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def write_splits(name: str, splits: Sequence[Split], folder: Path = SPLITS) -> Path:
    """Write the splits of a data set as `{name}.tsv`; the same splits give the same bytes."""
    lines = ["\t".join(COLUMNS)]
    for split in splits:
        parts = (planes_text(part) for part in (split.train, split.val, split.test))
        lines.append("\t".join([name, str(split.fold), *parts]))
    path = folder / f"{name}.tsv"
    write_text(path, "\n".join(lines) + "\n")
    return path


def read_splits(name: str, planes: int, folder: Path = SPLITS) -> list[Split]:
    """Read the splits of a data set of this many planes.

    Raises:
        PipelineError: no such file, a plane that the data set has not, or a plane in two parts of a fold.
    """
    path = folder / f"{name}.tsv"
    fix = "make it anew: PYTHONPATH=benchmarks python -m comparison splits --about DATA"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise PipelineError(path, f"the splits of {name}", error, fix=fix) from error
    splits = []
    for number, row in enumerate(rows):
        if tuple(row) != COLUMNS or row["data"] != name or row["fold"] != str(number):
            raise PipelineError(path, f"columns {', '.join(COLUMNS)}, a line for each fold of {name}", row, fix=fix)
        parts = [tuple(parse_planes(path, row[part], planes)) for part in COLUMNS[2:]]
        if len(set().union(*parts)) < sum(map(len, parts)):
            raise PipelineError(f"{path}, fold {number}", "each plane once", "one that is there twice", fix=fix)
        splits.append(Split(number, *parts))
    return splits
