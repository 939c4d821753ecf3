"""The writing of the page: templates, in which every text is escaped, and the filters they use.

The page's structure lies in `templates/`, values come from the modules beside this one. What a template gets is escaped
unless it is markup, which only templates make. So no name of a stack, class or file can become part of the page's code.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_pipeline.records.score_records import InstanceScores

NONE = "–"
"""Shown where there is no value."""


@cache
def templates() -> Environment:
    """Return the templates; a value that a template names and does not get is an error, None is shown as a dash."""
    environment = Environment(
        loader=PackageLoader("unet_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: NONE if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, count, area, plural, data_uri, png_size, flattened, mean_average_precision)
    environment.filters |= {one.__name__: one for one in filters}
    return environment


def render(name: str, values: Mapping[str, Any]) -> str:
    """Return a template of this name with its values in place."""
    return templates().get_template(name).render(values)


def number(value: float | None, digits: int = 3) -> str:
    """Return a fraction with a fixed number of digits, a dash for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """Return a whole number with commas, a dash for None."""
    return NONE if value is None else f"{value:,.0f}"


def area(square_um: float | None) -> str:
    """Return an area of µm² with about four digits, a dash for None."""
    return NONE if square_um is None else f"{square_um:,.0f}" if square_um >= 1000 else f"{square_um:.4g}"


def plural(value: int, one: str) -> str:
    """Return "1 plane", "2 planes", "1,200 planes"."""
    return f"{count(value)} {one}{'' if value == 1 else 's'}"


def mean_average_precision(instances: InstanceScores) -> float | None:
    """Return the mean of average precision over all IoU thresholds; None where one has no value."""
    values = [score.average_precision for score in instances.ap.values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def data_uri(png: bytes) -> str:
    """Return a PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def png_size(png: bytes) -> tuple[int, int]:
    """Return (width, height) of a PNG, px: they stand first in every such file."""
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            rows += flattened(item, f"{prefix}{key}.")
        else:
            text = ", ".join(str(part) for part in item) if isinstance(item, list) else item
            rows.append((f"{prefix}{key}", NONE if text is None or text == "" else str(text)))
    return rows
