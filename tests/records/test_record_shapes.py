import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_project import copied

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.record import write_json
from unet_pipeline.records.record_shapes import FILE, LARGEST, SHAPES, Either, OneOf, Whole, misfit, open_record


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [0, -3, 0.5], [True, math.inf, math.nan, 10**400, "1", None]),
        (Whole(), [0, 5, LARGEST - 1], [-1, LARGEST, True, 0.0]),
        (Whole(1), [1], [0]),
        (str, ["", "a"], [None, 1]),
        (FILE, ["ingest.json"], ["", ".", "..", "../ingest.json", "/etc/passwd", "a/b", 3]),
        (OneOf(("z", "t")), ["z"], ["y", None, ["z"], {"z": 1}]),
        (Either(str, None), ["a", None], [1]),
        ([int], [[], [1, 2]], [[1, "2"], {"0": 1}, 1]),
        ([int, int], [[1, 2]], [[1], [1, 2, 3], "ab"]),
        ({str: int}, [{}, {"a": 1}], [{"a": "1"}, [1], None]),
        ({"a": int}, [{"a": 1, "b": "more is no harm"}], [{}, {"b": 1}, {"a": None}, ["a"]]),
        ({str: int, "a": int}, [{"a": 1, "b": 2}], [{"b": 2}, {"a": 1, "b": "x"}]),
    ],
)
def test_shapes_and_what_fits_them(shape, good, bad):
    assert [value for value in good if misfit(value, shape)] == []
    assert [value for value in bad if not misfit(value, shape)] == []


def test_the_place_is_told():
    assert misfit({"a": [{"b": 1}, {"b": "x"}]}, {"a": [{"b": int}]}) == ("a[1].b", "x")
    assert misfit({"a": {}}, {"a": {"b": int}}) == ("a.b", "nothing")
    assert misfit([1], [int, int]) == ("", "1 values instead of 2")


# The finished project takes half a minute to make: all tests that use it go to one process.
TOGETHER = pytest.mark.xdist_group("end to end")

RECORDS = {
    "ingest": "ingest.json", "weigh": "weigh.json", "tile": "tiles.json", "predict": "regions/0.json",
    "stitch": "stitch.json", "evaluate": "metrics.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(finished_project, tmp_path_factory):
    """Folders of two stacks: one to learn from and one that was scored."""
    copy = copied(finished_project, tmp_path_factory.mktemp("shapes") / "copy")
    return [copy.folder / "results" / "learn", copy.folder / "results" / "unseen"]


@TOGETHER
def test_what_the_workflow_writes_fits(folders):
    found = [(step, folder / name) for step, name in RECORDS.items() for folder in folders if (folder / name).exists()]
    assert {step for step, _ in found} == set(RECORDS)
    for step, path in found:
        open_record(path, step)


JUNK = st.sampled_from([None, True, -1, 2**70, 0.5, "", "x", "../../x", [], [0], {}, {"a": 0}])


def places(value, shape, at=()):
    """Yield every place of a value that its shape speaks of, below the root."""
    if at:
        yield at
    if isinstance(shape, Either):
        shape = shape.first if not misfit(value, shape.first) else shape.second
    if isinstance(shape, dict):
        for name, part in shape.items():
            for key in value if name is str else [name]:
                yield from places(value[key], part, (*at, key))
    if isinstance(shape, list) and value:
        yield from places(value[0], shape[0], (*at, 0))


@TOGETHER
@given(data=st.data())
def test_whatever_stands_in_a_place_is_refused_or_fits(folders, data):
    """Refused with a message that names the file and the place, also where a forger made the checksum right."""
    step = data.draw(st.sampled_from(sorted(RECORDS)))
    path = next(folder / RECORDS[step] for folder in folders if (folder / RECORDS[step]).exists())
    facts = json.loads(path.read_text())
    *way, last = data.draw(st.sampled_from(sorted(set(places(facts, SHAPES[step])), key=str)))
    inner = facts
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(JUNK)
    forged = path.with_name("forged.json")
    write_json(forged, facts)
    try:
        fits = open_record(forged, step)
    except PipelineError as error:
        assert Path(str(error.where).partition(": ")[0]) == forged
        assert "--forcerun" in error.fix
    else:
        assert misfit(fits, SHAPES[step]) is None
    finally:
        forged.unlink()


@TOGETHER
@given(data=st.data())
def test_a_key_that_is_missing_is_named(folders, data):
    step = data.draw(st.sampled_from(sorted(RECORDS)))
    path = next(folder / RECORDS[step] for folder in folders if (folder / RECORDS[step]).exists())
    facts = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(SHAPES[step])))
    del facts[key]
    forged = path.with_name("forged.json")
    write_json(forged, facts)
    with pytest.raises(PipelineError, match=f"forged.json: {key}: expected what {step} writes, got nothing"):
        open_record(forged, step)
    forged.unlink()
