"""What suits objects of a size: what plan advises, what auto comes to, and that it is legal and enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.network_section import Model
from unet_pipeline.config.sections import Labels
from unet_pipeline.face.advice import Advice, advise
from unet_pipeline.face.plan import with_advice
from unet_pipeline.model.card import architecture, geometry
from unet_pipeline.model.depth import automatic_depth
from unet_pipeline.stacks.boundary_settings import gap_of, sigma_of
from unet_pipeline.stacks.object_sizes import ObjectSizes, measure


def squares(gap: int, side: int = 20) -> np.ndarray:
    ids = np.zeros((60, 80), np.uint32)
    ids[10 : 10 + side, 10 : 10 + side] = 1
    ids[10 : 10 + side, 10 + side + gap : 10 + 2 * side + gap] = 2
    return ids


def sizes(median: float, spread: float = 0.0, contact: float = 0.0) -> ObjectSizes:
    return ObjectSizes(np.linspace(median - spread, median + spread, 101), 1000, int(1000 * contact), 1, 0)


@pytest.mark.parametrize(("gap", "contact"), [(0, 52), (2, 44), (3, 40), (4, 0), (9, 0)])
def test_objects_are_measured(gap: int, contact: int) -> None:
    found = measure(squares(gap))
    np.testing.assert_allclose(found.diameters_px, 2 * np.sqrt(400 / np.pi))
    assert (found.outline_px, found.planes, found.empty) == (2 * 76, 1, 0)
    assert found.contact_px == contact, "two columns of 20 px, and what of the rows is as near"


def test_a_plane_without_objects_is_counted() -> None:
    both = ObjectSizes.merge([measure(np.zeros((9, 9), np.uint32)), measure(squares(3))])
    assert (both.planes, both.empty, len(both.diameters_px)) == (2, 1, 2)


@pytest.mark.parametrize(
    ("found", "key", "value"),
    [
        (sizes(115, 30), "weigh.sigma", "auto"),
        (sizes(15), "weigh.sigma", "auto"),
        (sizes(60), "weigh.sigma", None),
        (sizes(110, 10, 0.4), "weigh.gap_px", "auto"),
        (sizes(110, 10, 0.02), "weigh.gap_px", None),
        (sizes(26, 5, 0.4), "weigh.gap_px", None),
        (sizes(60, 25), "model.depth", 4),
        (sizes(200), "model.depth", 4),
        (sizes(30, 5), "model.depth", None),
    ],
)
def test_what_suits_objects_of_a_size(found: ObjectSizes, key: str, value: object) -> None:
    config = from_dict({"weigh": {"sigma": 5.0, "gap_px": 1}})
    advised = {one.key: one.advised for one in advise(config, found, 20, True, (512, 512))}
    assert advised.get(key) == value


@pytest.mark.parametrize(
    ("found", "sigma_px", "gap_px"),
    [
        (sizes(115, 30), 9.6, 1), (sizes(15), 3.0, 1), (sizes(400), 10.0, 1),
        (sizes(110, 10, 0.4), 9.2, 4), (sizes(26, 5, 0.4), 3.0, 1), (sizes(300, 5, 0.4), 10.0, 5),
    ],
)  # fmt: skip
def test_what_auto_comes_to(found: ObjectSizes, sigma_px: float, gap_px: int) -> None:
    assert (sigma_of(found), gap_of(found, Labels())) == (sigma_px, gap_px)


def test_planes_that_validate_are_asked_for() -> None:
    def of(planes: int, validated: bool, **train: object) -> dict[str, object]:
        config = from_dict({"train": train})
        return {one.key: one.advised for one in advise(config, sizes(30), planes, validated, (512, 512))}

    assert "train.hold_out" not in of(20, False), "auto holds planes out"
    assert of(20, False, hold_out=0.0)["train.hold_out"] == "auto"
    assert of(3, False)["train.folds"] == 3
    assert "stitch.min_area_px" not in of(3, False), "folds will calibrate it"
    assert of(1, False)["stitch.min_area_px"] == 71, "a tenth of the median"
    assert not {"train.hold_out", "train.folds", "stitch.min_area_px"} & set(of(20, True))
    assert not {"train.hold_out", "train.folds"} & set(of(20, False, hold_out=0.3))
    assert "train.folds" not in of(1, False)


def test_a_network_deeper_than_the_plane_is_not_advised() -> None:
    assert "model.depth" not in {one.key for one in advise(from_dict({}), sizes(200), 20, True, (64, 64))}


@pytest.mark.parametrize(
    ("found", "side", "model", "depth"),
    [
        (sizes(30, 5), 512, Model(), 3),  # sees 44 px
        (sizes(9), 512, Model(), 3),
        (sizes(60, 25), 512, Model(), 4),  # sees 92 px
        (sizes(60, 25), 512, Model(padded=True), 4),
        (sizes(400), 512, Model(), 4),
        (sizes(400), 91, Model(), 3),  # what 4 sees does not fit
        (sizes(400), 43, Model(), 2),
        (sizes(9), 5, Model(), 1),
        (sizes(60, 25), 512, Model(stem="half"), 3),  # sees twice as far
        (ObjectSizes(np.zeros(0), 0, 0, 8, 8), 512, Model(), 3),
        (ObjectSizes(np.zeros(0), 0, 0, 8, 8), 30, Model(), 2),
        (ObjectSizes(np.array([70.0]), 200, 0, 1, 0), 512, Model(), 4),
    ],
)
def test_the_depth_that_auto_comes_to(found: ObjectSizes, side: int, model: Model, depth: int) -> None:
    """And advice on a depth set by hand ends at the same, unless it was deeper already."""
    auto = replace(model, depth="auto")
    chosen, why = automatic_depth(auto, found, (side, 600))
    assert chosen == depth, why
    seen = geometry(architecture(replace(model, depth=depth), 1, 2)).before
    assert f"depth {depth} sees {seen} px" in why
    if len(found.diameters_px):
        assert ("the most that suits" in why) == (found.diameter_px(90) > seen)
    assert auto.stride % geometry(architecture(replace(model, depth=depth), 1, 2)).stride == 0
    if len(found.diameters_px) and depth >= 3:
        config = replace(from_dict({}), model=replace(model, depth=3))
        assert {one.key: one.advised for one in advise(config, found, 20, True, (side, 600))}.get(
            "model.depth", 3
        ) == depth


@pytest.mark.parametrize("found", [sizes(115, 40, 0.5), sizes(9), sizes(60, 5)])
@pytest.mark.parametrize("planes", [1, 3, 30])
def test_what_was_advised_is_legal_and_enough(found: ObjectSizes, planes: int) -> None:
    config = from_dict({"train": {"tile_px": 152}})
    advised = advise(config, found, planes, False, (512, 512))
    new = with_advice(config, advised)
    assert from_dict({**new.section("weigh", "model", "train", "stitch", "labels", "tile", "store")})
    assert advise(new, found, planes, False, (512, 512)) == []


def test_an_advice_says_why() -> None:
    deep = from_dict({"model": {"depth": 6}, "train": {"tile_px": 128}})
    assert "model.depth" not in {one.key for one in advise(deep, sizes(115), 30, True, (512, 512))}
    for one in advise(from_dict({}), sizes(115, 40, 0.5), 30, False, (512, 512)):
        assert isinstance(one, Advice) and len(one.why) > 20 and one.now != one.advised
