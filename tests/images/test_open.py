import ast
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from places import DATA
from reading import assert_reads, calm, check, noise, write_planes

import unet_pipeline.images
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


@pytest.fixture
def stack(tmp_path):
    """Six planes, as TIFF."""
    pixels = noise((6, 21, 33), "u2")
    tifffile.imwrite(tmp_path / "stack.tif", pixels)
    return tmp_path / "stack.tif", pixels[:, None]


def test_a_file_that_changes_after_opening(tmp_path):
    write_planes(tmp_path / "a", noise((3, 21, 33)))
    planes = open_planes(str(tmp_path / "a"))
    planes.read(0, slice(None), slice(None))
    Image.fromarray(noise((5, 5))).save(tmp_path / "a/img1.png")
    with pytest.raises(PipelineError, match=r"img1\.png"):
        planes.read(1, slice(None), slice(None))
    (tmp_path / "a/img2.png").unlink()
    with pytest.raises(PipelineError, match=r"img2\.png.*No such file"):
        planes.read(2, slice(None), slice(None))


def test_selected_planes_keep_their_order(stack):
    path, pixels = stack
    assert_reads(open_planes(str(path), planes="4,0-2"), pixels[[4, 0, 1, 2]])
    assert_reads(open_planes(str(path), planes=""), pixels)


@calm
@given(st.permutations(range(6)), st.integers(1, 6))
def test_any_selection(tmp_path_factory, order, count):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    pixels = noise((6, 5, 7))
    if not path.exists():
        tifffile.imwrite(path, pixels)
    planes = open_planes(str(path), planes=",".join(map(str, order[:count])))
    found = [planes.read(i, slice(None), slice(None))[0] for i in range(count)]
    np.testing.assert_array_equal(found, pixels[list(order[:count])])


@pytest.mark.parametrize("planes", ["0-6", "6", "1,1", "2-1", "x"])
def test_planes_that_are_not_there(stack, planes):
    with pytest.raises(PipelineError, match=r"stack\.tif: planes"):
        open_planes(str(stack[0]), planes=planes)


def test_windows(stack):
    path, pixels = stack
    planes = open_planes(str(path))
    for rows, columns in [(slice(-5, None), slice(3, 99)), (slice(4, 2), slice(0, 5)), (slice(30, 40), slice(None))]:
        np.testing.assert_array_equal(planes.read(1, rows, columns), pixels[1][:, rows, columns])
    with pytest.raises(IndexError, match="plane 6 of 6"):
        planes.read(6, slice(None), slice(None))
    with pytest.raises(IndexError, match="plane -1"):
        planes.read(-1, slice(None), slice(None))
    with pytest.raises(ValueError, match="step 1"):
        planes.read(0, slice(None, None, 2), slice(None))


def test_windows_are_the_callers_own(tmp_path):
    """What a caller writes into a window must not show in the next one."""
    pixels = noise((1, 21, 33))
    write_planes(tmp_path / "a", pixels)
    zarr.create_array(tmp_path / "a.zarr", data=pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib")
    for name in ("a", "a.zarr", "a.tif", "a/img0.png"):
        planes = open_planes(str(tmp_path / name))
        planes.read(0, slice(None), slice(None))[:] = 0
        np.testing.assert_array_equal(planes.read(0, slice(None), slice(None)), pixels)


def test_the_users_scale_wins(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise((5, 21, 33)),
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 2},
    )
    planes = open_planes(str(tmp_path / "a.tif"))
    assert (planes.pixel_um, planes.step) == ((0.25, 0.25), 2)
    planes = open_planes(str(tmp_path / "a.tif"), pixel_um=(0.1, 0.2), step=3)
    assert (planes.pixel_um, planes.step) == ((0.1, 0.2), 3)


@pytest.mark.parametrize("bad", [{"pixel_um": (0, 1)}, {"pixel_um": (1, float("nan"))}, {"step": -1}, {"step": 0}])
def test_scales_are_positive(stack, bad):
    with pytest.raises(PipelineError, match=r"stack\.tif: (pixel_um|step).*positive"):
        open_planes(str(stack[0]), **bad)


def test_context_manager(stack):
    path, pixels = stack
    with open_planes(str(path)) as planes:
        assert_reads(planes, pixels)


def test_what_is_missing_is_named_with_its_neighbour(tmp_path, stack):
    with pytest.raises(PipelineError, match=r"stak\.tif.*\n.*nearest legal value: .*/stack\.tif"):
        open_planes(str(tmp_path / "stak.tif"))
    (tmp_path / "images").mkdir()
    with pytest.raises(PipelineError, match=r"imges/a/b\.tif.*\n.*nearest legal value: .*/images\n"):
        open_planes(str(tmp_path / "imges/a/b.tif"))
    with pytest.raises(PipelineError, match=r"imges/\*\.tif.*none\n.*nearest legal value: .*/images"):
        open_planes(str(tmp_path / "imges/*.tif"))
    with pytest.raises(PipelineError, match=r"zzz"):
        open_planes(str(tmp_path / "zzz"))


@pytest.mark.parametrize("name", ["a.gif", "a.npy", "a.npz", "a.h5", "a", "a.pkl", "a.czi"])
def test_other_formats_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04\x95 whatever")
    with pytest.raises(
        PipelineError, match=rf"{name}: expected an image \(\.tif .*\.png .*\.jpg.*a Zarr store"
    ) as caught:
        open_planes(str(tmp_path / name))
    assert "TIFF or OME-Zarr" in caught.value.fix


def test_folders_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"empty: expected images.*got an empty folder"):
        open_planes(str(tmp_path / "empty"))
    (tmp_path / "empty/notes.txt").write_text("")
    with pytest.raises(PipelineError, match=r"empty: expected images.*notes\.txt"):
        open_planes(str(tmp_path / "empty"))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose first byte cannot be read")
@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_files_that_cannot_be_read(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(PipelineError, match=rf"{name}.*Input/output error"):
        open_planes(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).symlink_to("/proc/self/mem")
    with pytest.raises(PipelineError, match=rf"folder/{name}.*Input/output error"):
        open_planes(str(tmp_path / "folder"))


def test_fingerprints(tmp_path, stack):
    path, _ = stack
    first = open_planes(str(path)).fingerprint()
    shutil.copy(path, tmp_path / "copy.tif")
    assert open_planes(str(tmp_path / "copy.tif"), planes="0").fingerprint() == first
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy.tif").write_bytes(data)
    assert open_planes(str(tmp_path / "copy.tif")).fingerprint() != first

    write_planes(tmp_path / "a", noise((3, 21, 33)))
    write_planes(tmp_path / "b", noise((3, 21, 33)))
    first = open_planes(str(tmp_path / "a")).fingerprint()
    assert open_planes(str(tmp_path / "b")).fingerprint() == first
    Image.fromarray(noise((21, 33), seed=5)).save(tmp_path / "b/img1.png")
    assert open_planes(str(tmp_path / "b")).fingerprint() != first
    shutil.copy(tmp_path / "a/img2.png", tmp_path / "b/img1.png")
    shutil.copy(tmp_path / "a/img1.png", tmp_path / "b/img2.png")
    assert open_planes(str(tmp_path / "b")).fingerprint() != first


def test_all_readers_agree(tmp_path):
    """The same pixels through every format."""
    pixels = noise((3, 40, 56), "u2")
    write_planes(tmp_path / "png", pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(1, 16, 16))
    (tmp_path / "tif").mkdir()
    for i, plane in enumerate(pixels):
        tifffile.imwrite(tmp_path / f"tif/{i}.tif", plane, compression="lzw")
    for name in ("png", "a.tif", "a.zarr", "tif"):
        check(tmp_path / name, pixels[:, None])


def test_readers_do_without_torch_and_pickle():
    """Nothing here may load pickled data, and the stages that only read must start fast."""
    package = Path(unet_pipeline.images.__file__).parent
    files = [package / "open.py", *sorted((package / "readers").glob("*.py"))]
    assert len(files) > 8
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {one.split(".")[0] for one in imported} & {"torch", "pickle", "dill", "marshal"}
            assert not (
                isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and ast.unparse(node) != "json.loads"
            )


@pytest.mark.skipif(not (DATA / "isbi2012_em").is_dir(), reason="real data not here; set UNET_PIPELINE_DATA")
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("isbi2012_em/images.tif", (24, 1, 512, 512), "uint8"),
        ("isbi2012_em/labels.tif", (24, 1, 512, 512), "uint8"),
        ("ctc_fluo_hela/images.tif", (11, 1, 700, 1100), "uint16"),
        ("ctc_fluo_hela/labels_silver.tif", (11, 1, 700, 1100), "uint16"),
    ],
)
def test_real_stacks(name, shape, dtype):
    planes = open_planes(str(DATA / name))
    assert (planes.shape, planes.dtype) == (shape, dtype)
    assert_reads(planes, tifffile.imread(DATA / name)[:, None])


@pytest.mark.parametrize("place", ["a", "a/*.png", "a/img1.png"])
def test_a_dangling_link_is_named(tmp_path, place):
    """Content that git-annex has not fetched: the plane must not be left out."""
    write_planes(tmp_path / "a", noise((3, 21, 33)))
    (tmp_path / "a/img1.png").unlink()
    (tmp_path / "a/img1.png").symlink_to("/nowhere/img1.png")
    with pytest.raises(PipelineError, match=r"img1\.png: expected a link .* one to /nowhere/img1\.png") as caught:
        open_planes(str(tmp_path / place))
    assert "annex" in caught.value.fix


@pytest.mark.parametrize("kind", ["a.tif", "a.ome.tif"])
def test_a_link_to_another_folder_is_followed(tmp_path, kind):
    (tmp_path / "data").mkdir()
    (tmp_path / "project").mkdir()
    pixels = noise((3, 21, 33))
    tifffile.imwrite(tmp_path / "data" / kind, pixels, metadata={"axes": "ZYX"})
    (tmp_path / "project" / "link.ome.tif").symlink_to(f"../data/{kind}")
    check(tmp_path / "project" / "link.ome.tif", pixels[:, None])


@pytest.mark.parametrize("name", ["image.tif", "image.png"])
@pytest.mark.parametrize(
    ("content", "got", "fix"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page", "download the file itself"),
        (b"", "an empty file", "copy the file again"),
        (b"GIF89a..", "starts with b'GIF89a..'", "copy the file again"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path, name, content, got, fix):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{name}: expected a (TIFF|PNG or JPEG) file, got .*{got}[^|]*{fix}"):
        open_planes(str(tmp_path / name))
