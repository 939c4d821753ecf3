"""A volume from three sides: each section holds the voxels it names."""

from dataclasses import replace

import numpy as np
import pytest
from made_results import make_ingested, make_model, make_predicted, make_scored, settings
from read_page import decoded

from unet_pipeline.report.outlined import DRAWN, FOUND, GREYS
from unet_pipeline.report.panels import shown_normaliser
from unet_pipeline.report.render import data_uri
from unet_pipeline.report.results import ModelResult, open_result
from unet_pipeline.report.views import View
from unet_pipeline.report.volume_panels import MOST_PLANES, _around, volume_panels

CONFIG = settings(stitch={"connect": "volume"})


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    stitched = make_scored(make_predicted(make_ingested(folder, "deep", (5, 60, 90), CONFIG), CONFIG), CONFIG)
    return open_result(stitched, ModelResult.open(make_model(folder / "model", CONFIG)))


def picture(panel, shape):
    """One pixel of the picture for each of a section, where no scale bar lies."""
    rgb = decoded(data_uri(panel.png))
    factor = rgb.shape[1] // shape[1]
    return rgb[factor // 2 :: factor, factor // 2 :: factor][: shape[0], : shape[1]], factor


def test_sections_show_their_voxels(result):
    view = View(3, slice(10, 50), slice(20, 84))
    panels = {panel.title: panel for panel in volume_panels(result, view)}
    assert list(panels) == ["xy", "xz", "yz", "Maximum projection"]
    every = slice(0, 60), slice(0, 90)
    grey = np.stack([result.stack.image.read(plane, *every)[0] for plane in range(5)])
    expected = {
        "xy": grey[3, 10:50, 20:84],
        "xz": grey[:, 30, 20:84],
        "yz": grey[:, 10:50, 52],
        "Maximum projection": grey[:, 10:50, 20:84].max(axis=0),
    }
    shades = shown_normaliser(result.stack)
    for name, values in expected.items():
        drawn, _ = picture(panels[name], values.shape)
        wanted = np.rint(np.clip(shades(values[None])[0], 0, 1) * 255).astype(int) // GREYS * GREYS
        plain = (drawn[..., 0] == drawn[..., 1]) & (drawn[..., 1] == drawn[..., 2])
        free = plain & (np.arange(values.shape[1]) < values.shape[1] // 2)  # no outline, and no scale bar
        assert free.sum() > 10, name
        np.testing.assert_array_equal(drawn[..., 0][free], wanted[free], err_msg=name)
    assert "row 30" in panels["xz"].words and "column 52" in panels["yz"].words
    found = result.plan.labels("instances").read_label(3, view.rows, view.columns)
    rgb = decoded(data_uri(panels["xy"].png))
    colours = {tuple(map(int, one)) for one in np.unique(rgb.reshape(-1, 3), axis=0)}
    assert {DRAWN, FOUND} <= colours and found.any()


def test_planes_are_as_high_as_they_are_thick(result):
    view = View(0, slice(0, 60), slice(0, 90))
    grid = replace(result.stack.grid, step=1.5)  # three times the 0.5 µm of a pixel
    ingested = replace(result.stack.ingested, grid=replace(result.stack.ingested.grid, step=1.5))
    thick = replace(result, stack=replace(result.stack, ingested=ingested))
    assert thick.stack.grid.step == grid.step
    heights = {}
    for name, one in (("unknown", result), ("thick", thick)):
        section = next(panel for panel in volume_panels(one, view) if panel.title == "xz")
        rgb = decoded(data_uri(section.png))
        heights[name] = rgb.shape[0] / (rgb.shape[1] // 90)
    assert heights["thick"] == 15 and heights["unknown"] < 15


def test_planes_alone_are_no_volume(result):
    planes = replace(result, stitch=replace(result.stitch, connect="planes"))
    assert volume_panels(planes, View(0, slice(0, 60), slice(0, 90))) == []


def test_of_many_planes_those_around_are_looked_through():
    assert _around(3, 5) == range(0, 5)
    assert _around(0, 4000) == range(0, MOST_PLANES)
    assert _around(3999, 4000) == range(4000 - MOST_PLANES, 4000)
    assert 2000 in _around(2000, 4000) and len(_around(2000, 4000)) == MOST_PLANES
