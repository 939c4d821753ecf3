import html as standard

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_page import read_page

from unet_pipeline.report import html
from unet_pipeline.report.html import Markup

NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "'", "</table></style>", "&lt;b&gt;"]
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30) | st.sampled_from(NASTY)


def blocks(text):
    yield html.paragraph(text, kind="lead")
    yield html.section(2, "here", text, text)
    yield html.table(text, [text, "b"], [[text, text], [None, 3]])
    yield html.facts(text, [(text, text)])
    yield html.figure(html.picture(b"png", (1, 2), text), text, text)
    yield html.legend([("#123456", text)])
    yield html.ramp(["#000", "#fff"], text, text)
    yield html.details(text, text)
    yield html.explained([(text, text)])
    yield html.grid([text], "cards")
    yield html.link("here", text)


@given(words)
def test_text_stays_text(text):
    for block, known in zip(blocks(f"§{text}"), blocks("§"), strict=True):
        assert isinstance(block, Markup)
        found, expected = read_page(block), read_page(known)
        assert [e.name for e in found.elements] == [e.name for e in expected.elements]
        assert [set(e.attributes) for e in found.elements] == [set(e.attributes) for e in expected.elements]
        assert sum(f"§{text}" in e.text for e in found.elements) == sum("§" in e.text for e in expected.elements)


@given(words)
def test_texts_in_attributes_come_back(text):
    assert read_page(html.picture(b"", (1, 1), text)).one("img").attributes["alt"] == text
    assert read_page(html.table(text, ["a"], [])).one("div").attributes["aria-label"] == text


def test_markup_is_not_escaped_twice():
    assert html.paragraph(html.link("a", "b & c")) == '<p><a href="#a">b &amp; c</a></p>'
    assert html.joined(["<", Markup("<b>")], " ") == "&lt; <b>"


def test_adding_texts_is_no_way_around():
    # str + str is a plain str again, so it is escaped
    assert html.safe(Markup("<b>") + "<i>") == standard.escape("<b><i>")


def test_none_is_a_dash():
    assert html.safe(None) == html.number(None) == html.count(None) == html.NONE
    assert html.tag("p", "x", {"class": None}) == "<p>x</p>"


def test_numbers():
    assert html.number(0.12345) == "0.123"
    assert html.number(1, 1) == "1.0"
    assert html.count(1234567) == "1,234,567"
    assert html.plural(1, "plane") == "1 plane"
    assert html.plural(2000, "plane") == "2,000 planes"


def test_tables_name_their_rows_and_columns():
    found = read_page(html.table("Scores", ["Stack", "Class", "Dice"], [["a", "cell", "0.9"]], names=2))
    assert found.one("caption").text == "Scores"
    scopes = [(e.text, e.attributes["scope"]) for e in found.all("th")]
    assert scopes == [("Stack", "col"), ("Class", "col"), ("Dice", "col"), ("a", "row"), ("cell", "row")]
    assert found.one("td").attributes == {"class": "n"}
    assert found.one("div").attributes["class"] == "scroll"


def test_columns_of_text_are_not_set_like_numbers():
    found = read_page(html.table("Files", ["File", "checksum"], [["a", "b"]], numbers=False))
    assert not [e for e in found.elements if e.attributes.get("class") == "n"]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(IndexError):
        html.table("t", ["a"], [["b", "c"]])


def test_document():
    found = read_page(html.document("A & B", html.paragraph("x")))
    assert found.declarations == ["DOCTYPE html"]
    assert found.one("html").attributes == {"lang": "en"}
    assert found.one("title").text == "A & B"
    metas = {e.attributes.get("name") or e.attributes.get("http-equiv") or "charset": e for e in found.all("meta")}
    assert metas["viewport"].attributes["content"] == "width=device-width, initial-scale=1"
    assert metas["Content-Security-Policy"].attributes["content"].startswith("default-src 'none'")
    assert not found.all("script")


def test_flattened():
    value = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": {}, "g": ""}
    assert html.flattened(value) == [("a.b", "1"), ("a.c.d", "–"), ("e", "1, 2"), ("f", "{}"), ("g", "–")]
