"""Small real results for the tests: cells on disk, ingested, planned, and a network with random weights."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.dependencies import sections_of
from unet_pipeline.images.plane_array import PlaneArray
from unet_pipeline.images.planes import Planes
from unet_pipeline.predict.predict import predict
from unet_pipeline.predict.stack_plan import StackPlan
from unet_pipeline.predict.tile import tile
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.stacks.demo import cells
from unet_pipeline.stacks.ingest import Source, ingest
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stitch.stitch import stitch

SETTINGS = {
    "store": {"chunk_px": 32, "shard_px": 64},
    "model": {"depth": 2, "base_channels": 4},
    "tile": {"tile_px": 32},
    "train": {"tile_px": 32, "steps": 4, "validate_every": 2, "validate_tiles": 2, "warmup": 0},
    "compute": {"threads": 1, "device": "cpu"},
}


def settings(**sections):
    """Return a small configuration with sections replaced key by key."""
    merged = {name: SETTINGS.get(name, {}) | sections.get(name, {}) for name in {**SETTINGS, **sections}}
    return from_dict(merged)


def draw(planes=2, shape=(100, 130), seed=0):
    """Return grey values uint8 and instance ids uint16, both (planes, y, x)."""
    return tuple(array.copy() for array in _drawn(planes, shape, seed))


@cache
def _drawn(planes, shape, seed):
    pairs = [cells(shape, np.random.default_rng([seed, plane]), 24.0) for plane in range(planes)]
    grey = np.stack([np.clip(40 + 150 * image, 0, 255).astype(np.uint8) for image, _ in pairs])
    return grey, np.stack([ids for _, ids in pairs])


def make_stack(folder: Path, config=None, labelled=True, image=None, labels=None, **source) -> Stack:
    """Write TIFFs and ingest them as stack "cells"; the drawn cells once for each configuration, then copied."""
    config = config or settings()
    if image is None and labels is None:
        return _copied(folder, config, labelled, source)
    grey, ids = draw()
    return _ingested(
        folder, config, labelled, grey if image is None else image, ids if labels is None else labels, source
    )


def _ingested(folder, config, labelled, image, labels, source):
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "labels.tif", labels, photometric="rgb" if labels.ndim == 4 else "minisblack")
    given = {
        "stack": "cells",
        "image": str(folder / "image.tif"),
        "labels": str(folder / "labels.tif") if labelled else "",
    }
    record = folder / "results" / "cells" / "ingest.json"
    ingest(Source(**(given | source)), config, record)
    return Stack.open(record)


_INGESTED: dict[str, TemporaryDirectory] = {}


def _copied(folder, config, labelled, source):
    """The drawn cells as if they had been ingested here: the record alone names a folder, that of the TIFFs."""
    key = repr((sections_of(config, "ingest"), labelled, sorted(source.items())))
    if key not in _INGESTED:
        made = TemporaryDirectory(prefix="cells ")
        _ingested(Path(made.name), config, labelled, *draw(), source)
        _INGESTED[key] = made
    shutil.copytree(_INGESTED[key].name, folder, dirs_exist_ok=True)
    record = folder / "results" / "cells" / "ingest.json"
    told = json.dumps(read_json(record)).replace(f"{_INGESTED[key].name}/", str(folder / "_")[:-1])
    write_json(record, json.loads(told))
    return Stack.open(record)


def make_model(
    folder: Path, channels=1, seed=3, depth=2, base_channels=4, classes=("background", "cell"), network=None
) -> Path:
    """Save a network with random weights whose labels vary; `network` holds further fields of its architecture."""
    import torch

    from unet_pipeline.config.sections import Normalise
    from unet_pipeline.model.card import Architecture, ModelCard, geometry, geometry_z
    from unet_pipeline.model.models import build, save_model

    architecture = Architecture("unet", depth, base_channels, channels, len(classes), 0.5)
    architecture = replace(architecture, **(network or {}))
    network = build(architecture, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.05)
        # The last bias is set so that every class wins somewhere on the drawn cells.
        size = geometry(architecture).read_px(16 * 2**depth if architecture.dimensions == 2 else 2 * 2**depth)
        grey = torch.from_numpy(draw(1, (size, size))[0] / 200.0).float()[:, None].repeat(1, channels, 1, 1)
        if architecture.dimensions == 3:
            sizes = geometry_z(architecture)
            grey = grey[:, :, None].repeat(1, 1, sizes.read_px(sizes.stride), 1, 1)
        list(network.parameters())[-1].sub_(network.eval()(grey).flatten(2).mean(dim=(0, 2)))
    save_model(folder, network, ModelCard(architecture, tuple(classes), Normalise()))
    return folder


def make_plan(stack: Stack, config=None, regions=2) -> StackPlan:
    """Plan a stack and create its store."""
    output = stack.record.with_name("tiles.json")
    tile(stack, config or settings(), regions, output)
    return StackPlan.open(output)


def run(stack_plan: StackPlan, model: Path, config=None) -> Path:
    """Predict every region and stitch; return `stitch.json`."""
    folder = stack_plan.record.parent
    records = []
    for region in range(stack_plan.plan.regions):
        records.append(folder / "regions" / f"{region}.json")
        predict(stack_plan, region, model, config or settings(), records[-1])
    stitch(stack_plan, records, config or settings(), folder / "stitch.json")
    return folder / "stitch.json"


def volume(array: PlaneArray | Planes) -> np.ndarray:
    """Return a whole array, (planes, channels, y, x)."""
    planes, _, height, width = array.shape
    return np.stack([array.read(plane, slice(0, height), slice(0, width)) for plane in range(planes)])


def assert_reduced(fine: np.ndarray, coarse: np.ndarray, reduction: str) -> None:
    """Compare a level of a pyramid with the definition: at odd edges, the mean is that of the pixels there are."""
    if reduction == "nearest":
        expected = fine[..., ::2, ::2]
    else:
        expected = np.stack(
            [
                [fine[..., y : y + 2, x : x + 2].mean(axis=(-2, -1)) for x in range(0, fine.shape[-1], 2)]
                for y in range(0, fine.shape[-2], 2)
            ]
        )
        expected = np.rint(np.moveaxis(expected, (0, 1), (-2, -1)))
    np.testing.assert_array_equal(coarse, expected)


def validated(model: Path, stack: str = "cells", **training: object) -> Path:
    """A model that was validated by a stack."""
    from unet_pipeline.model.card import read_card, write_card

    card = read_card(model)
    write_card(model, replace(card, training={"validation_stacks": [stack], **training}))
    return model
