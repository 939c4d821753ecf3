import math

import pytest

from unet_pipeline.images.readers.calibration import (
    MICROMETERS,
    SECONDS,
    Calibration,
    from_imagej,
    from_ome_xml,
    from_resolution,
    measure,
)

OME = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
<Image ID="Image:0"><Pixels {}>{}</Pixels></Image>
<Image ID="Image:1"><Pixels PhysicalSizeX="7" PhysicalSizeY="8"/></Image></OME>"""


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (2, "µm", 2),
        (2, "μm", 2),
        (2, "\\u00B5m", 2),
        ("0.5", "micron", 0.5),
        (250, "nm", 0.25),
        (250, "nanometer", 0.25),
        (3, "Å", 3e-4),
        (1, "mm", 1e3),
        (1, "Micrometer", 1),
        (1, "Mm", None),
        (1, "pixel", None),
        (1, None, None),
        (0, "µm", None),
        (-1, "µm", None),
        ("x", "µm", None),
        (None, "µm", None),
        (math.inf, "µm", None),
        (math.nan, "µm", None),
    ],
)
def test_lengths(value, unit, expected):
    assert measure(value, unit, MICROMETERS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "unit", "expected"), [(2, "min", 120), (5, "ms", 0.005), (1, "h", 3600), (1, "m", None)]
)
def test_times(value, unit, expected):
    assert measure(value, unit, SECONDS) == pytest.approx(expected)


def test_ome_xml():
    sizes = 'PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5" PhysicalSizeZ="1" PhysicalSizeZUnit="mm"'
    text = OME.format(
        sizes + ' TimeIncrement="2" TimeIncrementUnit="min"', '<Channel Name="DAPI"/><Channel Name="GFP"/>'
    )
    scale = from_ome_xml(text, 0)
    assert scale == Calibration((0.5, 0.25), 1000, 120, ("DAPI", "GFP"))
    assert (scale.step("z"), scale.step("t")) == (1000, 120)
    assert from_ome_xml(text, 1) == Calibration((8, 7))
    assert from_ome_xml(text, 2) == Calibration()


def test_ome_xml_that_says_little():
    assert from_ome_xml(OME.format('PhysicalSizeX="2"', '<Channel Name="a"/><Channel/>'), 0) == Calibration()
    assert from_ome_xml("<OME", 0) == Calibration()
    assert from_ome_xml("<OME><Image/></OME>", 0) == Calibration()


def test_imagej():
    metadata = {"unit": "\\u00B5m", "spacing": 0.5, "finterval": 3.5}
    assert from_imagej(metadata, (4, 5)) == Calibration((0.25, 0.2), 0.5, 3.5)
    assert from_imagej({"unit": "um", "yunit": "nm", "zunit": "mm", "spacing": 1}, (1, 1)) == Calibration(
        (1e-3, 1), 1e3
    )
    assert from_imagej({"unit": "pixel", "spacing": 1}, (4, 4)) == Calibration()
    assert from_imagej({}, None) == Calibration()
    assert from_imagej({"unit": "um"}, (0, 4)) == Calibration()


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [
        ((20000, 10000), 3, (0.5, 1.0)),
        ((2540, 2540), 2, (10.0, 10.0)),
        ((25400, 50800), 2, (1.0, 0.5)),
        ((72, 72), 2, None),
        ((300, 300), 2, None),
        ((100, 100), 3, (100.0, 100.0)),
        ((100, 100), 1, None),
        ((0, 0), 3, None),
        (None, 3, None),
    ],
)
def test_resolution_tags(per_unit, unit, expected):
    assert from_resolution(per_unit, unit).pixel_um == (None if expected is None else pytest.approx(expected))
