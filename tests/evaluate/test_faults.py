"""Faults against their definitions, object by object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unet_pipeline.config.keys import build
from unet_pipeline.evaluate.faults import LISTED, Boxes, find_faults
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.objects.box import Box
from unet_pipeline.records.score_records import Faults

KINDS = ("missed", "joined", "split", "spurious", "rough")
labels = arrays.arrays(np.uint32, (2, 4, 5), elements=st.integers(0, 3))


def found_in(reference, result, height=4, width=5, deep=False):
    """Faults of volumes (z, y, x), read in blocks."""
    tables, boxes = [], ([], [])
    planes, rows, columns = reference.shape
    for shard in Box(slice(0, planes), slice(0, rows), slice(0, columns)).divided(height, width):
        for box in shard.planes_alone():
            plane = 0 if deep else box.plane
            blocks = [one[box.at] for one in (reference, result)]
            tables.append(OverlapTable.of(*blocks, plane))
            for part, block in zip(boxes, blocks, strict=True):
                part.append(Boxes.of(block, box, plane))
    return build(Faults, find_faults(OverlapTable.merge(tables), *map(Boxes.merged, boxes)), "test")


def masks(ids, deep):
    """{key: mask} of all objects of a volume."""
    planes = [slice(None)] if deep else [slice(plane, plane + 1) for plane in range(len(ids))]
    made = {}
    for number, part in enumerate(planes):
        for one in np.unique(ids[part]):
            if one:
                mask = np.zeros(ids.shape, bool)
                mask[part] = ids[part] == one
                made[number, int(one)] = mask
    return made


def defined(reference, result, deep):
    """{kind: {(plane, id): (px, parts)}} by the words of the module, with a mask for each object."""
    drawn, found = masks(reference, deep), masks(result, deep)
    shared = {(r, s): int((a & b).sum()) for r, a in drawn.items() for s, b in found.items()}
    area = {
        **{("drawn", r): int(a.sum()) for r, a in drawn.items()},
        **{("found", s): int(b.sum()) for s, b in found.items()},
    }
    over = {r: [s for s in found if 2 * shared[r, s] > area["drawn", r]] for r in drawn}
    within = {s: [r for r in drawn if 2 * shared[r, s] > area["found", s]] for s in found}
    covers = {s: [shared[r, s] for r in drawn if s in over[r]] for s in found}
    holds = {r: [shared[r, s] for s in found if r in within[s]] for r in drawn}
    split = {r: (sum(px) - max(px), len(px)) for r, px in holds.items() if len(px) > 1}
    joined = {s: (sum(px) - max(px), len(px)) for s, px in covers.items() if len(px) > 1}
    missed = {
        r: (area["drawn", r] - max((shared[r, s] for s in found), default=0), 0)
        for r in drawn
        if not over[r] and r not in split
    }
    spurious = {
        s: (area["found", s] - max((shared[r, s] for r in drawn), default=0), 0)
        for s in found
        if not covers[s] and not within[s]
    }
    rough = {}
    for r in drawn:
        for s in over[r]:
            union = area["drawn", r] + area["found", s] - shared[r, s]
            if 2 * shared[r, s] < union and r not in split and s not in joined:
                rough[r] = (union - shared[r, s], 0)
    return {"missed": missed, "joined": joined, "split": split, "spurious": spurious, "rough": rough}


@pytest.mark.parametrize("deep", [False, True])
@given(reference=labels, result=labels, height=st.integers(1, 4), width=st.integers(1, 5))
def test_faults_are_those_of_the_definition(deep, reference, result, height, width):
    found, expected = found_in(reference, result, height, width, deep), defined(reference, result, deep)
    for kind in KINDS:
        assert getattr(found, kind) == len(expected[kind]), kind
        side = masks(result if kind in ("joined", "spurious") else reference, deep)
        listed = [one for one in found.worst if one.kind == kind]
        ordered = sorted(expected[kind].items(), key=lambda item: (-item[1][0], item[0]))[:LISTED]
        assert [(one.object, one.pixels, one.parts) for one in listed] == [(key[1], *facts) for key, facts in ordered]
        for one, (key, _) in zip(listed, ordered, strict=True):
            places = np.argwhere(side[key])
            assert (one.start, one.stop) == (tuple(places.min(0)), tuple(places.max(0) + 1))
    drawn, seen = masks(reference, deep), masks(result, deep)
    lost = [a for a in drawn.values() if all(2 * (a & b).sum() < (a | b).sum() for b in seen.values())]
    joined = sum(parts for _, parts in expected["joined"].values())
    assert len(lost) <= found.missed + found.split + found.rough + joined, "each object that is not found has a fault"


def test_nothing_drawn_and_nothing_found():
    empty = np.zeros((1, 4, 5), np.uint32)
    one = empty.copy()
    one[0, 1, 1] = 9
    assert found_in(empty, empty) == Faults(0, 0, 0, 0, 0, ())
    assert found_in(one, empty).missed == found_in(empty, one).spurious == 1
    assert found_in(empty, one).worst[0].stop == (1, 2, 2)


def test_the_worst_of_each_kind_are_listed_and_the_others_counted():
    reference = np.zeros((1, 40, 40), np.uint32)
    for number in range(1, 21):
        reference[0, 2 * number - 2, :number] = number
    found = found_in(reference, np.zeros_like(reference))
    assert found.missed == 20
    assert [one.pixels for one in found.worst] == list(range(20, 20 - LISTED, -1))


@pytest.mark.parametrize(("kind", "change"), [
    ("missed", lambda ids: np.where(ids == 2, 0, ids)),
    ("joined", lambda ids: np.where(ids == 2, 1, ids)),
    ("split", lambda ids: np.where((ids == 2) & (np.arange(20) < 12), 7, ids)),
    ("spurious", lambda ids: np.where((ids == 0) & (np.arange(20) > 17), 7, ids)),
    ("rough", lambda ids: np.where((ids == 0) & (np.arange(20) > 13), 2, ids)),
])  # fmt: skip
def test_each_kind_is_told_alone(kind, change):
    reference = np.zeros((1, 10, 20), np.uint32)
    reference[0, :4, 2:10], reference[0, 5:9, 10:15] = 1, 2
    found = found_in(reference, change(reference).astype(np.uint32))
    assert {name for name in KINDS if getattr(found, name)} == {kind}
    assert [one.kind for one in found.worst] == [kind]
