"""Kinds of faults that a results folder from a stranger brings, and a model that somebody trains over another."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from kinds import started
from same_tree import tree
from stages import snakemake, start
from trial import Lost, Trial

from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.record import read_json, write_json

LINKED = ("", "0", "0/c", "labels", "labels/classes", "labels/classes/0")
"""Folders in the store of a stack, on the way to shards that predict writes."""
NAMES = ("/dev/zero", "../../../outside.txt", "pipe", "../cells/../unseen/ingest.json", "\x1b[2J")


def link_in_a_store(trial: Trial) -> None:
    """A folder in a store is a link to elsewhere: predict writes nothing there; verify names it and the remedy."""
    job, elsewhere = trial.jobs["predict unseen 0"], trial.folder / "elsewhere"
    place = trial.folder / "results" / "unseen" / "segmentation.ome.zarr" / trial.chance.choice(LINKED)
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    before = tree(elsewhere)
    remedy = _remedy(trial, place)
    job.forget(trial.folder, whole=True)
    trial.ended(start(trial.folder, job.command, trial.log), 1)
    trial.said_once()
    if tree(elsewhere) != before:
        raise Lost(f"written through the link {place}")
    place.unlink()
    trial.workflow("--forcerun", remedy)


def list_of_a_stranger(trial: Trial) -> None:
    """A list of checksums names a device, a pipe or what lies elsewhere: verify reads none of it, and says so."""
    record = trial.folder / "results" / "unseen" / f"{trial.chance.choice(['ingest', 'stitch', 'tiles'])}.json"
    listed, facts = record.with_suffix(".sha256"), read_json(record)
    lines = listed.read_text(encoding="utf-8").splitlines()
    at = trial.chance.randrange(len(lines))
    lines[at] = f"{lines[at].split()[0]}  {trial.chance.choice(NAMES)}"
    os.mkfifo(record.with_name("pipe"))
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(record, {**facts, "files": {**facts["files"], "sha256": sha256_file(listed)}})
    remedy = _remedy(trial, listed if lines[at].split("  ")[1].startswith(("/", "..")) else record.parent)
    record.with_name("pipe").unlink()
    trial.workflow("--forcerun", remedy)


def another_model_in_the_same_folder(trial: Trial) -> None:
    """Other settings are tried and killed, or end: the model of before stays, and comes back with its settings."""
    model, weights = trial.folder / "results" / "model", trial.expected["model/weights.safetensors"]
    (trial.folder / "other.yaml").write_text("train: {seed: 7}\n", encoding="utf-8")
    process = snakemake(trial.folder, trial.log, "--configfile", "other.yaml")
    started(trial, process)
    time.sleep(trial.chance.uniform(0, 15))
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if "results/model is to be made anew" not in trial.log.read_text(encoding="utf-8"):
        raise Lost("nobody said that the model is replaced")
    previous = model.with_name("model.previous")
    kept = [folder / "weights.safetensors" for folder in (model, model / ".training" / "former", previous)]
    if weights not in [sha256_file(file) for file in kept if file.is_file()]:
        raise Lost("the model of before is gone")
    trial.workflow()
    shutil.rmtree(previous, ignore_errors=True)  # of the other settings, if they came that far


def _remedy(trial: Trial, named: Path) -> str:
    """Return what verify says to force, where it names a path."""
    trial.ended(start(trial.folder, ("verify", "results"), trial.log), 1)
    text = trial.log.read_text(encoding="utf-8")
    remedy = re.search(r"--forcerun ([^`]+)`", text)
    if str(named.relative_to(trial.folder)) not in text or remedy is None:
        raise Lost(f"not named, or no remedy: {named}")
    if "\x1b" in text:
        raise Lost("an escape sequence was printed")
    return remedy[1]


STRANGERS = (link_in_a_store, list_of_a_stranger, another_model_in_the_same_folder)
