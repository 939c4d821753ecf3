"""A project folder with a space in its name, and Snakemake run in it from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
LIGHT = ("__init__", "errors", "schema", "config", "stacks")
"""Modules the Snakefile imports; a faked checkout has them as they are."""

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
made_from = [verb, rest] + [
    hashlib.sha256(Path(word).read_bytes()).hexdigest() for word in rest if word.endswith(".json") and Path(word).is_file()
]
output = Path(options["--output"][0])
config = json.loads(options.get("--config", ["{}"])[0])
names = {"demo": [output / name for name in NAMES],
         "train": [output / name for name in ("model.json", "weights.safetensors", "history.tsv")]}
files = names.get(verb, [output])
if verb == "stitch" and config["stitch"]["tiff"]:
    files += [output.with_name("classes.tif"), output.with_name("instances.tif")]
for file in files:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made_from))
print(json.dumps([verb, *rest]))
'''


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
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.checkout / "Snakefile")]
        command += ["--directory", str(self.folder), "--cores", "2", *arguments]
        surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}
        done = subprocess.run(
            command, cwd=self.folder.parent, env=surroundings | {"OMP_NUM_THREADS": "1"}, text=True, timeout=500,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout)

    def would_run(self, *arguments: str, **sections: dict[str, Any]) -> set[str]:
        """Jobs of a dry run."""
        ran = self.run("--dry-run", *arguments, **sections)
        assert ran.code == 0, ran.text
        return ran.jobs


def fake_checkout(folder: Path) -> Path:
    """Copy the workflow, with stages that only write their outputs: Snakemake's decisions are real, the work is not."""
    for name in ("Snakefile", "config.yaml", "stacks.tsv"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    package = folder / "unet_pipeline"
    package.mkdir()
    for name in LIGHT:
        shutil.copy(ROOT / "unet_pipeline" / f"{name}.py", package / f"{name}.py")
    names = re.findall(r'"demo/([^"]+)"', (ROOT / "workflow" / "rules" / "demo.smk").read_text(encoding="utf-8"))
    (package / "demo_names.py").write_text(f"NAMES = {names!r}\n", encoding="utf-8")
    (package / "__main__.py").write_text(FAKE_MAIN, encoding="utf-8")
    return folder
