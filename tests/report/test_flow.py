from xml.etree import ElementTree

import pytest

from unet_pipeline.report.flow import BOX_HEIGHT, BOX_WIDTH, EDGES, Stage, flow

STAGES = [
    Stage("stacks", ("6 stacks",), 0, 0.5), Stage("ingest", ("2 Mpx", "3 labelled"), 1, 0.5),
    Stage("weigh", ("not used here",), 2, 0, used=False), Stage("train", ("900 steps",), 3, 0),
    Stage("tile", ("61 tiles",), 2, 1), Stage("predict", ("<&>",), 4, 0.5), Stage("stitch", (), 5, 0.5),
    Stage("evaluate", ("SEG 0.9",), 6, 0.5),
]  # fmt: skip


@pytest.fixture(scope="module")
def drawings():
    wide, tall = ElementTree.fromstring(flow(STAGES)).findall("svg")
    assert (wide.get("class"), tall.get("class")) == ("wide", "tall")
    return wide, tall


def box(rect):
    return tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))


@pytest.mark.parametrize("which", [0, 1])
def test_every_stage_has_a_box_with_its_words(drawings, which):
    svg = drawings[which]
    assert [text.text for text in svg.iter("text")] == [word for s in STAGES for word in (s.name, *s.lines)]
    boxes = [box(rect) for rect in svg.iter("rect")]
    assert len(boxes) == len(STAGES)
    left, top, width, height = (float(part) for part in svg.get("viewBox").split())
    for x, y, w, h in boxes:
        assert left <= x < x + w <= left + width
        assert top <= y < y + h <= top + height
    for i, (x, y, w, h) in enumerate(boxes):
        assert all(x + w <= a or a + c <= x or y + h <= b or b + d <= y for a, b, c, d in boxes[:i])


@pytest.mark.parametrize("which", [0, 1])
def test_arrows_go_from_box_to_box(drawings, which):
    svg = drawings[which]
    boxes = dict(zip((stage.name for stage in STAGES), (box(rect) for rect in svg.iter("rect")), strict=True))
    lines = [path for path in svg.iter("path") if path.get("fill") == "none"]
    for (start, end), line in zip(EDGES, lines, strict=True):
        points = [tuple(map(float, point.split())) for point in line.get("d")[1:].split("L")]
        for point, name in ((points[0], start), (points[-1], end)):
            x, y, w, h = boxes[name]
            assert x - 1.01 <= point[0] <= x + w + 1.01
            assert y - 1.01 <= point[1] <= y + h + 1.01


def test_it_lies_on_wide_windows_and_stands_on_narrow_ones(drawings):
    sizes = [tuple(float(part) for part in svg.get("viewBox").split())[2:] for svg in drawings]
    assert sizes[0][0] > 4 * sizes[0][1]
    assert sizes[1][1] > sizes[1][0]
    assert sizes[1][0] < 343  # the narrow window is 375 px wide and has margins of 16 px: letters keep their size


def test_words_fit_their_boxes():
    # at 12 px a letter is about 6.5 px wide
    assert len("31 M parameters") * 6.5 < BOX_WIDTH
    assert BOX_HEIGHT > 21 + 17 * 2


def test_it_is_told_to_those_who_cannot_see(drawings):
    for svg in drawings:
        assert svg.get("role") == "img"
        assert "train: 900 steps" in svg.get("aria-label")
        assert "predict: <&>" in svg.get("aria-label")
