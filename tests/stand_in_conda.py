"""Stands in for conda where none is to be had: answers what Snakemake asks, makes folders that activate like its own.

An "environment" runs this Python, but lets it import only what its file asks for and what that needs, as a real one
would. It says nothing about whether conda-forge has these versions: the hosted CI tests that.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPI_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}

ACTIVATE = """
PATH="$1/bin:$PATH"; export PATH CONDA_PREFIX="$1"
test -z "$NEVER_SET_BY_ANYONE"  # real activation scripts read unset variables too: `set -u` must come later
"""

PYTHON = """#!/bin/sh
echo "$*" >> '{prefix}/ran'
PYTHONPATH="$PYTHONPATH:{prefix}/only" exec '{python}' "$@"
"""

ONLY = '''
"""Find nothing that the environment does not hold."""
import sys
from importlib.machinery import PathFinder

class Only(PathFinder):
    names = frozenset({names!r})
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in cls.names else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Only
'''


def closure(names: list[str]) -> set[str]:
    """These distributions and all they need."""
    found: set[str] = set()
    waiting = [str(canonicalize_name(name)) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [str(canonicalize_name(one.name)) for one in needed if not one.marker or one.marker.evaluate()]
    return found


def create(file: Path, prefix: Path) -> None:
    """Make an environment folder."""
    asked = [re.split(r"[ =<>]", one)[0] for one in yaml.safe_load(file.read_text())["dependencies"]]
    held = closure([PYPI_NAMES.get(name, name) for name in asked])
    refused = sorted(
        module
        for module, owners in packages_distributions().items()
        if module != "unet_pipeline" and not {str(canonicalize_name(owner)) for owner in owners} & held
    )
    for folder in ("bin", "only", "conda-meta"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "only" / "sitecustomize.py").write_text(ONLY.format(names=refused))
    python = prefix / "bin" / "python"
    python.write_text(PYTHON.format(prefix=prefix, python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    settings = {"file": file.read_text(), "cuda": os.environ.get("CONDA_OVERRIDE_CUDA")}
    (prefix / "made.json").write_text(json.dumps(settings))


def main(words: list[str]) -> None:
    base = Path(__file__).parents[1]
    if words == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(base), "platform": "linux-64"}))
    elif words == ["--version"]:
        print("conda 25.1.1")
    elif words == ["config", "--get", "channel_priority", "--json"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:2] == ["env", "create"]:
        create(Path(words[words.index("--file") + 1]), Path(words[words.index("--prefix") + 1]))
    elif words != ["clean", "-y", "--tarballs"]:
        sys.exit(f"conda: not played: {words}")


def install(folder: Path) -> Path:
    """Put this conda into a folder, and give the folder for PATH."""
    (folder / "bin").mkdir(parents=True)
    conda, program = folder / "bin" / "conda", folder / "bin" / "conda.py"
    shutil.copy(__file__, program)
    # a first line that names the interpreter may have no space in it
    conda.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I {shlex.quote(str(program))} "$@"\n')
    conda.chmod(0o755)
    (folder / "bin" / "activate").write_text(ACTIVATE)
    return folder / "bin"


if __name__ == "__main__":
    main(sys.argv[1:])
