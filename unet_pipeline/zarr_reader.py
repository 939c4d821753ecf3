"""Read Zarr v2 and v3 arrays and OME-Zarr images in place, window by window.

The metadata are read as plain JSON first, so that nothing in a foreign store is executed; zarr decodes the chunks.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import zarr

from unet_pipeline.axes import LETTERS, UNKNOWN, Layout, find_layout
from unet_pipeline.blocks import CACHE_BYTES, Array, BlockCache, StackInfo, Window, paste, pixel_dtype
from unet_pipeline.calibration import Calibration, from_multiscale
from unet_pipeline.errors import PipelineError, nearest_name
from unet_pipeline.record import digest, sha256_file

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
NAMES = {"time": "t", "channel": "c", "depth": "z", "height": "y", "width": "x"}
KINDS = {"time": "t", "channel": "c"}
# The axes of OME-Zarr 0.1 and 0.2, which do not say.
OLD_AXES = ("t", "c", "z", "y", "x")


def is_zarr(path: Path) -> bool:
    """Tell whether `path` is a Zarr array or group, or calls itself one."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in METADATA[:3]))


class _Node(NamedTuple):
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


def _read_node(path: Path) -> _Node | None:
    """Read the metadata of an array or group; None if `path` is neither."""
    if (path / "zarr.json").is_file():
        metadata = _read_json(path / "zarr.json")
        attributes = metadata.get("attributes")
        return _Node(path, metadata.get("node_type") == "array", metadata, attributes if isinstance(attributes, dict) else {})
    for name in (".zarray", ".zgroup"):
        if (path / name).is_file():
            attributes = _read_json(path / ".zattrs") if (path / ".zattrs").is_file() else {}
            return _Node(path, name == ".zarray", _read_json(path / name), attributes)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(path, "readable Zarr metadata", error) from error
    if not isinstance(value, dict):
        raise PipelineError(path, "readable Zarr metadata", f"a JSON {type(value).__name__}")
    return value


class ZarrReader:
    """A Zarr array, or the largest level of an OME-Zarr image."""

    def __init__(self, path: Path, axes: str | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        """Read and check the metadata; no pixels.

        Args:
            path: a store, or a group or array inside one, such as `a.zarr`, `a.zarr/0`, `a.zarr/labels/nuclei`.
            axes: the user's axes, or None to believe the store.
            cache_bytes: how much decoded data to keep.

        Raises:
            PipelineError: for a store that is damaged, holds no image there, or pixels of another kind.
        """
        self._path, self._max_bytes, self._cache = path, cache_bytes, BlockCache(cache_bytes)
        node, image = _find_array(path)
        self._node, self._image = node, image
        _refuse_pickle(node)
        self._array = _open_array(node)
        dtype = pixel_dtype(node.path, self._array.dtype)
        shape = self._array.shape
        letters, scale = _meaning(node, image, len(shape))
        if axes is None and set(letters) == {UNKNOWN}:
            letters = _guess(node.path, shape)
        self._layout = layout = find_layout(node.path, shape, letters, axes)
        names = _channel_names(image)
        self.info = StackInfo(
            shape=layout.shape,
            dtype=dtype,
            plane_axis=layout.plane_axis,
            pixel_um=scale.pixel_um,
            step=scale.step(layout.plane_axis),
            channel_names=names if len(names) == layout.shape[1] else (),
            block_px=(self._edge(layout.y), self._edge(layout.x)),
            files=tuple(dict.fromkeys((*(image.files if image else ()), *node.files))),
        )

    def _edge(self, dimension: int) -> int:
        return min(int(self._array.chunks[dimension]), int(self._array.shape[dimension]))

    def read(self, plane: int, window: Window) -> Array:
        """Return (channels, rows, columns) of a plane, native byte order.

        Raises:
            PipelineError: naming the array and plane, if a chunk cannot be decoded.
        """
        box = self._box(plane, window)
        try:
            block = self._read_box(box)
        except MemoryError:
            raise
        # Codecs raise errors of many kinds, and all of them mean damaged chunks.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise PipelineError(f"{self._node.path}, plane {plane}", "chunks that can be decoded", what) from error
        return np.array(self._layout.canonical(block)[0], self.info.dtype, order="C")

    def _box(self, plane: int, window: Window) -> list[tuple[int, int]]:
        """Return (start, stop) in every dimension of the array."""
        layout = self._layout
        place = {layout.y: window[:2], layout.x: window[2:]}
        if layout.plane is not None:
            place[layout.plane] = (plane, plane + 1)
        return [place.get(i, (0, n)) for i, n in enumerate(self._array.shape)]

    def _read_box(self, box: Sequence[tuple[int, int]]) -> Array:
        """Read through the cache, whole chunks at a time; all that are missing in one request."""
        chunks = self._array.chunks
        ranges = [range(low // edge, -(-high // edge)) for (low, high), edge in zip(box, chunks, strict=True)]
        aligned = [len(numbers) * edge for numbers, edge in zip(ranges, chunks, strict=True)]
        if np.prod(aligned, dtype=np.float64) * self.info.dtype.itemsize > self._max_bytes / 2:
            return self._load(box)
        keys = list(itertools.product(*ranges))
        found = {key: self._cache.get(key) for key in keys}
        missing = [key for key, block in found.items() if block is None]
        if missing:
            found |= self._load_chunks(missing)
        out = np.empty([high - low for low, high in box], self.info.dtype)
        for key, block in found.items():
            if block is not None:
                paste(out, [low for low, _ in box], block, [k * edge for k, edge in zip(key, chunks, strict=True)])
        return out

    def _load_chunks(self, keys: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Array]:
        """Read the smallest box of chunks around `keys` and keep each chunk."""
        chunks = self._array.chunks
        low = [min(numbers) for numbers in zip(*keys, strict=True)]
        high = [max(numbers) + 1 for numbers in zip(*keys, strict=True)]
        limits = zip(low, high, chunks, self._array.shape, strict=True)
        data = self._load([(a * edge, min(b * edge, n)) for a, b, edge, n in limits])
        blocks = {}
        for key in itertools.product(*map(range, low, high)):
            start = [(k - a) * edge for k, a, edge in zip(key, low, chunks, strict=True)]
            blocks[key] = data[tuple(slice(s, s + edge) for s, edge in zip(start, chunks, strict=True))].copy()
            self._cache.put(key, blocks[key])
        return blocks

    def _load(self, box: Sequence[tuple[int, int]]) -> Array:
        values = np.asarray(self._array[tuple(slice(low, high) for low, high in box)])
        return values.astype(self.info.dtype, copy=False)

    def fingerprint(self) -> str:
        """Return a digest of the metadata and of name, size and SHA-256 of every chunk file; reads the whole array."""
        inside = (path for path in self._node.path.rglob("*") if path.is_file())
        own = self._image.files if self._image else ()
        entries = [["metadata", path.name, path.stat().st_size, sha256_file(path)] for path in own]
        for path in sorted(inside, key=lambda one: one.as_posix()):
            name = path.relative_to(self._node.path).as_posix()
            entries.append(["array", name, path.stat().st_size, sha256_file(path)])
        return digest(entries)

    def close(self) -> None:
        """Forget the decoded chunks."""
        self._cache.clear()


def _find_array(path: Path) -> tuple[_Node, _Node | None]:
    """Return the array that `path` means, and the OME-Zarr image it is a level of."""
    node = _read_node(path)
    if node is None:
        raise PipelineError(path, "a Zarr array or group", "a folder without zarr.json, .zarray or .zgroup")
    if node.array:
        parent = _read_node(path.parent)
        return node, parent if parent is not None and _dataset(parent, path.name) else None
    level = _first_level(node)
    inner = _read_node(path / level)
    if inner is None or not inner.array:
        raise PipelineError(path, f"an array {level!r}, the largest level of the image", "none there")
    return inner, node


def _first_level(node: _Node) -> str:
    datasets = node.multiscale.get("datasets")
    level = datasets[0].get("path") if isinstance(datasets, list) and datasets and isinstance(datasets[0], dict) else None
    if isinstance(level, str) and level and ".." not in PurePosixPath(level).parts and not level.startswith("/"):
        return level
    inside = sorted(child.name for child in node.path.iterdir() if child.is_dir() and _read_node(child))
    got = f"a group of {', '.join(inside)}" if inside else "an empty group"
    near = node.path / inside[0] if inside else None
    raise PipelineError(node.path, "an array or an OME-Zarr image", got, nearest=near, fix="name what is inside the store")


def _dataset(image: _Node, level: str) -> dict[str, Any]:
    datasets = image.multiscale.get("datasets")
    for one in datasets if isinstance(datasets, list) else ():
        if isinstance(one, dict) and one.get("path") == level:
            return one
    return {}


def _refuse_pickle(node: _Node) -> None:
    """Refuse codecs that run code from the store."""
    codecs = [node.metadata.get(key) for key in ("compressor", "filters", "codecs")]
    if "pickle" in json.dumps(codecs).lower():
        raise PipelineError(node.path, "codecs that only hold data", "a pickle codec", fix="save the array as numbers")


def _open_array(node: _Node) -> zarr.Array[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zarr.open_array(store=str(node.path), mode="r", zarr_format=node.metadata.get("zarr_format", 3))
    except MemoryError:
        raise
    # zarr raises errors of many kinds on metadata that it cannot read.
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise PipelineError(node.path, "a Zarr array of numbers that zarr can open", what) from error


def _meaning(node: _Node, image: _Node | None, ndim: int) -> tuple[str, Calibration]:
    """Return what each dimension is, "?" where the store does not say, and the scale."""
    if image is None:
        names = node.metadata.get("dimension_names") or node.attributes.get("_ARRAY_DIMENSIONS") or ()
        letters = [NAMES.get(str(name).lower(), str(name).lower()) for name in names]
        return _letters(letters if len(letters) == ndim else [UNKNOWN] * ndim), Calibration()
    axes = image.multiscale.get("axes", OLD_AXES)
    letters = [_axis_letter(axis) for axis in axes] if isinstance(axes, list | tuple) else []
    if len(letters) != ndim:
        raise PipelineError(image.path, f"{ndim} OME axes for the {ndim} dimensions of {node.path.name!r}", axes)
    level = next((d for d in (_dataset(image, node.path.relative_to(image.path).as_posix()),) if d), {})
    return _letters(letters), from_multiscale(image.multiscale, level, _letters(letters))


def _axis_letter(axis: object) -> str:
    if not isinstance(axis, Mapping):
        return str(axis).lower()
    return KINDS.get(str(axis.get("type")), str(axis.get("name")).lower())


def _letters(names: Sequence[str]) -> str:
    return "".join(name if len(name) == 1 and name in LETTERS else UNKNOWN for name in names)


def _guess(path: Path, shape: Sequence[int]) -> str:
    """Take two dimensions as y, x and three as z, y, x, unless the last may be colours."""
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] not in (3, 4)):
        return "zyx"[-len(shape) :]
    got = f"shape {' × '.join(map(str, shape))} without names"
    raise PipelineError(path, "to know what each dimension is", got, fix="set axes, such as 'zyx', 'yxc' or 'tcyx'")


def _channel_names(image: _Node | None) -> tuple[str, ...]:
    omero = image.ome.get("omero") if image else None
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [one.get("label") for one in channels or () if isinstance(one, dict)]
    return tuple(map(str, labels)) if all(labels) else ()
