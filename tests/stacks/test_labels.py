import numpy as np
import pytest

from unet_pipeline.config.sections import Labels
from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.labels import LabelReader

CLASSES = Labels(kind="classes", classes=("membrane", "cell"), values={0: "membrane", 255: "cell"}, ignore=7)


def test_instances_become_classes_and_ignored_pixels_255():
    reader = LabelReader(Labels(ignore=9), "labels.tif")
    ids, classes = reader.instances(np.array([[0, 3, 9], [3, 3, 70000]], np.uint32), "plane 0")
    assert ids.tolist() == [[0, 3, 0], [3, 3, 70000]]
    assert classes.tolist() == [[0, 1, 255], [1, 1, 1]]
    assert reader.counts.tolist() == [1, 4]
    assert reader.ignored == 1
    reader.finish()


def test_values_become_classes():
    reader = LabelReader(CLASSES, "labels.tif")
    assert reader.classes(np.array([[0, 255, 7]], np.uint8), "plane 0").tolist() == [[0, 1, 255]]
    reader.finish()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 128, 255]], np.uint8), "128"),
        (np.array([[0.0, 0.5]], np.float32), "fractions"),
        (np.array([[0.0, np.nan]], np.float32), "NaN"),
        (np.array([[0, -1]], np.int16), "-1"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, message):
    reader = LabelReader(CLASSES, "labels.tif")
    with pytest.raises(PipelineError, match=message) as caught:
        reader.classes(values, "labels.tif, plane 3")
        reader.finish()
    assert "labels.tif, plane 3" in str(caught.value)


def test_undeclared_values_are_counted_over_the_whole_plane():
    reader = LabelReader(CLASSES, "labels.tif")
    for plane, strange in enumerate((0, 3, 4)):
        block = np.array([[0, 255, strange]], np.uint8)
        if plane == 2:
            with pytest.raises(PipelineError, match=r"got 3 \(2 px\)") as caught:
                reader.classes(block, "plane 2")
            assert caught.value.where == "plane 1"
        else:
            reader.classes(block, f"plane {plane}")
            reader.classes(block, f"plane {plane}")


def test_a_grey_mask_names_many_values():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(PipelineError, match=r"25[34] values"):
        finished(CLASSES, ramp)
    with pytest.raises(PipelineError, match=r"\d{4} values"):  # at once: nobody needs the rest
        LabelReader(CLASSES, "mask.tif").classes(np.arange(4000).reshape(40, 100), "plane 0")


def finished(labels, values):
    reader = LabelReader(labels, "labels.tif")
    (reader.instances if labels.kind == "instances" else reader.classes)(values, "plane 0")
    reader.finish()


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        (Labels(), np.zeros((4, 4), np.uint8), "all background"),
        (Labels(), np.ones((4, 4), np.uint8), "all cell"),
        (Labels(ignore=1), np.ones((4, 4), np.uint8), "all the ignore value"),
        (CLASSES, np.full((4, 4), 255, np.uint8), "all cell"),
        (Labels(), np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8), "grey-level image"),
        (Labels(), np.eye(6, dtype=np.uint8) * 255, "0 and 255"),
    ],
)
def test_what_only_the_whole_stack_shows(labels, values, message):
    with pytest.raises(PipelineError, match=message):
        finished(labels, values)


def test_dense_cells_are_not_taken_for_grey_values():
    cells = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((3, 3))).astype(np.uint16)
    cells[0, 0] = 0
    finished(Labels(), cells)
