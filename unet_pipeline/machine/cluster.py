"""Slurm: a check, before the first job of a run is submitted, that it would take them all.

Slurm refuses some requests only when a job is submitted, and lets others wait for ever, e.g. for more minutes than the
partition allows. Snakemake's message then names neither the reason nor, for grouped jobs, what Slurm said.
"""

from __future__ import annotations

import getpass
import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet_pipeline.errors import PipelineError, nearest_name

PROFILE = "profiles/slurm/config.yaml"

FORGETS_AFTER_S = 200
"""Seconds `squeue` must know a finished job: Snakemake's Slurm plugin looks every 180 s at the least."""

ANSWERS_WITHIN_S = 60
"""Seconds Slurm's commands may take."""

NODES = "%P|%l|%c|%m|%G"
"""Columns asked of sinfo: partition (* marks the default), longest time, CPUs, memory in MB, generic resources."""


@dataclass(frozen=True)
class Request:
    """The resources that one Slurm job asks for.

    Attributes:
        job: the rule, or the rules of a group.
        partition: names between commas; empty for Slurm's default.
        account: empty for the user's default.
        cpus: CPUs on one node.
        mem_mb: memory of that node, MB.
        minutes: wall time.
        gpus: GPUs of that node.
    """

    job: str
    partition: str
    account: str
    cpus: int
    mem_mb: int
    minutes: int
    gpus: int


@dataclass(frozen=True)
class Node:
    """The resources of a node: CPUs, memory in MB, GPUs."""

    cpus: int
    mem_mb: int
    gpus: int


@dataclass(frozen=True)
class Partition:
    """A partition: whether it is the default, its longest wall time in minutes (inf: none) and its nodes."""

    default: bool
    minutes: float
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Site:
    """The partitions, accounts and settings of a Slurm.

    Attributes:
        partitions: by name.
        accounts: those of the user; None where Slurm keeps no accounts.
        account_needed: whether a job without a known account is refused.
        remembers_s: seconds `squeue` knows a finished job.
    """

    partitions: Mapping[str, Partition]
    accounts: frozenset[str] | None
    account_needed: bool
    remembers_s: float


def request(job: str, threads: int, resources: Mapping[str, Any]) -> Request:
    """Return what the Slurm plugin of Snakemake will ask for a job.

    Args:
        job: the rule, or the rules of a group.
        threads: CPUs.
        resources: Snakemake's: slurm_partition, slurm_account, mem_mb or mem_mb_per_cpu, runtime (min), gpu, gres.

    Raises:
        PipelineError: GPUs asked for in two ways, which Slurm refuses or counts twice.
    """
    by_gres, by_gpu = count_gpus(str(resources.get("gres") or "")), int(resources.get("gpu") or 0)
    if by_gres and by_gpu:
        raise PipelineError(
            f"gpu and gres of {job}", "GPUs asked for in one way", f"gpu: {by_gpu} and gres: {resources['gres']}",
            fix=f"in {PROFILE} write `gpu: 0` beside gres, or remove gres",
        )  # fmt: skip
    cpus = max(1, int(resources.get("cpus_per_task") or threads))
    per_cpu = int(resources.get("mem_mb_per_cpu") or 0) * cpus
    return Request(
        job, str(resources.get("slurm_partition") or ""), str(resources.get("slurm_account") or ""), cpus,
        per_cpu or int(resources.get("mem_mb") or 0), int(resources.get("runtime") or 0), by_gres or by_gpu,
    )  # fmt: skip


def count_gpus(gres: str) -> int:
    """Return the GPUs of a list of generic resources: `gpu`, `gpu:2`, `gpu:a100:4(S:0-1),shard:8`, `(null)`."""
    found = re.findall(r"(?:^|,)gpu(?::[^:,()]*[^\d:,()][^:,()]*)?(?::(\d+))?(?=[,(]|$)", gres)
    return sum(int(count or 1) for count in found)


def read_minutes(text: str) -> float:
    """Return the minutes of a time of Slurm: `90:00` (minutes first), `2-00:00:00`, `1:30:00`, `infinite`."""
    if not (found := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())):
        return math.inf  # infinite, UNLIMITED, n/a
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


def read_partitions(text: str) -> dict[str, Partition]:
    """Return the partitions of `sinfo --Node --format` with the columns of `NODES`."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, longest, cpus, mem_mb, gres = line.strip().split("|")
        node = Node(_whole(cpus), _whole(mem_mb), count_gpus(gres))
        before = found.get(name.rstrip("*"))
        nodes = (*before.nodes, node) if before else (node,)
        found[name.rstrip("*")] = Partition(name.endswith("*"), read_minutes(longest), nodes)
    return found


def _whole(text: str) -> int:
    """Return the number of `64` or `64+`."""
    return int(text.rstrip("+") or 0)


def survey() -> Site:
    """Ask Slurm what it has.

    Raises:
        PipelineError: no Slurm on this machine, or one that does not answer.
    """
    if shutil.which("sbatch") is None:
        fix = "run Snakemake on a login node of the cluster (perhaps after `module load slurm`); to compute on this "
        fix += "machine leave the Slurm profile out"
        raise PipelineError("sbatch", "Slurm's commands on this machine", "none on PATH", fix=fix)
    code, partitions = _ask("sinfo", "--noheader", "--Node", f"--format={NODES}")
    if code:
        fix = "try `scontrol ping`; when the controller is back, run the same command again"
        raise PipelineError("sinfo", "an answer of Slurm", partitions.strip() or f"exit code {code}", fix=fix)
    _, settings = _ask("scontrol", "show", "config")
    code, accounts = _ask("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account")
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", settings, re.MULTILINE)
    enforced = re.search(r"^AccountingStorageEnforce\s*=.*associations", settings, re.MULTILINE)
    return Site(
        read_partitions(partitions),
        None if code else frozenset(accounts.split()),
        enforced is not None,
        float(age[1]) if age else math.inf,
    )


def _ask(*command: str) -> tuple[int, str]:
    """Return the exit code of a command and what it printed; 127 where there is no such command."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return ran.returncode, ran.stdout if ran.returncode == 0 else ran.stderr


def check(requests: Iterable[Request], site: Site, status_command: str) -> None:
    """Refuse a run with a job that Slurm would refuse, or would keep waiting for ever.

    Args:
        requests: what its jobs ask for.
        site: what Slurm says it has; nodes that are down or drained count, since they come back.
        status_command: how Snakemake learns of a job's end, "squeue" or "sacct".

    Raises:
        PipelineError: an unknown partition or account, more than any node of the partition has, more minutes than the
            partition allows, or a Slurm that forgets finished jobs before Snakemake asks for them.
    """
    if status_command == "squeue" and site.remembers_s < FORGETS_AFTER_S:
        raise PipelineError(
            "slurm-status-command", f"a Slurm that knows finished jobs for {FORGETS_AFTER_S} s (its MinJobAge)",
            f"{site.remembers_s:.0f} s: a job that ends unseen would be waited for without end", "sacct",
            f"in {PROFILE} write `slurm-status-command: sacct`; without accounting ask the site for a longer MinJobAge",
        )  # fmt: skip
    for wanted in dict.fromkeys(requests):
        _check_account(wanted, site)
        _check_size(wanted, _partitions(wanted, site))


def _check_account(wanted: Request, site: Site) -> None:
    if site.accounts is None or (not wanted.account and (site.accounts or not site.account_needed)):
        return
    known = {name.lower(): name for name in site.accounts}
    for name in re.split(r"[,\s]+", wanted.account):
        if name.lower() not in known:
            raise PipelineError(
                f"slurm_account of {wanted.job}", f"one of your accounts: {', '.join(sorted(site.accounts)) or 'none'}",
                repr(name) if name else "none", nearest_name(name, site.accounts),
                f"edit slurm_account in {PROFILE}; `sacctmgr show assoc user=$USER` lists yours",
            )  # fmt: skip


def _partitions(wanted: Request, site: Site) -> dict[str, Partition]:
    """Return the partitions a job may run in."""
    if not wanted.partition:
        return {name: one for name, one in site.partitions.items() if one.default} or dict(site.partitions)
    names = [name for name in wanted.partition.split(",") if name]
    for name in names:
        if name not in site.partitions:
            raise PipelineError(
                f"slurm_partition of {wanted.job}", f"one of {', '.join(sorted(site.partitions))}", repr(name),
                nearest_name(name, site.partitions),
                f"edit slurm_partition in {PROFILE}; `sinfo` lists the partitions",
            )  # fmt: skip
    return {name: site.partitions[name] for name in names}


def _check_size(wanted: Request, partitions: Mapping[str, Partition]) -> None:
    """Refuse a job that fits in none of the partitions, naming the first key that is too large for all of them."""
    if any(_fits(wanted, partition) for partition in partitions.values()):
        return
    nodes = [node for partition in partitions.values() for node in partition.nodes]
    limits: Sequence[tuple[str, float, float, str]] = (
        ("runtime", wanted.minutes, max(one.minutes for one in partitions.values()), "minutes"),
        ("threads", wanted.cpus, max(node.cpus for node in nodes), "CPUs of a node"),
        ("mem_mb", wanted.mem_mb, max(node.mem_mb for node in nodes), "MB of a node"),
        ("gpu or gres", wanted.gpus, max(node.gpus for node in nodes), "GPUs of a node"),
    )
    where = f"partition {', '.join(partitions)}"
    group = "; members of a group that run side by side add up: `small_steps` caps them" if "," in wanted.job else ""
    fix = f"lower it, or choose another partition, in {PROFILE}{group}"
    for key, value, most, unit in limits:
        if value > most:
            expected = f"at most {most:g} {unit} in {where}"
            raise PipelineError(f"{key} of {wanted.job}", expected, f"{value:g}", f"{most:g}", fix)
    got = f"{wanted.cpus} CPUs, {wanted.mem_mb} MB, {wanted.gpus} GPUs and {wanted.minutes} minutes"
    raise PipelineError(f"resources of {wanted.job}", f"what one node of {where} has at once", got, fix=fix)


def _fits(wanted: Request, partition: Partition) -> bool:
    return wanted.minutes <= partition.minutes and any(
        wanted.cpus <= node.cpus and wanted.mem_mb <= node.mem_mb and wanted.gpus <= node.gpus
        for node in partition.nodes
    )
