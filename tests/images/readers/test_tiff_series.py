import logging
import re
import tracemalloc

import numpy as np
import pytest
import tifffile
from reading import assert_reads, check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}, {}])
@pytest.mark.parametrize("axes", ["ZYX", "TYX", "ZCYX", "TCYX", "CYX", "YX", "YXS", "ZYXS", "TYXS"])
def test_axes_of_every_kind_of_tiff(tmp_path, kind, axes):
    sizes = {"Z": 4, "T": 5, "C": 2, "Y": 21, "X": 33, "S": 3}
    pixels = noise(tuple(sizes[a] for a in axes))
    path = tmp_path / ("a.ome.tif" if "ome" in kind else "a.tif")
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, pixels, metadata={"axes": axes}, photometric=photometric, **kind)
    expected = np.moveaxis(pixels, -1, -3) if "S" in axes else pixels
    if not set("CS") & set(axes):
        expected = np.expand_dims(expected, -3)
    if not set("ZT") & set(axes):
        expected = expected[None]
    planes = check(path, expected)
    assert planes.plane_axis == ("t" if "T" in axes else "z")


def test_channels_before_planes(tmp_path):
    pixels = noise((2, 4, 21, 33))
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata={"axes": "CZYX"})
    check(tmp_path / "a.tif", pixels.swapaxes(0, 1))


def test_the_users_axes_win(tmp_path):
    pixels = noise((5, 3, 21, 33))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    assert check(tmp_path / "a.tif", pixels, "tcyx").plane_axis == "t"
    assert check(tmp_path / "a.tif", pixels.swapaxes(0, 1), "CZYX").plane_axis == "z"
    with pytest.raises(PipelineError, match=r"a\.tif.*5 × 3 × 21 × 33 \(\?\?yx\)"):
        open_planes(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_may_be_planes(tmp_path, planar):
    """Five samples per pixel that are really sections."""
    pixels = noise((5, 21, 33))
    stored = np.moveaxis(pixels, 0, -1) if planar == "contig" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar)
    check(tmp_path / "a.tif", pixels[None])
    check(tmp_path / "a.tif", pixels[:, None], "yxz" if planar == "contig" else "zyx")


def test_axes_that_turn_the_pages_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((5, 21, 33)))
    with pytest.raises(PipelineError, match=r"a\.tif: axes.*pages of 21 × 33"):
        open_planes(str(tmp_path / "a.tif"), "yxz")


def test_time_and_z_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise((2, 3, 21, 33)), metadata={"axes": "TZYX"}, imagej=True)
    with pytest.raises(PipelineError, match=r"a\.tif.*2 time points of 3 z planes(.|\n)*split"):
        open_planes(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"metadata": None}])
def test_pages_written_one_by_one_are_one_stack(tmp_path, options):
    pixels = noise((9, 21, 33))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in pixels:
            writer.write(plane, contiguous=False, **options)
    check(tmp_path / "a.tif", pixels[:, None])


def test_pyramids_read_as_their_largest_level(tmp_path):
    pixels = noise((3, 64, 96))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(pixels, subifds=1, tile=(16, 16), metadata={"axes": "ZYX"})
        writer.write(pixels[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    check(tmp_path / "a.ome.tif", pixels[:, None])


def test_several_images_need_a_choice(tmp_path):
    small, large = noise((20, 30)), noise((3, 40, 50), "u2")
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(small)
        writer.write(large, photometric="minisblack")
    with pytest.raises(PipelineError, match=r"two\.tif.*2 images \(0: 20×30 uint8, 1: 3×40×50 uint16"):
        open_planes(str(tmp_path / "two.tif"))
    assert_reads(open_planes(str(tmp_path / "two.tif"), series=0), small[None, None])
    assert_reads(open_planes(str(tmp_path / "two.tif"), series=1), large[:, None])
    with pytest.raises(PipelineError, match=r"two\.tif: series.*\n.*nearest legal value: 1"):
        open_planes(str(tmp_path / "two.tif"), series=2)


@pytest.mark.parametrize(
    ("pixels", "options", "word"),
    [
        (np.zeros((20, 30), "c8"), {}, "complex64"),
        (noise((20, 30, 4)), {"photometric": "separated"}, "CMYK"),
        (noise((20, 30, 3)), {"photometric": "cielab"}, "CIELAB"),
        (noise((20, 30, 3)), {"photometric": "ycbcr"}, "YCbCr"),
        (noise((16, 16, 16)), {"volumetric": True, "tile": (16, 16, 16)}, "volumes"),
    ],
)
def test_what_is_no_plane_of_numbers(tmp_path, pixels, options, word):
    tifffile.imwrite(tmp_path / "odd.tif", pixels, **options)
    with pytest.raises(PipelineError, match=rf"odd\.tif.*{word}"):
        open_planes(str(tmp_path / "odd.tif"))


def test_scale(tmp_path):
    pixels = noise((3, 2, 20, 30), "u2")
    ome = {"axes": "ZCYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2}
    tifffile.imwrite(tmp_path / "o.ome.tif", pixels, metadata=ome | {"Channel": {"Name": ["DAPI", "GFP"]}})
    planes = open_planes(str(tmp_path / "o.ome.tif"))
    assert (planes.pixel_um, planes.step, planes.channel_names) == ((0.5, 0.25), 2, ("DAPI", "GFP"))
    imagej = {"axes": "TYX", "unit": "um", "finterval": 30}
    tifffile.imwrite(tmp_path / "j.tif", pixels[:, 0], imagej=True, resolution=(4, 5), metadata=imagej)
    planes = open_planes(str(tmp_path / "j.tif"))
    assert planes.pixel_um == pytest.approx((0.2, 0.25))
    assert planes.step == 30
    imagej = {"axes": "ZYX", "unit": "\\u00B5m", "spacing": 0.7}
    tifffile.imwrite(tmp_path / "j.tif", pixels[:, 0], imagej=True, resolution=(4, 5), metadata=imagej)
    assert open_planes(str(tmp_path / "j.tif")).step == 0.7
    tifffile.imwrite(tmp_path / "p.tif", pixels[:, 0], resolution=(20000, 10000), resolutionunit="CENTIMETER")
    assert open_planes(str(tmp_path / "p.tif")).pixel_um == pytest.approx((1, 0.5))
    tifffile.imwrite(tmp_path / "d.tif", pixels[:, 0], resolution=(72, 72), resolutionunit="INCH")
    assert open_planes(str(tmp_path / "d.tif")).pixel_um is None


def test_tifffile_keeps_its_voice(tmp_path):
    """Opening silences the log of tifffile for a moment only."""
    tifffile.imwrite(tmp_path / "a.tif", noise((3, 20, 30)))
    logger = logging.getLogger("tifffile")
    before = (logger.propagate, list(logger.handlers))
    open_planes(str(tmp_path / "a.tif"))
    assert (logger.propagate, list(logger.handlers)) == before


@pytest.mark.parametrize(("name", "value"), [("SizeZ", 10**9), ("SizeT", 10**12), ("PlaneCount", 10**9)])
def test_forged_ome_xml_allocates_nothing(tmp_path, name, value):
    path = tmp_path / "forged.ome.tif"
    tifffile.imwrite(path, noise((5, 21, 33)), metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tiff:
        xml = re.sub(rf'{name}="[0-9]+"', f'{name}="{value}"', tiff.ome_metadata)
    tifffile.tiffcomment(path, xml.encode())
    tracemalloc.start()
    with pytest.raises(PipelineError, match=rf"forged\.ome\.tif.*{value}"):
        open_planes(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
