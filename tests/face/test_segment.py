"""The verb `segment`: one image, no table, the volume of the workflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tifffile
from chain import SETTINGS, draw, make_model, make_plan, make_stack, run
from same_tree import differing, tree

from unet_pipeline import __main__
from unet_pipeline.audit.verify import verify
from unet_pipeline.records.record import read_json

CONFIG = json.dumps({name: part for name, part in SETTINGS.items() if name in ("store", "tile")})
FINISHED = "shards were finished by an earlier job"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a model, what the verbs make of them, and what `segment` does."""
    folder = tmp_path_factory.mktemp("my image")
    tifffile.imwrite(folder / "image.tif", draw()[0], photometric="minisblack")
    model = make_model(folder / "model")
    run(make_plan(make_stack(folder / "workflow", labelled=False), regions=1), model)
    assert segment(folder, folder / "cells") == 0
    return folder


def segment(folder: Path, output: Path, *words: object, image: object = "image.tif", model: str = "model") -> int:
    given = [folder / str(image), "--model", folder / model, "--output", output, "--config", CONFIG]
    given += ["--threads", 1, "--device", "cpu", *words]
    return __main__.main(["segment", *map(str, given)])


@pytest.mark.slow
def test_the_volume_is_that_of_the_workflow_byte_by_byte(made):
    theirs, ours = made / "workflow" / "results" / "cells", made / "cells"
    for name in ("segmentation.ome.zarr", "image.ome.zarr/0"):
        assert not differing(tree(ours / name), tree(theirs / name))
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    assert read_json(ours / "stitch.json")["objects"] == read_json(theirs / "stitch.json")["objects"] > 2


def test_its_folder_is_one_that_the_other_verbs_know(made, capsys):
    said: list[str] = []
    verify(made / "cells", said.append)
    assert "0 damaged" in said[-1]
    assert __main__.main(["record", str(made / "cells")]) == 0
    assert "image.tif" in capsys.readouterr().out


@pytest.mark.slow
def test_a_second_run_and_one_after_a_kill_predict_only_what_is_missing(made, capsys):
    again = made / "cells"
    before = tree(again)
    assert segment(made, again) == 0
    assert f"12 of 12 {FINISHED}" in capsys.readouterr().err
    assert not differing(tree(again), before)
    (again / "stitch.json").unlink()  # as after a kill while it predicted
    (again / "regions" / "0.json").unlink()
    shard = next(
        path
        for path in sorted((again / "segmentation.ome.zarr" / "0").rglob("*"))
        if path.is_file() and path.name == "0"
    )
    shard.unlink()
    (again / f".ingest.json.{'0' * 32}.partial").write_bytes(b"half")
    assert segment(made, again) == 0
    assert FINISHED in capsys.readouterr().err
    assert not differing(tree(again), before)


@pytest.mark.slow
def test_an_image_replaced_by_another_of_its_shape_is_predicted_anew(made, tmp_path, capsys):
    shutil.copytree(made / "model", tmp_path / "model")
    for seed in (0, 1):
        tifffile.imwrite(tmp_path / "image.tif", draw(seed=seed)[0], photometric="minisblack")
        assert segment(tmp_path, tmp_path / "out" / "cells") == 0
    assert FINISHED not in capsys.readouterr().err
    assert segment(tmp_path, tmp_path / "fresh" / "cells") == 0
    name = "segmentation.ome.zarr"
    assert not differing(tree(tmp_path / "out" / "cells" / name), tree(tmp_path / "fresh" / "cells" / name))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": "imag.tif"}, "nearest legal value: "),
        ({"model": "workflow"}, "model.json"),
        ({"model": "no folder"}, "model.json"),
        ({"image": "colours.tif"}, "1 channels, as the model has"),
    ],
)
def test_a_mistake_is_one_message_and_writes_nothing(made, tmp_path, capsys, given, message):
    tifffile.imwrite(made / "colours.tif", draw(3)[0].transpose(1, 2, 0), photometric="rgb")
    assert segment(made, tmp_path / "out", **given) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(made, tmp_path, capsys):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years")
    assert segment(made, thesis) == 1
    assert "chapter.txt" in capsys.readouterr().err
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, draw(seed=2)[0], photometric="minisblack")
    before = tree(made / "cells")
    assert segment(made, made / "cells", image=other) == 1
    assert "image.tif" in capsys.readouterr().err
    assert segment(made, other) == 1
    assert "a folder to write to" in capsys.readouterr().err
    labelled = make_stack(tmp_path / "labelled").record.parent
    assert segment(tmp_path / "labelled", labelled, model=str(made / "model")) == 1
    assert not differing(tree(made / "cells"), before)


def test_classes_of_the_configuration_that_are_not_the_models_are_refused(made, tmp_path, capsys):
    config = json.dumps({"labels": {"classes": ["background", "nucleus"]}})
    assert segment(made, tmp_path / "out", "--config", config) == 1
    assert "labels.classes" in capsys.readouterr().err
