"""Checked dataclasses, with jsonschema as the second opinion."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.config.keys import build, json_schema, key, plain
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
