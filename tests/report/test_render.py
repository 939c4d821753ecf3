from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup
from read_page import read_page

from unet_pipeline.report import render
from unet_pipeline.report.panels import Panel, Scale
from unet_pipeline.report.render import templates

NASTY = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "'", "</table></style>", "&lt;b&gt;"]
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30) | st.sampled_from(NASTY)


def block(name, *values, inside=""):
    module = templates().get_template("blocks.html").module
    return getattr(module, name)(*values, **({"caller": lambda: Markup(inside)} if inside else {}))


def blocks(text):
    row = block("row", [text], [text, None, 3])
    yield block("table", text, [text], ["b", "c", "d"], inside=row)
    yield block("facts", text, [(text, text)])
    yield block("panel", Panel(text, b"png", text, text, [("#123456", text)], Scale(["#000"], text, text), text))
    yield block("folded", text, inside=row)
    yield block("named", SimpleNamespace(name=text, role=text), {text: "here"})


@given(words)
def test_text_stays_text(text):
    for one, known in zip(blocks(f"§{text}"), blocks("§"), strict=True):
        found, expected = read_page(one), read_page(known)
        assert [e.name for e in found.elements] == [e.name for e in expected.elements]
        assert [set(e.attributes) for e in found.elements] == [set(e.attributes) for e in expected.elements]
        assert sum(f"§{text}" in e.text for e in found.elements) == sum("§" in e.text for e in expected.elements)


@given(words)
def test_texts_in_attributes_come_back(text):
    assert read_page(block("panel", Panel("", b"", text))).one("img").attributes["alt"] == text
    assert read_page(block("facts", text, [])).one("div").attributes["aria-label"] == text


def test_every_template_escapes():
    """No template may switch it off, or mark a value as safe."""
    folder = templates().loader
    for name in templates().list_templates():
        source, _, _ = folder.get_source(templates(), name)
        assert "|safe" not in source.replace(" ", ""), name
        assert "autoescape" not in source, name


def test_what_is_missing_is_an_error_and_none_a_dash():
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        templates().from_string("{{ nothing }}").render()
    assert templates().from_string("{{ value }}").render(value=None) == render.NONE
    assert render.number(None) == render.count(None) == render.NONE


def test_numbers():
    assert render.number(0.12345) == "0.123"
    assert render.number(1, 1) == "1.0"
    assert render.count(1234567) == "1,234,567"
    assert render.plural(1, "plane") == "1 plane"
    assert render.plural(2000, "plane") == "2,000 planes"
    assert [render.area(value) for value in (None, 12345.6, 12.3456)] == ["–", "12,346", "12.35"]


def test_tables_name_their_rows_and_columns():
    row = block("row", ["a", "cell"], ["0.9"])
    found = read_page(block("table", "Scores", ["Stack", "Class"], ["Dice"], inside=row))
    assert found.one("caption").text == "Scores"
    scopes = [(e.text, e.attributes["scope"]) for e in found.all("th")]
    assert scopes == [("Stack", "col"), ("Class", "col"), ("Dice", "col"), ("a", "row"), ("cell", "row")]
    assert found.one("td").attributes == {"class": "n"}
    assert found.one("div").attributes["class"] == "scroll"
    assert found.one("div").attributes["tabindex"] == "0"


def test_columns_of_text_are_not_set_like_numbers():
    found = read_page(block("table", "Files", ["File"], ["checksum"], False, inside=block("row", ["a"], ["b"], False)))
    assert not [e for e in found.elements if e.attributes.get("class") == "n"]


def test_flattened():
    value = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": {}, "g": ""}
    assert render.flattened(value) == [("a.b", "1"), ("a.c.d", "–"), ("e", "1, 2"), ("f", "{}"), ("g", "–")]
