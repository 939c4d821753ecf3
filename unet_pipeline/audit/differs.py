"""Differs: the parts of a result that would come out otherwise if it were made now, why, and whether Snakemake sees it.

Snakemake runs a step again by itself when a file it reads was edited, when the part of the configuration that the
step is given was changed, or with another version of unet_pipeline. It does not look at the commit, at the versions of
other packages, at the device or at the number of threads; these are compared here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_pipeline.audit.record import Link
from unet_pipeline.config.dependencies import SECTIONS
from unet_pipeline.config.keys import plain
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.model.card import ModelCard
from unet_pipeline.records.provenance import Provenance, possible_paths, provenance
from unet_pipeline.records.volume_records import TileRecord
from unet_pipeline.stacks.table import StackRow

RUNS = "runs it again by itself"
UNSEEN = "does not see it"
NEWER = "runs it again if the file is newer than what was made from it"
MISSES = "does not miss it before the stack is read again; then it stops and names the file"
ABSENT = "not there"
SAME_RESULT = {("tile", "regions"), ("predict", "batch")}
"""Keys that divide the work otherwise and change no pixel (`batch` on a GPU: nearly none)."""

NETWORK = ("train", "calibrate", "predict", "prove")
"""Steps that run the network."""

ROW = ("image", "labels", "axes", "label_axes", "pixel_um", "step", "planes", "label_planes", "names", "series")
"""Columns of the table that say how a stack is read."""


@dataclass(frozen=True)
class Difference:
    """One difference from the time when a record was written.

    Attributes:
        what: what differs, e.g. "config train.steps" or "package numpy".
        recorded: as it was.
        now: as it is.
        snakemake: what Snakemake does about it.
        changes_result: whether arrays, weights or scores may come out otherwise.
        records: "verb name" of each record it was found in.
    """

    what: str
    recorded: str
    now: str
    snakemake: str
    changes_result: bool
    records: tuple[str, ...] = ()


def differences(
    links: Sequence[Link],
    config: Config,
    rows: dict[str, StackRow] | None,
    on_source: Callable[[str], None] = lambda name: None,
) -> list[Difference]:
    """Compare what made a result with what would make it now.

    Args:
        links: from `record.trace`.
        config: the present configuration.
        rows: the present table by stack; None where there is none, then rows are not compared.
        on_source: called with each source before all its bytes are read.

    Returns:
        Each difference once, with all the records it concerns.
    """
    now = provenance({})
    merged: dict[Difference, list[str]] = {}
    for link in links:
        if link.made is None or link.before:
            continue
        checks = [_code(link, link.made, now), _inputs(link), _config(link, config), _compute(link, config)]
        if link.verb == "ingest":
            checks += [_sources(link, on_source), _row(link, rows)]
        if rows is not None:
            checks.append(_roles(link, config, rows))
        for found in (one for check in checks for one in check):
            merged.setdefault(found, []).append(f"{link.verb} {link.name}")
    return [Difference(*_parts(one), tuple(places)) for one, places in merged.items()]


def _parts(one: Difference) -> tuple[str, str, str, str, bool]:
    return one.what, one.recorded, one.now, one.snakemake, one.changes_result


def _code(link: Link, made: Provenance, now: Provenance) -> Iterator[Difference]:
    """Compare version, commit, packages, Python and the kind of machine."""
    for key, label, seen in (
        ("unet_pipeline", "version of unet_pipeline", RUNS),
        ("commit", "commit of unet_pipeline", UNSEEN),
        ("python", "Python", UNSEEN),
        ("machine", "kind of machine", UNSEEN),
    ):
        recorded = getattr(made, key)
        if recorded != (today := getattr(now, key)):
            yield Difference(label, recorded, today, seen, True)
    recorded, installed = made.packages, now.packages
    for name in sorted({*recorded, *installed}):
        if name == "torch" and link.verb not in NETWORK:
            continue
        was, version = recorded.get(name, "not installed"), installed.get(name, "not installed")
        if was != version:
            yield Difference(f"package {name}", was, version, UNSEEN, name != "snakemake")


def _inputs(link: Link) -> Iterator[Difference]:
    for one in link.inputs:
        if one.state != "as recorded":
            now = ABSENT if one.path is None else "another content"
            # A record that is gone is made again only when something that needs it runs.
            seen = UNSEEN if one.path is None else NEWER
            yield Difference(f"record {one.name}", f"sha256 {one.sha256[:16]}", now, seen, one.path is not None)


def _sources(link: Link, on_source: Callable[[str], None]) -> Iterator[Difference]:
    source = link.config.get("source", {})
    for name, recorded in link.sources.items():
        on_source(source.get(name, name))
        found = _fingerprint(link.record, source, name)
        if found != recorded:
            seen = MISSES if found == ABSENT else NEWER
            yield Difference(f"{name} {source.get(name)}", recorded[:16], found[:60], seen, True)


def _fingerprint(record: Path, source: dict[str, Any], name: str) -> str:
    axes = source.get("axes" if name == "image" else "label_axes") or None
    given = str(source.get(name, ""))
    if not any(letter in given for letter in "*?["):
        given = _nearest_of(given, record)
    else:
        given = next((str(path) for path in possible_paths(given, record) if any(path.parent.glob(path.name))), "")
    if not given:
        return ABSENT
    series = source.get("series") if name == "image" else None
    names = _nearest_of(source.get("names") or "", record)
    if source.get("names") and not names:
        return ABSENT
    try:
        with open_planes(given, axes, series=series, names=names or None, mixed=True) as planes:
            return planes.fingerprint()
    except PipelineError as error:
        return f"cannot be read: {error.got}"


def _nearest_of(name: str, record: Path) -> str:
    """Return the present place of a file that a record names, or nothing."""
    return next((str(path) for path in possible_paths(name, record) if path.exists()), "") if name else ""


def _config(link: Link, config: Config) -> Iterator[Difference]:
    """Compare the sections, or keys of sections, the step was given, key by key."""
    single = dict(name.split(".") for name in SECTIONS.get(link.verb, ()) if "." in name)
    for section, recorded in link.config.items():
        if section == "source":
            continue
        current = plain(getattr(config, section)) if hasattr(config, section) else {}
        if section in single:
            current = {key: value for key, value in current.items() if key == single[section]}
        for key in sorted({*recorded, *current}):
            was, now = recorded.get(key, ABSENT), current.get(key, ABSENT)
            if was != now:
                changes = (section, key) not in SAME_RESULT
                yield Difference(f"config {section}.{key}", _text(was), _text(now), RUNS, changes)


def _row(link: Link, rows: dict[str, StackRow] | None) -> Iterator[Difference]:
    if rows is None:
        return
    row = rows.get(link.name)
    if row is None:
        yield Difference(f"row {link.name} of the table", "there", ABSENT, UNSEEN, False)
        return
    source = link.config.get("source", {})
    for column in ROW:
        was, now = _cell(source.get(column)), _cell(getattr(row, column))
        if was != now:
            yield Difference(f"row {link.name}, column {column}", _text(was), _text(now), RUNS, True)


def _cell(value: object) -> object:
    """Return a cell so that "0.50" of a table and 0.5 of a record compare equal."""
    try:
        return float(str(value))
    except ValueError:
        return "" if value is None else str(value)


def _roles(link: Link, config: Config, rows: dict[str, StackRow]) -> Iterator[Difference]:
    """Compare the stacks a model is trained on, and the number of regions of a plan, with the table."""
    content = link.content
    if isinstance(content, ModelCard) and link.verb == "train" and config.model.folder is None:
        for role, key in (("train", "stacks"), ("val", "validation_stacks")):
            was = content.training.get(key, [])
            now = [name for name, row in rows.items() if row.role == role]
            if was != now:
                yield Difference(f"stacks with role {role}", ", ".join(was), ", ".join(now), RUNS, True)
    if isinstance(content, TileRecord) and link.name in rows:
        planned, wanted = content.plan.regions, int(rows[link.name].regions or config.tile.regions)
        if planned != wanted:
            yield Difference(f"regions of {link.name}", str(planned), str(wanted), RUNS, False)


def _compute(link: Link, config: Config) -> Iterator[Difference]:
    if link.verb not in NETWORK or not link.compute:
        return
    was, now = link.compute.get("threads"), config.compute.threads
    if was != now:
        yield Difference("compute.threads", str(was), str(now), UNSEEN, True)
    device, today = str(link.compute.get("device")), device_now(config.compute.device)
    if device != today:
        yield Difference("compute.device", device, today, UNSEEN, True)


def device_now(wanted: str) -> str:
    """Return the device a job would get here, as records name it, without torch: "cpu" or the name of the GPU.

    Args:
        wanted: compute.device.
    """
    tool = shutil.which("nvidia-smi")
    if wanted == "cpu" or (wanted == "auto" and tool is None):
        return "cpu"
    if tool is None:
        return "no GPU, though compute.device is cuda"
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")
        return names[0].strip() or "cpu"
    except (OSError, subprocess.SubprocessError):
        return "cpu" if wanted == "auto" else "no GPU, though compute.device is cuda"


def _text(value: object) -> str:
    return "empty" if value in ("", None) else str(value)


def describe_differences(links: Sequence[Link], found: Sequence[Difference]) -> str:
    """Return the differences for people: those first that Snakemake does not see."""
    count = f"{len(links)} record{'s' if len(links) != 1 else ''} compared"
    if not found:
        return f"{count}: nothing differs"
    lines = [f"{count}: {len(found)} difference{'s' if len(found) != 1 else ''}"]
    for one in sorted(found, key=lambda one: (one.snakemake in (RUNS, NEWER), not one.changes_result)):
        result = "the result may differ" if one.changes_result else "the result stays the same"
        lines += [
            "",
            f"{one.what}: {one.recorded} -> {one.now}",
            f"  Snakemake {one.snakemake}; {result}",
            f"  in {_some(one.records)}",
        ]
    if any(one.snakemake == UNSEEN and one.changes_result for one in found):
        lines += ["", "To make anew what Snakemake does not see: snakemake --forcerun RULE, or --forceall"]
    return "\n".join(lines)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
