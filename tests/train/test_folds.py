"""Held-out planes and folds: each plane once, the same for the same seed; what cannot be divided is refused."""

import pytest
from chain import draw, make_stack, settings
from hypothesis import given
from hypothesis import strategies as st
from synthetic_training import discs

from unet_pipeline.audit.verify import verify
from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import IGNORE, Train
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.folds import dealt, divide, drawn, labelled, shuffled
from unet_pipeline.train.train import train_model

PLANES = st.lists(st.lists(st.integers(0, 500), max_size=30, unique=True), min_size=1, max_size=5)


@given(PLANES, st.integers(0, 2**31 - 1), st.integers(2, 20))
def test_folds_share_out_every_plane_once_and_evenly(planes, seed, folds):
    parts = dealt(shuffled(planes, seed), folds)
    together = [place for part in parts for place in part]
    assert sorted(together) == sorted((index, plane) for index, each in enumerate(planes) for plane in each)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for index in range(len(planes)):
        of_stack = [sum(place[0] == index for place in part) for part in parts]
        assert max(of_stack) - min(of_stack) <= 1
    assert parts == dealt(shuffled(planes, seed), folds)


@given(PLANES, st.floats(0.001, 0.9), st.integers(0, 100))
def test_a_share_is_drawn_that_leaves_something(planes, share, seed):
    places = shuffled(planes, seed)
    if len(places) < 2:
        return
    chosen = drawn(places, share)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) < set(places)
    assert len(chosen) == max(1, round(share * len(places))) or len(chosen) == len(places) - 1


def test_another_seed_deals_otherwise_and_another_stack_moves_nobody():
    planes = [range(20), range(12)]
    assert shuffled(planes, 0) != shuffled(planes, 1)
    assert shuffled([*planes, range(5)], 0)[:32] == shuffled(planes, 0)


def test_planes_nobody_annotated_are_in_no_fold():
    stack = discs(shape=(5, 40, 30))
    for plane in (1, 4):
        stack.target.planes[plane][:] = IGNORE
    assert labelled(stack) == (0, 2, 3)
    held_out = [divide([stack], Train(folds=3), fold).held_out[0] for fold in range(3)]
    assert sorted(sum(held_out, ())) == [0, 2, 3]
    assert divide([stack], Train()).train == (stack,)


def test_an_annotation_at_the_very_end_of_a_plane_is_seen():
    stack = discs(shape=(1, 1100, 30))
    stack.target.planes[0][:] = IGNORE
    assert labelled(stack) == ()
    stack.target.planes[0][0, -1, -1] = 1
    assert labelled(stack) == (0,)


def test_what_trains_and_what_validates_never_meet():
    stacks = [discs(0, shape=(4, 20, 20), name="a"), discs(1, shape=(1, 20, 20), name="b")]
    for fold in range(5):
        divided = divide(stacks, Train(folds=5), fold)
        train = {(stack.name, plane) for stack in divided.train for plane in stack.used}
        validate = {(stack.name, plane) for stack in divided.validate for plane in stack.used}
        assert (len(train), len(validate)) == (4, 1)
        assert not train & validate
        assert all(stack.used for stack in (*divided.train, *divided.validate)), "a stack without planes is left out"
        rows = [line.split("\t") for line in divided.text().splitlines()]
        assert rows[0] == ["stack", "plane", "part"]
        assert {(name, int(plane)) for name, plane, part in rows[1:] if part == "validate"} == validate


@pytest.mark.parametrize(
    ("options", "fold", "planes", "message"),
    [
        (Train(folds=6), 0, 4, r"train\.folds: expected at most 4.*nearest.* 4"),
        (Train(folds=2), 0, 1, r"train\.folds: expected at most 1.*nearest.* 1"),
        (Train(hold_out=0.2), None, 1, r"train\.hold_out: expected two labelled planes or more.*nearest.* 0"),
        (Train(folds=3), None, 4, r"--fold: expected 0 to 2"),
        (Train(folds=3), 3, 4, r"--fold: expected 0 to 2.*nearest.* 2"),
        (Train(), 0, 4, r"--fold: expected no fold"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, fold, planes, message):
    with pytest.raises(PipelineError, match=f"(?s){message}"):
        divide([discs(shape=(planes, 20, 20))], options, fold)


def test_auto_holds_planes_out_where_nothing_else_validates_and_there_are_enough():
    def held_out(planes, validated=False, **options):
        return divide([discs(shape=(planes, 20, 20))], Train(**options), validated=validated).held_out

    assert [len(held_out(planes)[0]) for planes in (5, 10, 20)] == [1, 2, 3]
    assert held_out(20) == held_out(20, hold_out=0.15)
    assert held_out(4) == held_out(20, validated=True) == held_out(20, hold_out=0.0) == ()
    assert len(held_out(20, validated=True, hold_out=0.1)[0]) == 2, "a share is what it says"
    stack = discs(shape=(5, 20, 20))
    stack.target.planes[2][:] = IGNORE
    assert divide([stack], Train()).held_out == (), "a plane nobody annotated does not count"
    assert from_dict({"train": {"folds": 2, "hold_out": "auto"}}).train.held_out_share(20, False) == 0


def test_both_ways_at_once_are_refused():
    with pytest.raises(PipelineError, match=r"train\.hold_out"):
        from_dict({"train": {"folds": 2, "hold_out": 0.1}})


def weighed(folder, config=None, planes=4):
    image, labels = draw(planes, (64, 64))
    stack = make_stack(folder, config, image=image, labels=labels)
    weigh(stack, config or settings(), stack.record.with_name("weigh.json"))
    return stack.record.with_name("weigh.json")


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return weighed(tmp_path_factory.mktemp("weighed"))


def test_a_held_out_share_validates_and_is_listed(record, tmp_path):
    config, folder = settings(train={"hold_out": 0.25}), tmp_path / "results" / "model"
    train_model([record], [], config, folder)
    training = read_card(folder).training
    (place,) = training["held_out"]
    assert place["stack"] == "cells"
    assert len(place["planes"]) == 1
    assert training["selected"] == "best"
    assert training["validation_tiles"] == 2
    rows = [line.split("\t") for line in (folder / "planes.tsv").read_text().splitlines()[1:]]
    assert [int(plane) for _, plane, part in rows if part == "validate"] == place["planes"]
    assert sorted(int(plane) for _, plane, _ in rows) == [0, 1, 2, 3]
    said = []
    verify(folder, said.append)
    (folder / "planes.tsv").write_text("another")
    with pytest.raises(PipelineError, match="1 damaged"):
        verify(folder, said.append)
    train_model([record], [], settings(), folder)
    assert not (folder / "planes.tsv").exists(), "a list of an earlier training would lie"
    assert "held_out" not in read_card(folder).training
    verify(folder, said.append)


def test_held_out_planes_and_validation_stacks_add_up(record, tmp_path):
    many = {"validate_tiles": 100, "steps": 1}
    counts = []
    for name, train, validation in (
        ("held", {"hold_out": 0.5}, []),
        ("stack", {}, [record]),
        ("both", {"hold_out": 0.5}, [record]),
    ):
        train_model([record], validation, settings(train=many | train), tmp_path / name)
        counts.append(read_card(tmp_path / name).training["validation_tiles"])
    assert counts == [2 * 4, 4 * 4, 6 * 4]


def test_a_fold_is_trained_without_its_planes(record, tmp_path, monkeypatch):
    from unet_pipeline.train import train as module

    seen = {}

    def watched(stacks, checks, *rest):
        seen["train"] = [plane for stack in stacks for plane in stack.used]
        seen["validate"] = [plane for stack in checks for plane in stack.used]
        return original(stacks, checks, *rest)

    original = module.train
    monkeypatch.setattr(module, "train", watched)
    held_out = []
    for fold in range(2):
        folder = tmp_path / str(fold)
        train_model([record], [], settings(train={"folds": 2}), folder, fold)
        training = read_card(folder).training
        assert training["fold"] == fold
        (place,) = training["held_out"]
        assert seen["validate"] == place["planes"]
        assert sorted(seen["train"] + seen["validate"]) == [0, 1, 2, 3]
        held_out += place["planes"]
    assert sorted(held_out) == [0, 1, 2, 3]


def test_a_fold_goes_on_where_it_was(record, tmp_path):
    """From the checkpoint of a finished fold no step is done again; that of another fold is not taken."""
    config = settings(train={"folds": 2})
    train_model([record], [], config, tmp_path / "0", 0)
    before = (tmp_path / "0" / "weights.safetensors").read_bytes()
    (tmp_path / "0" / "weights.safetensors").unlink()
    assert train_model([record], [], config, tmp_path / "0", 0).resumed_step == 4
    assert (tmp_path / "0" / "weights.safetensors").read_bytes() == before
    assert train_model([record], [], config, tmp_path / "0", 1).resumed_step == 0
    assert (tmp_path / "0" / "weights.safetensors").read_bytes() != before


def test_too_many_folds_end_before_anything_is_written(record, tmp_path):
    with pytest.raises(PipelineError, match=r"train\.folds.*at most 4"):
        train_model([record], [], settings(train={"folds": 5}), tmp_path / "model", 0)
    assert not (tmp_path / "model").exists()


def test_the_order_of_the_deal_is_pinned():
    """Another order would change which planes an old model has seen, without a word."""
    assert [plane for _, plane in shuffled([range(6)], 7)] == [2, 3, 0, 5, 4, 1]
    assert [plane for _, plane in shuffled([range(6), range(3)], 0)] == [0, 1, 5, 2, 4, 3, 2, 1, 0]
