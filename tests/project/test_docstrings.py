"""Public docstrings say what a reader cannot see: axes, data types, units, and where a formula comes from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from places import ROOT

PACKAGE = ROOT / "unet_pipeline"
TEXTS = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
ARRAY = re.compile(r"NDArray|ArrayLike|Tensor|\bArray\b|\bLogits\b")
SHAPE = re.compile(r"\([^()]*\b(y|x|height|width|rows|columns|planes|classes|channels|batch|n|k|m)\b[^()]*\)")
SAME = re.compile(r"\b(shape|one-dimensional|1-D|scalar)\b")
BARE = re.compile(r"(sigma|radius|halo|margin|pixel_size|spacing)")
FORMULAS = {
    "stacks/weight_map.py": "Ronneberger",
    "model/geometry.py": "Ronneberger",
    "model/models.py": r"paper",
    "model/networks/unet.py": "Ronneberger",
    "model/networks/encoders.py": r"\b20\d\d\b",
    "train/losses.py": "Ronneberger",
    "evaluate/scores.py": r"\b20\d\d\b",
    "evaluate/warping.py": r"\b20\d\d\b",
    "evaluate/isbi.py": r"\b20\d\d\b",
}


def public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Top-level functions and classes, and the methods of those classes, that others may use."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def functions() -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Every public function: where it stands, itself, its docstring."""
    for module, tree in TREES.items():
        for name, node in public(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{module}: {name}", node, ast.get_docstring(node) or ""


def hints(node: ast.FunctionDef) -> str:
    found = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)] + [node.returns]
    return " ".join(ast.unparse(hint) for hint in found if hint)


def test_everything_public_is_documented() -> None:
    assert all(ast.get_docstring(tree) for tree in TREES.values()), "each module says what it is for"
    assert not [(m, name) for m, tree in TREES.items() for name, node in public(tree) if not ast.get_docstring(node)]


def test_arrays_have_named_axes() -> None:
    """A function that takes or gives arrays names their axes, as in `(z, y, x)`, or says they share a shape."""
    said = [(name, text) for name, node, text in functions() if ARRAY.search(hints(node))]
    assert not [name for name, text in said if not SHAPE.search(text) and not SAME.search(text)]


def test_units_are_in_names() -> None:
    """Nobody has to guess whether a size is in pixels or micrometres."""
    arguments = ((name, a.arg) for name, node, _ in functions() for a in (*node.args.args, *node.args.kwonlyargs))
    assert not [(name, argument) for name, argument in arguments if BARE.fullmatch(argument)]


def test_formulas_name_their_source() -> None:
    assert not [name for name, source in FORMULAS.items() if not re.search(source, TEXTS[name])]


def test_what_is_raised_is_documented() -> None:
    """A function whose own body raises says so, unless it is a one-line check named for it."""
    told = re.compile(r"Raises:|[Rr]efuse|[Rr]aise|[Ee]rror|[Cc]heck")
    for name, node, text in functions():
        raised = [n for n in ast.walk(node) if isinstance(n, ast.Raise) and n.exc]
        assert told.search(text) or not any("PipelineError(" in ast.unparse(n) for n in raised), name
