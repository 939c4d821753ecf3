import shutil
from dataclasses import replace

import numpy as np
import pytest
from made_results import make_history, make_ingested, make_model, make_predicted, make_run, make_scored, settings

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card, write_card
from unet_pipeline.records.layout import WEIGHTS_FILE
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.records.score_records import EvaluateRecord
from unet_pipeline.records.steps import open_record
from unet_pipeline.report.results import ModelResult, open_result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that tests copy and spoil."""
    return make_run(tmp_path_factory.mktemp("made"), settings())


@pytest.fixture
def run(made, tmp_path):
    model, stacks, _ = made
    root = model.parent.parent
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return ModelResult.open(tmp_path / model.relative_to(root)), [tmp_path / path.relative_to(root) for path in stacks]


def change(path, **values):
    write_json(path, read_json(path) | values)


@pytest.mark.slow
def test_all_records_are_found(run):
    model, (train, unseen, small, new) = run
    one = open_result(train, model)
    assert (one.name, one.plan, one.stitch, one.metrics, one.seg) == ("train_a", None, None, None, None)
    assert one.weigh.stack == "train_a"
    two = open_result(unseen, model)
    assert two.stitch.stack == two.metrics.stack == two.prove.stack == two.name == "unseen"
    assert two.seg == two.metrics.instances.seg > 0.3
    assert [region.region for region in two.regions] == [0, 1]
    assert two.weigh is None
    assert open_result(small, model).seg is not None
    last = open_result(new, model)
    assert (last.metrics, last.prove, last.notes) == (None, None, ())
    assert last.folder == new.parent


@pytest.mark.parametrize("name", ["stitch.json", "tiles.json", "ingest.json"])
def test_a_missing_record_is_named(run, name):
    model, stacks = run
    (stacks[1].parent / name).unlink()
    with pytest.raises(PipelineError, match=name):
        open_result(stacks[1], model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.json", "prove.json", "regions/1.json", "stitch.json", "tiles.json"])
@pytest.mark.parametrize("text", ['{"name": "somebody else\'s"}', "[1]", "{", ""])
def test_a_foreign_record_is_named(run, name, text):
    model, stacks = run
    path = stacks[1].parent / name
    path.write_text(text)
    with pytest.raises(PipelineError) as error:
        open_result(stacks[1], model)
    assert path.name in error.value.where


def test_what_is_no_record_of_a_stack_is_refused(run):
    model, stacks = run
    with pytest.raises(PipelineError, match=r"expected stitch\.json or ingest\.json"):
        open_result(stacks[1].with_name("metrics.json"), model)


@pytest.mark.parametrize("key", ["statistics", "grid", "fingerprints"])
def test_a_record_of_ingest_without_a_key_is_refused(run, key):
    model, stacks = run
    facts = read_json(stacks[0])
    del facts[key]
    write_json(stacks[0], facts)
    with pytest.raises(PipelineError, match=r"ingest\.json"):
        open_result(stacks[0], model)


def test_scores_of_another_result_are_left_out(run):
    model, (_, unseen, *_) = run
    change(unseen, objects=12345)
    found = open_result(unseen, model)
    assert found.metrics is None
    assert found.notes == ("metrics.json was made from another stitch.json and is left out: run evaluate again.",)
    assert found.prove is not None


def test_weights_and_proofs_of_another_stack_or_model_are_left_out(run):
    model, (train, unseen, *_) = run
    change(train, dtype="uint16")
    assert open_result(train, model).notes == (
        "weigh.json was made from another ingest.json and is left out: run weigh again.",
    )
    write_card(model.folder, replace(model.card, training={"steps": 1}))
    found = open_result(unseen, model)
    assert found.prove is None
    assert found.notes == ("prove.json was made from another model.json and is left out: run prove again.",)


def test_a_result_of_an_older_plan_is_refused(run):
    model, (_, unseen, *_) = run
    change(unseen.with_name("tiles.json"), tiles=1)
    with pytest.raises(PipelineError, match="run stitch again"):
        open_result(unseen, model)


def test_a_result_of_another_model_is_refused(run, tmp_path):
    _, (_, unseen, *_) = run
    other = make_model(tmp_path / "other", settings())
    write_card(other, replace(read_card(other), weights_sha256="abc"))
    with pytest.raises(PipelineError, match="predicted by"):
        open_result(unseen, ModelResult.open(other))


def test_a_model_of_other_classes_is_refused(run, tmp_path):
    _, (_, unseen, *_) = run
    other = make_model(tmp_path / "other", settings(labels={"classes": ["background", "nucleus"]}))
    with pytest.raises(PipelineError, match="nucleus"):
        open_result(unseen, ModelResult.open(other))


def test_regions_of_another_plan_do_not_count(run):
    model, (_, unseen, *_) = run
    change(unseen.parent / "regions" / "1.json", plan="another")
    assert [region.region for region in open_result(unseen, model).regions] == [0]


def test_the_role_of_a_stack(run):
    model, (train, unseen, *_) = run
    assert open_result(train, model).role == "training"
    assert open_result(unseen, model).role is None
    training = {"stacks": ["unseen"], "validation_stacks": ["train_a"]}
    write_card(model.folder, replace(model.card, training=training))
    changed = ModelResult.open(model.folder)
    assert open_result(train, changed).role == "validation"
    # a model trained elsewhere on another stack of that name: this one has no weights
    assert open_result(unseen, changed).role is None


def test_a_model_without_history(tmp_path):
    assert ModelResult.open(make_model(tmp_path / "a", settings())).history is None
    found = ModelResult.open(make_model(tmp_path / "b", settings(), history=make_history(60)))
    assert found.history.steps == 60


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"model\.json"):
        ModelResult.open(tmp_path)


def test_parameters_are_counted_as_safetensors_counts_them(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    folder = make_model(tmp_path / "m", settings())
    tensors = {"a": np.zeros((3, 4, 3, 3), np.float32), "b": np.zeros(4, np.float32), "c": np.zeros((), np.float32)}
    numpy.save_file(tensors, folder / WEIGHTS_FILE, metadata={"shape": "no tensor"})
    assert ModelResult.open(folder).parameters == sum(tensor.size for tensor in tensors.values())


@pytest.mark.parametrize("data", [b"", b"12", b"\xff" * 40, (8).to_bytes(8, "little") + b'{"a": 1}'])
def test_unreadable_weights_are_no_reason_to_fail(tmp_path, data):
    folder = make_model(tmp_path / "m", settings())
    (folder / WEIGHTS_FILE).write_bytes(data)
    assert ModelResult.open(folder).parameters is None


def test_a_record_needs_its_provenance(tmp_path):
    config = settings()
    stitched = make_scored(make_predicted(make_ingested(tmp_path, "a", (1, 64, 64), config), config), config)
    facts = read_json(stitched.with_name("metrics.json"))
    write_json(stitched.with_name("metrics.json"), facts | {"provenance": None})
    with pytest.raises(PipelineError, match=r"--forcerun .*metrics\.json"):
        open_record(stitched.with_name("metrics.json"), EvaluateRecord)
