"""The scale that image files declare: pixel size, distance of planes, channel names (for Zarr see `zarr_nodes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

# Names and symbols as OME-XML, OME-Zarr (UDUNITS) and ImageJ write them.
MICROMETERS = {
    "pm": 1e-6, "picometer": 1e-6,
    "Å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "in": 25400.0, "inch": 25400.0,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
}  # fmt: skip
SECONDS = {
    "ns": 1e-9, "nanosecond": 1e-9,
    "µs": 1e-6, "us": 1e-6, "microsecond": 1e-6,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3,
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
}  # fmt: skip
# Programs that know no scale write a print resolution such as 72 or 300 dots per inch.
MAX_INCH_PIXEL_UM = 10.0


@dataclass(frozen=True)
class Calibration:
    """Scale of an image; None where the file does not say.

    Attributes:
        pixel_um: (y, x) size of a pixel, micrometres.
        z_um: distance between z planes, micrometres.
        t_s: time between frames, seconds.
        channel_names: one per channel, or empty.
    """

    pixel_um: tuple[float, float] | None = None
    z_um: float | None = None
    t_s: float | None = None
    channel_names: tuple[str, ...] = ()

    def step(self, plane_axis: str) -> float | None:
        """Distance between planes along "z" (micrometres) or "t" (seconds)."""
        return self.z_um if plane_axis == "z" else self.t_s


def measure(value: object, unit: object, units: Mapping[str, float]) -> float | None:
    """Return a positive finite quantity in the base unit, or None where the value or its unit means nothing."""
    # Micro sign and Greek mu look alike; ImageJ escapes the first.
    name = str(unit).strip().replace("\\u00B5", "µ").replace("μ", "µ")
    # Case tells short symbols apart: mm is a millimetre, Mm is not.
    factor = units.get(name) or (units.get(name.lower()) if len(name) > 2 else None)
    try:
        number = float(str(value)) * (factor or math.nan)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def pair(y: float | None, x: float | None) -> tuple[float, float] | None:
    """Return (y, x) if both are known."""
    return None if y is None or x is None else (y, x)


def from_ome_xml(text: str, index: int) -> Calibration:
    """Read the scale of the `index`-th image of OME-XML; unreadable XML says nothing.

    Source: OME schema 2016-06, PhysicalSizeX/Y/Z (default unit µm), TimeIncrement (default s), Channel Name.
    """
    try:
        images = ElementTree.fromstring(text).findall("{*}Image")
    except ElementTree.ParseError:
        return Calibration()
    pixels = images[index].find("{*}Pixels") if index < len(images) else None
    if pixels is None:
        return Calibration()
    sizes = {axis: (pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "YXZ"}
    y, x, z = (measure(value, unit, MICROMETERS) for value, unit in sizes.values())
    time = measure(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"), SECONDS)
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    return Calibration(pair(y, x), z, time, names if all(names) else ())


def from_imagej(metadata: Mapping[str, Any], per_unit: Sequence[float] | None) -> Calibration:
    """Read the scale of an ImageJ TIFF.

    Args:
        metadata: of the image description: unit, yunit, spacing, finterval (seconds).
        per_unit: (y, x) pixels per unit, from the resolution tags.
    """
    unit = metadata.get("unit")
    y, x = (None, None) if per_unit is None else (_invert(n) for n in per_unit)
    pixel = pair(measure(y, metadata.get("yunit", unit), MICROMETERS), measure(x, unit, MICROMETERS))
    z = measure(metadata.get("spacing"), metadata.get("zunit", unit), MICROMETERS)
    return Calibration(pixel, z, measure(metadata.get("finterval"), "s", SECONDS))


def from_resolution(per_unit: Sequence[float] | None, unit: int) -> Calibration:
    """Read the scale of a plain TIFF; inches count only up to 10 µm a pixel, else they are for printing.

    Args:
        per_unit: (y, x) pixels per unit, from the resolution tags.
        unit: the ResolutionUnit tag: 2 inch, 3 centimetre.
    """
    name = {2: "inch", 3: "cm"}.get(unit)
    if per_unit is None or name is None:
        return Calibration()
    pixel = pair(measure(_invert(per_unit[0]), name, MICROMETERS), measure(_invert(per_unit[1]), name, MICROMETERS))
    if pixel is not None and name == "inch" and max(pixel) > MAX_INCH_PIXEL_UM:
        return Calibration()
    return Calibration(pixel)


def _invert(number: float) -> float | None:
    return 1 / number if number > 0 else None
