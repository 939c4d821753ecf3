"""What is fuzzed: each target opens what an attacker wrote, as the pipeline would; it ends well or is refused."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz import seeds
from fuzz.tree import Tree
from unet_pipeline.errors import PipelineError

LONGEST_MESSAGE = 20_000


class Escape(Exception):
    """Something outside the places it may use was read or written."""


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        seeds: valid inputs.
        run: takes the folder with the input, in which `results` may be written.
    """

    seeds: Callable[[], list[Tree]]
    run: Callable[[Path], None]


def read_image(name: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        from unet_pipeline.images.open import open_planes

        with open_planes(str(folder / name)) as planes:
            for file in planes.files:
                if not file.absolute().is_relative_to(folder):
                    raise Escape(f"read {file}")
            count, _, height, width = planes.shape
            for plane in {0, count // 2, count - 1}:
                planes.read(plane, slice(0, 48), slice(0, 48))
                planes.read(plane, slice(max(0, height - 40), height), slice(max(0, width - 40), width))
            planes.fingerprint()

    return run


def read_any_picture(folder: Path) -> None:
    for name in ("image.png", "image.jpg"):
        if (folder / name).exists():
            read_image(name)(folder)


def read_list(folder: Path) -> None:
    """Open the pictures that a list names, as images of any size and as labels, and fit them into squares."""
    from unet_pipeline.config.sections import Ingest
    from unet_pipeline.images.open import open_planes
    from unet_pipeline.stacks.sizes import Fitted

    for labels in (False, True):
        names = str(folder / "train.txt")
        with open_planes(str(folder / "a"), names=names, mixed=True, colours=not labels) as planes:
            for file in planes.files:
                if not file.absolute().is_relative_to(folder):
                    raise Escape(f"read {file}")
            for sizes in ("pad", "square"):
                fitted = Fitted(planes, Ingest(sizes=sizes, square_px=48), labels)
                for plane in {0, fitted.shape[0] - 1}:
                    fitted.read(plane, slice(0, min(48, fitted.shape[2])), slice(0, min(48, fitted.shape[3])))
                fitted.record()
            planes.fingerprint()


def read_config(folder: Path) -> None:
    from unet_pipeline.config.files import load

    path = folder / "config.yaml"
    text = path.read_bytes()[:1_000_000].decode("utf-8", "replace") if path.is_file() else ""
    load(text if text.lstrip().startswith("{") else str(path)).section("labels", "train")


def read_table(folder: Path) -> None:
    from unet_pipeline.images.plane_numbers import parse_planes
    from unet_pipeline.stacks.table import check_roles, load_stacks, source_files

    stacks = load_stacks(folder / "stacks.tsv")
    for name, row in stacks.items():
        if (folder / "results" / name).resolve().parent != (folder / "results").resolve():
            raise Escape(f"results/{name}")
        source_files(row.image)
        parse_planes(name, row.planes, 1000)
        int(row.regions or 1), int(row.series or 0), float(row.pixel_um or 1), float(row.step or 1)
    check_roles(stacks, "stacks.tsv", None)


def read_model(folder: Path) -> None:
    import torch

    from unet_pipeline.model.models import load_model
    from unet_pipeline.records.stack_records import Statistics

    sign_model(folder)
    network, card = load_model(folder, torch.device("cpu"))
    statistics = Statistics((0.0,), (9.0,), (4.0,), (2.0,), 9, (tuple(float(i) for i in range(1001)),))
    card.normaliser_of(statistics, "uint8")
    card.check_image(1, "image")
    size = card.geometry.read_px(card.geometry.stride)
    if size < 200 and card.architecture.base_channels <= 8:
        network(torch.zeros(1, card.architecture.in_channels, size, size))


def sign_model(folder: Path) -> None:
    """Write the checksums that a forger would: of the weights into the card, and of the card itself."""
    from unet_pipeline.records.files import sha256_file
    from unet_pipeline.records.record import write_json

    card, weights = folder / "model.json", folder / "weights.safetensors"
    if card.is_symlink() or not card.is_file():
        return
    with contextlib.suppress(ValueError, TypeError, RecursionError, PipelineError, AttributeError):
        facts = json.loads(card.read_bytes())
        if weights.is_file():
            facts["weights_sha256"] = sha256_file(weights)
        write_json(card, facts)


def main(*arguments: object) -> None:
    """Run a verb as the command line does; anything but exit codes 0 and 1 is a crash."""
    from unet_pipeline.__main__ import main as verb

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = verb([str(argument) for argument in arguments])
    if code == 1:
        raise PipelineError("verb", "success", said.getvalue()[-1500:])
    if code:
        raise AssertionError(f"exit code {code}: {said.getvalue()[-1500:]}")


def ingest(folder: Path) -> None:
    output = folder / "results" / "a" / "ingest.json"
    config = json.dumps({"store": {"chunk_px": 32, "shard_px": 64}})
    main(
        "ingest", "--stack", "a", "--image", folder / "image.tif", "--labels", folder / "labels.tif",
        "--config", config, "--output", output,
    )  # fmt: skip


def sign(folder: Path) -> None:
    """Give every record the checksums that a forger would: its own, and those of its inputs and files."""
    names = ["ingest.json", "weigh.json", "tiles.json", *sorted(f"regions/{n}.json" for n in range(4)),
             "stitch.json", "metrics.json"]  # fmt: skip
    cells = folder / "results" / "cells"
    for path in [folder / "results" / "model" / "model.json", *(cells / name for name in names)]:
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(ValueError, TypeError, RecursionError, PipelineError, AttributeError):
                _sign_record(path, cells)


def _sign_record(path: Path, cells: Path) -> None:
    from unet_pipeline.records.files import sha256_file
    from unet_pipeline.records.record import write_json

    facts = json.loads(path.read_bytes())
    with contextlib.suppress(KeyError, TypeError, AttributeError, OSError, ValueError):
        inputs = facts["provenance"]["inputs"]
        for name in inputs:
            near = cells / name.rpartition("/cells/")[2]
            if near.is_file() and near.is_relative_to(cells):
                inputs[name] = sha256_file(near)
    with contextlib.suppress(KeyError, TypeError, AttributeError, OSError, ValueError):
        listed = path.with_suffix(".sha256")
        if listed.is_file() and not listed.is_symlink():
            listed.write_text("".join(_sign_line(line, path.parent) for line in listed.read_text().splitlines()))
            facts["files"]["sha256"] = sha256_file(listed)
    write_json(path, facts)


def _sign_line(line: str, folder: Path) -> str:
    from unet_pipeline.records.files import sha256_file

    total, _, name = line.partition("  ")
    file = folder / name
    known = ".." not in name and not name.startswith("/") and file.is_file() and not file.is_symlink()
    return f"{sha256_file(file) if known else total}  {name}\n"


def records(folder: Path) -> None:
    """Let two of the stages that open a record open what the forger signed; each must succeed or refuse."""
    pick = zlib.crc32(
        b"".join(
            path.read_bytes()
            for path in sorted(folder.rglob("results/*/*.json"))
            if path.is_file() and not path.is_symlink()
        )
    )
    sign(folder)
    cells, model = folder / "results" / "cells", folder / "results" / "model"
    small = {
        "store": {"chunk_px": 32, "shard_px": 64},
        "model": {"depth": 2, "base_channels": 4},
        "tile": {"tile_px": 32},
    }
    config, fresh = json.dumps(small), folder / "results" / "fresh"
    regions = sorted((cells / "regions").glob("*.json")) or [cells / "regions" / "0.json"]
    verbs: list[tuple[object, ...]] = [
        ("tile", "--ingest", cells / "ingest.json", "--config", config, "--dry-run", "--output", fresh / "tiles.json"),
        ("weigh", "--ingest", cells / "ingest.json", "--config", config, "--output", fresh / "weigh.json"),
        ("evaluate", "--stitch", cells / "stitch.json", "--config", "{}", "--output", fresh / "metrics.json"),
        ("report", "--model", model, "--stacks", cells / "stitch.json", "--config", "{}", "--output", fresh / "r.html"),
        ("stitch", "--tiles", cells / "tiles.json", "--regions", *regions, "--config", "{}",
         "--output", cells / "stitch.json"),
        ("predict", "--tiles", cells / "tiles.json", "--region", "0", "--model", model, "--config", "{}",
         "--output", cells / "regions" / "0.json"),
        ("verify", folder / "results"),
    ]  # fmt: skip
    refused = None
    stages = [*verbs, (training,)]
    for verb in (stages[pick % len(stages)], stages[pick // len(stages) % len(stages)]):
        try:
            verb[0](cells) if callable(verb[0]) else main(*verb)
        except PipelineError as error:
            refused = error
    if refused:
        raise refused


def training(cells: Path) -> None:
    """Open a weighed stack as training does, and draw what it would."""
    from unet_pipeline.config.sections import Normalise
    from unet_pipeline.model.normalise import from_statistics, merge
    from unet_pipeline.train.train import Weighed

    weighed = Weighed.open(cells / "weigh.json")
    statistics = weighed.stack.ingested.statistics
    normaliser = from_statistics(Normalise(), merge([statistics, statistics]), weighed.stack.dtype)
    stack = weighed.training_stack(normaliser)
    stack.image.read(0, slice(0, 32), slice(0, 32))


TARGETS = {
    "tiff": Target(seeds.tiffs, read_image("image.tif")),
    "tiff_set": Target(seeds.tiff_sets, read_image("image.tif")),
    "picture": Target(seeds.pictures, read_any_picture),
    "list": Target(seeds.lists, read_list),
    "zarr": Target(seeds.zarrs, read_image("image.zarr")),
    "config": Target(seeds.configs, read_config),
    "table": Target(seeds.tables, read_table),
    "model": Target(seeds.models, read_model),
    "ingest": Target(seeds.ingests, ingest),
    "records": Target(seeds.results, records),
}
