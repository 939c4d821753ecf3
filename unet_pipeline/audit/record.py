"""Record: the way from a result to the records that vouch for it, and from there upwards to the source files.

report.json ─► metrics.json, measure.json ─► stitch.json ─► regions/*.json ─► tiles.json ─► ingest.json ─► image, labels
and, from each region, model.json ─► weigh.json ─► ingest.json, from stitch.json calibrate.json ─► model.json
(of an ensemble: model.json ─► model.json of each member ─► weigh.json; of a training that started from a finished
model: model.json ─► model.json of that ─► ...).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import ModelCard, is_card, parse_card
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.fields import ComputeUsed
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import (
    BENCHMARKS,
    CARD_FILE,
    FLOW,
    IMAGE,
    LOGS,
    REGIONS,
    REPORT_RECORD,
    SEGMENTATION,
    STITCH_FILE,
    TABLES,
    VOUCHING,
    WEIGHTS,
)
from unet_pipeline.records.provenance import Provenance, portable_path, possible_paths
from unet_pipeline.records.record import how_to_remake, read_json
from unet_pipeline.records.score_records import ReportRecord
from unet_pipeline.records.stack_records import IngestRecord, WeighRecord
from unet_pipeline.records.steps import Record, any_record
from unet_pipeline.records.volume_records import PredictRecord, StitchRecord

State = Literal["as recorded", "changed", "missing"]

KNOWN = "a record (JSON), a store, a stack's folder, a model folder, results/, or a file that lies in them"


@dataclass(frozen=True)
class Input:
    """A file that a record was made from.

    Attributes:
        name: its path as the record says it.
        sha256: its checksum of that time.
        path: its present place; None where it is not found.
        state: whether it still is what the record was made from.
    """

    name: str
    sha256: str
    path: Path | None
    state: State


@dataclass(frozen=True)
class Link:
    """One link of the chain that made a result: a record and its inputs.

    Attributes:
        record: its path.
        content: what it says.
        made: its provenance; None of a model that was made without this pipeline.
        inputs: the records it was made from, and files such as the weights that training started from.
        before: whether it is reached only through the model that a training started from, which has its own
            configuration and table.
    """

    record: Path
    content: Record | ModelCard
    made: Provenance | None
    inputs: tuple[Input, ...]
    before: bool = False

    @property
    def verb(self) -> str:
        """The step that wrote it."""
        return self.content.step

    @property
    def name(self) -> str:
        """The stack, with the number of the region; "model", "fold 0" of one of a cross-validation; "page"."""
        if isinstance(self.content, ReportRecord):
            return "page"
        if isinstance(self.content, CalibrateRecord):
            return "model"
        if isinstance(self.content, ModelCard):
            fold = self.content.training.get("fold")
            return "model" if fold is None else f"fold {fold}"
        region = f" {self.content.region}" if isinstance(self.content, PredictRecord) else ""
        return f"{self.content.stack}{region}"

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """The sections of the configuration that the step was given, and of ingest its row as "source"."""
        return self.made.config if self.made else {}

    @property
    def compute(self) -> dict[str, Any]:
        """Device, threads and precision of a step that runs the network; else empty."""
        if isinstance(self.content, ModelCard):
            training = self.content.training
            return {key: training[key] for key in ("device", "threads") if key in training}
        used = getattr(self.content, "compute", None)
        return asdict(used) if isinstance(used, ComputeUsed) else {}

    @property
    def found(self) -> dict[str, str]:
        """What the step itself came to where its configuration says auto or calibrated, by what it is."""
        content = self.content
        if isinstance(content, StitchRecord):
            return {"objects": str(content.made)}
        if isinstance(content, CalibrateRecord):
            score = "" if content.chosen_score is None else f"; {content.score} {content.chosen_score}"
            return {"objects": f"{content.chosen}{score}"}
        if isinstance(content, WeighRecord):
            return {"weights": f"sigma {content.sigma_px:g} px, gap {content.gap_px} px"}
        if isinstance(content, ModelCard):
            places = [f"{one['stack']} {one['planes']}" for one in content.training.get("held_out", ())]
            auto = content.training.get("auto")
            said = {str(name): str(text) for name, text in auto.items()} if isinstance(auto, dict) else {}
            return said | ({"planes held out": ", ".join(places)} if places else {})
        return {}

    @property
    def sources(self) -> dict[str, str]:
        """Fingerprints of the source files of an ingested stack, by "image" and "labels"; else empty."""
        if not isinstance(self.content, IngestRecord):
            return {}
        return {name: value for name, value in asdict(self.content.fingerprints).items() if value}

    @property
    def seed(self) -> int | None:
        """Seed of a training; None of any other step, which draws nothing at random."""
        return self.config.get("train", {}).get("seed") if self.verb == "train" else None


def trace(result: Path) -> list[Link]:
    """Return the chain that made a result: its own records, then the records those were made from, up to ingest.

    Args:
        result: a record, a store, a file of a store, a model folder, the folder of a stack or of all, or a file
            beside the records: report.html, weights.safetensors, history.tsv, classes.tif, instances.tif,
            objects.parquet, objects.csv, objects.geojson, confusion.csv.

    Raises:
        PipelineError: if it is none of those, or one of its own records is damaged.
    """
    waiting, starts, found = deque(vouching(result)), deque[Path](), dict[Path, Link]()
    while waiting or starts:
        before = not waiting  # the start of a training last: what both were made from belongs to the result
        path = (waiting or starts).popleft()
        if path.resolve() in found:
            continue
        found[path.resolve()] = link = replace(read_link(path), before=before)
        for one in link.inputs:
            if one.path is not None and one.path.suffix == ".json":
                start = before or (link.verb == "train" and one.path.name == CARD_FILE)
                (starts if start else waiting).append(one.path)
    return list(found.values())


def vouching(result: Path) -> list[Path]:
    """Return the records that vouch for a result; see `trace`.

    Raises:
        PipelineError: if there is none.
    """
    if not result.exists():
        raise PipelineError(result, KNOWN, "nothing of that name", fix="check the path")
    found = list(_vouching(result))
    if not found:
        raise PipelineError(result, KNOWN, "no record that vouches for it", fix="name what the workflow has written")
    return found


def _vouching(result: Path) -> Iterator[Path]:
    inside = [place for place in (result, *result.absolute().parents) if place.name in (IMAGE, WEIGHTS, SEGMENTATION)]
    if inside:
        yield from _of_store(inside[0])
    elif result.is_dir():
        yield from _of_folder(result)
    elif result.name in VOUCHING:
        here = _existing([result.with_name(VOUCHING[result.name])])
        # a table of objects is of a stack, or of all stacks and vouched for by the page
        yield from here or (_existing([result.with_name(REPORT_RECORD)]) if result.name in TABLES.values() else [])
    elif result.suffix == ".json":
        yield result


def _of_store(store: Path) -> Iterator[Path]:
    record = store.with_name(VOUCHING[store.name])
    regions = store.with_name(REGIONS)
    # A volume that is not stitched yet has its region records alone.
    yield from _existing([record]) or (_of_folder(regions) if record.name == STITCH_FILE and regions.is_dir() else [])


def _of_folder(folder: Path) -> list[Path]:
    """Return the records of a model, of a stack, of regions, or of all folders in this one."""
    if model := _existing([folder / CARD_FILE]):
        return model
    own = _existing(folder / name for name in reversed(FLOW) if name != REPORT_RECORD)
    if own:
        return own
    regions = [path for path in folder.glob("*.json") if path.stem.isdecimal()]
    if regions:
        return sorted(regions, key=lambda path: int(path.stem))
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in (LOGS, BENCHMARKS))
    return _existing([folder / REPORT_RECORD, *(one / name for one in inner for name in reversed(FLOW))])


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def read_link(path: Path) -> Link:
    """Read one record.

    Raises:
        PipelineError: if it is damaged, or no record of this pipeline.
        EarlierVersion: if an earlier version wrote it.
    """
    content = (
        parse_card(facts, path)
        if is_card(facts := read_json(path, fix=how_to_remake(path)))
        else any_record(path, facts)
    )
    made = content.made(path) if isinstance(content, ModelCard) else content.provenance
    return Link(path, content, made, tuple(_inputs(path, made)) if made else ())


def _inputs(record: Path, made: Provenance) -> Iterator[Input]:
    for name, checksum in made.inputs.items():
        places = [path for path in _places(name, record) if path.is_file()]
        same = next((path for path in places if sha256_file(path) == checksum), None)
        found = same or next(iter(places), None)
        yield Input(name, checksum, found, "as recorded" if same else "changed" if found else "missing")


def _places(name: str, record: Path) -> Iterator[Path]:
    """Yield the places where an input may lie: seen from the folders above the record, also if results/ was renamed."""
    parts = Path(name).parts
    for first in range(len(parts)):
        yield from possible_paths(str(Path(*parts[first:])), record)


def describe(links: Sequence[Link]) -> str:
    """Return the chain as text for people: first what all records share, then one record after the other."""
    shared = _shared(links)
    lines = [f"{key:<14} {value}" for key, value in shared.items()]
    lines.insert(0, f"{len(links)} records; the same in all of them:" if len(links) > 1 else "made by")
    for link in links:
        own = {key: value for key, value in _made(link).items() if shared.get(key) != value}
        lines += ["", f"{portable_path(link.record)}: {link.verb} {link.name}"]
        lines += [f"  {key:<12} {value}" for key, value in (own | _own(link)).items()]
        lines += [f"  {'from':<12} {one.name}, sha256 {one.sha256[:16]}, {one.state}" for one in link.inputs]
    return "\n".join(lines)


def _made(link: Link) -> dict[str, str]:
    made = link.made
    if made is None:
        return {}
    found = {"unet_pipeline": made.unet_pipeline, "commit": made.commit, "Python": made.python, "machine": made.machine}
    packages = ", ".join(f"{name} {version}" for name, version in made.packages.items())
    return found | ({"packages": packages} if packages else {})


def _shared(links: Sequence[Link]) -> dict[str, str]:
    every = [_made(link) for link in links if link.made]
    return {key: value for key, value in (every[0] if every else {}).items() if all(x.get(key) == value for x in every)}


def _own(link: Link) -> dict[str, str]:
    rows = {} if link.made else {"made": "elsewhere: the record does not say how"}
    if link.made and link.made.command:
        rows["command"] = " ".join(link.made.command)
    if link.compute:
        rows["compute"] = ", ".join(f"{key} {value}" for key, value in link.compute.items())
    if link.seed is not None:
        rows["seed"] = str(link.seed)
    rows |= link.found
    for name, value in link.sources.items():
        rows[f"{name} file"] = f"{link.config.get('source', {}).get(name, '?')}, fingerprint {value}"
    for section, values in link.config.items():
        if section != "source":
            rows[section] = ", ".join(f"{key} {value}" for key, value in values.items())
    return rows


def to_json(links: Sequence[Link]) -> list[dict[str, Any]]:
    """Return the same as plain values."""
    return [
        {
            "record": portable_path(link.record),
            "verb": link.verb,
            "name": link.name,
            "seed": link.seed,
            "compute": link.compute,
            "found": link.found,
            "sources": link.sources,
            "inputs": [
                {
                    "name": one.name,
                    "sha256": one.sha256,
                    "path": one.path and portable_path(one.path),
                    "state": one.state,
                }
                for one in link.inputs
            ],
            "provenance": asdict(link.made) if link.made else {},
        }
        for link in links
    ]
