"""Imports point one way, stages without a network start without torch, and only `ngff` writes OME-NGFF."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "unet_pipeline"
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
MODULES = {
    name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items() if not name.endswith("__init__")
}

LAYERS = """
errors machine.parallel records.record records.run_lock records.claim records.record_shapes records.checksums config.keys images.name_list config.sections config.checks config.files
stacks.table machine.cluster machine.conda machine.progress machine.memory machine.allocator model.geometry model.receptive_field
images.readers.axes images.readers.blocks images.readers.calibration images.readers.codestreams
images.readers.tiff_structure images.readers.tiff_files images.readers.tiff_pages images.readers.tiff_series
images.readers.tiff_reader images.readers.picture_reader images.readers.files_reader
images.readers.zarr_bounds images.readers.zarr_nodes images.readers.zarr_reader
images.open
images.shard_file images.plane_array images.ngff images.pyramid images.halo_blocks
objects.compiled objects.distances objects.atoms objects.components objects.flood
stacks.statistics stacks.labels stacks.stack model.normalise model.card stacks.demo predict.plan stacks.sizes stacks.reference stacks.ingest audit.record audit.differs
predict.empty_blocks predict.tile predict.journal stacks.weight_map stacks.weigh images.pictures images.overlays
train.processes train.augment train.training_stack train.folds train.sources train.dataset
train.feed
model.networks.blocks model.networks.unet model.networks.encoders model.networks.pretrained model.averaging model.models
train.losses train.optimisers train.validation
train.checkpoint train.history train.observer train.learner train.guards train.loop train.train train.ensemble
predict.forward predict.tile_size predict.predict audit.coverage stitch.watershed stitch.stitch audit.verify
evaluate.overlaps evaluate.scores evaluate.pixels evaluate.warping evaluate.isbi evaluate.evaluate audit.prove
model.export.exported model.export.torch_files model.export.onnx_file model.export.sample model.export.bioimageio_package model.export.export
model.summary
report.style report.html report.differences report.curves report.views report.flow report.plan_drawing
report.results report.panels report.score_tables report.training_section report.stack_section
report.picture_files report.report
__main__
"""
"""Every module, in the order imports may point: a module imports only what stands before it."""

ORDER = LAYERS.split()
WITHOUT_TORCH = (
    "stacks.demo",
    "stacks.ingest",
    "stacks.weigh",
    "predict.tile",
    "stitch.stitch",
    "evaluate.evaluate",
    "audit.verify",
    "report.report",
    "__main__",
)
WITH_TORCH = ("train.train", "train.ensemble", "predict.predict", "audit.prove", "model.export.export", "model.summary")


def imports(module: str) -> Iterator[str]:
    """Modules of the package that `module` imports, also within functions."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unet_pipeline":
            place = str(node.module).removeprefix("unet_pipeline").removeprefix(".")
            inside = (f"{place}.{alias.name}".removeprefix(".") for alias in node.names)
            yield from [place] if place in MODULES else (name for name in inside if name in MODULES)
        elif isinstance(node, ast.Import):
            names = (alias.name.removeprefix("unet_pipeline.") for alias in node.names)
            yield from (name for name in names if name in MODULES)


def outside(module: str) -> set[str]:
    """Top-level names of everything else it imports."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_every_module_has_its_place() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == set(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    before = set(ORDER[: ORDER.index(module)])
    wrong = {name for name in imports(module) if name not in before}
    assert not wrong, f"{module} imports {sorted(wrong)}, which stand after it"


def test_no_relative_imports() -> None:
    for name, tree in MODULES.items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level], name


def modules_after(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False, timeout=120)


def test_stages_without_a_network_start_without_torch() -> None:
    names = ", ".join(f"unet_pipeline.{name}" for name in WITHOUT_TORCH)
    block = "import sys; sys.modules.update({'torch': None, 'torchvision': None, 'safetensors': None})"
    found = modules_after(f"{block}; import {names}")
    assert found.returncode == 0, found.stderr


def test_parsing_the_workflow_needs_no_more_than_snakemake_brings() -> None:
    heavy = ("numpy", "scipy", "zarr", "tifffile", "torch", "matplotlib")
    block = f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))"
    found = modules_after(
        f"{block}; import unet_pipeline.config.sections, unet_pipeline.stacks.table, unet_pipeline.machine.cluster, unet_pipeline.machine.conda"
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("module", WITH_TORCH)
def test_the_test_above_would_notice(module: str) -> None:
    assert modules_after(f"import sys; sys.modules['torch'] = None; import unet_pipeline.{module}").returncode == 1


def test_only_ngff_writes_ome_metadata() -> None:
    """Readers of other people's stores must know the key; what we write is made in one place."""
    for name, tree in MODULES.items():
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if name != "images.ngff" and not name.startswith("readers.zarr_"):
            assert not strings & {"multiscales", "image-label", "coordinateTransformations"}, name


def test_no_pickle() -> None:
    for name, tree in MODULES.items():
        assert not outside(name) & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr != "save", name
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":  # of others' .pth: runs no code
                assert name == "model.networks.pretrained"
                assert "weights_only=True" in map(ast.unparse, node.keywords)
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", name
                assert ast.unparse(node) in ("weights_only=True",) or node.arg != "weights_only", name


@pytest.mark.parametrize("module", ORDER)
def test_modules_stay_small(module: str) -> None:
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("module", [name for name in ORDER if name != "__main__"])
def test_functions_stay_small(module: str) -> None:
    """40 lines of code besides the docstring, at most."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if is_doc else 0
            assert (node.end_lineno or 0) - node.lineno + 1 - docstring <= 40, node.name
