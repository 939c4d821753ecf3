"""Pages of other runs: hostile names, no score, an image used in place, a plane too large to read whole."""

import pytest
from made_results import (
    make_history,
    make_ingested,
    make_model,
    make_predicted,
    make_scored,
    make_weighed,
    settings,
)
from markupsafe import escape
from read_page import decoded, read_page

from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.report import answers, stack_section, views
from unet_pipeline.report.levels import STRIP_PX
from unet_pipeline.report.report import report
from unet_pipeline.stacks.ingest import Source, ingest

NASTY = "cell\"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;'</style>"


@pytest.mark.slow
def test_names_stay_text(tmp_path):
    config = settings(labels={"classes": ["background", NASTY]}, report={"panel_px": 64})
    model = make_model(
        tmp_path / "model", config, history=make_history(50, config.labels.classes), device=NASTY, steps=50
    )
    train = make_weighed(make_ingested(tmp_path / "a<b>&c", "train", (1, 70, 80), config), config)
    stitched = make_scored(make_predicted(make_ingested(tmp_path, "x", (1, 70, 80), config), config), config)
    for path, name in ((train, f"train{NASTY}"), (stitched.with_name("ingest.json"), f"x{NASTY}")):
        write_json(path, read_json(path) | {"stack": name})
    report(model, [train, stitched], config, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "onerror=alert(1)>" not in text
    assert "a<b>&c" not in text
    found = read_page(text)
    assert [h.text for h in found.all("h3")] == [f"x{NASTY}", f"train{NASTY}"]
    assert NASTY in {cell.text for cell in found.all("th", "td")}
    assert not [i for i in found.all("img") if not i.attributes["src"].startswith("data:")]
    assert str(escape(NASTY)) in text


@pytest.mark.slow
def test_training_stacks_alone(tmp_path):
    config = settings(report={"panel_px": 64})
    model = make_model(tmp_path / "model", config)
    record = make_ingested(tmp_path, "a", (1, 70, 80), config, labelled=False)
    report(model, [record], config, tmp_path / "report.html")
    found = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "trained elsewhere" in found.text
    assert "No stack of this run was scored" in found.text
    assert "Nobody can say yet" in found.text
    assert len(found.all("img")) == 1
    assert "Tile plan" not in found.text
    said = " ".join(found.one("ol").text.split())
    assert "weigh not used here" in said
    assert "train finished model" in said
    assert "evaluate no score" in said


@pytest.mark.slow
def test_an_image_used_in_place(tmp_path):
    """A Zarr store is read where it lies; it has no pyramid of ours."""
    config = settings(report={"panel_px": 64})
    model = make_model(tmp_path / "model", config)
    copied = make_ingested(tmp_path, "a", (2, 90, 110), config)
    source = Source("b", str(copied.parent / "image.ome.zarr"), str(tmp_path / "images" / "a_labels.tif"))
    ingest(source, config, tmp_path / "results" / "b" / "ingest.json")
    stitched = make_scored(make_predicted(tmp_path / "results" / "b" / "ingest.json", config), config)
    report(model, [stitched], config, tmp_path / "report.html")
    found = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    raw = next(i for i in found.all("img") if i.attributes["alt"].startswith("Raw of stack b"))
    assert decoded(raw.attributes["src"]).std() > 20


@pytest.mark.slow
def test_only_crops_and_coarse_levels_are_read(tmp_path, monkeypatch):
    """Memory does not grow with the image: no read is larger than a coarse level or a strip of a tile."""
    monkeypatch.setattr(views, "COARSE_PX", 200)
    monkeypatch.setattr(answers, "OVERVIEW_PX", 200)
    monkeypatch.setattr(stack_section, "OVERVIEW_PX", 200)
    config = settings(store={"chunk_px": 256, "shard_px": 512}, tile={"tile_px": 512}, report={"panel_px": 128})
    model = make_model(tmp_path / "model", config)
    stitched = make_predicted(make_ingested(tmp_path, "large", (1, 700, 800), config), config)
    make_scored(stitched, config)
    sizes = []
    read = PlaneArray.read

    def watched(self, plane, rows, columns):
        values = read(self, plane, rows, columns)
        sizes.append(values[0].size)
        return values

    monkeypatch.setattr(PlaneArray, "read", watched)
    report(model, [stitched], config, tmp_path / "report.html")
    assert len(sizes) > 10
    assert max(sizes) <= STRIP_PX * 600 < 700 * 800 / 3
