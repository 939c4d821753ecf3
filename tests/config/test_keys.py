"""Checked dataclasses, with jsonschema as the second opinion."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.config.keys import Bounds, build, json_schema, key, plain
from unet_pipeline.errors import PipelineError


@dataclass(frozen=True)
class Inner:
    """What is inside."""

    count: int = key(3, "how many", 0, 10)
    share: float = key(0.5, "how much, 0 to 1", 0, 1)
    mode: Literal["fast", "exact"] = key("fast", "which way")


@dataclass(frozen=True)
class Outer:
    """What is outside."""

    inner: Inner = Inner()
    names: tuple[str, ...] = key(("a", "b"), "names")
    values: dict[int, str] = key({}, "value map")
    on: bool = key(True, "whether")
    folder: str | None = key(None, "where")
    limit: int | None = key(None, "most", 1, 5)
    kinds: tuple[Literal["one", "two"], ...] = key((), "which of them")


def refusal(value: object) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        build(Outer, value, "config")
    return caught.value


def test_absent_keys_take_their_defaults_and_the_result_is_frozen() -> None:
    built = build(Outer, {"inner": {"count": 4}}, "config")
    assert built == Outer(Inner(4))
    with pytest.raises(FrozenInstanceError):
        built.on = False  # type: ignore[misc]


def test_a_default_map_is_not_shared() -> None:
    build(Outer, {}, "config").values[1] = "changed"
    assert Outer().values == {}


@pytest.mark.parametrize(
    ("value", "where", "got"),
    [
        ({"iner": {}}, "config.iner", "unknown key 'iner'"),
        ({"inner": {"cuont": 1}}, "inner.cuont", "unknown key 'cuont'"),
        ({"inner": {"count": 2.0}}, "inner.count", "2.0 (float)"),
        ({"inner": {"count": True}}, "inner.count", "True (bool)"),
        ({"inner": {"count": None}}, "inner.count", "None (NoneType)"),
        ({"inner": {"count": "2"}}, "inner.count", "'2' (str)"),
        ({"inner": {"share": "1e-5"}}, "inner.share", "'1e-5' (str)"),
        ({"inner": {"share": False}}, "inner.share", "False (bool)"),
        ({"inner": {"mode": "exakt"}}, "inner.mode", "'exakt'"),
        ({"inner": {"mode": 1}}, "inner.mode", "1"),
        ({"inner": None}, "inner", "None"),
        ({"inner": [1]}, "inner", "[1]"),
        ({"on": "yes"}, "on", "'yes' (str)"),
        ({"on": 1}, "on", "1 (int)"),
        ({"names": "a"}, "names", "'a'"),
        ({"names": ["a", ""]}, "names", "['a', '']"),
        ({"names": [1]}, "names", "[1]"),
        ({"kinds": ["one", "tow"]}, "kinds", "'tow'"),
        ({"kinds": "one"}, "kinds", "'one'"),
        ({"values": [0]}, "values", "[0]"),
        ({"values": {"x": "cell"}}, "values", "{'x': 'cell'}"),
        ({"folder": 3}, "folder", "3 (int)"),
        ([], "config", "[]"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_place(value: object, where: str, got: str) -> None:
    error = refusal(value)
    assert (error.where, error.got) == (where, got)


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        ({"iner": {}}, "inner"),
        ({"inner": {"cuont": 1}}, "count"),
        ({"inner": {"mode": "exakt"}}, "exact"),
        ({"inner": {"count": 11}}, "10"),
        ({"inner": {"count": -1}}, "0"),
        ({"inner": {"share": 1.5}}, "1"),
        ({"limit": 0}, "1"),
    ],
)
def test_the_nearest_legal_value_is_told(value: object, nearest: str) -> None:
    assert f"nearest legal value: {nearest}" in str(refusal(value))


def test_text_that_looks_like_a_number_gets_the_right_advice() -> None:
    assert "write 1.0e-5" in refusal({"inner": {"share": "1e-5"}}).fix
    assert "--configfile" in refusal({"inner": {"count": "2"}}).fix
    assert refusal({"folder": 3}).fix == ""


@pytest.mark.parametrize("share", [math.nan, math.inf, -math.inf])
def test_no_number_outside_the_range_slips_through(share: float) -> None:
    assert refusal({"inner": {"share": share}}).where == "inner.share"


@pytest.mark.parametrize("count", [0, 10])
def test_the_ends_of_a_range_are_legal(count: int) -> None:
    assert build(Outer, {"inner": {"count": count}}, "config").inner.count == count


def test_whole_numbers_are_numbers() -> None:
    share = build(Outer, {"inner": {"share": 1}}, "config").inner.share
    assert (share, type(share)) == (1.0, float)


def test_map_keys_survive_json() -> None:
    built = build(Outer, {"values": {0: "off", 255: "on"}}, "config")
    assert plain(built)["values"] == {"0": "off", "255": "on"}
    assert build(Outer, plain(built), "config") == built


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(Outer))


def _even(item: int, where: str) -> None:
    if item % 2:
        raise PipelineError(where, "an even number", item)


@dataclass(frozen=True)
class Part:
    """Something inside a record."""

    name: str
    size: Annotated[int, Bounds(1, 9)] = 1


@dataclass(frozen=True)
class Other:
    """What may stand instead."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A record: keys without default, and parts of all kinds."""

    step: Literal["whole"] = "whole"
    parts: tuple[Part, ...]
    pair: tuple[float, Annotated[float, Bounds(0, 1)]]
    table: tuple[tuple[int, ...], ...] = ()
    by_name: dict[str, Annotated[int, Bounds(0, 9), _even]]
    either: Part | Other | None
    free: dict[str, Any]


RECORD: dict[str, Any] = {
    "step": "whole", "parts": [{"name": "a"}, {"name": "b", "size": 2}], "pair": [1, 0.5], "table": [[1], [2, 3]],
    "by_name": {"x": 2}, "either": {"why": "so"}, "free": {"a": [None, {"b": 1}]},
}  # fmt: skip


def test_a_record_is_built_of_parts() -> None:
    built = build(Whole, RECORD, "")
    assert built == Whole(
        parts=(Part("a"), Part("b", 2)), pair=(1.0, 0.5), table=((1,), (2, 3)), by_name={"x": 2}, either=Other("so"),
        free={"a": [None, {"b": 1}]},
    )  # fmt: skip
    assert type(built.pair[0]) is float
    assert build(Whole, plain(built), "") == built
    assert build(Whole, RECORD | {"either": None}, "").either is None
    assert build(Whole, RECORD | {"either": {"name": "a"}}, "").either == Part("a")


@pytest.mark.parametrize(
    ("change", "where", "expected"),
    [
        ({"step": "half"}, "step", "one of whole"),
        ({"step": ["whole"]}, "step", "one of whole"),
        ({"parts": {"name": "a"}}, "parts", "a list"),
        ({"parts": ["a"]}, "parts[0]", "keys and values"),
        ({"parts": [{"name": "a"}, {}]}, "parts[1].name", "this key"),
        ({"parts": [{"name": "a", "size": 10}]}, "parts[0].size", "1 to 9"),
        ({"parts": [{"name": "a", "siz": 1}]}, "parts[0].siz", "one of name, size"),
        ({"pair": [1]}, "pair", "a list of 2 values"),
        ({"pair": "ab"}, "pair", "a list"),
        ({"pair": [1, 2]}, "pair[1]", "0 to 1"),
        ({"pair": [1, math.nan]}, "pair[1]", "0 to 1"),
        ({"pair": [10**400, 0]}, "pair[0]", "a number"),
        ({"table": [[1], [2, "3"]]}, "table[1][1]", "a whole number"),
        ({"by_name": [1]}, "by_name", "keys and values"),
        ({"by_name": {"x": 3}}, "by_name.x", "an even number"),
        ({"by_name": {"x": 10}}, "by_name.x", "0 to 9"),
        ({"by_name": {"\ud800": 2}}, "by_name", "text of whole characters"),
        ({"either": {"size": 2}}, "either.name", "this key"),
        ({"either": 3}, "either", "keys and values"),
        ({"free": 3}, "free", "keys and values"),
    ],
)
def test_what_is_wrong_in_a_record_is_named_with_its_place(change: dict[str, Any], where: str, expected: str) -> None:
    with pytest.raises(PipelineError) as caught:
        build(Whole, RECORD | change, "")
    assert (caught.value.where, caught.value.expected) == (where, expected)


@pytest.mark.parametrize("name", ["parts", "pair", "by_name", "either", "free"])
def test_a_key_without_default_must_be_there(name: str) -> None:
    with pytest.raises(PipelineError, match=f"{name}: expected this key, got nothing"):
        build(Whole, {key: part for key, part in RECORD.items() if key != name}, "")


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.floats(-1, 2).filter(lambda x: x != int(x)),  # JSON calls 1.0 an integer, Python does not
    st.sampled_from(["fast", "exact", "other"]),
)
values = st.fixed_dictionaries(
    {},
    optional={
        "inner": st.fixed_dictionaries({}, optional={name: scalars for name in ("count", "share", "mode", "moed")}),
        "names": st.lists(st.sampled_from(["a", "b", "c"]), max_size=3) | scalars,
        "on": scalars,
        "folder": scalars,
        "limit": scalars,
        "extra": scalars,
    },
)


@given(values)
def test_what_the_dataclass_refuses_so_does_the_schema(value: dict[str, Any]) -> None:
    legal = jsonschema.Draft202012Validator(json_schema(Outer)).is_valid(value)
    if legal:
        assert build(Outer, plain(build(Outer, value, "config")), "config") == build(Outer, value, "config")
    else:
        refusal(value)
