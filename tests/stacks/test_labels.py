import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from unet_pipeline.config.sections import Config, Labels
from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.label_shapes import LabelShapes
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
        (np.array([[0, 2**24 + 2]], np.float32), "up to 16777216 in float32"),
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


def finished(labels, values, lossy=False):
    reader = LabelReader(labels, "labels.tif", lossy)
    (reader.classes if labels.kind == "classes" else reader.instances)(values, "plane 0")
    return reader.finish()


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        (Labels(), np.zeros((4, 4), np.uint8), "all background"),
        (Labels(), np.ones((4, 4), np.uint8), "all cell"),
        (Labels(ignore=1), np.ones((4, 4), np.uint8), "all the ignore value"),
        (CLASSES, np.full((4, 4), 255, np.uint8), "all cell"),
        (Labels(), np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8), "grey-level image"),
    ],
)
def test_what_only_the_whole_stack_shows(labels, values, message):
    with pytest.raises(PipelineError, match=message):
        finished(labels, values)


def cells(size=96, count=9):
    """Return discs of ids 1, 11, 21, ...: (y, x) uint8."""
    y, x = np.mgrid[:size, :size]
    places = [(16 + 30 * (i // 3), 16 + 30 * (i % 3)) for i in range(count)]
    return sum((np.hypot(y - a, x - b) < 12) * (1 + 10 * i) for i, (a, b) in enumerate(places)).astype(np.uint8)


def jpeg(values, quality):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(values, factor, way):
    return np.asarray(Image.fromarray(values).resize((int(values.shape[1] * factor),) * 2, way))


@pytest.mark.parametrize(
    "spoil",
    [
        *(lambda values, quality=quality: jpeg(values, quality) for quality in (50, 75, 90, 95)),
        *(lambda values, quality=quality: jpeg((values > 0) * np.uint8(255), quality) for quality in (50, 75, 90)),
        *(lambda values, k=k: resized(values, k, Image.Resampling.BILINEAR) for k in (0.7, 1.5, 2, 3)),
        *(lambda values, k=k: resized(values, k, Image.Resampling.BICUBIC) for k in (0.7, 1.5, 2, 3)),
    ],
)
def test_jpeg_and_interpolation_leave_rims(spoil):
    with pytest.raises(PipelineError, match=r"thin rims of other values|neighbouring object pixels"):
        finished(Labels(), spoil(cells()))


@pytest.mark.parametrize("quality", [96, 98, 100])
@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("spread", [1, 3])
def test_the_best_jpeg_saved_as_png_is_no_better(quality, count, spread):
    with pytest.raises(PipelineError, match=r"thin rims of other values .*, and \d+\.\d pieces of each value"):
        finished(Labels(), jpeg(cells(count=count) * np.uint8(spread), quality))


def test_where_pieces_are_objects_a_good_jpeg_is_told_from_many_pieces():
    with pytest.raises(PipelineError, match=r"thin rims of other values on 2\d %"):
        finished(Labels(kind="pieces"), jpeg((cells() > 0) * np.uint8(255), 95))


def test_the_best_jpeg_is_no_better():
    with pytest.raises(PipelineError, match="thin rims"):
        finished(Labels(), jpeg((cells() > 0) * np.uint8(255), 100), lossy=True)
    assert finished(Labels(), cells(), lossy=True) == []


@pytest.mark.parametrize("factor", [1, 0.7, 2, 3])
def test_nearest_neighbours_leave_none(factor):
    assert finished(Labels(), resized(cells(), factor, Image.Resampling.NEAREST)) == []


@pytest.mark.parametrize("across", [4, 5, 7, 10, 20])
def test_sheets_of_touching_cells_are_taken(across):
    """Where they end, small cells leave rims of their own; but each has one piece."""
    y, x = np.mgrid[:200, :200]
    seeds = np.random.default_rng(0).uniform(0, 200, ((200 // across) ** 2, 2))
    nearest = cKDTree(seeds).query(np.stack([y, x], axis=-1).reshape(-1, 2))[1].reshape(200, 200) + 1
    assert finished(Labels(), np.where(np.hypot(y - 100, x - 100) < 90, nearest, 0).astype(np.uint16)) == []


def test_ids_of_many_pieces_are_told():
    """Few values on many cells are classes; ids that a volume cuts into few pieces are not."""
    notes = finished(Labels(), np.where(cells() > 40, 2, cells() > 0).astype(np.uint8))
    assert len(notes) == 1
    assert "4.5 separate pieces each" in notes[0]
    assert "labels.kind: pieces" in notes[0]
    assert finished(Labels(kind="pieces"), np.where(cells() > 40, 2, cells() > 0).astype(np.uint8)) == []


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_pieces_are_counted_as_scipy_does(seed, rows, columns):
    ids = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.uint32)
    shapes = LabelShapes()
    shapes.add(ids)
    pieces = holes = 0
    for value in range(1, 4):
        here = np.pad(ids == value, 1)
        pieces += ndimage.label(here)[1]
        holes += ndimage.label(~here, np.ones((3, 3)))[1] - 1
    assert shapes.pieces == pieces - holes
    assert shapes.ids == len(np.unique(ids[ids > 0]))


def test_dense_cells_are_not_taken_for_grey_values():
    cells = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((3, 3))).astype(np.uint16)
    cells[0, 0] = 0
    finished(Labels(), cells)


@pytest.mark.parametrize(("background", "last_words"), [(0, "is the background"), (3, "and not the most frequent one")])
def test_a_palette_is_told_by_its_indices_and_their_shares(tmp_path, capsys, background, last_words):
    """A mask drawn in a paint program: which index its background got is the program's choice."""
    indices = np.full((40, 50), background, np.uint8)
    indices[5:15, 5:25], indices[20:30, 30:40] = 3 - background, 7
    picture = Image.fromarray(indices, "P")
    picture.putpalette(np.random.default_rng(5).integers(0, 255, 768).tolist())
    picture.save(tmp_path / "labels.png")
    Image.fromarray(indices).save(tmp_path / "image.png")
    source = Source("cells", str(tmp_path / "image.png"), str(tmp_path / "labels.png"))
    ingest(source, Config(), tmp_path / "results" / "cells" / "ingest.json")
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "a palette is read" in line]
    assert f"{background}: 85 %, {3 - background}: 10 %, 7: 5 %" in note
    assert "index 0 is the background" in note
    assert note.endswith(last_words)
