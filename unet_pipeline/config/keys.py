"""Frozen dataclasses as checked configuration: declare a key once, get checks, messages and a JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, field, fields
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unet_pipeline.errors import PipelineError, brief, nearest_name

T = TypeVar("T")
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def key(default: Any, doc: str, low: float | None = None, high: float | None = None) -> Any:
    """Declare one configuration key: its default, its meaning (with unit) and its closed range."""
    metadata = {"doc": doc, "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def plain(value: Any) -> Any:
    """Turn a section into what JSON and YAML can say."""
    return json.loads(json.dumps(asdict(value) if hasattr(value, "__dataclass_fields__") else value))


def build(kind: type[T], value: object, where: str) -> T:
    """Build the dataclass `kind` from plain values, checking names, types and ranges.

    Raises:
        PipelineError: at the first unknown key (nearest name given), wrong type or value out of range.
    """
    if not isinstance(value, Mapping):
        raise PipelineError(
            where, "keys and values", _shown(value), fix="indent the keys of the section under its name"
        )
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            raise PipelineError(
                f"{where}.{name}", f"one of {', '.join(known)}", f"unknown key {_shown(name)}",
                nearest_name(brief(name), known), "correct or remove the key",
            )  # fmt: skip
    hints = get_type_hints(kind)
    built = {}
    for name, item in value.items():
        place = f"{where}.{name}".removeprefix("config.")
        built[name] = _value(hints[name], item, place)
        _check_range(known[name].metadata, built[name], place)
    return kind(**built)


def _value(hint: Any, item: Any, where: str) -> Any:
    origin, options = get_origin(hint), get_args(hint)
    if hasattr(hint, "__dataclass_fields__"):
        return build(hint, item, where)
    if origin in (Union, UnionType):
        return _value_or_word(options, item, where)
    if origin is Literal:
        if item not in options:
            raise PipelineError(where, f"one of {', '.join(options)}", _shown(item), nearest_name(brief(item), options))
        return item
    if origin is tuple:
        if not isinstance(item, list | tuple) or not all(isinstance(part, str) and part for part in item):
            raise PipelineError(where, "a list of names", _shown(item))
        return tuple(_value(options[0], part, where) for part in item)
    if origin is dict:
        return _value_map(item, where)
    return _scalar(hint, item, where)


def _value_or_word(options: tuple[Any, ...], item: Any, where: str) -> Any:
    """Build `kind | None` or `kind | Literal["word"]`."""
    kind, other = options
    if get_origin(other) is not Literal:
        return None if item is None else _value(kind, item, where)
    words = get_args(other)
    if isinstance(item, str) and item not in words:
        expected = f"{NAMES[kind]} or {', '.join(words)}"
        raise PipelineError(where, expected, _shown(item), nearest_name(brief(item), words), _text_hint(item))
    return item if item in words else _value(kind, item, where)


def _value_map(item: Any, where: str) -> dict[int, str]:
    if not isinstance(item, Mapping):
        raise PipelineError(
            where, "a map from label value to class name", _shown(item), fix="e.g. {0: background, 255: cell}"
        )
    try:
        return {int(value): _text(brief(name), where) for value, name in item.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise PipelineError(where, "whole numbers as label values", _shown(item)) from error


def _scalar(hint: type, item: Any, where: str) -> Any:
    if hint is float and isinstance(item, int) and not isinstance(item, bool) and abs(item) < 2**63:
        return float(item)
    if type(item) is not hint:
        fix = _text_hint(item) if hint is not str and isinstance(item, str) else ""
        raise PipelineError(where, NAMES[hint], f"{_shown(item)} ({type(item).__name__})", fix=fix)
    return _text(item, where) if isinstance(item, str) else item


def _text(item: str, where: str) -> str:
    """Refuse text that no file can hold: halves of UTF-16 pairs, which JSON can say."""
    if any("\ud800" <= letter <= "\udfff" for letter in item):
        raise PipelineError(where, "text of whole characters", ascii(item))
    return item


def _shown(item: object) -> str:
    """Return `item` as Python writes it, cut where it is long or nested."""
    return brief([item])[1:-1]


def _text_hint(item: str) -> str:
    if re.fullmatch(r"[+-]?[0-9]+e[+-]?[0-9]+", item):
        return f"YAML 1.1 reads {item} as text: write {item.replace('e', '.0e')}"
    return "write it without quotes; values inside --config are text too: put them into a file for --configfile"


def _check_range(metadata: Mapping[str, Any], item: Any, where: str) -> None:
    low, high = metadata.get("low"), metadata.get("high")
    if item is None or isinstance(item, str) or low is None or high is None:
        return
    if not low <= item <= high:
        raise PipelineError(where, f"{low} to {high}", item, nearest=min(max(item, low), high))


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON schema of a dataclass whose fields were declared with `key`."""
    hints = get_type_hints(kind)
    properties = {f.name: _key_schema(hints[f.name], f) for f in fields(kind)}
    text = (kind.__doc__ or "").splitlines()[0]
    return {"type": "object", "description": text, "additionalProperties": False, "properties": properties}


def _key_schema(hint: Any, declared: Any) -> dict[str, Any]:
    if hasattr(hint, "__dataclass_fields__"):
        return json_schema(hint)
    factory = declared.default_factory
    default = declared.default if factory is MISSING else factory()
    entry = {"description": declared.metadata["doc"], "default": plain(default), **_type_schema(hint)}
    for name, bound in (("minimum", "low"), ("maximum", "high")):
        if declared.metadata[bound] is not None:
            entry[name] = declared.metadata[bound]
    return entry


def _type_schema(hint: Any) -> dict[str, Any]:
    names = {int: "integer", float: "number", bool: "boolean", str: "string"}
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kind, other = options
        if get_origin(other) is Literal:
            return {"anyOf": [_type_schema(kind), _type_schema(other)]}
        return {"type": [names[kind], "null"]}
    if origin is Literal:
        return {"enum": list(options)}
    if origin is tuple:
        return {"type": "array", "items": _type_schema(options[0])}
    if origin is dict:
        return {"type": "object"}
    return {"type": names[hint]}
