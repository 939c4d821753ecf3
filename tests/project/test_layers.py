"""Rooms import only rooms below them, files never in a circle; stages without a network start without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest
from places import ROOT

ROOMS = (
    "errors machine config records objects images stacks model train predict audit stitch evaluate report face __main__"
)
ORDER = ROOMS.split()
WITHOUT_TORCH = (
    "stacks.demo stacks.ingest stacks.weigh predict.tile stitch.stitch stitch.measure evaluate.evaluate audit.verify "
    "report.report __main__"
)
WITH_TORCH = (
    "calibrate.calibrate train.train train.ensemble predict.predict audit.prove model.export.export model.summary"
)


def modules(top: str, start: str = ".") -> dict[str, ast.Module]:
    """Every module below a folder of the project, by its dotted name as it is imported from folder `start`."""
    found = {}
    for path in (ROOT / top).rglob("*.py"):
        parts = path.relative_to(ROOT / start).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


PACKAGE = modules("unet_pipeline")


def imports(tree: ast.Module) -> Iterator[str]:
    """What a module imports, also within functions, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def arrows(house: dict[str, ast.Module]) -> dict[str, set[str]]:
    """The modules of a house that each of them imports."""
    named = {name: list(imports(tree)) for name, tree in house.items()}
    place = {name: {one if one in house else one.rpartition(".")[0] for one in found} for name, found in named.items()}
    return {name: (found & set(house)) - {name} for name, found in place.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "unet_pipeline"


def test_rooms_import_only_what_stands_below_them() -> None:
    assert {room(name) for name in PACKAGE} == {*ORDER, "unet_pipeline"}
    upward = {
        (name, other)
        for name, found in arrows(PACKAGE).items()
        for other in found - {"unet_pipeline"}
        if name != "unet_pipeline" and ORDER.index(room(other)) > ORDER.index(room(name))
    }
    assert not upward


@pytest.mark.parametrize("house", [PACKAGE, modules("benchmarks", "benchmarks")], ids=["unet_pipeline", "benchmarks"])
def test_no_files_import_each_other_in_a_circle(house: dict[str, ast.Module]) -> None:
    known = arrows(house)
    known.pop("unet_pipeline", None)  # the face: what it shows, it imports when it is asked for
    TopologicalSorter({name: found - {"unet_pipeline"} for name, found in known.items()}).prepare()


def test_the_test_above_would_notice() -> None:
    house = {"a.b": ast.parse("from a import c"), "a.c": ast.parse("def f():\n    import a.b")}
    with pytest.raises(ValueError, match="cycle"):
        TopologicalSorter(arrows(house)).prepare()


def modules_after(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.slow
def test_stages_without_a_network_start_without_torch() -> None:
    names = ", ".join(f"unet_pipeline.{name}" for name in WITHOUT_TORCH.split())
    heavy = [f"unet_pipeline.{name}" for name in WITH_TORCH.split()]
    code = "import sys, importlib; sys.modules.update({'torch': None, 'torchvision': None, 'safetensors': None})\n"
    code += f"import {names}\nfor name in {heavy}:\n"
    code += "    try: importlib.import_module(name)\n    except ImportError: print(name)"
    found = modules_after(code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == heavy, "a stage with a network would be noticed"


DRAWS, COUNTS, COMPILES = {"matplotlib"}, {"numba", "scipy"}, {"torch._dynamo", "torch._inductor", "sympy"}
STARTS = {
    "stacks.ingest stacks.weigh predict.tile stitch.stitch stitch.measure evaluate.evaluate": (
        DRAWS | COUNTS | {"torch", "jinja2", "pyarrow"}
    ),
    "report.report": DRAWS | COUNTS | {"torch"},
    "train.train predict.predict evaluate.calibrate audit.prove": DRAWS | COUNTS | COMPILES,
}
"""By the stages of one process, what none of them imports before it is needed; each takes a quarter of a second."""


@pytest.mark.slow
@pytest.mark.parametrize("stages", STARTS, ids=lambda stages: stages.split()[0])
def test_stages_start_without_what_they_may_not_need(stages: str) -> None:
    """The verb's own process also does without fsspec, which zarr would import."""
    code = "import sys\nfrom unet_pipeline.__main__ import main\nassert main(['record', 'nowhere']) == 1\n"
    code += "".join(f"import unet_pipeline.{stage}\n" for stage in stages.split())
    code += "import zarr\nprint(*sorted({name for name, found in sys.modules.items() if found}))"
    found = modules_after(code)
    assert found.returncode == 0, found.stderr
    assert not (STARTS[stages] | {"fsspec"}) & set(found.stdout.split())


def test_parsing_the_workflow_needs_no_more_than_snakemake_brings() -> None:
    heavy = ("numpy", "scipy", "zarr", "tifffile", "torch", "matplotlib")
    block = f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))"
    common = (ROOT / "workflow" / "rules" / "common.smk").read_text(encoding="utf-8")
    lines = re.findall(r"^from unet_pipeline.*", common, re.MULTILINE)
    assert len(lines) > 5
    found = modules_after("\n".join([block, *lines]))
    assert found.returncode == 0, found.stderr


def test_only_ngff_writes_ome_metadata() -> None:
    """Readers of other people's stores must know the key; what we write is made in one place."""
    for name, tree in PACKAGE.items():
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if name != "unet_pipeline.images.ngff" and ".readers.zarr_" not in name:
            assert not strings & {"multiscales", "image-label", "coordinateTransformations", "omero"}, name


def test_no_pickle() -> None:
    for name, tree in PACKAGE.items():
        outside = {one.split(".")[0] for one in imports(tree)}
        assert not outside & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr != "save", name
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":  # of others' .pth: runs no code
                assert name == "unet_pipeline.model.networks.pretrained"
                assert "weights_only=True" in map(ast.unparse, node.keywords)
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", name
                assert ast.unparse(node) in ("weights_only=True",) or node.arg != "weights_only", name


def test_modules_and_functions_stay_small() -> None:
    """350 lines a module or file of tests; 40 lines of code besides the docstring a function, but for all verbs."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
    for name, tree in PACKAGE.items():
        assert max((getattr(node, "end_lineno", 0) for node in tree.body), default=0) <= 350, name
        for node in ast.walk(tree) if name != "unet_pipeline.__main__" else ():
            if isinstance(node, ast.FunctionDef):
                code = node.body[1:] if ast.get_docstring(node) else node.body
                first = code[0].lineno if code else node.lineno
                head = node.body[0].lineno - node.lineno
                assert (node.end_lineno or 0) - first + head <= 40, f"{name}.{node.name}"
