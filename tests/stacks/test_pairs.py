from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.pairs import pair_files


def paired(images, labels, wanted=None):
    return pair_files([Path("/data", one) for one in images], [Path("/data", one) for one in labels], wanted)


@pytest.mark.parametrize(
    ("images", "labels", "pairs"),
    [
        (["i/a.png", "i/b.png"], ["m/b.png", "m/a.png"], [1, 0]),
        (["i/cell.png", "i/cell_2.png"], ["m/cell_2_mask.png", "m/cell_mask.png"], [1, 0]),
        (["i/t000.tif", "i/t001.tif"], ["m/man_seg001.tif", "m/man_seg000.tif"], [1, 0]),
        (["i/t010.tif", "i/t020.tif"], ["m/man_seg010.tif", "m/man_seg020.tif"], [0, 1]),
        (["1/image.png", "2/image.png"], ["2/mask.png", "1/mask.png"], [1, 0]),
        (["i/1_image.png", "i/2_image.png"], ["i/mask-002.png", "i/mask-001.png"], [1, 0]),
        (["i/A.ome.tif", "i/B.ome.tif"], ["m/b.tif", "m/a.tif"], [1, 0]),
        (["d/a_x.png", "d/a.png"], ["m/a.png", "m/a_x.png"], [1, 0]),
        (["i/one.png"], ["m/two.png"], [0]),
    ],
)
def test_names_pair(images, labels, pairs):
    assert paired(images, labels) == pairs


@pytest.mark.parametrize(
    ("images", "labels", "word"),
    [
        (["i/a1.png", "i/a2.png"], ["m/a1.png", "m/a3.png"], "without a label: a2.png; 1 labels .*: a3.png"),
        (["i/a1.png", "i/a2.png"], ["m/a1.png"], "without a label"),
        (["i/a1.png"], ["m/a1.png", "m/a2.png"], "without an image"),
        (
            ["i/t000.tif", "i/t001.tif", "i/t002.tif"],
            ["m/t000.tif", "m/t010.tif", "m/t020.tif"],
            "without a label: t001",
        ),
        (["i/x.png", "i/y.png"], ["m/1.png", "m/2.png"], "2 images without"),
        (["i/a.png", "i/a.tif"], ["m/a.png", "m/b.png"], "alike"),
    ],
)
def test_names_that_do_not_pair_are_listed(images, labels, word):
    with pytest.raises(PipelineError, match=word):
        paired(images, labels)


def test_some_planes_need_their_labels_alone():
    assert paired(["i/t0.tif", "i/t1.tif", "i/t2.tif"], ["m/t2_seg.tif", "m/t0_seg.tif"], [2, 0]) == [0, 1]
    with pytest.raises(PipelineError, match="1 images without a label: t1"):
        paired(["i/t0.tif", "i/t1.tif", "i/t2.tif"], ["m/t2_seg.tif", "m/t0_seg.tif"], [1])


@given(
    stems=st.lists(st.text("ab12_", min_size=1, max_size=5), min_size=2, max_size=8, unique=True),
    before=st.sampled_from(["", "mask_", "seg-"]),
    after=st.sampled_from(["", "_mask", " labels"]),
    seed=st.integers(0, 99),
)
def test_an_added_beginning_and_end_never_change_the_pairs(stems, before, after, seed):
    order = np.random.default_rng(seed).permutation(len(stems))
    labels = [f"m/{before}{stems[i]}{after}.png" for i in order]
    try:
        found = paired([f"i/{stem}.png" for stem in stems], labels)
    except PipelineError:
        return
    assert [stems[order[i]] for i in found] == stems
