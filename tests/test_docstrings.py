"""Public docstrings say what a reader cannot see: axes, data types, units, and where a formula comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "unet_pipeline"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
ARRAY = re.compile(r"NDArray|ArrayLike|Tensor|\bArray\b|\bLogits\b")
SHAPE = re.compile(r"\([^()]*\b(y|x|height|width|rows|columns|planes|classes|channels|batch|n|k|m)\b[^()]*\)")
SAME = re.compile(r"\b(shape|one-dimensional|1-D|scalar)\b")
FORMULAS = {
    "weights": "Ronneberger",
    "geometry": "Ronneberger",
    "models": r"paper",
    "networks.unet": "Ronneberger",
    "networks.encoders": r"\b20\d\d\b",
    "training.losses": "Ronneberger",
    "scoring.scores": r"\b20\d\d\b",
    "scoring.warping": r"\b20\d\d\b",
    "scoring.isbi": r"\b20\d\d\b",
}


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def public(module: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Top-level functions and classes, and the methods of those classes, that others may use."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def annotations(node: ast.FunctionDef) -> str:
    hints = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
    return " ".join(ast.unparse(hint) for hint in hints if hint)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module: str) -> None:
    assert ast.get_docstring(tree(module)), "the module says what it is for"
    missing = [name for name, node in public(module) if not ast.get_docstring(node)]
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_arrays_have_named_axes(module: str) -> None:
    """A function that takes or gives arrays names their axes, as in `(z, y, x)`, or says they share a shape."""
    silent = []
    for name, node in public(module):
        if isinstance(node, ast.FunctionDef) and ARRAY.search(annotations(node)):
            text = ast.get_docstring(node) or ""
            if not SHAPE.search(text) and not SAME.search(text):
                silent.append(name)
    assert not silent


@pytest.mark.parametrize("module", MODULES)
def test_units_are_in_names(module: str) -> None:
    """Nobody has to guess whether a size is in pixels or micrometres."""
    bare = re.compile(r"(sigma|radius|halo|margin|pixel_size|spacing)")
    for name, node in public(module):
        if isinstance(node, ast.FunctionDef):
            assert not [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if bare.fullmatch(a.arg)], name


@pytest.mark.parametrize(("module", "source"), FORMULAS.items())
def test_formulas_name_their_source(module: str, source: str) -> None:
    assert re.search(source, (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_raised_is_documented(module: str) -> None:
    """A function whose own body raises says so, unless it is a one-line check named for it."""
    for name, node in public(module):
        if not isinstance(node, ast.FunctionDef):
            continue
        text = ast.get_docstring(node) or ""
        raises = [
            n for n in ast.walk(node) if isinstance(n, ast.Raise) and n.exc and "PipelineError(" in ast.unparse(n)
        ]
        told = re.search(r"Raises:|[Rr]efuse|[Rr]aise|[Ee]rror|[Cc]heck", text)
        assert not raises or told, f"{name} raises PipelineError and does not say when"
