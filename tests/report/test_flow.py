from read_page import read_page

from unet_pipeline.report.flow import Stage
from unet_pipeline.report.render import render, templates

STAGES = [Stage("stacks", ("6 stacks",)), Stage("weigh", ("not used here",), used=False), Stage("tile", ("<&>", "2"))]


def test_every_stage_stands_with_its_words_in_a_list():
    page = read_page(render("flow.html", {"stages": STAGES}))
    assert [" ".join(item.text.split()) for item in page.all("li")] == ["stacks 6 stacks", "weigh not used here",
                                                                        "tile <&> 2"]  # fmt: skip
    assert [item.attributes.get("class") for item in page.all("li")] == [None, "unused", None]


def test_the_style_has_a_place_for_every_stage():
    style, _, _ = templates().loader.get_source(templates(), "style.css")
    for place in ("stacks", "ingest", "weigh", "train", "tile", "predict", "stitch", "evaluate", "measure"):
        assert style.count(f" {place} ") + style.count(f'"{place} ') + style.count(f' {place}"') >= 2, place
