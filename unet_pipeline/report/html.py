"""Building blocks of one self-contained HTML page: no script, no resource from elsewhere, every text escaped.

What a block gets is escaped unless it is `Markup`, which only blocks make. So no name of a stack, class or file can
become part of the page's code.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unet_pipeline.report.style import STYLE

NONE = "–"
"""Shown where there is no value."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def safe(value: object) -> Markup:
    """Return `value` as HTML: escaped, unless it is `Markup`; None is a dash."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(NONE if value is None else str(value), quote=True))


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """Return the parts one after the other, each escaped if need be."""
    return Markup(between.join(safe(part) for part in parts))


def tag(name: str, content: object = "", attributes: Mapping[str, object] | None = None) -> Markup:
    """Return an element with its content; attributes of value None are left out."""
    given = {key: value for key, value in (attributes or {}).items() if value is not None}
    opening = " ".join([name, *(f'{key}="{safe(str(value))}"' for key, value in given.items())])
    return Markup(f"<{opening}>{safe(content)}</{name}>")


def paragraph(*parts: object, kind: str | None = None) -> Markup:
    """Return a paragraph; `kind` is its class in the style."""
    return tag("p", joined(parts, ""), {"class": kind})


def link(target: str, text: object) -> Markup:
    """Return a link to another part of the page."""
    return tag("a", text, {"href": f"#{target}"})


def section(level: int, anchor: str, title: object, *content: object) -> Markup:
    """Return a section that begins with a heading of this level (1 to 6)."""
    heading = tag(f"h{level}", title, {"id": anchor})
    return tag("section", joined(["", heading, *content, ""]))


def number(value: float | None, digits: int = 3) -> str:
    """Return a fraction with a fixed number of digits, a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """Return a whole number with commas, a dash for None."""
    return NONE if value is None else f"{value:,.0f}"


def plural(value: int, one: str, many: str = "") -> str:
    """Return "1 plane", "2 planes", "1,200 planes"."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def table(
    caption: object, head: Sequence[object], rows: Iterable[Sequence[object]], names: int = 1, numbers: bool = True
) -> Markup:
    """Return a table that scrolls inside its own box when the window is narrow.

    Args:
        caption: what the table shows.
        head: a name for each column.
        rows: the cells.
        names: how many of the first columns name the row; they are its headers.
        numbers: whether the other columns hold numbers, which are set to the right, or text.
    """
    kinds = [None if column < names or not numbers else "n" for column in range(len(head))]
    titles = [tag("th", cell, {"scope": "col", "class": kind}) for cell, kind in zip(head, kinds, strict=True)]
    body = [tag("tr", joined([_cell(cell, i < names, kinds[i]) for i, cell in enumerate(row)], "")) for row in rows]
    content = [
        "",
        tag("caption", caption),
        tag("thead", tag("tr", joined(titles, ""))),
        tag("tbody", joined(["", *body, ""])),
        "",
    ]
    return _scrolling(tag("table", joined(content)), caption)


def facts(caption: object, rows: Iterable[tuple[object, object]]) -> Markup:
    """Return a table of names and values, one pair a row."""
    body = [tag("tr", joined([tag("th", name, {"scope": "row"}), tag("td", value)], "")) for name, value in rows]
    content = ["", tag("caption", caption), tag("tbody", joined(["", *body, ""])), ""]
    return _scrolling(tag("table", joined(content), {"class": "facts"}), caption)


def _cell(cell: object, names_row: bool, kind: str | None) -> Markup:
    return tag("th", cell, {"scope": "row"}) if names_row else tag("td", cell, {"class": kind})


def _scrolling(content: Markup, label: object) -> Markup:
    # Boxes that scroll must be reached by keyboard too.
    text = html.unescape(str(label)) if isinstance(label, Markup) else str(label)
    return tag("div", content, {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": text})


def data_uri(png: bytes) -> str:
    """Return a PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def picture(png: bytes, size: tuple[int, int], alt: str) -> Markup:
    """Return an image held in the page; `size` is (height, width) in px."""
    attributes = {"src": data_uri(png), "width": size[1], "height": size[0], "alt": alt}
    return Markup("<img " + " ".join(f'{key}="{safe(str(value))}"' for key, value in attributes.items()) + ">")


def figure(content: Markup, title: object | None, *caption: object, kind: str | None = None) -> Markup:
    """Return a figure: a picture or drawing, its title if it shows none itself, and what it shows."""
    words = joined([*([] if title is None else [tag("b", title)]), *caption], " ")
    return tag("figure", joined(["", content, tag("figcaption", words), ""]), {"class": kind})


def legend(items: Iterable[tuple[str, object]]) -> Markup:
    """Return a key of colours: pairs of (CSS colour, meaning)."""
    entries = [
        tag("span", joined([tag("i", "", {"style": f"background:{colour}"}), text], ""), {"class": "key"})
        for colour, text in items
    ]
    return tag("span", joined(entries, " "), {"class": "keys"})


def ramp(colours: Sequence[str], low: object, high: object) -> Markup:
    """Return the key of a colour scale, from the colours at even steps and the values at its ends."""
    bar = tag("i", "", {"class": "ramp", "style": f"background:linear-gradient(to right,{','.join(colours)})"})
    return tag("span", joined([tag("span", low), bar, tag("span", high)], " "), {"class": "key"})


def details(summary: object, *content: object) -> Markup:
    """Return content that is folded away until it is asked for."""
    return tag("details", joined(["", tag("summary", summary), *content, ""]))


def explained(terms: Iterable[tuple[object, object]]) -> Markup:
    """Return a list of terms and what they mean."""
    pairs = [tag("div", joined([tag("dt", term), tag("dd", meaning)], "")) for term, meaning in terms]
    return tag("dl", joined(["", *pairs, ""]))


def grid(parts: Iterable[object], kind: str) -> Markup:
    """Return parts side by side, as many as the window has room for."""
    return tag("div", joined(["", *parts, ""]), {"class": kind})


def document(title: str, body: Markup) -> str:
    """Return the whole page; its policy forbids the browser to load anything from elsewhere."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe(title)}</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{STYLE}</style>",
    ]
    return "\n".join(
        ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", f"<body>\n{body}\n</body>", "</html>", ""]
    )


def flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of (dotted name, text), for `facts`."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            rows += flattened(item, f"{prefix}{key}.")
        else:
            text = ", ".join(str(part) for part in item) if isinstance(item, list) else item
            rows.append((f"{prefix}{key}", NONE if text is None or text == "" else str(text)))
    return rows
