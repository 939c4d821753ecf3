import pytest
import tifffile
from reading import check, noise

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes


def test_imagej_hyperstack_with_one_directory(tmp_path):
    """ImageJ writes files over 4 GB this way."""
    pixels = noise((6, 21, 33), ">u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, truncate=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages) == 1
    assert check(tmp_path / "a.tif", pixels[:, None]).plane_axis == "t"
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[:-2000])
    with pytest.raises(PipelineError, match=r"cut\.tif.*truncated"):
        open_planes(str(tmp_path / "cut.tif"))


def test_ome_tiff_of_several_files(tmp_path):
    """The images of one file point into the other."""
    pixels = noise((4, 21, 33), "u2")
    xml = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">
    <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16"
     SizeX="33" SizeY="21" SizeC="1" SizeZ="4" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>{}</Pixels>
    </Image>
    </OME>"""
    part = """<TiffData IFD="{}" FirstZ="{}" PlaneCount="1"><UUID FileName="{}.ome.tif">urn:uuid:{}</UUID></TiffData>"""
    parts = "".join(part.format(z % 2, z, name, name) for z, name in enumerate("aabb"))
    for name, planes in (("a", pixels[:2]), ("b", pixels[2:])):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", planes, description=xml.format(name, parts), metadata=None)
    planes = check(tmp_path / "a.ome.tif", pixels[:, None])
    assert [file.name for file in planes.files] == ["a.ome.tif", "b.ome.tif"]
    before = planes.fingerprint()
    (tmp_path / "b.ome.tif").write_bytes((tmp_path / "b.ome.tif").read_bytes() + b"\0")
    assert open_planes(str(tmp_path / "a.ome.tif")).fingerprint() != before
    tifffile.imwrite(
        tmp_path / "b.ome.tif", pixels[2:], description=xml.format("b", parts), metadata=None, byteorder=">"
    )
    with pytest.raises(PipelineError, match=r"a\.ome\.tif, page 2.*differs"):
        open_planes(str(tmp_path / "a.ome.tif"))
    (tmp_path / "b.ome.tif").unlink()
    with pytest.raises(PipelineError, match=r"a\.ome\.tif, page 2.*a file of the set is missing"):
        open_planes(str(tmp_path / "a.ome.tif"))


def test_forged_page_counts_are_refused(tmp_path):
    path = tmp_path / "forged.tif"
    for kind in ({"imagej": True}, {}):
        tifffile.imwrite(path, noise((5, 16, 32)), metadata={"axes": "ZYX"}, **kind)
        data = path.read_bytes().replace(b"images=5", b"images=9").replace(b"slices=5", b"slices=9")
        path.write_bytes(data.replace(b"[5, 16, 32]", b"[9, 16, 32]"))
        with pytest.raises(PipelineError, match=r"forged\.tif"):
            open_planes(str(path))


def test_a_page_in_the_middle_that_differs(tmp_path):
    """Of nine pages tifffile looks at some only and takes the others to be alike."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for i in range(9):
            writer.write(noise((20, 30), "i2" if i == 4 else "u2"), metadata=None)
    with pytest.raises(PipelineError, match=r"a\.tif"):
        open_planes(str(tmp_path / "a.tif"))
