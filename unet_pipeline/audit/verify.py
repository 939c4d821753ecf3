"""Verify: read everything below a results folder again and name each file that changed since it was written.

Every stage checks what it reads; this looks at all of it at once, before a volume is published or after a disk fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from unet_pipeline.audit.consistency import input_mismatches, stack_mismatch
from unet_pipeline.audit.coverage import check_region
from unet_pipeline.audit.links import link_in_store, links_below
from unet_pipeline.audit.record import read_link
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.calibrate_record import CalibrateRecord
from unet_pipeline.records.checksums import damaged, fault, read_list
from unet_pipeline.records.fields import Files
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.layout import (
    CALIBRATE_FILE,
    CARD_FILE,
    CHECKPOINT,
    CONFUSION_FILE,
    FLOW,
    FOLDS,
    FORMER,
    HISTORY_FILE,
    INGEST_FILE,
    PLAIN,
    PLANES_FILE,
    PREVIOUS_MODEL,
    REGIONS,
    REPORT_FILE,
    REPORT_RECORD,
    STORES,
    TILES_FILE,
    WEIGHTS_FILE,
    list_path,
)
from unet_pipeline.records.measure_record import MeasureRecord
from unet_pipeline.records.score_records import EvaluateRecord, ReportRecord
from unet_pipeline.records.stack_records import IngestRecord, WeighRecord
from unet_pipeline.records.steps import EarlierVersion, open_any, open_record
from unet_pipeline.records.volume_records import StitchRecord, TileRecord

Tell = Callable[[str], None]
Sums = dict[Path, str]


@dataclass
class Tally:
    """The files read so far, and the faults found.

    Attributes:
        tell: called with a line for people.
        files: the files that were read.
        links: symbolic links below the folder.
        faults: files that are not what was written.
        damaged: records with a fault.
        said: what was told of the faults.
    """

    tell: Tell
    files: set[Path] = field(default_factory=set)
    links: set[Path] = field(default_factory=set)
    faults: int = 0
    damaged: set[Path] = field(default_factory=set)
    said: set[str] = field(default_factory=set)

    def fault(self, error: PipelineError, record: Path) -> None:
        """Count a fault of a record, or of a file that it vouches for, and say it; once, however many meet it."""
        self.damaged.add(record)
        if str(error) not in self.said:
            self.said.add(str(error))
            self.faults += 1
            self.tell(f"DAMAGED {error}")


def verify(results: Path, tell: Tell) -> Tally:
    """Check every record, shard, model and checkpoint of a results folder, of one stack or of one model.

    Args:
        results: `results`, `results/{stack}` or a model folder.
        tell: called with each line for people.

    Returns:
        What was read.

    Raises:
        PipelineError: if there is nothing to verify, or something is not what was written.
        EarlierVersion: at the first record of an earlier version, which is not damage.
    """
    tally = Tally(tell)
    inside = sorted(path for path in [*results.glob("*"), *results.glob(f"{FOLDS}/*")] if path.is_dir())
    places = [results, *inside]
    folders = [folder for folder in [*places, *(place / FORMER for place in places)] if _known(folder)]
    if not folders:
        fix = "name a folder of results, of one stack or of one model"
        raise PipelineError(results, "records of this pipeline", "none", fix=fix)
    _find_links(results, tally)
    for folder in folders:
        _verify_model(folder, tally) if (folder / CARD_FILE).exists() else _verify_stack(folder, tally)
    _verify_page(results, tally)
    # in the order of the flow: what was made from a damaged record is made anew with it, and not named as well
    for kind in FLOW:
        for record in sorted(file for file in tally.files - tally.damaged if _kind(file) == kind):
            _verify_consistency(record, results, tally)
    tell(f"verified: {len(tally.files)} files, {tally.faults} damaged")
    if tally.faults:
        fix = "what each line above says"
        raise PipelineError(results, "files as they were written", f"{tally.faults} damaged", fix=fix)
    return tally


def _find_links(results: Path, tally: Tally) -> None:
    """Count links in stores as faults, and name each other one that leads out of the folder: a run may write there."""
    for path in links_below(results):
        tally.links.add(path)
        if found := link_in_store(path):
            tally.fault(*found)
        elif not path.resolve().is_relative_to(results.resolve()):
            tally.tell(f"LINK {path} leads out of {results}, to {path.readlink()}: jobs read and write there")


def _kind(record: Path) -> str:
    return REGIONS if record.parent.name == REGIONS else record.name


def _known(folder: Path) -> bool:
    return any((folder / name).exists() for name in (*STORES, CARD_FILE))


def _verify_stack(folder: Path, tally: Tally) -> None:
    stack_plan, known = _verify_regions(folder, tally)
    for name in (*STORES, *PLAIN):
        path = folder / name
        if path.exists():
            with _counted(tally, path):
                record = open_any(path)
                if isinstance(record, EvaluateRecord):
                    _check_file(folder / CONFUSION_FILE, record.confusion_sha256, path, tally)
                elif isinstance(record, IngestRecord | WeighRecord | TileRecord | StitchRecord | MeasureRecord):
                    owner = stack_plan.owner if stack_plan and isinstance(record, StitchRecord) else lambda file: None
                    _verify_listed(path, record.files, known, owner, tally)


def _verify_listed(record: Path, files: Files, known: Sums, owner: Callable[[Path], Path | None], tally: Tally) -> None:
    before, listed = tally.faults, read_list(record, files)
    products = [record.parent / product for product in STORES.get(record.name, ())]
    for file, got in damaged(listed, [path for path in products if path.exists()], known):
        if file not in tally.links:  # which is counted already
            tally.fault(fault(file, got, record, owner(file) or record), record)
    tally.files |= {list_path(record), *listed}
    if tally.faults == before:
        tally.tell(f"ok {record}: {len(listed)} files")


def _verify_regions(folder: Path, tally: Tally) -> tuple[StackPlan | None, Sums]:
    """Check the shards that region records vouch for; return their checksums, which need not be computed again."""
    known: Sums = {}
    if not (folder / TILES_FILE).exists():
        return None, known
    stack_plan = None
    with _counted(tally, folder / TILES_FILE):
        stack_plan = StackPlan.open(folder / TILES_FILE)
        for region in range(stack_plan.plan.regions):
            record = stack_plan.region_record(region)
            if record.exists():
                with _counted(tally, record):
                    sums = check_region(stack_plan, record)
                    known |= sums
                    tally.files |= set(sums)
                    tally.tell(f"ok {record}: {len(sums)} files")
    return stack_plan, known


def _verify_model(folder: Path, tally: Tally) -> None:
    with _counted(tally, folder / CARD_FILE), _of_a_former_model(folder):
        card = read_card(folder)
        _check_file(folder / WEIGHTS_FILE, card.weights_sha256, folder / CARD_FILE, tally)
        if (folder / HISTORY_FILE).exists() or "history_sha256" in card.training:
            _check_file(folder / HISTORY_FILE, str(card.training.get("history_sha256")), folder / CARD_FILE, tally)
        if (folder / PLANES_FILE).exists() or "planes_sha256" in card.training:
            _check_file(folder / PLANES_FILE, str(card.training.get("planes_sha256")), folder / CARD_FILE, tally)
        _check_training(folder, tally)
        tally.tell(f"ok {folder / CARD_FILE}")
    if (folder / CALIBRATE_FILE).exists():
        with _counted(tally, folder / CALIBRATE_FILE), _of_a_former_model(folder):
            open_record(folder / CALIBRATE_FILE, CalibrateRecord)


@contextmanager
def _of_a_former_model(folder: Path) -> Iterator[None]:
    """Give a fault the remedy of a model that no rule makes again."""
    try:
        yield
    except PipelineError as error:
        if folder.name not in (PREVIOUS_MODEL, FORMER.name):
            raise
        fix = f"remove {folder}, a model that was replaced: nothing is made from it"
        raise PipelineError(error.where, error.expected, error.got, fix=fix) from error


def _verify_page(results: Path, tally: Tally) -> None:
    record = results / REPORT_RECORD
    if record.exists() or (results / REPORT_FILE).exists():
        with _counted(tally, record):
            _verify_listed(record, open_record(record, ReportRecord).files, {}, lambda file: None, tally)


def _verify_consistency(record: Path, results: Path, tally: Tally) -> None:
    """Hold a sound record against its folder, and against the records it was made from, each fault said once."""
    if record.parent.name in (PREVIOUS_MODEL, FORMER.name):
        return
    link = read_link(record)
    of_stack = record.parent.parent if record.parent.name == REGIONS else record.parent
    stack, ingested = of_stack.name, results / INGEST_FILE
    if of_stack == results and ingested.exists() and ingested not in tally.damaged:
        stack = open_record(ingested, IngestRecord).stack  # a folder that is verified alone may have any name
    wrong = stack_mismatch(link, stack)
    for one in [wrong] if wrong else input_mismatches(link):
        if one.older:
            tally.tell(f"OLDER {one.error}")
        elif not {one.file, one.source} & tally.damaged:
            tally.fault(one.error, one.file)


def _check_file(file: Path, total: str, record: Path, tally: Tally) -> None:
    found = sha256_file(file) if file.is_file() else "no file"
    tally.files.add(file)
    if found != total:
        got = "no file" if found == "no file" else "a file that was changed since"
        raise fault(file, got, record, record)


def _check_training(folder: Path, tally: Tally) -> None:
    # Imported here: reading a checkpoint needs torch, and most results have none to read.
    from unet_pipeline.train.checkpoint import read_checkpoint

    if (folder / CHECKPOINT).is_file():
        tally.files.add(folder / CHECKPOINT)
        read_checkpoint(folder / CHECKPOINT)


@contextmanager
def _counted(tally: Tally, record: Path) -> Iterator[None]:
    """Count a record, and the fault in the files it vouches for."""
    tally.files.add(record)
    try:
        yield
    except EarlierVersion:
        raise
    except PipelineError as error:
        tally.fault(error, record)
