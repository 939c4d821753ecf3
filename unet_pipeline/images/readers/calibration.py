"""The scale that image files declare: pixel size, distance of planes, channel names (for Zarr see `zarr_nodes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
MAX_PRINT_UM, MAX_CM_UM = 10.0, 1000.0
"""Largest pixel that is taken from a size in inches, and in centimetres: they are what prints are given in."""
CM_DPI = (72, 96, 100, 150, 180, 200, 240, 300, 350, 360, 400, 600, 1200)
ANY_DPI = (72, 96, 150, 300, 600)
"""Dots per inch of programs that know no scale, which are told in centimetres, and in every unit."""


@dataclass(frozen=True)
class Calibration:
    """Scale of an image; None where the file does not say.

    Attributes:
        pixel_um: (y, x) size of a pixel, micrometres.
        z_um: distance between z planes, micrometres.
        t_s: time between frames, seconds.
        channel_names: one per channel, or empty.
        notes: what is left out of account, in sentences.
    """

    pixel_um: tuple[float, float] | None = None
    z_um: float | None = None
    t_s: float | None = None
    channel_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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


def pixel_size(y: object, x: object, y_unit: object, x_unit: object) -> Calibration:
    """Return the size of a pixel, unless it is the resolution of a print: that is left out, and said.

    Args:
        y: height of a pixel, in `y_unit`; None if unknown.
        x: width, in `x_unit`.
        y_unit: name or symbol.
        x_unit: name or symbol.
    """
    height, width = measure(y, y_unit, MICROMETERS), measure(x, x_unit, MICROMETERS)
    if height is None or width is None:
        return Calibration()
    if any(map(_is_print, (height, width), (y_unit, x_unit))):
        dpi = f"{25400 / width:.4g}"
        note = f"a pixel of {height:.4g} × {width:.4g} µm ({dpi} dots per inch) is the resolution of a print: not taken"
        return Calibration(notes=(note,))
    return Calibration((height, width))


def _is_print(size_um: float, unit: object) -> bool:
    factor = measure(1, unit, MICROMETERS)
    in_inches, in_cm = (factor == MICROMETERS[name] for name in ("inch", "cm"))
    known = any(abs(size_um * dpi / 25400 - 1) < 2e-3 for dpi in (CM_DPI if in_cm else ANY_DPI))
    return size_um > MAX_PRINT_UM and (known or in_inches or (in_cm and size_um > MAX_CM_UM))


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
    found = pixel_size(sizes["Y"][0], sizes["X"][0], sizes["Y"][1], sizes["X"][1])
    z = measure(sizes["Z"][0], sizes["Z"][1], MICROMETERS)
    time = measure(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"), SECONDS)
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    return replace(found, z_um=z, t_s=time, channel_names=names if all(names) else ())


def from_imagej(metadata: Mapping[str, Any], per_unit: Sequence[float] | None) -> Calibration:
    """Read the scale of an ImageJ TIFF.

    Args:
        metadata: of the image description: unit, yunit, spacing, finterval (seconds).
        per_unit: (y, x) pixels per unit, from the resolution tags.
    """
    unit = metadata.get("unit")
    y, x = (None, None) if per_unit is None else (_invert(n) for n in per_unit)
    found = pixel_size(y, x, metadata.get("yunit", unit), unit)
    z = measure(metadata.get("spacing"), metadata.get("zunit", unit), MICROMETERS)
    return replace(found, z_um=z, t_s=measure(metadata.get("finterval"), "s", SECONDS))


def from_resolution(per_unit: Sequence[float] | None, unit: int) -> Calibration:
    """Read the scale of a plain TIFF.

    Args:
        per_unit: (y, x) pixels per unit, from the resolution tags.
        unit: the ResolutionUnit tag: 2 inch, 3 centimetre.
    """
    name = {2: "inch", 3: "cm"}.get(unit)
    if per_unit is None or name is None:
        return Calibration()
    return pixel_size(_invert(per_unit[0]), _invert(per_unit[1]), name, name)


def _invert(number: float) -> float | None:
    return 1 / number if number > 0 else None
