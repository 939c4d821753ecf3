"""One run of the comparison: from images to scores by the verbs of the command line, in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from comparison.datasets import DataSet
from comparison.splits import Split, planes_text
from comparison.variants import SAME, Budget, Variant, load_preset, merged, sized, steps_for, with_steps
from unet_pipeline import __version__
from unet_pipeline.__main__ import main
from unet_pipeline.config.checks import from_dict
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.files import digest, sha256_file
from unet_pipeline.records.record import read_json, write_json

RUN = "run.json"
ROLES = ("train", "val", "test")
NOT_LEARNED = ("running_mean", "running_var", "num_batches_tracked")
SCORES = ("v_rand", "v_info", "seg", "ap50")
MOST_STEPS = 2000
"""Of a trial."""
TRIAL_S = 1.5
"""Seconds of steps that a trial takes at least."""


class RunFailedError(Exception):
    """A verb ended with an error; its text is the message."""


@dataclass(frozen=True)
class Job:
    """One run: a variant on a fold of a data set.

    Attributes:
        data, split, variant, budget: what is run.
        root: the folder of data sets.
        work: the folder of the comparison.
        keep: whether stores and model stay when the scores are there.
    """

    data: DataSet
    split: Split
    variant: Variant
    budget: Budget
    root: Path
    work: Path
    keep: bool = False

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.data.name}, fold {self.split.fold}, {self.variant.name}"

    @property
    def folder(self) -> Path:
        """Where it runs."""
        row = self.variant.name.replace(", ", "-").replace(" ", "_")
        return self.work / self.data.name / f"fold{self.split.fold}" / row

    def config(self) -> dict[str, Any]:
        """Return its configuration; the number of steps is still the preset's.

        Raises:
            PipelineError: unknown preset, or keys that contradict each other.
        """
        _, height, width = self.data.shape(self.root)
        whole = merged(load_preset(self.variant.preset), SAME, self.data.keys, self.variant.changes)
        config = sized(whole, self.budget, (height, width))
        from_dict(config)
        return config

    def planes(self) -> dict[str, str]:
        """Return the planes of each role, as a table of stacks says them."""
        test = self.split.test
        if self.budget.planes is not None and len(test) > self.budget.planes:
            test = tuple(test[len(test) * index // self.budget.planes] for index in range(self.budget.planes))
        return {
            role: planes_text(part) for role, part in zip(ROLES, (self.split.train, self.split.val, test), strict=True)
        }

    def depends(self) -> dict[str, Any]:
        """Return all that its scores depend on, beside the code: a finished run with the same is not done again."""
        files = [self.root / self.data.images, self.root / self.data.labels]
        return {
            "version": __version__,
            "peer": self.variant.peer,
            "config": self.config(),
            "planes": self.planes(),
            "seed": self.split.fold,
            "budget": asdict(self.budget),
            "sources": [sha256_file(path) for path in files],
        }


def finished(job: Job) -> dict[str, Any] | None:
    """Return the record of a job that was done before; None where there is none, or of something else."""
    path = job.folder / RUN
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except PipelineError:
        return None
    return record if record["state"] == "done" and record["digest"] == digest(job.depends()) else None


def run(job: Job) -> dict[str, Any]:
    """Do a job and write its record; one that fails leaves a record that says why, and is tried again next time.

    An interrupted job of the same kind goes on: its training resumes from the last checkpoint, but counts no seconds.
    """
    depends = job.depends()
    record: dict[str, Any] = {"job": job.name, "digest": digest(depends), "code": code_digest()}
    begun = job.folder / "begun.json"
    if (job.folder / RUN).exists() or not begun.exists() or read_json(begun) != depends:
        shutil.rmtree(job.folder, ignore_errors=True)
        write_json(begun, depends)
    try:
        record |= {"state": "done", "error": "", **_results(job)}
    except Exception as error:  # whatever it is, the other runs go on
        record |= {"state": "failed", "error": f"{type(error).__name__}: {error}"[:600]}
    write_json(job.folder / RUN, record)
    if record["state"] == "done" and not job.keep:
        shutil.rmtree(job.folder / "results", ignore_errors=True)
    return record


def _results(job: Job) -> dict[str, Any]:
    config = job.config()
    prepared = prepare(job, config)
    if job.variant.peer:
        from comparison.peer import run_peer  # only who has MONAI can

        return run_peer(job, config, prepared)
    pace = step_seconds(job, config, lambda steps, folder: _train(job, trial(config, steps), prepared, folder))
    config = with_steps(config, steps_for(config, job.budget, pace), job.split.fold)
    (job.folder / "config.yaml").write_text(yaml.safe_dump({"stacks": "stacks.tsv", **config}), encoding="utf-8")
    model = job.folder / "results" / "model"
    interrupted = model.exists()
    trained = timed(lambda: _train(job, config, prepared, model))
    predicted = _predict(job, config, model)
    metrics = read_json(job.folder / "results" / "test" / "metrics.json")
    return {
        "scores": scores_of(metrics),
        "parameters": parameters(model / "weights.safetensors"),
        "steps": config["train"]["steps"],
        "seen_px": config["train"]["steps"] * config["train"]["batch"] * config["train"]["tile_px"] ** 2,
        "seconds": {"train": None if interrupted else trained, "predict": predicted},
        "test_px": metrics["pixels"]["of"],
    }


def prepare(job: Job, config: Mapping[str, Any]) -> dict[str, Path]:
    """Ingest the three stacks and weigh two; return the last record of each role.

    The folder is then a project of its own, with the table `stacks.tsv`, which Snakemake could run as well.
    """
    columns = ("stack", "image", "labels", "role", "axes", "label_axes", "planes")
    image, labels = str((job.root / job.data.images).resolve()), str((job.root / job.data.labels).resolve())
    lines, records = ["\t".join(columns)], {}
    for role, planes in job.planes().items():
        stack, axes = role, job.data.axes
        lines.append("\t".join([stack, image, labels, role, axes, axes, planes]))
        record = job.folder / "results" / stack / "ingest.json"
        given = [
            f"--image={image}",
            f"--labels={labels}",
            f"--axes={axes}",
            f"--label-axes={axes}",
            f"--planes={planes}",
        ]
        verb(job, "ingest", config, "--stack", stack, *given, "--output", record)
        records[role] = record
        if role != "test":
            records[role] = record.with_name("weigh.json")
            verb(job, "weigh", config, "--ingest", record, "--output", records[role])
    (job.folder / "stacks.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return records


def _train(job: Job, config: Mapping[str, Any], prepared: Mapping[str, Path], model: Path) -> None:
    stacks = ["--train", prepared["train"], "--validate", prepared["val"]]
    verb(job, "train", config, *stacks, "--output", model)


def _predict(job: Job, config: Mapping[str, Any], model: Path) -> float:
    """Predict, stitch and score the test stack; return the seconds of the prediction alone."""
    folder = job.folder / "results" / "test"
    tiles, region, stitched = folder / "tiles.json", folder / "regions" / "0.json", folder / "stitch.json"
    verb(job, "tile", config, "--ingest", folder / "ingest.json", "--model", model, "--output", tiles)
    where = ["--tiles", tiles, "--region", 0, "--model", model, "--output", region]
    seconds = timed(lambda: verb(job, "predict", config, *where))
    where = ["--tiles", tiles, "--regions", region, "--model", model, "--output", stitched]
    verb(job, "stitch", config, *where)
    where = ["--stitch", stitched, "--output", folder / "metrics.json"]
    verb(job, "evaluate", config, *where)
    return seconds


def verb(job: Job, name: str, config: Mapping[str, Any], *arguments: object) -> None:
    """Run a verb of the command line in this process; what it says goes to the job's log.

    Raises:
        RunFailedError: the verb ended with an error.
        KeyboardInterrupt: it was told to end by a signal, so the comparison ends too.
    """
    text = json.dumps(config)
    log = job.folder / "log"
    with log.open("a+", encoding="utf-8") as file:
        begin = file.tell()
        with redirect_stdout(file), redirect_stderr(file):
            code = main([name, *map(str, arguments), "--config", text])
        if code:
            file.seek(begin)
            said = file.read()
            if "got SIGTERM" in said or "got SIGINT" in said:
                raise KeyboardInterrupt(said)
            raise RunFailedError(f"{name}: {said[max(0, said.rfind('error:')) :].strip()}")


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that `work` takes by a clock."""
    began = clock()
    work()
    return clock() - began


def step_seconds(job: Job, config: Mapping[str, Any], train: Callable[[int, Path], object]) -> float | None:
    """Return the seconds of a training step, measured once for a kind of training and then kept in the work folder.

    The fastest of three short trainings counts, because other work can only slow one down; on one CPU thread by
    processor time, which hardly feels what else runs (wall time was seen ten times as long). Weight map, gap and
    augmentation do not make another kind, so an ablation has the steps of its preset.

    Args:
        job: its budget says whether seconds count at all; None is returned if not.
        config: sized by the budget.
        train: trains so many steps into a folder.
    """
    if job.budget.seconds is None:
        return None
    kind = {name: config[name] for name in ("model", "train", "compute")}
    key = digest([kind, job.variant.peer, len(config["labels"]["classes"])])
    path = job.work / "pace" / f"{key}.json"
    path.parent.mkdir(exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be measuring just this
        if not path.exists():
            folder = job.folder / "trial"
            alone = (job.budget.device, job.budget.threads) == ("cpu", 1)
            clock = time.process_time if alone else time.perf_counter
            found = _pace(lambda steps: timed(lambda: _anew(train, steps, folder), clock))
            write_json(path, {"row": job.variant.name, "step_seconds": found, "config": kind})
            shutil.rmtree(folder, ignore_errors=True)
    return float(read_json(path)["step_seconds"])


def trial(config: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the configuration of a trial: it validates once, however many steps it has."""
    return with_steps(config, steps, validations=1)


def _anew(train: Callable[[int, Path], object], steps: int, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    train(steps, folder)


def _pace(seconds_of: Callable[[int], float]) -> float:
    """Return seconds per step from the fastest trainings of a few and of many steps; the first of all warms up.

    Many are as many as make a difference of `TRIAL_S`, so that it stands out of what other work adds to either.
    """
    few, many = 2, 6
    seconds_of(few)
    once = _fastest(seconds_of, few)
    while (more := _fastest(seconds_of, many) - once) < TRIAL_S and many < MOST_STEPS:
        many = few + math.ceil((many - few) * min(8.0, max(2.0, 1.3 * TRIAL_S / max(more, 0.05))))
    return more / (many - few) if more > 0 else once / few


def _fastest(seconds_of: Callable[[int], float], steps: int) -> float:
    return min(seconds_of(steps) for _ in range(3))


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

    root = Path(os.fspath(unet_pipeline.__file__)).parent
    return digest([[str(path.relative_to(root)), sha256_file(path)] for path in sorted(root.rglob("*.py"))])[:12]
