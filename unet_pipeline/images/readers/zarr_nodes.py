"""What a Zarr store says about its arrays and OME-Zarr images, read as plain JSON: nothing in the store is executed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.readers.axes import LETTERS, UNKNOWN
from unet_pipeline.images.readers.calibration import MICROMETERS, SECONDS, Calibration, measure, pixel_size

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
NAMES = {"time": "t", "channel": "c", "depth": "z", "height": "y", "width": "x"}
KINDS = {"time": "t", "channel": "c"}
# The axes of OME-Zarr 0.1 and 0.2, which do not say.
OLD_AXES = ("t", "c", "z", "y", "x")


def is_zarr(path: Path) -> bool:
    """Tell whether `path` is a Zarr array or group, or calls itself one."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in METADATA[:3]))


class Node(NamedTuple):
    """An array or group: its metadata (v2 or v3) and its attributes."""

    path: Path
    array: bool
    metadata: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def ome(self) -> dict[str, Any]:
        """The OME metadata: under `ome` since 0.5, at the top before."""
        inner = self.attributes.get("ome", self.attributes)
        return inner if isinstance(inner, dict) else {}

    @property
    def multiscale(self) -> dict[str, Any]:
        """The first image, or nothing."""
        images = self.ome.get("multiscales")
        first = images[0] if isinstance(images, list) and images else {}
        return first if isinstance(first, dict) else {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The metadata files."""
        return tuple(self.path / name for name in METADATA if (self.path / name).is_file())


def read_node(path: Path) -> Node | None:
    """Read the metadata of an array or group; None if `path` is neither."""
    if (path / "zarr.json").is_file():
        metadata = _read_json(path / "zarr.json")
        attributes = metadata.get("attributes")
        known = attributes if isinstance(attributes, dict) else {}
        return Node(path, metadata.get("node_type") == "array", metadata, known)
    for name in (".zarray", ".zgroup"):
        if (path / name).is_file():
            attributes = _read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}
            return Node(path, name == ".zarray", _read_json(path / name), attributes)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(path, "readable Zarr metadata", error) from error
    if not isinstance(value, dict):
        raise PipelineError(path, "readable Zarr metadata", f"a JSON {type(value).__name__}")
    return value


def find_array(path: Path) -> tuple[Node, Node | None]:
    """Return the array that `path` means, and the OME-Zarr image it is a level of.

    Raises:
        PipelineError: if the path leads to no array, or to several.
    """
    node = read_node(path)
    if node is None:
        raise PipelineError(path, "a Zarr array or group", "a folder without zarr.json, .zarray or .zgroup")
    if node.array:
        parent = read_node(path.parent)
        return node, parent if parent is not None and _dataset(parent, path.name) else None
    return _largest_level(node), node


def _largest_level(node: Node) -> Node:
    """Return the level of most pixels: the specification lists it first, and not every writer does."""
    listed = node.multiscale.get("datasets")
    levels = [one.get("path") if isinstance(one, dict) else None for one in listed] if isinstance(listed, list) else []
    if not levels or not all(map(_is_inside, levels)):
        _refuse_group(node)
    nodes = {level: read_node(node.path / level) for level in map(str, levels)}
    found = {level: inner for level, inner in nodes.items() if inner is not None and inner.array}
    best = max(found, key=lambda level: _pixels(found[level]), default=None)
    for missing in (level for level in nodes if level not in found):
        # What is coarser than the level that is read may be missing: nobody reads it.
        if best is None or not _coarseness(node, missing) > _coarseness(node, best):
            fix = "copy the store again, whole, or name one of its levels"
            raise PipelineError(node.path, f"an array {missing!r}, a level of the image", "none there", fix=fix)
    assert best is not None
    return found[best]


def _coarseness(image: Node, level: str) -> float:
    """Return the product of the scales that a level declares; NaN where they are malformed, 1 where there are none."""
    axes = image.multiscale.get("axes", OLD_AXES)
    return math.prod(_scale(_dataset(image, level), len(axes) if isinstance(axes, list | tuple) else 0))


def _is_inside(level: object) -> bool:
    """Tell whether a level is a path below its store."""
    return (
        isinstance(level, str) and level != "" and ".." not in PurePosixPath(level).parts and not level.startswith("/")
    )


def _pixels(node: Node) -> float:
    """Return the pixels of an array; 0 where its shape is none, which is told when it is opened."""
    shape = node.metadata.get("shape")
    numbers = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n < 2**62 for n in shape)
    return math.prod(map(float, shape)) if numbers and isinstance(shape, list) else 0.0


def _refuse_group(node: Node) -> NoReturn:
    inside = sorted(child.name for child in node.path.iterdir() if child.is_dir() and read_node(child))
    got = f"a group of {', '.join(inside)}" if inside else "an empty group"
    near = node.path / inside[0] if inside else None
    raise PipelineError(node.path, "an array or an OME-Zarr image", got, near, fix="name what is inside the store")


def _dataset(image: Node, level: str) -> dict[str, Any]:
    datasets = image.multiscale.get("datasets")
    for one in datasets if isinstance(datasets, list) else ():
        if isinstance(one, dict) and one.get("path") == level:
            return one
    return {}


def meaning(node: Node, image: Node | None, ndim: int) -> tuple[str, Calibration]:
    """Return what each dimension is, "?" where the store does not say, and the scale.

    Raises:
        PipelineError: if the axes of the store do not fit its dimensions.
    """
    if image is None:
        names = node.metadata.get("dimension_names") or node.attributes.get("_ARRAY_DIMENSIONS")
        lower = [str(name).lower() for name in names] if isinstance(names, list) else []
        letters = [NAMES.get(name, name) for name in lower]
        return _letters(letters if len(letters) == ndim else [UNKNOWN] * ndim), Calibration()
    axes = image.multiscale.get("axes", OLD_AXES)
    letters = [_axis_letter(axis) for axis in axes] if isinstance(axes, list | tuple) else []
    if len(letters) != ndim:
        raise PipelineError(image.path, f"{ndim} OME axes for the {ndim} dimensions of {node.path.name!r}", axes)
    level = _dataset(image, node.path.relative_to(image.path).as_posix())
    return _letters(letters), from_multiscale(image.multiscale, level, _letters(letters))


def from_multiscale(multiscale: Mapping[str, Any], dataset: Mapping[str, Any], letters: str) -> Calibration:
    """Read the scale of one level of an OME-Zarr image, versions 0.3 to 0.5.

    Args:
        multiscale: an entry of `multiscales`.
        dataset: the level, an entry of its `datasets`.
        letters: what each axis is, such as "tczyx".

    Axes without a unit say nothing: the default scale of 1 would be mistaken for a micrometre.
    """
    axes = list(multiscale.get("axes") or [None] * len(letters))
    units = [axis.get("unit") if isinstance(axis, Mapping) else None for axis in axes]
    own, shared = (_scale(place, len(letters)) for place in (dataset, multiscale))
    said = {letter: (a * b, unit) for letter, unit, a, b in zip(letters, units, own, shared, strict=True)}
    y, x, z, t = (said.get(letter, (None, None)) for letter in "yxzt")
    return replace(
        pixel_size(y[0], x[0], y[1], x[1]), z_um=measure(z[0], z[1], MICROMETERS), t_s=measure(t[0], t[1], SECONDS)
    )


def _scale(place: Mapping[str, Any], count: int) -> list[float]:
    """Return the product of the scale transformations; anything malformed counts as NaN, that is unknown."""
    total = [1.0] * count
    transformations = place.get("coordinateTransformations")
    for transformation in transformations if isinstance(transformations, list) else ():
        if not isinstance(transformation, dict) or transformation.get("type") != "scale":
            continue
        scale = transformation.get("scale")
        if isinstance(scale, list) and len(scale) == count and all(isinstance(n, int | float) for n in scale):
            total = [a * b for a, b in zip(total, scale, strict=True)]
        else:
            total = [math.nan] * count
    return total


def _axis_letter(axis: object) -> str:
    if not isinstance(axis, Mapping):
        return str(axis).lower()
    return KINDS.get(str(axis.get("type")), str(axis.get("name")).lower())


def _letters(names: Sequence[str]) -> str:
    return "".join(name if len(name) == 1 and name in LETTERS else UNKNOWN for name in names)


def channel_names(image: Node | None) -> tuple[str, ...]:
    """Return the labels of the channels (`omero` metadata), or nothing if some have none."""
    omero = image.ome.get("omero") if image else None
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [one.get("label") for one in channels or () if isinstance(one, dict)]
    return tuple(map(str, labels)) if all(labels) else ()
