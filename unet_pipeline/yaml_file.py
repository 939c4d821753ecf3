"""YAML files that people write: read with bounds, so that no file keeps the reader busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from unet_pipeline.errors import PipelineError, read_small

LARGEST, MOST_ALIASES, DEEPEST = 2**20, 32, 32
"""Bounds of a configuration file: bytes, YAML aliases, and levels of nesting."""


def read_yaml(source: str) -> dict[str, Any]:
    """Read a YAML file of sections; an empty one has none.

    Raises:
        PipelineError: if it cannot be read, is too large or too nested, or holds something else.
    """
    try:
        value = _from_yaml(source, read_small(Path(source), LARGEST))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PipelineError(source, "a readable YAML file", error, fix="correct the file or the path") from error
    if not isinstance(value, dict | None):
        raise PipelineError(source, "sections with keys", repr(value)[:60], fix="correct the file")
    return value or {}


def _from_yaml(source: str, data: bytes) -> Any:
    text = data.decode("utf-8-sig")
    _check_events(source, text)
    return yaml.safe_load(text)


def _check_events(source: str, text: str) -> None:
    """Refuse what would keep the loader busy: aliases of aliases, which grow when merged, and deep nesting."""
    aliases = depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if aliases > MOST_ALIASES or depth > DEEPEST:
            expected = f"at most {MOST_ALIASES} aliases (*name) and {DEEPEST} levels"
            raise PipelineError(source, expected, "more", fix="write the values out, as config.yaml does")
