"""What a notebook imports equals the workflow's own verbs, and every example in its help is true."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from chain import SETTINGS, draw, make_model, make_plan, make_stack, run, settings
from places import ROOT

import unet_pipeline
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.stacks.weigh import weigh

ONE_THREAD = {name: part for name, part in SETTINGS.items() if name in ("store", "tile", "compute")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with an image, its labels, a model, and what the verbs make of them."""
    folder = tmp_path_factory.mktemp("my notebook")
    grey, ids = draw()
    for name, values in (("cells.tif", grey), ("cells_labels.tif", ids)):
        tifffile.imwrite(folder / name, values, photometric="minisblack")
    model = make_model(folder / "results" / "model")
    run(make_plan(make_stack(folder / "workflow")), model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def volume(made: Path) -> StackPlan:
    return StackPlan.open(made / "workflow" / "results" / "cells" / "tiles.json")


def stored(plan: StackPlan) -> list[np.ndarray]:
    group = zarr.open_group(plan.store, mode="r")
    probabilities = np.moveaxis(group["0"][:], 0, 1)  # stored czyx
    return [probabilities, group["labels/classes/0"][:], group["labels/instances/0"][:]]


def arrays(found: unet_pipeline.Segmentation) -> list[np.ndarray]:
    return [found.probabilities, found.classes, found.instances]


def lazy(grey: np.ndarray, folder: Path) -> zarr.Array:
    """The image as channels, planes, y, x in a store of another layout."""
    return zarr.create_array(folder / "lazy.zarr", data=grey[None], chunks=(1, 2, 50, 70), zarr_format=2)


@pytest.mark.parametrize(
    "kind",
    ["array", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("zarr", "path", "opened"))],
)
def test_a_prediction_in_memory_is_the_volume_of_the_workflow(made, volume, tmp_path, kind):
    grey = draw()[0]
    image = {"array": lambda: grey, "path": lambda: "cells.tif", "zarr": lambda: lazy(grey, tmp_path)}
    image["opened"] = lambda: unet_pipeline.open_stack("cells.tif")
    axes = "czyx" if kind == "zarr" else ""
    before = set(Path(made).iterdir())
    model = unet_pipeline.Model.load("results/model") if kind == "array" else "results/model"
    found = unet_pipeline.predict(image[kind](), model, axes=axes, config=ONE_THREAD)
    for ours, theirs in zip(arrays(found), stored(volume), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert found.instances.max() > 2
    assert found.class_names == ("background", "cell")
    assert set(Path(made).iterdir()) == before, "nothing is left in the working directory"


def test_a_plane_alone_comes_back_without_a_plane_axis_and_tiles_do_not_matter(made):
    grey = draw()[0][0]
    found = unet_pipeline.predict(grey, "results/model", threads=1, device="cpu", tile_px=64)
    other = unet_pipeline.predict(grey[None], "results/model", threads=1, device="cpu", tile_px=64, config=ONE_THREAD)
    assert found.probabilities.shape == (2, 100, 130)
    for flat, deep in zip(arrays(found), arrays(other), strict=True):
        np.testing.assert_array_equal(flat, deep[0])


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"tile_px": 33}, "tile.tile_px"),
        ({"threads": 0}, "compute.threads"),
        ({"device": "tpu"}, "compute.device"),
        ({"precision": "float8"}, "predict.precision"),
        ({"config": {"stitch": {"grow": 1}}}, "stitch.grow"),
    ],
)
def test_options_go_before_the_configuration_and_are_checked(made, given, key):
    with pytest.raises(PipelineError, match=re.escape(key)):
        unet_pipeline.predict(draw()[0][0], "results/model", **{"config": ONE_THREAD, **given})


@pytest.mark.parametrize(
    ("image", "axes", "message"),
    [
        (np.zeros((4, 20, 20, 1), np.uint8), "", "axes, a letter"),
        (np.zeros((20, 20), np.uint8), "zyx", "for each of the 2 axes"),
        (np.zeros((20, 20, 3), np.uint8), "yxc", "1 channels, as the model has"),
        (np.zeros((20, 20), complex), "", "numbers"),
        (np.full((70, 70), np.nan, np.float32), "", "finite grey values"),
        ("cels.tif", "", "cells.tif"),
    ],
)
def test_images_it_cannot_take_are_refused(made, image, axes, message):
    with pytest.raises(PipelineError, match=message):
        unet_pipeline.predict(image, "results/model", axes=axes, config=ONE_THREAD)


def test_a_model_that_was_replaced_since_it_was_loaded_is_not_used(made, tmp_path):
    model = unet_pipeline.Model.load(make_model(tmp_path / "model"))
    make_model(tmp_path / "model", seed=4)
    with pytest.raises(PipelineError, match="the model that was loaded"):
        unet_pipeline.predict(draw()[0][0], model, config=ONE_THREAD)


def test_the_network_of_a_model_is_ready_to_use(made):
    import torch

    model = unet_pipeline.Model.load("results/model")
    size = model.geometry.read_px(16)
    with torch.inference_mode():
        assert model.network(torch.zeros(1, model.channels, size, size)).shape[1] == len(model.classes)
    with pytest.raises(PipelineError, match=r"model\.json"):
        unet_pipeline.Model.load(made)


def test_weights_are_those_that_training_adds_up(made, tmp_path):
    stack = make_stack(tmp_path)
    config = settings(weigh={"sigma": 5.0, "gap_px": 1})
    record = weigh(stack, config, tmp_path / "results" / "cells" / "weigh.json")
    group = zarr.open_group(tmp_path / "results" / "cells" / "weights.zarr", mode="r")
    counts = np.array(list(record.class_counts.values()))
    balance = (counts.sum() / (2 * counts)).astype(np.float32)
    expected = balance[group["target"][:]] + group["boundary"][:]
    ids = draw()[1]
    np.testing.assert_array_equal(unet_pipeline.boundary_weight_map(ids), expected)
    np.testing.assert_array_equal(unet_pipeline.boundary_weight_map(ids[0], class_balance=balance), expected[0])


def test_weights_of_a_volume_are_measured_through_its_planes():
    ids = np.zeros((9, 20, 20), np.uint8)
    ids[:3], ids[6:] = 1, 2
    given = {"w0": 10.0, "sigma_px": 3.0, "gap_px": 0.0, "class_balance": "none"}
    assert (unet_pipeline.boundary_weight_map(ids, **given) == 1).all(), "no plane shows two"
    found = unet_pipeline.boundary_weight_map(ids, step_px=1.5, **given)
    expected = 1 + 10 * np.exp(-((4 * 1.5) ** 2) / (2 * 3.0**2))  # d1 + d2 is the same in all planes between
    np.testing.assert_allclose(found[3:6], expected, rtol=1e-6)
    for step_px in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(PipelineError, match="step_px"):
            unet_pipeline.boundary_weight_map(ids, step_px=step_px)


@pytest.mark.parametrize("balance", [(1.0,), (1.0, -1.0), (1.0, float("nan")), "balance"])
def test_class_weights_that_are_none_are_refused(balance):
    with pytest.raises(PipelineError, match="class_balance"):
        unet_pipeline.boundary_weight_map(draw()[1], class_balance=balance)
    with pytest.raises(PipelineError, match="labels"):
        unet_pipeline.boundary_weight_map(np.zeros((1, 2, 8, 8), np.uint8))


def test_an_opened_stack_is_read_by_plane_and_by_window(made):
    stack, grey = unet_pipeline.open_stack("cells.tif", planes="1,0", pixel_um=0.5), draw()[0]
    assert (len(stack), stack.shape, stack.pixel_um) == (2, (2, 1, 100, 130), (0.5, 0.5))
    np.testing.assert_array_equal(np.asarray(stack), grey[::-1, None])
    np.testing.assert_array_equal(stack[-1], grey[:1])
    np.testing.assert_array_equal(stack.read(0, slice(3, 9), slice(5, None)), grey[1:, 3:9, 5:])
    with pytest.raises(IndexError):
        stack[2]


@pytest.mark.parametrize("isbi", [False, True])
def test_scores_are_those_of_evaluate(made, volume, tmp_path, isbi):
    stitched, output = volume.record.with_name("stitch.json"), tmp_path / "metrics.json"
    evaluate(stitched, settings(evaluate={"isbi": isbi}), output)
    metrics = json.loads(output.read_text(encoding="utf-8"))
    found = unet_pipeline.Segmentation(*stored(volume), volume.classes, None, False)
    given = {"evaluate": {"isbi": isbi}}
    scores = unet_pipeline.score(found, unet_pipeline.open_stack("cells_labels.tif", labels=True), config=given)
    names = ("instances", "faults", "classes", "pixels", "confusion", "isbi")
    assert json.loads(json.dumps(scores)) == {name: metrics[name] for name in names}
    assert unet_pipeline.score(found.instances, draw()[1])["instances"] == metrics["instances"]


def test_a_reference_of_classes_with_unknown_pixels(made):
    reference = np.zeros((6, 9), np.uint8)
    reference[1:3, 1:3], reference[1:3, 5:8], reference[5] = 7, 7, 99
    config = {"labels": {"kind": "classes", "values": {0: "background", 7: "cell"}, "ignore": 99}}
    scores = unet_pipeline.score((reference == 7) * np.arange(1, 10), reference, config=config)
    assert scores["instances"]["objects"] == 2
    assert scores["pixels"]["scored"] == 45
    with pytest.raises(PipelineError, match="shape"):
        unet_pipeline.score(reference[1:], reference)
    with pytest.raises(PipelineError, match="probabilities"):
        unet_pipeline.score(reference, reference, config={"evaluate": {"isbi": True}, "labels": {"ignore": 99}})


def test_every_example_in_the_help_is_true(made):
    tried = 0
    for name in ("weights", "open_stack", "segmentation", "score"):
        result = doctest.testmod(import_module(f"unet_pipeline.face.{name}"))
        assert not result.failed
        tried += result.attempted
    for name in ("boundary_weight_map", "open_stack", "predict", "score"):
        assert ">>> " in getattr(unet_pipeline, name).__doc__
    assert ">>> " in unet_pipeline.Model.load.__doc__
    assert tried > 12


def test_the_example_of_the_docs_is_true(made):
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    text = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(text, names)
    assert names["result"].instances.shape == names["stack"].shape[:1] + names["stack"].shape[2:]
    assert 0 <= names["scores"]["instances"]["seg"] <= 1
    assert names["weights"].dtype == np.float32
    for name in ("boundary_weight_map", "open_stack", "Model.load", "predict", "score"):
        assert f"unet_pipeline.{name}(" in text


def test_the_notebook_runs(made):
    """Its cells one after the other in one process, as a kernel would; on a small image and model of the same names."""
    (made / "demo").mkdir()
    for name in ("", "_labels"):
        shutil.copy(made / f"cells{name}.tif", made / "demo" / f"unseen{name}.tif")
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells), "what a run showed is not kept"
    names: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["found"].instances.shape == (names["stack"].shape[0], *names["plane"].shape[1:])
    assert names["weights"].shape == names["plane"].shape[1:]
    assert len(names["areas_px"]) > 0
    names["plt"].close("all")


IMPORTS = (
    "from unet_pipeline.predict.plan import Plan",
    "import unet_pipeline.predict.plan",
    "from unet_pipeline.predict import plan",
    "from unet_pipeline import predict",
    "import unet_pipeline; unet_pipeline.predict",
)


@pytest.mark.slow
def test_the_function_predict_and_the_room_of_that_name_stand_beside_each_other_in_every_order() -> None:
    """Each order in a fork that has loaded NumPy but nothing of this package; a stand-in spares it the whole face."""
    code = f"""if True:
        import itertools, os, sys, types, numpy, zarr
        stand_in = types.ModuleType("unet_pipeline.face.segmentation")
        stand_in.predict = stand_in.Model = stand_in.Segmentation = lambda: "the function"
        for order in itertools.permutations({IMPORTS!r}, 2):
            child = os.fork()
            if not child:
                sys.modules[stand_in.__name__] = stand_in
                for line in order:
                    exec(line)
                import unet_pipeline
                from unet_pipeline.predict.plan import Plan
                good = unet_pipeline.predict() == "the function" and Plan.__module__ == "unet_pipeline.predict.plan"
                os._exit(0 if good else 1)
            assert os.waitpid(child, 0)[1] == 0, order
        print("all")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "all\n", done.stderr


@pytest.mark.slow
def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys; import unet_pipeline; "
    code += "print(sorted(name for name in sys.modules if name.startswith('unet_pipeline'))); "
    code += "print(not {'numpy', 'torch', 'zarr', 'yaml'} & set(sys.modules)); "
    code += "unet_pipeline.open_stack, unet_pipeline.score, unet_pipeline.predict, unet_pipeline.Model; "
    code += "print('torch' in sys.modules, set(unet_pipeline.__all__) <= set(dir(unet_pipeline)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["['unet_pipeline', 'unet_pipeline.predict']", "True", "False True"], done.stderr
    with pytest.raises(AttributeError, match="predikt"):
        unet_pipeline.predikt  # noqa: B018


USER = """
import numpy as np
import unet_pipeline
from unet_pipeline.predict.plan import Plan

labels = np.zeros((4, 4), np.uint8)
weights = unet_pipeline.boundary_weight_map(labels, sigma_px=3.0)
model = unet_pipeline.Model.load("results/model")
result = unet_pipeline.predict(labels, model, device="cpu")
reveal_type(result.instances)
reveal_type(weights)
reveal_type(model.classes)
scores = unet_pipeline.score(result, unet_pipeline.open_stack("a.tif"))
plan: Plan | None = None
unet_pipeline.predict(labels)
unet_pipeline.predikt
unet_pipeline.boundary_weight_map(labels, formula="papr")
"""


@pytest.mark.slow
def test_a_users_file_is_checked_against_the_types(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "user.py"]
    command += ["--config-file", str(ROOT / "pyproject.toml")]
    path = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, env=path)
    lines = [re.sub(r"^user.py:\d+: ", "", line) for line in done.stdout.splitlines()]
    revealed = [line for line in lines if line.startswith("note: Revealed")]
    wanted = ("ndarray.*unsignedinteger.*_32Bit", "ndarray.*floating.*_32Bit", r"tuple\[.*str, \.\.\.\]")
    assert len(revealed) == 3, done.stdout
    assert all(re.search(one, line) for one, line in zip(wanted, revealed, strict=True)), revealed
    kinds = [line.rpartition("[")[2] for line in lines if line.startswith("error")]
    assert kinds == ["call-arg]", "attr-defined]", "arg-type]"], done.stdout
    assert (Path(unet_pipeline.__file__).parent / "py.typed").exists()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
