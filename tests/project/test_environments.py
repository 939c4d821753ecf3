"""The lock, the conda environments and pyproject.toml say the same, and the environments hold all that is imported."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from places import ROOT

import unet_pipeline

ENVS = ROOT / "envs"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
IMPORT_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "google_crc32c": "google-crc32c"}
WITH_NETWORK = {"train", "ensemble", "calibrate", "predict", "prove"}


def lock(name: str, python: str = "") -> dict[str, str]:
    """The version of each package for a Python on Linux, such as "3.12"; that of this one if none is named."""
    found = {}
    running = {"python_full_version": f"{python}.9"} if python else {}
    for line in (ENVS / name).read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum() and "==" in line:
            pin = Requirement(line.removesuffix(" \\"))
            if pin.marker is None or "python_full_version" not in str(pin.marker) or pin.marker.evaluate(running):
                found[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    return found


def environment(name: str) -> dict[str, str]:
    content = yaml.safe_load((ENVS / name).read_text(encoding="utf-8"))
    pairs = [dependency.split()[:2] for dependency in content["dependencies"]]
    return {CONDA_NAMES.get(package, package): version.removeprefix("=") for package, version in pairs}


def module_of(rule: str) -> str:
    """The module that a rule's verb leads to, such as "stacks.weigh"."""
    (path,) = (ROOT / "unet_pipeline").rglob(f"{rule}.py")
    return ".".join(path.relative_to(ROOT / "unet_pipeline").with_suffix("").parts)


def imported(module: str, whole: bool = True) -> set[str]:
    """Third-party packages a module imports, with all it imports from this package; `whole`: also within functions."""
    found, seen, waiting = set(), set(), [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for target in _targets(_file(name), whole):
            top, *rest = target.split(".")
            if top == "unet_pipeline":
                places = [".".join(rest[:end]) for end in range(1, len(rest) + 1)]
                waiting += [place for place in places if _file(place).is_file()]
            elif top not in sys.stdlib_module_names:
                found.add(IMPORT_NAMES.get(top, top))
    return found


def _file(module: str) -> Path:
    return (ROOT / "unet_pipeline").joinpath(*module.split(".")).with_suffix(".py")


@cache
def _targets(path: Path, whole: bool = True) -> list[str]:
    """What a file imports, `from a import b` of this package as a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [name for node in (ast.walk(tree) if whole else tree.body) for name in _named(node)]


def _named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unet_pipeline":
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def rules() -> dict[str, str]:
    """The environment file of each rule."""
    found = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        match = re.search(r'conda:\s+"\.\./\.\./envs/([^"]+)"', path.read_text(encoding="utf-8"))
        if path.stem != "common":
            assert match, f"{path.name} has no environment"
            found[path.stem] = match[1]
    return found


@pytest.mark.parametrize("name", ["pipeline.yaml", "torch.yaml"])
def test_environments_pin_the_versions_of_the_lock(name: str) -> None:
    pins = environment(name)
    python = pins.pop("python")
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(f"{python}.0")
    assert pins == {package: lock("requirements.txt", python)[package] for package in pins}


@pytest.mark.parametrize("name", ["pipeline.yaml", "torch.yaml"])
def test_environments_take_conda_forge_alone_and_nothing_from_pip(name: str) -> None:
    """Not `nodefaults`: conda 26.7 and newer look for a channel of that name, and fail before the first job."""
    content: dict[str, Any] = yaml.safe_load((ENVS / name).read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge"]
    assert all(isinstance(dependency, str) for dependency in content["dependencies"])


def test_the_environment_with_a_network_takes_the_cuda_build_or_none() -> None:
    content = yaml.safe_load((ENVS / "torch.yaml").read_text(encoding="utf-8"))
    (pytorch,) = [dependency for dependency in content["dependencies"] if dependency.startswith("pytorch")]
    assert pytorch == f"pytorch ={lock('requirements.txt')['torch']} cuda*"


def test_each_rule_runs_in_an_environment_that_holds_what_it_imports() -> None:
    for rule, name in rules().items():
        assert name == ("torch.yaml" if rule in WITH_NETWORK else "pipeline.yaml")
        modules = imported(module_of(rule)) | imported("__main__", False)
        if rule not in WITH_NETWORK:  # some share a module with those that are; test_layers starts them without these
            modules -= {"torch", "torchvision", "safetensors"}
        assert "zarr" in environment(name)
        assert modules <= set(environment(name)) | brought_by("zarr"), f"{name} lacks what {rule} imports"


def brought_by(package: str) -> set[str]:
    """What a package always requires: it is installed with it, in a version that fits it."""
    asked = [Requirement(text) for text in importlib.metadata.requires(package) or []]
    return {canonicalize_name(each.name) for each in asked if not each.marker}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-uv.txt"])
def test_every_locked_package_has_hashes_and_no_line_names_a_place(name: str) -> None:
    text = (ENVS / name).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?! )", text.strip())
    assert all("==" in block.splitlines()[0] and "--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|@ |^-|file:|/", text, re.MULTILINE)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_is_within_what_pyproject_asks_for(python: str) -> None:
    runtime, dev = lock("requirements.txt", python), lock("requirements-dev.txt", python)
    extras = PYPROJECT["project"]["optional-dependencies"]
    workflow = PYPROJECT["project"]["dependencies"] + extras["workflow"] + extras["slurm"] + extras["cluster"]
    asked = [(runtime, text) for text in workflow]
    asked += [(dev, text) for text in PYPROJECT["dependency-groups"]["dev"] + PYPROJECT["project"]["dependencies"]]
    asked += [(dev, text) for extra in extras.values() for text in extra]
    for pins, text in asked:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_both_locks_agree(python: str) -> None:
    runtime, dev = lock("requirements.txt", python), lock("requirements-dev.txt", python)
    assert {name: dev.get(name) for name in runtime} == runtime


def test_what_a_newer_python_has_newer_is_locked_for_it() -> None:
    """One lock for all would keep zarr, numpy and tifffile at the last versions that Python 3.11 can have."""
    oldest, newest = lock("requirements.txt", "3.11"), lock("requirements.txt", "3.13")
    for package in ("numpy", "scipy", "tifffile", "zarr"):
        assert Version(oldest[package]) < Version(newest[package])


def test_pyproject_asks_for_what_is_imported_and_no_more() -> None:
    """Who imports the package in a notebook needs neither Snakemake nor what only tests compare with."""
    package = ROOT / "unet_pipeline"
    modules = {".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    wanted = set().union(*(imported(module) for module in modules)) - {"tensorboardX"}
    asked = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]}
    export = {"onnx", "onnxruntime", "onnxscript", "bioimageio"}  # see below
    assert wanted - export == asked
    assert not {"snakemake", "scikit-image"} & asked
    assert {Requirement(text).name for text in PYPROJECT["project"]["optional-dependencies"]["workflow"]} == {
        "snakemake"
    }


def test_the_extra_export_holds_what_it_alone_imports() -> None:
    """Anything else is a dependency of all."""
    extra = {
        canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["optional-dependencies"]["export"]
    }
    asked = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]}
    assert not extra & asked
    names = {"bioimageio": "bioimageio-core"}
    for path in (ROOT / "unet_pipeline").rglob("*.py"):
        tops = (
            {target.split(".")[0] for target in _targets(path)} - {"unet_pipeline", ""} - set(sys.stdlib_module_names)
        )
        wanted = {names.get(top, IMPORT_NAMES.get(top, top)) for top in tops}
        allowed = asked | extra if path.parent.name == "export" else asked
        assert wanted <= allowed | {"tensorboardx"}, path


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == unet_pipeline.__version__
    assert f"## {unet_pipeline.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
