"""Objects of a result, corrected by hand and saved as napari and Fiji save them, are read as labels with their ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from chain import draw, settings, volume

from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stitch.stitch import write_tiff

Ids = npt.NDArray[np.uint32]


def napari(dtype: str) -> Callable[[Path, Ids], None]:
    """Write as napari's own writer does: the array as it is, without a word on its axes; one plane has none."""

    def save(path: Path, ids: Ids) -> None:
        tifffile.imwrite(path, ids.squeeze().astype(dtype), compression="zlib", compressionargs={"level": 1})

    return save


def fiji(path: Path, ids: Ids) -> None:
    """Write as ImageJ does: 32 bits are always float, big-endian, the pixel size in micrometres."""
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 1.0}
    tifffile.imwrite(path, ids.astype(">f4"), imagej=True, byteorder=">", metadata=metadata, resolution=(2, 2))


WRITERS = {
    "napari uint32": napari("uint32"),
    "napari int32": napari("int32"),
    "napari int64": napari("int64"),
    "Fiji": fiji,
}


def stitched(folder: Path, planes: int) -> tuple[Path, Ids]:
    """An image, and `instances.tif` as stitch writes it; ids lie beyond 16 bits."""
    image, ids = draw(planes, (64, 72))
    labels = np.where(ids > 0, ids.astype(np.uint32) + 70_000, 0).astype(np.uint32)
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "labels.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"})
    stack = read(folder, folder / "labels.tif", "first")
    write_tiff(stack.reference("instances"), folder / "instances.tif", stack.grid)
    return folder / "instances.tif", labels


def read(folder: Path, labels: Path, name: str, axes: str = "") -> Stack:
    source = Source(stack=name, image=str(folder / "image.tif"), labels=str(labels), label_axes=axes)
    record = folder / "results" / name / "ingest.json"
    ingest(source, settings(), record)
    return Stack.open(record)


@pytest.mark.slow
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("program", WRITERS)
def test_corrected_objects_keep_their_ids(tmp_path: Path, program: str, planes: int) -> None:
    file, labels = stitched(tmp_path, planes)
    seen = tifffile.imread(file).reshape(labels.shape)
    np.testing.assert_array_equal(seen, labels)
    seen[0, 10:30, 10:30] = 90_001  # what the user draws
    WRITERS[program](tmp_path / "corrected.tif", seen)
    stack = read(tmp_path, tmp_path / "corrected.tif", "again")
    np.testing.assert_array_equal(volume(stack.reference("instances"))[:, 0], seen)


@pytest.mark.slow
@pytest.mark.parametrize("planes", [3, 4])
def test_planes_are_no_colours(tmp_path: Path, planes: int) -> None:
    file, labels = stitched(tmp_path, planes)
    with tifffile.TiffFile(file) as tiff:
        assert [page.photometric.name for page in tiff.pages] == ["MINISBLACK"] * planes
        assert tiff.series[0].axes == "ZYX"
    stack = read(tmp_path, file, "again")
    np.testing.assert_array_equal(volume(stack.reference("instances"))[:, 0], labels)


def test_three_planes_of_napari_are_taken_for_colours_until_the_table_says_otherwise(tmp_path: Path) -> None:
    file, labels = stitched(tmp_path, 3)
    ids = tifffile.imread(file)  # as napari writes three, which says nothing of the colours
    tifffile.imwrite(tmp_path / "corrected.tif", ids, compression="zlib", photometric="rgb", planarconfig="separate")
    with pytest.raises(PipelineError, match=r"one channel[\s\S]*label_axes: zyx"):
        read(tmp_path, tmp_path / "corrected.tif", "again")
    stack = read(tmp_path, tmp_path / "corrected.tif", "again", axes="zyx")
    np.testing.assert_array_equal(volume(stack.reference("instances"))[:, 0], labels)
