"""The rules of the Snakemake workflow catalog (its page "Adding workflows"), and what snakedeploy copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from places import ROOT
from workspace import snakemake

DEPLOYMENT = {"conda", "apptainer", "apptainer+conda", "report"}


def test_the_catalog_finds_what_it_looks_for() -> None:
    for name in ("workflow/Snakefile", "config/README.md", "workflow/schemas/config.schema.yaml", ".test"):
        assert (ROOT / name).exists(), name
    assert list((ROOT / "workflow" / "rules").glob("*.smk"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert set(usage) <= {"mandatory-flags", "software-stack-deployment"}
    stack = usage["software-stack-deployment"]
    assert set(stack) == DEPLOYMENT
    assert all(isinstance(value, bool) for value in stack.values())


def test_snakedeploy_copies_a_configuration_that_stands_by_itself() -> None:
    copied = ROOT / "config" / "config.yaml"
    assert copied.read_bytes() == (ROOT / "config.yaml").read_bytes()


@pytest.mark.slow
def test_its_snakefile_is_the_workflow(tmp_path: Path) -> None:
    found = [
        snakemake("--snakefile", str(ROOT / name), "--cores", "1", "--dry-run", cwd=tmp_path).jobs
        for name in ("Snakefile", "workflow/Snakefile")
    ]
    assert found[0] == found[1]
    assert {"demo", "report", "predict unseen 0"} <= found[0]
    graph = snakemake(
        *("--snakefile", str(ROOT / "workflow" / "Snakefile"), "--cores", "1", "--directory", str(ROOT / ".test")),
        *("--forceall", "--rulegraph"),
        cwd=tmp_path,
    )
    assert graph.code == 0
    assert "digraph" in graph.text
