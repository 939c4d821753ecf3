# What the rules share: functions only, no rules. The checks themselves are in unet_pipeline, where tests reach them.

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from unet_pipeline import __version__ as VERSION
from unet_pipeline.machine import cluster
from unet_pipeline.machine.conda import prepare as prepare_conda
from unet_pipeline.config.checks import from_dict
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.run_lock import RUN, check_run, check_writable, lock
from unet_pipeline.stacks.table import check_names, check_roles, load_stacks, source_files

RESULT_SECTIONS = (
    "labels",
    "ingest",
    "store",
    "normalise",
    "weigh",
    "model",
    "augment",
    "train",
    "tile",
    "predict",
    "stitch",
    "evaluate",
    "report",
)


def nearby(path):
    """A path in the working directory or, where it has none, beside the Snakefile."""
    beside = Path(workflow.basedir, path)
    return str(beside) if not Path(path).exists() and beside.exists() else path


def checked(values):
    """The configuration and the table of stacks, or one message saying what is wrong with them or with this folder."""
    try:
        check_writable(Path.cwd())
        settings = from_dict(values)
        table = nearby(settings.stacks)
        stacks = load_stacks(table)
        check_names(stacks)
        check_roles(stacks, table, settings.model.folder)
    except PipelineError as error:
        raise WorkflowError(str(error)) from None
    return settings, stacks


def job_prefix():
    """What every job runs first: stop at the first error, and find this package, its libraries and its Python.

    Neither the working directory nor PYTHONPATH may put another module before them. SIGTERM (a wall-time limit) comes to
    all processes of a job: the shell and tee outlive the stage, which may have a checkpoint to write and a last word.
    """
    lines = ["set -euo pipefail", "trap : TERM", 'tee() { (trap "" TERM; exec tee "$@"); }']
    lines += ["export PYTHONSAFEPATH=1", f"export PYTHONPATH={shlex.quote(str(workflow.basedir))}"]
    if workflow.deployment_settings.deployment_method:  # the environment brings its own Python and all it needs
        lines.append("export PYTHONNOUSERSITE=1")
    else:
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    return "; ".join([*lines, ""]).replace("{", "{{").replace("}", "}}")  # Snakemake formats it


def check_conda():
    """With --use-conda: find conda, and let it choose builds for machines with a GPU."""
    if "conda" in {str(method) for method in workflow.deployment_settings.deployment_method}:
        try:
            prepare_conda(os.environ)
        except PipelineError as error:
            raise WorkflowError(str(error)) from None


def check_cluster():
    """Before the first job of a Slurm run: refuse what Slurm would refuse, or would let wait for ever."""
    if workflow.executor_plugin.name != "slurm":
        return
    jobs = [workflow.dag.get_job_group(job) or job for job in workflow.dag.needrun_jobs() if not job.is_local]
    try:
        wanted = [cluster.request(", ".join(sorted(job.rules)), job.threads, job.resources) for job in jobs]
        cluster.check(wanted, cluster.survey(), workflow.executor_settings.status_command)
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def alone():
    """Let no other Snakemake work here until this one ends, and end what a killed one left; see records/run_lock.py."""
    try:
        os.environ[RUN] = lock(Path(".snakemake", "unet_pipeline.lock"))
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def stop_if_left_over():
    """In the Snakemake inside a cluster's job, which removes the job's outputs before it starts: stop if its run is over."""
    if not workflow.is_main_process:
        try:
            check_run(Path("results"))
        except PipelineError as error:
            raise WorkflowError(str(error)) from None


def section(*names):
    """The named sections of the configuration as JSON: all that a rule is told, so only they make it run again."""
    text = json.dumps(SETTINGS.section(*names), sort_keys=True)
    return lambda wildcards: text


def with_role(*roles):
    """Names of the stacks with one of these roles."""
    return [name for name, row in STACKS.items() if row.role in roles]


def folds():
    """Numbers of the folds of a cross-validation; none where one model is trained, or a finished one used."""
    return range(SETTINGS.train.folds) if SETTINGS.train.folds > 1 and not SETTINGS.model.folder else []


def of_fold(only, each):
    """The path of the only training or, in a cross-validation, that of each fold's."""
    return each if folds() else only


def predicted():
    """Names of the stacks that are predicted; in a cross-validation also those that train, out of fold."""
    return with_role("val", "test", "predict", *(["train"] if folds() else []))


def scored():
    """Names of the predicted stacks that have labels to score against."""
    return [name for name in predicted() if STACKS[name].labels]


def learned():
    """Names of the stacks training reads; none with a finished model."""
    return [] if SETTINGS.model.folder else with_role("train", "val")


def encoder_weights():
    """The file an encoder starts from, if the configuration names one."""
    return [SETTINGS.model.encoder_weights] if SETTINGS.model.encoder_weights else []


def model_folder(wildcards=None):
    """The folder of the model: the finished one of the configuration, or what the workflow trains."""
    return SETTINGS.model.folder or "results/model"


def model_files(wildcards):
    """What makes a model."""
    return [f"{model_folder()}/{name}" for name in ("model.json", "weights.safetensors")]


def plan_model_files(wildcards):
    """What the plan of a stack needs of the model: nothing while the configuration says its depth."""
    return model_files(wildcards) if SETTINGS.model.folder else []


def plan_model_options(wildcards):
    """The finished model a plan is made for, as options."""
    return ["--model", SETTINGS.model.folder] if SETTINGS.model.folder else []


def validate_options(wildcards, input):
    """The stacks that say which weights are kept, as options."""
    return ["--validate", *input.validate] if input.validate else []


def fold_options(wildcards):
    """The fold a model does not see, as options."""
    return ["--fold", wildcards.fold] if folds() else []


def out_of_fold_options(wildcards):
    """Whether each plane of a stack is predicted by the model that has not seen it, as options."""
    return ["--out-of-fold"] if STACKS[wildcards.stack].role == "train" else []


def folder_of_output(wildcards, output):
    """The folder a rule writes its files to."""
    return str(Path(output[0]).parent)


def sources(wildcards):
    """The files a stack is read from."""
    row = STACKS[wildcards.stack]
    found = [file for source in (row.image, row.labels) if source for file in source_files(source, row.names)]
    return list(dict.fromkeys(found))


def source_options(wildcards):
    """The cells of a stack's row that say how it is read, as options."""
    row = STACKS[wildcards.stack]
    names = ("image", "labels", "axes", "label_axes", "pixel_um", "step", "planes", "label_planes", "names", "series")
    return [f"--{name.replace('_', '-')}={getattr(row, name)}" for name in names if getattr(row, name)]


def region_count(wildcards):
    """Number of prediction jobs of a stack."""
    return int(STACKS[wildcards.stack].regions or SETTINGS.tile.regions)


def region_records(wildcards):
    """The records of all regions of a stack."""
    return [f"results/{wildcards.stack}/regions/{region}.json" for region in range(region_count(wildcards))]


def label_tiffs():
    """The TIFF files of a stitched stack, where they are wanted."""
    return ["results/{stack}/classes.tif", "results/{stack}/instances.tif"] if SETTINGS.stitch.tiff else []


def gpus():
    """GPUs a network job holds: with `auto` one where this machine has any."""
    found = shutil.which("nvidia-smi") is not None
    return int({"cpu": False, "cuda": True}.get(SETTINGS.compute.device, found))


def watched():
    """What a training shows while it runs; a resource, not a param: no training runs again for it."""
    return ",".join(name for name, on in SETTINGS.section("watch")["watch"].items() if on) or "none"


def shown_stacks(wildcards):
    """The last record of each stack, which the page starts from."""
    last = [f"results/{name}/stitch.json" for name in predicted()]
    return [f"results/{name}/ingest.json" for name in learned() if name not in predicted()] + last


def shown_files(wildcards):
    """What else the page shows: training curves, weight maps and scores."""
    weights = [f"results/{name}/weigh.json" for name in learned()]
    return [*model_files(wildcards), *weights, *(f"results/{name}/metrics.json" for name in scored())]
