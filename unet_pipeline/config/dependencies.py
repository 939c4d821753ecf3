"""The sections of the configuration that each step depends on: what its rule is told, and what its record keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unet_pipeline.config.sections import Config

MACHINE = ("compute", "watch")
"""Sections that change no result: how fast it is made, and what is seen meanwhile. No step runs again for them."""

RESULT_SECTIONS = tuple(field.name for field in fields(Config) if field.name not in (*MACHINE, "stacks"))
"""All sections that any result depends on, in the order of the configuration."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "ingest": ("labels", "ingest", "store"),
    "weigh": ("labels", "store", "weigh"),
    "train": ("labels", "normalise", "model", "augment", "train"),
    "tile": ("labels", "store", "model", "tile", "predict"),
    "predict": ("predict",),
    "calibrate": ("labels", "predict", "calibrate", "stitch.connect"),
    "stitch": ("labels", "predict", "stitch"),
    "measure": ("measure",),
    "evaluate": ("labels", "evaluate"),
    "prove": ("predict",),
    "report": RESULT_SECTIONS,
}
"""By step; with a point a single key. Any other key never makes the step run again, so the step must not read it."""


def sections_of(config: Config, step: str) -> dict[str, Any]:
    """Return the sections that a step depends on, as plain values."""
    return config.section(*SECTIONS[step])
