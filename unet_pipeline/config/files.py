"""Sources of a configuration: YAML files, or JSON text on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Config
from unet_pipeline.errors import PipelineError, read_text

LARGEST, MOST_ALIASES, DEEPEST = 2**20, 32, 32
"""Bounds of a configuration file: bytes, YAML aliases, and levels of nesting."""


def load(source: str) -> Config:
    """Read a configuration; absent keys take defaults.

    Args:
        source: a YAML file; or JSON text that starts with `{`, as a rule passes its own sections.

    Raises:
        PipelineError: unreadable, or for the reasons of `from_dict`.
    """
    if source.lstrip().startswith("{"):
        return _from_json(source)
    return from_dict(_read_yaml(source))


def load_merged(sources: Sequence[str] | None) -> Config:
    """Read one configuration from several YAML files, as Snakemake merges them: later keys win, section by section.

    Args:
        sources: the files; None takes `config.yaml` of the working directory or, where there is none, the defaults.

    Raises:
        PipelineError: unreadable, or for the reasons of `from_dict`.
    """
    merged: dict[str, Any] = {}
    for source in sources if sources is not None else [str(path) for path in [Path("config.yaml")] if path.exists()]:
        merged = _merge(merged, _read_yaml(source))
    return from_dict(merged)


def check_file(source: str) -> str:
    """Return the path of a YAML file that can be read; Snakemake would refuse one without the line and the cause.

    Raises:
        PipelineError: naming them.
    """
    _read_yaml(source)
    return source


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, part in new.items():
        both = isinstance(part, Mapping) and isinstance(old.get(name), Mapping)
        merged[name] = _merge(old[name], part) if both else part
    return merged


def _read_yaml(source: str) -> dict[str, Any]:
    try:
        value = _from_yaml(source, read_text(Path(source), LARGEST))
    except yaml.MarkedYAMLError as error:
        raise _mistake(source, error) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PipelineError(source, "a readable YAML file", error, fix="correct the file or the path") from error
    if not isinstance(value, dict | None):
        raise PipelineError(source, "sections with keys", repr(value)[:60], fix="correct the file")
    return value or {}


def _mistake(source: str, error: yaml.MarkedYAMLError) -> PipelineError:
    """Return an error that names the line of a mistake, and its cause where that is a tab."""
    mark = error.problem_mark or error.context_mark
    where = source if mark is None else f"{source} line {mark.line + 1}, column {mark.column + 1}"
    if "'\\t'" in str(error.problem):
        return PipelineError(where, "spaces, because YAML takes no tabs", "a tab", fix="put spaces in its place")
    return PipelineError(
        where, "YAML", f"a mistake: {error.problem}", fix="correct the line; config.yaml is an example"
    )


def _from_yaml(source: str, text: str) -> Any:
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


def _from_json(text: str) -> Config:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PipelineError(
            "--config", "JSON text, or a YAML file", error, fix="quote the text for the shell"
        ) from error
    return from_dict(value, whole=False)
