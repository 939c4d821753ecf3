"""Frozen dataclasses that are built from plain values and checked: sections of the configuration, and records.

Declare a key once, get checks and messages; for a section whose keys were declared with `key`, a JSON schema too.

A field's type says what fits: int, float (whole numbers too), bool, str, Any, a Literal, another such dataclass,
`kind | None`, `kind | Literal["word"]`, one of several kinds, a tuple of any or of one length, a dict with free keys.
`Annotated[kind, check, ...]` adds checks, `Bounds` for one. A field without default must be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from unet_pipeline.errors import PipelineError, brief, nearest_name

T = TypeVar("T")
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Bounds:
    """The closed range of a number; a check for `Annotated`."""

    low: float
    high: float

    def __call__(self, item: Any, where: str) -> None:
        """Refuse a number outside, and NaN."""
        if not self.low <= item <= self.high:
            nearest = min(max(item, self.low), self.high)
            raise PipelineError(where, f"{self.low} to {self.high}", item, nearest=nearest)


def key(default: Any, doc: str, low: float | None = None, high: float | None = None) -> Any:
    """Declare one configuration key: its default, its meaning (with unit) and its closed range."""
    metadata = {"doc": doc, "low": low, "high": high}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def plain(value: Any) -> Any:
    """Turn a section or a record into what JSON and YAML can say."""
    # not by `asdict`, which copies each number of a list, of which a record may hold a million
    return json.loads(json.dumps(value, default=_named))


def _named(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in fields(value)}


def build(kind: type[T], value: object, where: str) -> T:
    """Build the dataclass `kind` from plain values, checking names, types and ranges.

    Args:
        kind: a dataclass; see the head of this module.
        value: keys and values, as JSON and YAML give them.
        where: what messages put before the names of keys; may be empty.

    Raises:
        PipelineError: at the first unknown key (nearest name given), wrong type or value out of range, or a key without
            default that is absent.
    """
    if not isinstance(value, Mapping):
        raise PipelineError(
            where, "keys and values", _shown(value), fix="indent the keys of the section under its name"
        )
    known = _declared(kind)  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            raise PipelineError(
                _inside(where, name), f"one of {', '.join(known)}", f"unknown key {_shown(name)}",
                nearest_name(brief(name), known), "correct or remove the key",
            )  # fmt: skip
    built = {}
    for name, item in value.items():
        declared, hint = known[name]
        place = _inside(where, name).removeprefix("config.")
        built[name] = _value(hint, item, place)
        _check_range(declared.metadata, built[name], place)
    for name, (declared, _) in known.items():
        if name not in value and declared.default is MISSING and declared.default_factory is MISSING:
            raise PipelineError(_inside(where, name), "this key", "nothing")
    return kind(**built)


@cache  # resolving the types of a dataclass takes longer than building one, and a record may hold a million
def _declared(kind: type) -> dict[str, tuple[Field[Any], Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: (f, hints[f.name]) for f in fields(kind)}


def _inside(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _value(hint: Any, item: Any, where: str) -> Any:
    if hint in NAMES:
        return _scalar(hint, item, where)
    if hint is Any:
        return item
    if hasattr(hint, "__dataclass_fields__"):
        return build(hint, item, where)
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        built = _value(options[0], item, where)
        for check in options[1:]:
            check(built, where)
        return built
    if origin in (Union, UnionType):
        return _value_or_word(options, item, where)
    if origin is Literal:
        if item not in options:
            raise PipelineError(where, f"one of {', '.join(options)}", _shown(item), nearest_name(brief(item), options))
        return item
    return _items(options, item, where) if origin is tuple else _value_map(options, item, where)


def _items(options: tuple[Any, ...], item: Any, where: str) -> tuple[Any, ...]:
    """Build `tuple[kind, ...]` or `tuple[kind, kind]`; texts in it are names, and not empty."""
    first, last = options[0], options[-1]
    names = first is str or get_origin(first) is Literal
    listed = isinstance(item, list | tuple)
    if not listed or (names and not all(isinstance(part, str) and part for part in item)):
        raise PipelineError(where, "a list of names" if names else "a list", _shown(item))
    if last is not ... and len(item) != len(options):
        raise PipelineError(where, f"a list of {len(options)} values", f"{len(item)} values")
    kind, *checks = get_args(first) if get_origin(first) is Annotated else (first,)
    if last is ... and kind in (int, float) and all(type(part) is kind for part in item):
        for check in checks:
            for number, part in enumerate(item):
                check(part, f"{where}[{number}]")
        return tuple(item)  # at once: a record may hold a million numbers
    hints = (first,) * len(item) if last is ... else options
    places = (where if names else f"{where}[{number}]" for number in range(len(item)))
    return tuple(_value(hint, part, place) for hint, part, place in zip(hints, item, places, strict=True))


def _value_or_word(options: tuple[Any, ...], item: Any, where: str) -> Any:
    """Build `kind | Literal["word"]`, `kind | None`, or the first of several kinds that takes the item."""
    kind, other = options[0], options[-1]
    if get_origin(other) is not Literal:
        kinds = [one for one in options if one is not NoneType]
        if item is None and len(kinds) < len(options):
            return None
        for one in kinds[1:]:
            with suppress(PipelineError):
                return _value(one, item, where)
        return _value(kinds[0], item, where)
    words = get_args(other)
    if isinstance(item, str) and item not in words:
        expected = f"{NAMES[kind]} or {', '.join(words)}"
        raise PipelineError(where, expected, _shown(item), nearest_name(brief(item), words), _text_hint(item))
    return item if item in words else _value(kind, item, where)


def _value_map(options: tuple[Any, ...], item: Any, where: str) -> dict[Any, Any]:
    """Build `dict[str, kind]`, or the `dict[int, str]` from label value to class name."""
    names, kind = options
    if not isinstance(item, Mapping):
        if names is str:
            raise PipelineError(where, "keys and values", _shown(item))
        raise PipelineError(
            where, "a map from label value to class name", _shown(item), fix="e.g. {0: background, 255: cell}"
        )
    if names is str:
        return {_text(str(name), where): _value(kind, part, f"{where}.{name}") for name, part in item.items()}
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
    try:
        item.encode()
    except UnicodeEncodeError:
        raise PipelineError(where, "text of whole characters", ascii(item)) from None
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
    Bounds(low, high)(item, where)


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
