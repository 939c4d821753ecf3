"""The command line: one verb per stage, in the order data flows. `python -m unet_pipeline VERB --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from unet_pipeline import __version__
from unet_pipeline.config.files import load, load_merged
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Compute, Config, Watch
from unet_pipeline.errors import PipelineError, printable
from unet_pipeline.machine.allocator import give_back_pages
from unet_pipeline.machine.progress import tell

RESULT = "a record, a store, a model folder, a stack's folder, results/, or a file in them such as report.html"

# Stages are imported inside their verb: those without a network must start without torch.


def demo(options: argparse.Namespace) -> None:
    """Write the seeded demo stacks with their reference."""
    from unet_pipeline.stacks.demo import write_demo

    write_demo(options.output, _say)


def ingest(options: argparse.Namespace) -> None:
    """Read a stack of any format into OME-Zarr, check it, measure its statistics."""
    from unet_pipeline.stacks.ingest import Source, ingest

    names = [field.name for field in fields(Source)]
    ingest(Source(**{name: getattr(options, name) for name in names}), _config(options), options.output, options.table)


def weigh(options: argparse.Namespace) -> None:
    """Compute training targets and the paper's boundary weights."""
    from unet_pipeline.stacks.stack import Stack
    from unet_pipeline.stacks.weigh import weigh

    weigh(Stack.open(options.ingest), _config(options), options.output, options.threads)


def train(options: argparse.Namespace) -> None:
    """Train the network; resumes where an interrupted training stopped."""
    config = _config(options)
    if config.compute.processes > 1 and "WORLD_SIZE" not in os.environ:
        several = ["--standalone", f"--nproc-per-node={config.compute.processes}", "-m", "unet_pipeline"]
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *several, *sys.argv[1:]])
    from unet_pipeline.train.train import train_model

    train_model(options.train, options.validate, config, options.output, options.fold)


def ensemble(options: argparse.Namespace) -> None:
    """Make one model of several: it answers with the mean of their probabilities."""
    from unet_pipeline.train.ensemble import ensemble

    ensemble(options.models, options.output)


def tile(options: argparse.Namespace) -> None:
    """Plan regions, shards and tiles, and create the store that predict fills."""
    from unet_pipeline.model.card import read_card
    from unet_pipeline.predict.tile import tile
    from unet_pipeline.stacks.stack import Stack

    card = read_card(options.model) if options.model else None
    stack, config = Stack.open(options.ingest), _config(options)
    _say(tile(stack, config, options.regions, options.output, card, options.dry_run, options.out_of_fold))


def predict(options: argparse.Namespace) -> None:
    """Run the network over one region."""
    from unet_pipeline.predict.predict import predict
    from unet_pipeline.predict.stack_plan import StackPlan

    predict(StackPlan.open(options.tiles), options.region, options.model, _config(options), options.output)


def stitch(options: argparse.Namespace) -> None:
    """Prove the coverage, then make objects and pyramids."""
    from unet_pipeline.model.card import read_card
    from unet_pipeline.predict.stack_plan import StackPlan
    from unet_pipeline.stitch.stitch import stitch

    card = read_card(options.model) if options.model else None
    stitch(StackPlan.open(options.tiles), options.regions, _config(options), options.output, card)


def evaluate(options: argparse.Namespace) -> None:
    """Score a stitched stack against its reference."""
    from unet_pipeline.evaluate.evaluate import evaluate

    evaluate(options.stitch, _config(options), options.output)


def segment(options: argparse.Namespace) -> None:
    """Segment one image with a trained model, without a table: ingest, tile, predict and stitch in one."""
    from unet_pipeline.face.segment import segment
    from unet_pipeline.stacks.ingest import Source

    folder, asked = options.output, ("axes", "planes", "names", "series", "pixel_um", "step")
    reading = {name: getattr(options, name) for name in asked}
    source = Source(stack=options.name or folder.resolve().name, image=options.image, **reading)
    plan = segment(source, options.model, _config(options), folder)
    _say(f"{plan.store}: probabilities, labels/classes, labels/instances; {folder / 'stitch.json'} says what was found")


def prove(options: argparse.Namespace) -> None:
    """Show on your own model and image that tiling does not change the result; an error if it does."""
    from unet_pipeline.audit.prove import describe, prove
    from unet_pipeline.stacks.stack import Stack

    stack, config = Stack.open(options.ingest), _config(options)
    found = prove(options.model, stack, config, options.output, options.plane, options.crop_px)
    _say(describe(found))
    if not found.seamless:
        expected = "the same bytes from every split, and one whole pass within the tolerance from every tile size"
        raise PipelineError("prove", expected, "differences", fix="report this as a bug")


def export(options: argparse.Namespace) -> None:
    """Write a trained network as ONNX, TorchScript, torch.export or a bioimage.io package, and check it."""
    from unet_pipeline.model.export.bioimageio_package import Credit
    from unet_pipeline.model.export.export import export

    credit = Credit(options.name, tuple(options.author), options.license)
    _say(export(options.model, options.format, options.output, options.probabilities, options.same_size, credit))


def summary(options: argparse.Namespace) -> None:
    """Show a network level by level: sizes, parameters, work; its halo and legal sizes."""
    from unet_pipeline.model.summary import describe, summarise

    found = summarise(options.model, options.tile_px)
    _say(json.dumps(found, indent=1) if options.json else describe(found))


def report(options: argparse.Namespace) -> None:
    """Write one self-contained page: curves, scores, pictures, provenance."""
    from unet_pipeline.report.report import report

    report(options.model, options.stacks, _config(options), options.output)


def verify(options: argparse.Namespace) -> None:
    """Read all results again and name every file that is not what was written, and what mends it."""
    from unet_pipeline.audit.verify import verify

    verify(options.results, _say)


def record(options: argparse.Namespace) -> None:
    """Show what made a result, back to the source files."""
    from unet_pipeline.audit.record import describe, to_json, trace

    found = trace(options.result)
    _say(json.dumps(to_json(found), indent=1) if options.json else describe(found))


def differs(options: argparse.Namespace) -> int:
    """Say what of a result would come out otherwise today, and why; exit code 0: nothing, 1: something, 2: unusable."""
    from unet_pipeline.audit.differs import describe_differences, differences
    from unet_pipeline.audit.record import trace
    from unet_pipeline.stacks.table import load_stacks

    config, found = load_merged(options.config), trace(options.result)
    table = Path(options.stacks or config.stacks)
    rows = load_stacks(table) if options.stacks or table.exists() else None
    different = differences(found, config, rows, lambda source: tell(f"reading {source}"))
    as_json = json.dumps([asdict(one) for one in different], indent=1)
    _say(as_json if options.json else describe_differences(found, different))
    return int(bool(different))


Verb = Callable[[argparse.Namespace], int | None]


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = argparse.ArgumentParser(prog="unet-pipeline", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(metavar="VERB", required=True)

    _add(verbs, demo, "--output")

    one = _add(verbs, ingest, "--config", "--output")
    one.add_argument("--stack", required=True, help="name of the stack")
    one.add_argument("--image", required=True, help="file, folder, glob or Zarr store")
    one.add_argument("--labels", default="", help="label file, folder, glob or Zarr store")
    one.add_argument("--table", default="", help="table of stacks: where this one trains, the others must fit it")
    _add_reading(one, "--axes", "--label-axes", "--planes", "--label-planes", "--names")

    one = _add(verbs, weigh, "--config", "--output")
    one.add_argument("--threads", type=int, default=1, help="blocks worked on at a time; they do not change the result")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")

    one = _add(verbs, train, "--config", "--output", "--threads", "--device")
    one.add_argument("--processes", type=int, default=None, help="training processes, a GPU each (compute.processes)")
    watched = "tensorboard, samples, both with a comma between, or none (section watch)"
    one.add_argument("--watch", default=None, help=watched)
    one.add_argument("--train", type=Path, nargs="+", required=True, help="weigh.json of each training stack")
    one.add_argument("--validate", type=Path, nargs="*", default=[], help="weigh.json of each validation stack")
    one.add_argument("--fold", type=int, default=None, help="which of train.folds is held out, from 0")

    one = _add(verbs, ensemble, "--output")
    one.add_argument("--models", type=Path, nargs="+", required=True, help="model folders, two or more")

    one = _add(verbs, tile, "--config", "--output")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")
    one.add_argument("--model", type=Path, default=None, help="a finished model folder, for its geometry")
    one.add_argument("--regions", type=int, default=1, help="number of prediction jobs")
    one.add_argument("--dry-run", action="store_true", help="describe the plan, write nothing")
    out = "predict each plane by the member of a cross-validation that has not seen it (a training stack)"
    one.add_argument("--out-of-fold", action="store_true", help=out)

    one = _add(verbs, predict, "--config", "--output", "--threads", "--device")
    one.add_argument("--tiles", type=Path, required=True, help="tiles.json of the stack")
    one.add_argument("--region", type=int, required=True, help="number of the region, from 0")
    one.add_argument("--model", type=Path, required=True, help="model folder")

    one = _add(verbs, stitch, "--config", "--output")
    one.add_argument("--tiles", type=Path, required=True, help="tiles.json of the stack")
    one.add_argument("--regions", type=Path, nargs="+", required=True, help="record of every region")
    one.add_argument("--model", type=Path, default=None, help="the model folder that the regions must come from")

    one = _add(verbs, evaluate, "--config", "--output")
    one.add_argument("--stitch", type=Path, required=True, help="stitch.json of the stack")

    one = _add(verbs, segment, "--config", "--threads", "--device")
    one.add_argument("image", help="file, folder, glob or Zarr store")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--output", type=Path, required=True, help="folder for the volume and its records, new or empty")
    one.add_argument("--name", default="", help="name of the stack (default: that of the output folder)")
    _add_reading(one, "--axes", "--planes", "--names")

    one = _add(verbs, prove, "--config", "--threads", "--device")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")
    one.add_argument("--plane", type=int, default=0, help="which plane")
    one.add_argument("--crop-px", type=int, default=1024, help="size of the part that is used")
    one.add_argument("--output", type=Path, default=None, help="also write the findings as JSON")

    one = _add(verbs, export, "--output")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--format", required=True, choices=("onnx", "torchscript", "torch-export", "bioimageio"))
    switch, probabilities = argparse.BooleanOptionalAction, "probabilities, not logits (default: bioimageio only)"
    one.add_argument("--probabilities", action=switch, default=None, help=probabilities)
    one.add_argument("--same-size", action="store_true", help="let the network mirror: an output of the image's size")
    one.add_argument("--name", default="", help="bioimageio: what the model is called (default: U-Net and its classes)")
    one.add_argument("--author", action="append", default=[], help="bioimageio: who made it; may be repeated")
    one.add_argument("--license", default="CC-BY-4.0", help="bioimageio: SPDX identifier (default: CC-BY-4.0)")

    one = _add(verbs, summary)
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--tile-px", type=int, default=None, help="kept size whose work is counted (default: about 384)")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = _add(verbs, report, "--config", "--output")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--stacks", type=Path, nargs="+", required=True, help="stitch.json or ingest.json of each stack")

    one = _add(verbs, verify)
    one.add_argument("results", type=Path, help="a results folder, the folder of one stack, or a model folder")

    one = _add(verbs, record)
    one.add_argument("result", type=Path, help=RESULT)
    one.add_argument("--json", action="store_true", help="as JSON")

    one = _add(verbs, differs)
    one.set_defaults(unusable=2)
    one.add_argument("result", type=Path, help=RESULT)
    config = "configuration of today; several are merged, as by snakemake --configfile (default: config.yaml)"
    one.add_argument("--config", nargs="+", default=None, help=config)
    one.add_argument("--stacks", default="", help="table of today (default: the configuration's)")
    one.add_argument("--json", action="store_true", help="as JSON")
    return top


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], verb: Verb, *common: str
) -> argparse.ArgumentParser:
    summary = (verb.__doc__ or "").strip()
    one = verbs.add_parser(verb.__name__, help=summary, description=summary)
    one.set_defaults(verb=verb)
    if "--config" in common:
        one.add_argument("--config", default="{}", help="YAML file, or JSON text; absent keys take their defaults")
    if "--output" in common:
        one.add_argument("--output", type=Path, required=True, help="what to write; other files lie beside it")
    if "--threads" in common:
        one.add_argument("--threads", type=int, default=None, help="CPU threads (compute.threads)")
    if "--device" in common:
        one.add_argument("--device", default=None, help="auto, cpu or cuda (compute.device)")
    return one


def _add_reading(one: argparse.ArgumentParser, *columns: str) -> None:
    """Add the options that say how an image is read."""
    for name in columns:
        one.add_argument(name, default="", help="as the column of that name in the table of stacks")
    one.add_argument("--series", type=int, default=None, help="which series of a file that holds several, from 0")
    one.add_argument("--pixel-um", type=_positive, default=None, help="pixel size, micrometres")
    one.add_argument("--step", type=_positive, default=None, help="distance of planes, micrometres or seconds")


def _positive(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"a positive number, not {text}")
    return value


def _config(options: argparse.Namespace) -> Config:
    config = load(options.config)
    names = ("threads", "device", "processes")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    config = replace(config, compute=build(Compute, asdict(config.compute) | given, "compute"))
    if (words := getattr(options, "watch", None)) is None:
        return config
    return replace(config, watch=build(Watch, {word: True for word in words.split(",") if word != "none"}, "watch"))


def _say(line: str) -> None:
    print(printable(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; a user's mistake ends in one message and exit code 1."""
    options = parser().parse_args(arguments)
    give_back_pages()  # networks take it back: they keep theirs
    try:
        return options.verb(options) or 0
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(getattr(options, "unusable", 1))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
