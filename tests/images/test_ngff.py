import itertools
import re
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from unet_pipeline.config.sections import Store
from unet_pipeline.errors import PipelineError
from unet_pipeline.images import ngff, pyramid
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.images.pyramid import build_pyramid
from unet_pipeline.records.claim import replacing
from unet_pipeline.records.files import unclaimed

SMALL = Store(chunk_px=16, shard_px=48)


def create(path, grid, channels=2, store=SMALL, dtype=np.uint8):
    with replacing(path, unclaimed) as partial:
        labels = {"classes": np.uint8, "instances": np.uint32}
        ngff.create_image(partial, "a", grid, channels, dtype, store, labels)
    return path


def fill(path, name, rng):
    """Write every shard with random values and return them, `(planes, channels, y, x)`."""
    array = open_array(path, name, writable=True)
    planes, channels, height, width = array.shape
    values = rng.integers(0, np.iinfo(array.dtype).max, (planes, channels, height, width)).astype(array.dtype)
    for plane, rows, columns in (shard.at for shard in array.shards()):
        array.write(plane, rows, columns, values[plane][:, rows, columns])
    return values


def second_reader(path, name):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / name)}}
    return tensorstore.open(spec).result().read().result()


@pytest.mark.parametrize("axis", ["z", "t"])
def test_tensorstore_reads_the_same(tmp_path, axis):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(3, 70, 101, axis))
    rng = np.random.default_rng(0)
    image, label = fill(path, "0", rng), fill(path, "labels/instances/0", rng)
    found = second_reader(path, "0")
    np.testing.assert_array_equal(found if axis == "t" else found.swapaxes(0, 1), image)
    np.testing.assert_array_equal(second_reader(path, "labels/instances/0"), label[:, 0])


@pytest.mark.parametrize("grid", [ngff.Grid(2, 700, 1100, "z", (0.5, 0.25), 2.0), ngff.Grid(1, 40, 57, "t")])
def test_metadata_is_valid_ngff(tmp_path, grid):
    path = create(tmp_path / "a.ome.zarr", grid, store=Store(chunk_px=128, shard_px=512))
    image = Image.from_zarr(zarr.open_group(path, mode="r"))
    levels = grid.levels(128)
    for label in ("classes", "instances"):
        found = ImageLabel.from_zarr(zarr.open_group(path / "labels" / label, mode="r"))
        datasets = found.attributes.ome.multiscales[0].datasets
        assert len(datasets) == levels
    multiscale = image.attributes.ome.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == (
        ["c", "z", "y", "x"] if grid.plane_axis == "z" else ["t", "c", "y", "x"]
    )
    scale = multiscale.datasets[-1].coordinateTransformations[0].scale
    assert scale[-1] == (grid.pixel_um or (1, 1))[1] * 2 ** (levels - 1)


def test_a_store_is_bound_to_its_record(tmp_path):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(1, 40, 40))
    assert not ngff.belongs(path, "mine")
    ngff.mark(path, "mine")
    assert ngff.belongs(path, "mine")
    assert not ngff.belongs(path, "another")
    Image.from_zarr(zarr.open_group(path, mode="r"))
    (path / "zarr.json").write_text("{")
    assert not ngff.belongs(path, "mine")


@pytest.mark.slow
def test_napari_opens_image_and_labels(tmp_path):
    napari_get_reader = pytest.importorskip("napari_ome_zarr").napari_get_reader
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(2, 70, 101, "z", (0.5, 0.5), 1.0))
    rng = np.random.default_rng(1)
    image = fill(path, "0", rng)
    label = fill(path, "labels/instances/0", rng)
    for name in ("", "labels/classes", "labels/instances"):
        build_pyramid(path, name, "nearest" if name else "mean")
    layers = napari_get_reader(str(path))(str(path))
    kinds = {layer[2] for layer in layers}
    assert kinds == {"image", "labels"}
    shown = next(layer for layer in layers if layer[2] == "image")
    data = shown[0][0] if isinstance(shown[0], list | tuple) else shown[0]
    assert image.sum() % 65521 == int(np.asarray(data).astype(np.int64).sum()) % 65521
    names = [layer[1]["name"] for layer in layers if layer[2] == "labels"]
    assert any("instances" in str(name) for name in names)
    assert label.any()


@given(height=st.integers(1, 90), width=st.integers(1, 90), data=st.data(), channels=st.integers(1, 3))
@settings(max_examples=5, deadline=None)
def test_pyramid_equals_the_definition(tmp_path_factory, height, width, data, channels):
    path = create(tmp_path_factory.mktemp("p") / "a.ome.zarr", ngff.Grid(2, height, width), channels)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    fine, label = fill(path, "0", rng), fill(path, "labels/classes/0", rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "BAND_PX", data.draw(st.sampled_from([2, 6, 1024])))
        build_pyramid(path, "", "mean")
        build_pyramid(path, "labels/classes", "nearest")
    for level in range(1, ngff.count_levels(path)):
        fine, label = mean_of_existing(fine), label[:, :, ::2, ::2]
        coarse = open_array(path, str(level))
        whole = [coarse.read(plane, slice(None), slice(None)) for plane in range(2)]
        np.testing.assert_array_equal(np.stack(whole), fine)
        coarse = open_array(path, f"labels/classes/{level}")
        np.testing.assert_array_equal(coarse.read_label(1, slice(None), slice(None)), label[1, 0])


def mean_of_existing(fine):
    height, width = (-(-size // 2) for size in fine.shape[2:])
    result = np.empty((*fine.shape[:2], height, width), np.float64)
    for y, x in itertools.product(range(height), range(width)):
        result[:, :, y, x] = fine[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(float).mean(axis=(2, 3))
    return np.rint(result).astype(fine.dtype)


def test_every_shard_is_one_file_even_when_empty(tmp_path):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(2, 70, 101))
    array = open_array(path, "0", writable=True)
    for plane, rows, columns in (shard.at for shard in array.shards()):
        assert not array.shard_file(plane, rows.start, columns.start).exists()
        array.write(plane, rows, columns, np.zeros((2, rows.stop - rows.start, columns.stop - columns.start), np.uint8))
        assert array.shard_sha256(plane, rows.start, columns.start)
    files = [file for file in (path / "0" / "c").rglob("*") if file.is_file()]
    assert len(files) == 2 * 2 * 3


def test_creating_again_replaces_and_failing_leaves_the_old(tmp_path, monkeypatch):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(1, 40, 40))
    fill(path, "0", np.random.default_rng(0))
    with pytest.raises(RuntimeError), monkeypatch.context() as patch:
        patch.setattr(ngff, "_create_label", lambda *_: (_ for _ in ()).throw(RuntimeError))
        create(path, ngff.Grid(1, 80, 80))
    assert open_array(path, "0").shape == (1, 2, 40, 40)
    create(path, ngff.Grid(1, 80, 80))
    assert open_array(path, "0").shape == (1, 2, 80, 80)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ome.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0", "labels/instances/0"])
def test_a_flipped_bit_anywhere_in_a_shard_is_found_and_the_shard_named(tmp_path, name):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(2, 70, 101), channels=1)
    fill(path, name, np.random.default_rng(0))
    array = open_array(path, name, repair=lambda plane, row, column: f"mend {plane} {row} {column}")
    file = array.shard_file(1, 48, 96)
    content = file.read_bytes()
    for place in np.linspace(0, len(content) - 1, 30).astype(int):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << int(place) % 8]) + content[place + 1 :])
        with pytest.raises(PipelineError, match=re.escape(str(file))) as caught:
            array.read(1, slice(0, 70), slice(0, 101))
        assert "mend 1 48 96" in str(caught.value)
    file.write_bytes(content)
    array.read(1, slice(0, 70), slice(0, 101))


def test_a_missing_array_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"gone\.ome\.zarr"):
        open_array(tmp_path / "gone.ome.zarr", "0")


@contextmanager
def room_for(size):
    """Let files grow to `size` bytes only: writing beyond fails in the middle, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_half_shard(tmp_path):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(1, 40, 40))
    array = open_array(path, "0", writable=True)
    before = fill(path, "0", np.random.default_rng(0))
    noise = np.random.default_rng(1).integers(0, 255, (2, 40, 40)).astype(np.uint8)
    with room_for(500), pytest.raises(PipelineError, match="room to write a shard"):
        array.write(0, slice(0, 40), slice(0, 40), noise)
    np.testing.assert_array_equal(array.read(0, slice(0, 40), slice(0, 40)), before[0])
    assert not list(path.rglob("*.partial"))


def test_what_a_kill_left_of_a_shard_is_removed_when_it_is_written_again(tmp_path):
    """Named as `record.partial_name` does; `make faults` kills at every change of a file."""
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(1, 40, 40))
    fill(path, "0", np.random.default_rng(0))
    shard = open_array(path, "0").shard_file(0, 0, 0)
    (shard.parent / f".{shard.name}.1234abcd.partial").write_text("half")
    fill(path, "0", np.random.default_rng(0))
    assert not list(path.rglob("*.partial"))
    open_array(path, "0").read(0, slice(0, 40), slice(0, 40))


def test_writing_a_shard_again_gives_the_same_bytes(tmp_path):
    path = create(tmp_path / "a.ome.zarr", ngff.Grid(1, 70, 101))
    sums = []
    for seed in (5, 6, 5):
        fill(path, "0", np.random.default_rng(seed))
        array = open_array(path, "0")
        sums.append(
            [
                array.shard_sha256(plane, rows.start, columns.start)
                for plane, rows, columns in (shard.at for shard in array.shards())
            ]
        )
    assert sums[0] == sums[2] != sums[1]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PipelineError, match="can be written"):
        create(tmp_path / "file" / "a.ome.zarr", ngff.Grid(1, 40, 40))
