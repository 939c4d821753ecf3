"""A project folder with a space in its name, and Snakemake run in it from elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from places import ROOT
from preloaded import interpreter

FAKE_MAIN = '''
"""Stands in for the real stages: writes each output with what it was made from, so that its content changes with it."""
import hashlib, json, sys
from pathlib import Path
from unet_pipeline.demo_names import NAMES

verb, *rest = sys.argv[1:]
options, values = {}, None
for word in rest:
    if word.startswith("--"):
        name, _, value = word.partition("=")
        values = options.setdefault(name, [])
        values += [value] if value else []
    else:
        values.append(word)
read = [Path(word) for word in rest if word.endswith(".json") and Path(word).is_file()]
made_from = [verb, rest] + [hashlib.sha256(path.read_bytes()).hexdigest() for path in read]
output = Path(options["--output"][0])
config = json.loads(options.get("--config", ["{}"])[0])
names = {"demo": [output / name for name in NAMES],
         "train": [output / name for name in ("model.json", "weights.safetensors", "history.tsv")],
         "ensemble": [output / name for name in ("model.json", "weights.safetensors")],
         "evaluate": [output, output.with_name("confusion.csv")]}
files = names.get(verb, [output])
if verb == "stitch" and config["stitch"]["tiff"]:
    files += [output.with_name("classes.tif"), output.with_name("instances.tif")]
for file in files:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made_from))
print(json.dumps([verb, *rest]))
'''


def hear_interrupts() -> None:
    """Let this process and those it starts hear SIGINT, which the background jobs of a shell are started deaf to."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Ran:
    """What a run of Snakemake said."""

    code: int
    text: str

    @property
    def jobs(self) -> set[str]:
        """Jobs it ran or, in a dry run, would run: `rule`, or `rule stack`, or `rule stack region`."""
        found = set()
        for block in re.split(r"\n(?=\[)", self.text):
            rule = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
            if rule and rule[1] != "all":
                wildcards = re.search(r"wildcards: (.*)", block)
                cells = re.findall(r"\w+=([^,\n]+)", wildcards[1]) if wildcards else []
                found.add(" ".join([rule[1], *cells]))
        return found

    @property
    def rules(self) -> Counter[str]:
        """Number of jobs of each rule."""
        return Counter(job.split()[0] for job in self.jobs)


class Workspace:
    """A working directory; the Snakefile lies elsewhere."""

    preloaded = True
    """Whether jobs are copies of a process that has imported the stages, which is several times faster."""

    def __init__(self, folder: Path, checkout: Path = ROOT) -> None:
        self.folder, self.checkout = folder, checkout
        folder.mkdir(parents=True, exist_ok=True)
        self.config: dict[str, Any] = {}

    def table(self, *rows: str) -> None:
        """Write the table; cells are separated by ` | `."""
        lines = ["\t".join(cell.strip() for cell in row.split("|")) for row in rows]
        (self.folder / "stacks.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, *arguments: str, **sections: dict[str, Any]) -> Ran:
        """Run Snakemake with `sections` merged over the configuration of this workspace."""
        merged = {name: {**self.config.get(name, {}), **sections.get(name, {})} for name in {**self.config, **sections}}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(merged), encoding="utf-8")
        where = ["--snakefile", str(self.checkout / "Snakefile"), "--directory", str(self.folder)]
        python = interpreter() if self.preloaded and self.checkout == ROOT else Path(sys.executable)
        return snakemake(*where, "--cores", "2", *arguments, cwd=self.folder.parent, python=python)

    def would_run(self, *arguments: str, **sections: dict[str, Any]) -> set[str]:
        """Jobs of a dry run."""
        ran = self.run("--dry-run", *arguments, **sections)
        assert ran.code == 0, ran.text
        return ran.jobs


def snakemake(*arguments: str, cwd: Path, python: Path = Path(sys.executable)) -> Ran:
    """Run Snakemake in a process of its own, forked from one that has imported it: that is most of its time.

    Its jobs find `python` first in the folder of the one that is given.
    """
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["snakemake.cli", "pandas", "requests", "yte", "docutils.core"])
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        process = forkserver.Process(target=_snakemake, args=(list(arguments), str(cwd), str(said), str(python)))
        process.start()
        process.join(timeout=500)
        if process.exitcode is None:
            process.kill()
        return Ran(-1 if process.exitcode is None else process.exitcode, said.read_text(encoding="utf-8"))


def _snakemake(arguments: list[str], cwd: str, said: str, python: str) -> None:
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, said, os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(path, flags), target)
    os.dup2(1, 2)
    for name in ("PYTHONPATH", "SNAKEMAKE_PROFILE"):
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(cwd)
    sys.path[:] = [path for path in sys.path if not path or not Path(path).is_relative_to(ROOT) or ".venv" in path]
    sys.argv, sys.executable = ["snakemake", *arguments], python
    from snakemake.cli import main

    main()


def fake_checkout(folder: Path) -> Path:
    """Copy the workflow, with stages that only write their outputs: Snakemake's decisions are real, the work is not."""
    for name in ("Snakefile", "config.yaml", "stacks.tsv"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    package = folder / "unet_pipeline"
    shutil.copytree(ROOT / "unet_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    names = re.findall(r'"demo/([^"]+)"', (ROOT / "workflow" / "rules" / "demo.smk").read_text(encoding="utf-8"))
    (package / "demo_names.py").write_text(f"NAMES = {names!r}\n", encoding="utf-8")
    (package / "__main__.py").write_text(FAKE_MAIN, encoding="utf-8")
    return folder
