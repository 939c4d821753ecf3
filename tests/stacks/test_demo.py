import numpy as np
import pytest
import tifffile
from scipy import ndimage

from unet_pipeline.stacks.demo import STACKS, cells, write_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo")
    write_demo(path)
    return path


@pytest.mark.slow
def test_the_files_are_what_the_table_says(folder):
    for stack in STACKS:
        with tifffile.TiffFile(folder / f"{stack.name}.tif") as file:
            assert (
                file.series[0].shape == stack.shape
                if stack.shape[0] > 1
                else file.series[0].shape[-2:] == stack.shape[1:]
            )
            assert file.pages[0].dtype == stack.dtype
            assert file.pages[0].is_tiled == stack.tiled
            assert file.pages[0].tags["XResolution"].value[0] / file.pages[0].tags["XResolution"].value[1] == 20000
        labels = tifffile.imread(folder / f"{stack.name}_labels.tif")
        assert labels.dtype == np.uint16
        assert labels.max() > 0


def test_there_are_all_the_hard_cases():
    assert any(min(stack.shape[1:]) < 44 for stack in STACKS), "smaller than the margin"
    assert any(all(size % 8 for size in stack.shape[1:]) for stack in STACKS), "a multiple of nothing"
    assert {stack.dtype for stack in STACKS} == {"uint8", "uint16"}


def test_the_same_seed_gives_the_same_cells():
    first, second = (cells((64, 80), np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], cells((64, 80), np.random.default_rng(5))[0])


def test_cells_touch_and_each_is_one_piece():
    _, labels = cells((300, 300), np.random.default_rng(0))
    left, right = labels[:, :-1], labels[:, 1:]
    assert ((left > 0) & (right > 0) & (left != right)).sum() > 200
    assert all(ndimage.label(labels == one)[1] == 1 for one in range(1, labels.max() + 1))
