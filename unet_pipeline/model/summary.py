"""Summary: a network level by level, with sizes, parameters and work, and the sizes of its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unet_pipeline.model.card import Architecture, geometry, geometry_z, read_card
from unet_pipeline.model.models import NETWORKS
from unet_pipeline.records.layout import WEIGHTS_FILE


def summarise(model: Path, tile_px: int | None = None) -> dict[str, Any]:
    """Describe a model folder; its tensors are not read.

    Args:
        model: model folder.
        tile_px: kept size of the tile whose work is counted, px; None: the multiple of the stride nearest to 384, of
            a volume to 64.

    Returns:
        See `of_architecture`; besides the classes, and the bytes of the weights file (None where it is missing).

    Raises:
        PipelineError: no readable `model.json`, or `tile_px` is no multiple of the stride; the nearest is named.
    """
    card = read_card(model)
    file = model / WEIGHTS_FILE
    named = {"model": str(model), "classes": list(card.classes)}
    return named | of_architecture(card.architecture, tile_px) | {"file_bytes": _bytes(file)}


def of_architecture(architecture: Architecture, tile_px: int | None = None) -> dict[str, Any]:
    """Describe a network without making its weights.

    A multiply-add counts as two floating-point operations. Those of convolutions are counted, as is usual: additions of
    biases, ReLU and pooling are few beside them.

    Args:
        architecture: the network.
        tile_px: kept size of the tile, px, a multiple of the stride; a volume's has as many planes, or less where
            voxels are longer along z.

    Returns:
        architecture; geometry; sizes: the smallest input of which something is kept and the step to the next, px;
        tile: keep_px, read_px, output_px; along_z of a volume: geometry, and keep_px, read_px in planes; levels: name,
        output (channels, [z,] y, x), parameters and multiply_adds of each part, in order of computation; parameters;
        multiply_adds; flops; flops_per_pixel: per kept pixel; weight_bytes.

    Raises:
        PipelineError: if `tile_px` is no multiple of the stride.
    """
    sizes = geometry(architecture)
    along_z: dict[str, Any] = {}
    near_px = 64 if architecture.dimensions == 3 else 384
    keep_px = sizes.round_up(near_px - sizes.stride // 2) if tile_px is None else tile_px
    read_px, kept, read = sizes.read_px(keep_px), keep_px**2, [sizes.read_px(keep_px)] * 2
    if architecture.dimensions == 3:
        z = geometry_z(architecture)
        planes = z.round_up(max(keep_px >> architecture.planar_levels, 1))
        kept, read = kept * planes, [z.read_px(planes), *read]
        along_z = {"geometry": asdict(z), "keep_px": planes, "read_px": read[0]}
    with torch.device("meta"):
        network = NETWORKS[architecture.network](architecture).eval()
        image = torch.empty(1, architecture.in_channels, *read)
    levels = measure(network, image)
    multiply_adds = sum(level["multiply_adds"] for level in levels)
    return {
        "architecture": asdict(architecture),
        "geometry": asdict(sizes),
        "sizes": {"smallest_px": max(sizes.read_px(sizes.stride), sizes.smallest_px), "step_px": sizes.stride},
        "tile": {"keep_px": keep_px, "read_px": read_px, "output_px": sizes.output_px(read_px)},
        **({"along_z": along_z} if along_z else {}),
        "levels": levels,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": multiply_adds,
        "flops": 2 * multiply_adds,
        "flops_per_pixel": 2 * multiply_adds / kept,
        "weight_bytes": sum(tensor.nbytes for tensor in network.state_dict().values()),
    }


def measure(network: nn.Module, image: torch.Tensor) -> list[dict[str, Any]]:
    """Run a network once and return what each part of it did, in order of computation.

    A part is a child of the network, or of a list in it: `contracting.0`, `up.1`, `head`. Parts without parameters
    (pooling, dropout) are left out.

    Args:
        network: in evaluation mode; on the device "meta" nothing is computed.
        image: (n, channels, [z,] y, x) float32.

    Returns:
        For each part its name, output (channels, [z,] y, x), parameters and multiply_adds.
    """
    rows: list[dict[str, Any]] = []
    with _watched(network, rows), torch.no_grad():
        network(image)
    return rows


@contextmanager
def _watched(network: nn.Module, rows: list[dict[str, Any]]) -> Iterator[None]:
    """Add a row for each part that runs inside the block."""
    counter = FlopCounterMode(display=False)
    started: list[int] = []

    def before(part: nn.Module, inputs: Any) -> None:
        started.append(counter.get_total_flops())

    def after(name: str, part: nn.Module, output: torch.Tensor | list[torch.Tensor]) -> None:
        last = output[-1] if isinstance(output, list) else output  # an encoder gives its skips, too
        work = counter.get_total_flops() - started.pop()
        parameters = sum(each.numel() for each in part.parameters())
        rows.append(
            {"name": name, "output": list(last.shape[1:]), "parameters": parameters, "multiply_adds": work // 2}
        )

    hooks = []
    for name, part in _parts(network):
        hooks.append(part.register_forward_pre_hook(before))
        hooks.append(part.register_forward_hook(lambda part, _, output, name=name: after(name, part, output)))
    try:
        with counter:
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{number}", part) for number, part in enumerate(child) if _learns(part))
        elif _learns(child):
            yield name, child


def _learns(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def describe(found: dict[str, Any]) -> str:
    """Return the result of `summarise` or `of_architecture` as text for people."""
    lines = [f"{'part':<16} {'output':>18} {'parameters':>12} {'multiply-adds':>16}"]
    for level in found["levels"]:
        output = " x ".join(str(size) for size in level["output"])
        lines.append(f"{level['name']:<16} {output:>18} {level['parameters']:>12,} {level['multiply_adds']:>16,}")
    lines.append(f"{'total':<16} {'':>18} {found['parameters']:>12,} {found['multiply_adds']:>16,}")
    return "\n".join([*lines, "", *_words(found)])


def _words(found: dict[str, Any]) -> Iterator[str]:
    tile, sizes, geometry = found["tile"], found["sizes"], found["geometry"]
    yield f"network: {', '.join(f'{name} {value}' for name, value in found['architecture'].items())}"
    yield f"tile: keeps {tile['keep_px']} px, reads {tile['read_px']} px, the network gives {tile['output_px']} px"
    if along_z := found.get("along_z"):
        before, after = along_z["geometry"]["before"], along_z["geometry"]["after"]
        yield f"along z: keeps {along_z['keep_px']} planes, reads {before} before and {after} after them"
    yield f"work: {found['flops'] / 1e9:,.2f} GFLOP a tile, {found['flops_per_pixel'] / 1e3:,.1f} kFLOP a kept pixel"
    before, after = geometry["before"], geometry["after"]
    yield f"halo: reads {before} px before and {after} px after what is kept; nothing beyond matters"
    yield f"inputs: {sizes['smallest_px']} px or more in steps of {sizes['step_px']} px"
    yield f"weights: {found['weight_bytes']:,} bytes in memory" + (
        f", {found['file_bytes']:,} in {WEIGHTS_FILE}" if found.get("file_bytes") else ""
    )


def _bytes(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
