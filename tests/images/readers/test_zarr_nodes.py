import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from reading import calm, check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.readers.calibration import Calibration
from unet_pipeline.images.readers.zarr_nodes import from_multiscale, is_zarr

FORMATS = {"0.4": 2, "0.5": 3}
"""Versions of OME-Zarr, and that of Zarr each is written in."""


def write_ome(path, pixels, axes, version="0.5", units=None, scale=None):
    """Write an OME-Zarr image with the reference implementation."""
    from ome_zarr.format import format_from_version  # here, for it imports dask and pandas
    from ome_zarr.writer import write_image

    group, layout = zarr.open_group(path, mode="w", zarr_format=FORMATS[version]), format_from_version(version)
    write_image(pixels, group, axes=axes, fmt=layout, scale_factors=[], scale=scale, axes_units=units)
    return group


@pytest.mark.slow
@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "cyx", "czyx", "tcyx", "tczyx"])
def test_ome_zarr(tmp_path, version, axes):
    sizes = {"t": 4 if "z" not in axes else 1, "c": 2, "z": 3, "y": 21, "x": 33}
    pixels = noise(tuple(sizes[a] for a in axes), "u2")
    write_ome(tmp_path / "a.zarr", pixels, axes, version)
    expected = pixels[0] if axes == "tczyx" else pixels
    if "c" not in axes:
        expected = np.expand_dims(expected, -3)
    elif "z" in axes:
        expected = expected.swapaxes(0, 1)
    expected = expected.reshape(-1, *expected.shape[-3:])
    planes = check(tmp_path / "a.zarr", expected)
    assert planes.plane_axis == ("t" if axes in ("tyx", "tcyx") else "z")
    inner = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (name,) = inner.array_keys()
    check(tmp_path / "a.zarr" / name, expected)


@pytest.mark.parametrize("version", FORMATS)
def test_scale_and_names(tmp_path, version):
    units = {"t": "minute", "z": "micrometer", "y": "nanometer", "x": "nanometer"}
    names = {
        "channels": [
            {"label": name, "color": "FFFFFF", "window": {"start": 0, "end": 1, "min": 0, "max": 1}} for name in "ab"
        ]
    }
    group = write_ome(
        tmp_path / "a.zarr", noise((1, 2, 3, 21, 33)), "tczyx", version, units, {"t": 2, "z": 3, "y": 250, "x": 500}
    )
    if version == "0.4":
        group.attrs["omero"] = names
    else:
        group.attrs["ome"] = group.attrs["ome"] | {"omero": names}
    planes = open_planes(str(tmp_path / "a.zarr"))
    assert planes.pixel_um == pytest.approx((0.25, 0.5))
    assert planes.step == pytest.approx(3)
    assert planes.channel_names == ("a", "b")
    write_ome(tmp_path / "t.zarr", noise((4, 21, 33)), "tyx", version, units, {"t": 2, "y": 250, "x": 500})
    assert open_planes(str(tmp_path / "t.zarr")).step == pytest.approx(120)
    write_ome(tmp_path / "n.zarr", noise((4, 21, 33)), "tyx", version)
    planes = open_planes(str(tmp_path / "n.zarr"))
    assert (planes.pixel_um, planes.step, planes.channel_names) == (None, None, ())


@pytest.mark.parametrize("version", FORMATS)
def test_labels_and_levels_inside_a_store(tmp_path, version):
    from ome_zarr.format import format_from_version
    from ome_zarr.writer import write_image, write_labels

    pixels, labels, layout = noise((64, 96)), noise((64, 96), "u4"), format_from_version(version)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=FORMATS[version])
    units = dict.fromkeys("yx", "micrometer")
    write_image(pixels, group, axes="yx", fmt=layout, scale_factors=[2], scale={"y": 0.5, "x": 0.5}, axes_units=units)
    write_labels(labels, group, "nuclei", axes="yx", fmt=layout, scale_factors=[2])
    check(tmp_path / "a.zarr", pixels[None, None])
    check(tmp_path / "a.zarr/labels/nuclei/", labels[None, None])
    half = sorted(set(group.array_keys()))[1]
    planes = open_planes(str(tmp_path / "a.zarr" / half))
    assert planes.shape == (1, 1, 32, 48)
    assert planes.pixel_um == pytest.approx((1, 1))
    with pytest.raises(PipelineError, match=r"a\.zarr/labels: .*a group of nuclei(.|\n)*nearest.*labels/nuclei"):
        open_planes(str(tmp_path / "a.zarr/labels"))
    with pytest.raises(PipelineError, match=r"a\.zarr/labels/nucle: .*\n.*nearest.*labels/nuclei"):
        open_planes(str(tmp_path / "a.zarr/labels/nucle"))


def test_old_ome_zarr_without_axes(tmp_path):
    pixels = noise((1, 2, 3, 21, 33))
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=pixels)
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    check(tmp_path / "a.zarr", pixels[0].swapaxes(0, 1))
    group.attrs["multiscales"] = [{"version": "0.3", "axes": ["t", "c", "z", "y", "x"], "datasets": [{"path": "0"}]}]
    check(tmp_path / "a.zarr", pixels[0].swapaxes(0, 1))


@pytest.mark.parametrize(
    ("names", "axes", "plane_axis"),
    [
        (["t", "y", "x"], None, "t"),
        (["time", "height", "width"], None, "t"),
        (["Z", "Y", "X"], None, "z"),
        (None, None, "z"),
        (None, "tyx", "t"),
        (["z", "y", "x"], "tyx", "t"),
        (["section", "y", "x"], None, "z"),
    ],
)
def test_dimension_names(tmp_path, names, axes, plane_axis):
    pixels = noise((4, 21, 33))
    zarr.create_array(tmp_path / "a.zarr", data=pixels, dimension_names=names)
    assert check(tmp_path / "a.zarr", pixels[:, None], axes).plane_axis == plane_axis


def test_xarray_names_in_version_2(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", data=noise((21, 33, 4)), zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["y", "x", "channel"]
    check(tmp_path / "a.zarr", noise((21, 33, 4)).transpose(2, 0, 1)[None])


@pytest.mark.parametrize("shape", [(21, 33, 3), (21, 33, 4), (2, 3, 21, 33), (33,)])
def test_nameless_dimensions_that_could_mean_much(tmp_path, shape):
    zarr.create_array(tmp_path / "a.zarr", data=noise(shape))
    with pytest.raises(PipelineError, match=r"a\.zarr.*without names(.|\n)*set axes"):
        open_planes(str(tmp_path / "a.zarr"))


def test_is_zarr(tmp_path):
    zarr.create_array(tmp_path / "plain", data=noise((21, 33)))
    zarr.create_array(tmp_path / "two", data=noise((21, 33)), zarr_format=2)
    zarr.open_group(tmp_path / "group", zarr_format=2)
    (tmp_path / "named.zarr").mkdir()
    (tmp_path / "other").mkdir()
    assert [is_zarr(tmp_path / name) for name in ("plain", "two", "group", "named.zarr")] == [True] * 4
    assert not is_zarr(tmp_path / "other")
    assert not is_zarr(tmp_path / "missing.zarr")
    check(tmp_path / "plain", noise((21, 33))[None, None])


def test_stores_without_an_image(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(PipelineError, match=r"a\.zarr.*without zarr\.json"):
        open_planes(str(tmp_path / "a.zarr"))
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(PipelineError, match=r"a\.zarr.*an empty group"):
        open_planes(str(tmp_path / "a.zarr"))
    group.create_array("raw", data=noise((21, 33)))
    with pytest.raises(PipelineError, match=r"a\.zarr.*a group of raw\n.*a\.zarr/raw"):
        open_planes(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), '{"node_type": "array"}']
)
def test_damaged_metadata(tmp_path, text):
    zarr.create_array(tmp_path / "a.zarr", data=noise((21, 33)))
    (tmp_path / "a.zarr/zarr.json").write_text(text, encoding="latin-1")
    with pytest.raises(PipelineError, match=r"a\.zarr"):
        open_planes(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize("path", ["../secret", "/etc", "missing", 5, ""])
def test_levels_that_are_not_there(tmp_path, path):
    zarr.create_array(tmp_path / "secret", data=noise((21, 33)))
    group = write_ome(tmp_path / "a.zarr", noise((21, 33)), "yx")
    ome = group.attrs["ome"]
    ome["multiscales"][0]["datasets"][0]["path"] = path
    group.attrs["ome"] = ome
    with pytest.raises(PipelineError, match=r"a\.zarr"):
        open_planes(str(tmp_path / "a.zarr"))


def test_axes_of_another_number(tmp_path):
    group = write_ome(tmp_path / "a.zarr", noise((3, 21, 33)), "zyx")
    ome = group.attrs["ome"]
    del ome["multiscales"][0]["axes"][0]
    group.attrs["ome"] = ome
    with pytest.raises(PipelineError, match=r"a\.zarr.*3 OME axes"):
        open_planes(str(tmp_path / "a.zarr"))


def test_any_json_is_read_or_refused(tmp_path):
    """Replace every value of the metadata by values of other kinds."""
    pixels = noise((3, 21, 33))
    write_ome(tmp_path / "good.zarr", pixels, "zyx")

    def places(value, at=()):
        yield at
        for key, inner in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            yield from places(inner, (*at, key))

    for name in ("zarr.json", "s0/zarr.json"):
        file = tmp_path / "good.zarr" / name
        text = file.read_text()
        for at in list(places(json.loads(text)))[1:]:
            for odd in (None, 7, "odd", [], [None], {"odd": 1}):
                changed = json.loads(text)
                parent = changed
                for key in at[:-1]:
                    parent = parent[key]
                parent[at[-1]] = odd
                file.write_text(json.dumps(changed))
                try:
                    planes = open_planes(str(tmp_path / "good.zarr"))
                    planes.read(0, slice(0, 5), slice(0, 5))
                except PipelineError as error:
                    assert "good.zarr" in str(error)
        file.write_text(text)
    check(tmp_path / "good.zarr", pixels[:, None])


@pytest.mark.parametrize("key", ["compressor", "filters"])
def test_pickle_is_refused(tmp_path, key):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(4, 4), dtype="u1", chunks=(4, 4), zarr_format=2, compressors=None)
    metadata = json.loads((path / ".zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    metadata[key] = codec if key == "compressor" else [codec]
    (path / ".zarray").write_text(json.dumps(metadata))
    (path / "0.0").write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(PipelineError, match=r"a\.zarr: expected codecs that only hold data"):
        open_planes(str(path)).read(0, slice(None), slice(None))
    assert not (tmp_path / "pwned").exists()


def axes_of(units):
    return [{"name": name, "unit": unit} if unit else {"name": name} for name, unit in units]


def test_multiscale():
    axes = axes_of([("t", "millisecond"), ("c", None), ("z", "micrometer"), ("y", "nanometer"), ("x", "nanometer")])
    dataset = {"coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 250, 500]}, {"type": "translation"}]}
    multiscale = {"axes": axes, "coordinateTransformations": [{"type": "scale", "scale": [100, 1, 1, 1, 2]}]}
    scale = from_multiscale(multiscale, dataset, "tczyx")
    assert scale.pixel_um == pytest.approx((0.25, 1.0))
    assert scale.z_um == pytest.approx(2)
    assert scale.t_s == pytest.approx(0.1)


def test_multiscale_without_units_says_nothing():
    dataset = {"coordinateTransformations": [{"type": "scale", "scale": [2, 3]}]}
    assert from_multiscale({"axes": axes_of([("y", None), ("x", None)])}, dataset, "yx") == Calibration()
    assert from_multiscale({"axes": ["y", "x"]}, dataset, "yx") == Calibration()
    assert from_multiscale({}, dataset, "yx") == Calibration()


@calm
@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=4))
def test_malformed_scales_say_nothing(scale):
    axes = axes_of([("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")])
    dataset = {"coordinateTransformations": [{"type": "scale", "scale": scale}]}
    found = from_multiscale({"axes": axes}, dataset, "zyx")
    if found != Calibration():
        assert isinstance(scale, list) and len(scale) == 3


def pyramid(path, order, present=("s0", "s1", "s2")):
    """Write an image of three levels, 32, 16 and 8 px, listed in an order."""
    group = zarr.create_group(path)
    for level, (name, edge) in enumerate({"s0": 32, "s1": 16, "s2": 8}.items()):
        if name in present:
            zarr.create_array(path / name, data=np.full((edge, edge), level, "u1"), chunks=(8, 8))
    levels = [
        {"path": f"s{i}", "coordinateTransformations": [{"type": "scale", "scale": [2.0**i, 2.0**i]}]} for i in order
    ]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    return path


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_largest_level_is_read_wherever_it_is_listed(tmp_path, order):
    planes = open_planes(str(pyramid(tmp_path / "a.zarr", order)))
    assert planes.shape == (1, 1, 32, 32)
    assert planes.pixel_um == (1, 1)
    assert not planes.read(0, slice(None), slice(None)).any()


def test_a_missing_level_is_an_error_unless_it_is_coarser(tmp_path):
    assert open_planes(str(pyramid(tmp_path / "a.zarr", (0, 1, 2), ("s0", "s1")))).shape[2] == 32
    for number, order in enumerate([(0, 1, 2), (2, 1, 0)]):
        with pytest.raises(PipelineError, match="an array 's0', a level"):
            open_planes(str(pyramid(tmp_path / f"{number}.zarr", order, ("s1", "s2"))))
