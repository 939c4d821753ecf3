"""Rules under --use-conda, with a stand-in for conda; and from places full of modules of the same names as ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_conda
import yaml
from real_project import TINY, write
from workspace import ROOT, Workspace

from unet_pipeline.errors import PipelineError
from unet_pipeline.machine import conda

pytestmark = pytest.mark.slow

HOSTILE = ("numpy", "zarr", "unet_pipeline", "json", "yaml", "torch")
WITH_NETWORK = {"train", "calibrate", "predict", "prove"}


def hostile(folder: Path) -> Path:
    """A folder of modules that break whatever imports them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f'raise SystemExit("the wrong {name}")\n')
    return folder


def project(folder: Path) -> Workspace:
    """A project in a folder that holds such modules too."""
    space = Workspace(hostile(folder / "my project").resolve())
    space.config = TINY
    for seed, name in enumerate(("learn", "val", "unseen")):
        write(space.folder, name, (64, 80), 1, seed)
    rows = (f"{name} | {name}.tif | {name}_.tif | {role}" for name, role in
            (("learn", "train"), ("val", "val"), ("unseen", "test")))  # fmt: skip
    space.table("stack | image | labels | role", *rows)
    (space.folder / "config.yaml").write_text(yaml.safe_dump(space.config), encoding="utf-8")
    return space


def run(
    space: Workspace, *arguments: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in the project's folder; its own modules stay clean, its jobs inherit the variables."""
    start = f"import os, sys; os.environ.update({variables!r}); from snakemake.cli import main; main()"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", *variables)}
    environment |= {"OMP_NUM_THREADS": "1", "PATH": f"{path}:{environment['PATH']}" if path else environment["PATH"]}
    command = [sys.executable, "-P", "-c", start, "--snakefile", str(space.checkout / "Snakefile"), "--cores", "2"]
    return subprocess.run(
        [*command, *arguments],
        cwd=space.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in_conda.install(tmp_path_factory.mktemp("stand-in") / "conda")


def test_rules_find_the_package_and_nothing_foreign(tmp_path: Path) -> None:
    space = project(tmp_path)
    ran = run(space, "results/unseen/tiles.json", PYTHONPATH=str(hostile(tmp_path / "python path")))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads((space.folder / "results" / "unseen" / "tiles.json").read_text())


def test_the_whole_workflow_runs_in_environments_that_hold_what_their_files_say(client: Path, tmp_path: Path) -> None:
    space = project(tmp_path)
    ran = run(space, "--use-conda", path=client, PYTHONPATH=str(hostile(tmp_path / "python path")))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (space.folder / "results" / "report.html").exists()
    made = {}
    for folder in (space.folder / ".snakemake" / "conda").glob("*/made.json"):
        ran_here = (folder.parent / "ran").read_text().split("\n")
        verbs = {line.split()[2] for line in ran_here if line.startswith("-m unet_pipeline ")}
        made[json.loads(folder.read_text())["file"]] = verbs
    files = {name: (ROOT / "envs" / name).read_text() for name in ("torch.yaml", "pipeline.yaml")}
    assert made == {
        files["torch.yaml"]: {"train", "calibrate", "predict"},
        files["pipeline.yaml"]: {"ingest", "weigh", "tile", "stitch", "measure", "evaluate", "report"},
    }


def test_the_stand_in_refuses_what_an_environment_lacks(client: Path, tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    subprocess.run([client / "conda", "env", "create", "--file", ROOT / "envs" / "pipeline.yaml", "--prefix",
                    tmp_path / "e"], check=True)  # fmt: skip
    for module, code in (("torch", 1), ("snakemake", 1), ("numpy", 0)):
        ran = subprocess.run(
            [tmp_path / "e" / "bin" / "python", "-c", f"import {module}"], capture_output=True, check=False
        )
        assert ran.returncode == code, module


def test_environments_are_made_for_nodes_with_a_gpu(
    client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = project(tmp_path)
    for given, expected in ((None, None if conda.has_driver() else conda.CUDA), ("12.8", "12.8")):
        variables = {conda.OVERRIDE: given} if given else {}
        monkeypatch.delenv(conda.OVERRIDE, raising=False)
        shutil.rmtree(space.folder / ".snakemake", ignore_errors=True)
        ran = run(space, "--use-conda", "--conda-create-envs-only", path=client, **variables)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        made = [
            json.loads(path.read_text())["cuda"] for path in (space.folder / ".snakemake").glob("conda/*/made.json")
        ]
        assert made == [expected, expected]


@pytest.mark.parametrize(("system", "driver", "expected"), [
    ("Linux", False, conda.CUDA), ("Linux", True, None), ("Darwin", False, None)
])  # fmt: skip
def test_conda_is_told_of_cuda_where_it_sees_no_driver(
    system: str, driver: bool, expected: str | None, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr(conda, "has_driver", lambda: driver)
    variables = {"PATH": str(client)}
    conda.prepare(variables)
    assert variables.get(conda.OVERRIDE) == expected


def test_without_conda_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"expected conda .* on PATH"):
        conda.prepare({"PATH": str(tmp_path)})
    conda.prepare({"PATH": str(tmp_path), "BASH_FUNC_conda%%": "() { :; }"})
    if shutil.which("conda"):
        return
    space = project(tmp_path)
    ran = run(space, "--use-conda")
    assert ran.returncode == 1
    said = ran.stdout + ran.stderr
    assert said.count("--use-conda: expected conda") == 1
    assert "what to do: install Miniforge" in said
    assert "Traceback" not in said
    assert not (space.folder / "results").exists()
