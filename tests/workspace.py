"""A project folder with a space in its name, and Snakemake run in it from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from places import ROOT
from preloaded import STAGES, python, server

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
tables = [output.with_name(f"objects.{name}") for name in config.get("measure", {}).get("formats", [])]
names = {"demo": [output / name for name in NAMES],
         "train": [output / name for name in ("model.json", "weights.safetensors", "history.tsv")],
         "ensemble": [output / name for name in ("model.json", "weights.safetensors")],
         "report": [output, output.with_suffix(".json"), *tables],
         "measure": [output, *tables],
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
    """Whether stages are copies of a process that has imported them, which is several times faster."""

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
        preloaded = self.preloaded and self.checkout == ROOT
        return snakemake(*where, "--cores", "2", *arguments, cwd=self.folder.parent, preloaded=preloaded)

    def would_run(self, *arguments: str, **sections: dict[str, Any]) -> set[str]:
        """Jobs of a dry run."""
        ran = self.run("--dry-run", *arguments, **sections)
        assert ran.code == 0, ran.text
        return ran.jobs


def snakemake(*arguments: str, cwd: Path, preloaded: bool = False) -> Ran:
    """Run Snakemake, as a copy of a process that has imported it: that is most of its time.

    With `preloaded` the stages are such copies too.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}
    environment["OMP_NUM_THREADS"] = "1"
    if preloaded:
        environment[STAGES] = str(server("stages"))
    with tempfile.TemporaryFile() as said:
        ran = subprocess.run(
            [python(), "-m", "snakemake", *arguments],
            cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            timeout=500, check=False,
        )  # fmt: skip
        said.seek(0)
        return Ran(ran.returncode, said.read().decode())


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
