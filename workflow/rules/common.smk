# What the rules share: functions only, no rules. What needs no Snakemake is in unet_pipeline, where tests reach it.

import json
import os
import re
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger


def home(rules):
    """The folder of this workflow: the Snakefile's own or, where that is read from a Git host, a copy of its commit.

    Snakemake fetches Snakefiles one by one, but jobs need the whole package.
    """
    if not hasattr(rules, "ref"):
        return Path(rules.get_path_or_uri(secret_free=True)).parents[1]
    from git import Repo  # comes with Snakemake

    repository = rules.hosted_repo.repo if hasattr(rules, "hosted_repo") else Repo(rules.repo_path)
    commit = repository.commit(rules.ref).hexsha
    place = Path(".snakemake", "unet_pipeline", commit).absolute()
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder, tempfile.TemporaryFile() as archive:
            repository.archive(archive, commit, path=["unet_pipeline", "config.yaml", "stacks.tsv"])
            archive.seek(0)
            with tarfile.open(fileobj=archive) as files:
                files.extractall(f"{folder}/whole", filter="data")
            Path(folder, "whole").rename(place)
    return place


HERE = home(workflow.current_basedir)  # workflow.basedir is another's where that imports this workflow
IMPORTED = not workflow.modifier.is_main_snakefile()
sys.path.insert(0, str(HERE))

from unet_pipeline import __version__ as VERSION
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.config.files import check_file
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine import cluster
from unet_pipeline.machine.conda import has_driver
from unet_pipeline.machine.conda import prepare as prepare_conda
from unet_pipeline.machine.container import check_container, container_arguments
from unet_pipeline.machine.failures import briefly
from unet_pipeline.machine.jobs import check_gpu, check_supported, gpus, gpus_here, job_prefix
from unet_pipeline.machine.progress import tell
from unet_pipeline.machine.scheduler import check_scheduler
from unet_pipeline.records.layout import CARD_FILE, MODEL, previous_model
from unet_pipeline.records.run_lock import RUN, check_run, check_writable, lock
from unet_pipeline.stacks.graph import Graph


@contextmanager
def one_message():
    """Let a user's mistake end in its message, without a traceback."""
    try:
        yield
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def nearby(path):
    """A path in the working directory or, where it has none, beside the Snakefile."""
    beside = HERE / path
    return str(beside) if not Path(path).exists() and beside.exists() else path


def readable(path):
    """The path of a configuration file, or one message with the line that makes it no YAML."""
    try:
        return check_file(path)
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def checked(values):
    """The graph of this configuration, or one message saying what is wrong with it, its table or this folder."""
    try:  # not `one_message`, whose own frames Snakemake would show below the message
        check_writable(Path.cwd())
        # Another workflow may make the files; jobs on a cluster have seen that they are there.
        graph = Graph.read(values, nearby, present=not IMPORTED and workflow.is_main_process)
        if graph.config.model.start_from and Path(graph.start_files[0]).is_file():
            from unet_pipeline.model.start import check_start  # imports NumPy, as below

            check_start(graph.config)
        return graph
    except PipelineError as error:
        raise WorkflowError(str(error)) from None


def deployment_methods():
    """The names of the ways in which this run brings the software of jobs, `--sdm`."""
    return {str(method) for method in workflow.deployment_settings.deployment_method}


def container_image():
    """The image that jobs run in, or None; with conda as well, jobs run in its environments, outside of any image."""
    return nearby(SETTINGS.compute.container) if deployment_methods() == {"apptainer"} else None


def own_python():
    """The Python that runs Snakemake, which jobs call too; None where conda brings theirs."""
    return None if workflow.deployment_settings.deployment_method else Path(sys.executable)


def prepare_jobs():
    """Say what the shell of every job runs first; with --use-conda find conda, and let it choose builds for a GPU.

    Snakemake has one prefix for all jobs, so an importing workflow's stays, and its jobs get ours too.
    """
    methods = deployment_methods()
    try:  # not `one_message`, as above
        check_supported(methods, workflow.storage_settings.default_storage_provider)
        if "conda" in methods:
            prepare_conda(os.environ)
        elif "apptainer" in methods:
            check_container(CONTAINER)
            settings = workflow.deployment_settings
            settings.apptainer_args = container_arguments(HERE, settings.apptainer_args, has_driver())
    except PipelineError as error:
        raise WorkflowError(str(error)) from None
    prefix = job_prefix(HERE, own_python(), keep=IMPORTED)
    theirs = (shell._process_prefix or "") if IMPORTED else ""
    if prefix not in theirs:
        shell.prefix((theirs + prefix).replace("{", "{{").replace("}", "}}"))  # Snakemake formats it


def tell_failures_briefly():
    """Let a failed job tell what is wrong in one message, without its command line; --printshellcmds shows that."""
    if not IMPORTED and not workflow.output_settings.printshellcmds:
        logger.addFilter(briefly)


def share_gpus():
    """Let as many jobs with a network run at once as this machine has GPUs, unless --resources says how many."""
    if workflow.is_main_process and workflow.local_exec and "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", max(1, gpus_here()))


def alone():
    """Let no other Snakemake work here until this one ends, and end what a killed one left; see records/run_lock.py."""
    with one_message():
        os.environ[RUN] = lock(Path(".snakemake", "unet_pipeline.lock"))


def check_cluster():
    """Before the first job: look for the scheduler; refuse what Slurm would refuse, or would let wait for ever."""
    if workflow.executor_plugin.name == "cluster-generic":
        with one_message():
            check_scheduler(workflow.executor_settings.submit_cmd)
    if workflow.executor_plugin.name != "slurm":
        return
    jobs = [workflow.dag.get_job_group(job) or job for job in workflow.dag.needrun_jobs() if not job.is_local]
    with one_message():
        wanted = [cluster.request(", ".join(sorted(job.rules)), job.threads, job.resources) for job in jobs]
        cluster.check(wanted, cluster.survey(), workflow.executor_settings.status_command)


def check_device():
    """Before the first job: refuse to run jobs that want a GPU on this machine, if it has none; nodes may have one."""
    if SETTINGS.compute.device != "cuda" or workflow.executor_plugin.name != "local":
        return
    jobs = (job for job in workflow.dag.needrun_jobs() if "torch_device" in job.rule.resources)
    if any(job.resources["torch_device"] == "cuda" for job in jobs):
        with one_message():
            check_gpu(own_python())


def keep_models():
    """Before Snakemake removes the outputs of a training: set the model that lies there aside, and say so."""
    from unet_pipeline.model.former import set_aside  # imports NumPy, which a dry run does not need

    made = {Path(file) for job in workflow.dag.needrun_jobs() for file in job.output}
    for folder in sorted(file.parent for file in made if file.name == CARD_FILE and file.parent.name == MODEL):
        with one_message():
            aside = set_aside(folder)
        if aside:
            tell(
                f"{folder} is to be made anew. The model of before stays whole in {aside} until then, and is kept in "
                f"{previous_model(folder)} if the new one differs. To keep both with all that is made from them, work in "
                "another folder: snakemake --directory FOLDER"
            )


def begin():
    """Before the first job: see that this folder and this cluster can be worked in."""
    alone()
    check_cluster()
    check_device()
    keep_models()


def begin_with_importer():
    """Let `begin` run where another workflow imports this one: of its modules Snakemake runs no onstart."""
    theirs = workflow._onstart
    if getattr(theirs, "__name__", "") != "begin_both":

        def begin_both(log):
            begin()
            theirs(log)

        workflow._onstart = begin_both


def stop_if_left_over():
    """In the Snakemake inside a cluster's job, which removes the job's outputs before it starts: stop if its run is over."""
    if not workflow.is_main_process:
        with one_message():
            check_run(Path("results"))


def section(step):
    """The sections of the configuration that a step depends on, as JSON: for no other does its rule run again."""
    text = json.dumps(sections_of(SETTINGS, step), sort_keys=True)
    return lambda wildcards: text


def named(files):
    """Paths as the user names them; a module's prefix goes before what the workflow makes only."""
    return [local(file) for file in files]


def sources(wildcards):
    """The files that a stack is read from."""
    return named(GRAPH.sources(wildcards.stack))


def of_stack(find):
    """What `find` returns for the stack of a job."""
    return lambda wildcards: find(wildcards.stack)


def of_fold(only, each):
    """The path of the only training or, in a cross-validation, that of each fold's."""
    return each if GRAPH.folds else only


def model_files(wildcards):
    """What makes a model: the finished one of the configuration, or what the workflow trains."""
    files = ("model.json", "weights.safetensors")
    if SETTINGS.model.folder:
        return named(f"{SETTINGS.model.folder}/{name}" for name in files)
    return [f"results/model/{name}" for name in files]


def calibration(wildcards):
    """The calibration of the model, where there is one."""
    return named(GRAPH.calibration) if SETTINGS.model.folder else GRAPH.calibration


def plan_model(wildcards):
    """What the plan of a stack needs of the model: nothing where the configuration says how deep it is, also along z."""
    return model_files(wildcards) if SETTINGS.model.folder or SETTINGS.model.settled_by_training else []


def folder_of_model(wildcards, input):
    """The folder that a rule reads its model from."""
    return str(Path(input.model[0]).parent)


def folder_of_output(wildcards, output):
    """The folder that a rule writes its files to."""
    return str(Path(output[0]).parent)
