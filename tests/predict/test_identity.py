"""What a shard depends on is in its key: change any one of it and no shard is kept; change more and all are."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from chain import draw, make_model, make_plan, make_stack, settings, volume

from unet_pipeline import __version__
from unet_pipeline.config.sections import Config, Normalise, Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.model.card import Architecture, ModelCard
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.predict import predict as module
from unet_pipeline.predict import tile as tile_module
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.records.layout import region_path
from unet_pipeline.records.steps import open_record
from unet_pipeline.records.volume_records import PredictRecord
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.train import train_model

CARD = ModelCard(Architecture("unet", 2, 4, 1, 2), ("background", "cell"), weights_sha256="a")


def work(
    folder: Path, config: Config | None = None, *, image: Path, planes: str = "", series: int | None = None
) -> str:
    """Ingest and plan a stack; return what its shards would be made from."""
    config = config or settings()
    record = folder / "results" / "cells" / "ingest.json"
    ingest(Source("cells", str(image), planes=planes, series=series), config, record)
    return make_plan(Stack.open(record), config).work(CARD, config.predict)


def test_every_change_of_the_image_is_another_work(tmp_path: Path) -> None:
    image = draw(3)[0]
    one_pixel, swapped = image.copy(), image[[1, 0, 2]]
    one_pixel[2, 99, 129] ^= 1
    given = {}
    for name, values in (("first", image), ("one pixel", one_pixel), ("swapped", swapped)):
        tifffile.imwrite(path := tmp_path / f"{name}.tif", values, photometric="minisblack")
        given[name] = work(tmp_path / f"of {name}", image=path)
    for planes in ("0-1", "1-2"):
        given[planes] = work(tmp_path / planes, image=tmp_path / "first.tif", planes=planes)
    with tifffile.TiffWriter(tmp_path / "series.tif") as tiff:
        for values in (image[:2], image[1:]):
            tiff.write(values, photometric="minisblack", metadata={"axes": "ZYX"})
    for series in (0, 1):
        given[f"series {series}"] = work(tmp_path / f"of series {series}", image=tmp_path / "series.tif", series=series)
    assert given["0-1"] == given["series 0"], "the same pixels"
    assert given["1-2"] == given["series 1"]
    assert len(set(given.values())) == len(given) - 2


def test_a_zarr_changed_in_place_is_another_work(tmp_path: Path) -> None:
    place = tmp_path / "image.zarr"
    array = zarr.create_array(place, data=draw(3)[0], chunks=(1, 50, 50), dimension_names="zyx")
    given = [work(tmp_path / "first", image=place), work(tmp_path / "other planes", image=place, planes="1-2")]
    array[2, 99, 129] ^= 1
    given.append(work(tmp_path / "changed", image=place))
    assert len(set(given)) == 3


def test_the_grey_beside_small_pictures_is_another_work(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number, values in enumerate(draw(2)[0]):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", values[: 100 - 10 * number])
    options = [{"fill": "mirror"}, {"fill": "grey", "grey": 0.0}, {"fill": "grey", "grey": 1.0}]
    given = [
        work(tmp_path / str(number), settings(ingest={"sizes": "pad", **one}), image=tmp_path / "images")
        for number, one in enumerate(options)
    ]
    assert len(set(given)) == 3


@pytest.mark.slow
def test_labels_are_no_part_of_the_work(tmp_path: Path) -> None:
    ids = draw()[1]
    stacks = [make_stack(tmp_path / str(number), labels=values) for number, values in enumerate((ids, ids[:, ::-1]))]
    stacks.append(make_stack(tmp_path / "unlabelled", labelled=False))
    assert len({make_plan(stack).work(CARD, Predict()) for stack in stacks}) == 1
    assert len({stack.ingested.id for stack in stacks}) == 3, "but of what weights and scores are made from"


def test_everything_in_a_card_but_its_history_is_another_work(tmp_path: Path) -> None:
    plan = make_plan(make_stack(tmp_path))
    constants = {"normalise": Normalise(scope="model"), "normaliser": Normaliser((1.0,), (2.0,))}
    others = [
        replace(CARD, weights_sha256="b"),
        replace(CARD, activation="sigmoid"),
        replace(CARD, normalise=Normalise(low=2.0)),
        replace(CARD, **constants),
        replace(CARD, **constants | {"normaliser": Normaliser((1.0,), (2.5,))}),
        replace(CARD, classes=("background", "nucleus")),
        replace(CARD, architecture=replace(CARD.architecture, members=2)),
        replace(CARD, training={"members": [{"held_out": [{"id": "x", "planes": [0]}]}]}),
    ]
    assert {field.name for field in fields(ModelCard)} == {
        *("architecture", "classes", "normalise", "normaliser", "activation", "training", "weights_sha256")
    }, "a new field wants a line above"
    assert len({plan.work(card, Predict()) for card in (CARD, *others)}) == 1 + len(others)
    assert plan.work(replace(CARD, training={"steps": 7}), Predict()) == plan.work(CARD, Predict())


def test_every_key_of_section_predict_is_another_work(tmp_path: Path) -> None:
    plan = make_plan(make_stack(tmp_path))
    others = {
        "probabilities": "float16", "precision": "bfloat16", "batch": 2, "mirror": True,
        "skip_below": 0.1,
    }  # fmt: skip
    assert set(others) <= {field.name for field in fields(Predict)}
    given = {name: plan.work(CARD, replace(Predict(), **{name: value})) for name, value in others.items()}
    assert set(fields_of(Predict)) == set(others), "a new key wants a line above"
    assert len({plan.work(CARD, Predict()), *given.values()}) == 1 + len(others)


def fields_of(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def test_another_version_is_another_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make_stack(tmp_path)
    first = make_plan(stack).work(CARD, Predict())
    monkeypatch.setattr(tile_module, "__version__", f"{__version__}.1")
    assert make_plan(stack).work(CARD, Predict()) != first


def predicted(plan: StackPlan, model: Path) -> np.ndarray:
    """Predict every region; return the probabilities."""
    for region in range(plan.plan.regions):
        predict(plan, region, model, settings(), plan.region_record(region))
    return volume(plan.probabilities())


@pytest.mark.slow
def test_a_replaced_image_leaves_no_shard_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, as a rerun does it: predict begins anew, and the volume is that of a folder that was never used."""
    model, other = make_model(tmp_path / "model"), draw(seed=9)[0]
    predicted(make_plan(make_stack(tmp_path / "used")), model)
    computed, real = [], module.predict_shard
    monkeypatch.setattr(module, "predict_shard", lambda *given: computed.append(1) or real(*given))
    volumes = []
    for name in ("used", "fresh"):
        plan = make_plan(make_stack(tmp_path / name, image=other))
        volumes.append(predicted(plan, model))
    np.testing.assert_array_equal(*volumes)
    assert len(computed) == 2 * plan.plan.shard_count


@pytest.mark.slow
def test_constants_of_the_model_instead_of_the_stack_are_another_work(tmp_path: Path) -> None:
    """With one training stack both give the same weights; the stack that is predicted is the darker one."""
    stack = make_stack(tmp_path / "learn")
    weigh(stack, settings(), weighed := stack.record.with_name("weigh.json"))
    darker = make_stack(tmp_path / "new", image=draw(seed=5)[0] // 2, labelled=False)
    made_by = {}
    for scope in ("stack", "model"):
        config = settings(normalise={"scope": scope})
        train_model([weighed], [], config, tmp_path / scope)
        plan = make_plan(darker, config)
        predict(plan, 0, tmp_path / scope, config, region_path(plan.record.parent, 0))
        region = open_record(region_path(plan.record.parent, 0), PredictRecord)
        made_by[scope] = region
    assert made_by["stack"].model == made_by["model"].model, "the same weights"
    assert made_by["stack"].shards != made_by["model"].shards


SHARDS = ("image.ome.zarr/0/c/0/0/0/1", "image.ome.zarr/0/c/0/1/0/1")


def lose(folder: Path) -> None:
    (folder / SHARDS[0]).unlink()


def exchange(folder: Path) -> None:
    one, two = (folder / name for name in SHARDS)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def empty(folder: Path) -> None:
    (folder / SHARDS[0]).write_bytes(b"")


@pytest.mark.slow
@pytest.mark.parametrize("harm", [lose, exchange, empty])
def test_harmed_shards_of_an_image_are_never_predicted(tmp_path: Path, harm) -> None:
    plan, model = make_plan(make_stack(tmp_path), regions=1), make_model(tmp_path / "model")
    harm(plan.record.parent)
    with pytest.raises(PipelineError, match=r"(?s)image\.ome\.zarr/0/c/0/./0/1: .*--forcerun .*/ingest\.json"):
        predict(StackPlan.open(plan.record), 0, model, settings(), plan.region_record(0))
    assert not plan.region_record(0).exists()


def test_a_file_that_its_list_does_not_name_is_not_read(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    store = stack.record.with_name("image.ome.zarr")
    vouched = open_array(store, "0", vouch=stack.vouch)
    assert vouched.read(0, slice(0, 10), slice(0, 10)).shape == (1, 10, 10)
    (store / "0" / "c" / "0" / "0" / "0" / "1").rename(tmp_path / "away")
    with pytest.raises(PipelineError, match="no file"):
        vouched.read(0, slice(60, 70), slice(60, 70))
    vouched.read(0, slice(0, 64), slice(0, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image.ome.zarr/labels/instances/0/c", "image.ome.zarr/0/c"])
def test_a_lost_shard_is_never_weighed_nor_trained_on(tmp_path: Path, name: str) -> None:
    stack = make_stack(tmp_path)
    weigh(stack, settings(), weighed := stack.record.with_name("weigh.json"))
    next(path for path in sorted((stack.record.parent / name).rglob("*")) if path.is_file()).unlink()
    with pytest.raises(PipelineError, match=r"(?s)no file.*--forcerun .*/ingest\.json"):
        weigh(Stack.open(stack.record), settings(), tmp_path / "again.json") if "labels" in name else train_model(
            [weighed], [], settings(), tmp_path / "model"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["target", "boundary"])
def test_a_lost_shard_of_the_weights_is_never_trained_on(tmp_path: Path, name: str) -> None:
    stack = make_stack(tmp_path)
    weigh(stack, settings(), weighed := stack.record.with_name("weigh.json"))
    for path in (stack.record.parent / "weights.zarr" / name / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(PipelineError, match=r"(?s)no file.*--forcerun .*/weigh\.json"):
        train_model([weighed], [], settings(), tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()
