"""Read a page back, strictly: elements must nest, and what they say is kept for the tests."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "link", "img", "br", "hr"}


@dataclass
class Element:
    """An element with its attributes and all text inside."""

    name: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""
    children: list[str] = field(default_factory=list)


class PageReader(HTMLParser):
    """Collects elements; raises where tags do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.declarations: list[str] = []

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(one.name for one in self.open))
        if self.open:
            self.open[-1].children.append(tag)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


@dataclass
class Page:
    """The elements of a page in order."""

    elements: list[Element]
    declarations: list[str]

    def all(self, *names: str) -> list[Element]:
        """Elements of these names, in order."""
        return [element for element in self.elements if element.name in names]

    def one(self, name: str) -> Element:
        """The only element of this name."""
        (found,) = self.all(name)
        return found

    @property
    def text(self) -> str:
        """All that a reader sees, white space made even."""
        return " ".join(self.one("body").text.split())


def read_page(text: str) -> Page:
    """Parse a page or a part of it."""
    reader = PageReader()
    reader.feed(str(text))  # markup would escape what is added to it
    reader.close()
    assert not reader.open, f"<{reader.open[-1].name}> is never closed"
    return Page(reader.elements, reader.declarations)


def decoded(uri: str) -> np.ndarray:
    """The picture of a `data:` address, (y, x, 3)."""
    head, data = uri.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))
