"""What each verb of the command line does: it opens what its options name, and calls the stage."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

from unet_pipeline.config.files import load, load_merged
from unet_pipeline.config.keys import build
from unet_pipeline.config.sections import Compute, Config, Watch
from unet_pipeline.errors import PipelineError, printable
from unet_pipeline.machine.progress import tell

# Stages are imported inside their verb: those without a network must start without torch.


def demo(options: argparse.Namespace) -> None:
    """Write the seeded demo stacks with their reference."""
    from unet_pipeline.stacks.demo import write_demo

    write_demo(options.output, _say)


def plan(options: argparse.Namespace) -> None:
    """Say, before anything runs, what is in a table of stacks, which settings suit it, and what a run takes."""
    from unet_pipeline.config.dependencies import MACHINE, RESULT_SECTIONS
    from unet_pipeline.face.plan import plan
    from unet_pipeline.stacks.graph import Graph

    if not options.config:  # as Snakemake takes it
        options.config = "config.yaml" if Path("config.yaml").is_file() else "{}"
        _say(
            f"configuration: {options.config if options.config != '{}' else 'the defaults, as no config.yaml is here'}"
        )
    values = config_of(options).section(*RESULT_SECTIONS, *MACHINE) | {"stacks": str(options.stacks)}
    _say(plan(Graph.read(values, lambda name: name, present=True), options.minutes))


def ingest(options: argparse.Namespace) -> None:
    """Read a stack of any format into OME-Zarr, check it, measure its statistics."""
    from unet_pipeline.stacks.ingest import Source, ingest

    names = [field.name for field in fields(Source)]
    ingest(
        Source(**{name: getattr(options, name) for name in names}), config_of(options), options.output, options.table
    )


def weigh(options: argparse.Namespace) -> None:
    """Compute training targets and the paper's boundary weights."""
    from unet_pipeline.stacks.stack import Stack
    from unet_pipeline.stacks.weigh import weigh

    weigh(Stack.open(options.ingest), config_of(options), options.output, options.threads)


def train(options: argparse.Namespace) -> None:
    """Train the network; resumes where an interrupted training stopped."""
    config = config_of(options)
    if config.compute.processes > 1 and "WORLD_SIZE" not in os.environ:
        several = ["--standalone", f"--nproc-per-node={config.compute.processes}", "-m", "unet_pipeline"]
        os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *several, *sys.argv[1:]])
    from unet_pipeline.train.train import train_model

    train_model(options.train, options.validate, config, options.output, options.fold)


def ensemble(options: argparse.Namespace) -> None:
    """Make one model of several: it answers with the mean of their probabilities."""
    from unet_pipeline.train.ensemble import ensemble

    ensemble(options.models, options.output)


def calibrate(options: argparse.Namespace) -> None:
    """Choose how objects are made, by the score of planes that the model did not learn from."""
    from unet_pipeline.evaluate.calibrate import calibrate

    calibrate(options.model, options.stacks, config_of(options), options.output)


def tile(options: argparse.Namespace) -> None:
    """Plan regions, shards and tiles, and create the store that predict fills."""
    from unet_pipeline.model.card import read_card
    from unet_pipeline.predict.tile import tile
    from unet_pipeline.stacks.stack import Stack

    card = read_card(options.model) if options.model else None
    stack, config = Stack.open(options.ingest), config_of(options)
    _say(tile(stack, config, options.regions, options.output, card, options.dry_run, options.out_of_fold))


def predict(options: argparse.Namespace) -> None:
    """Run the network over one region."""
    from unet_pipeline.predict.predict import predict
    from unet_pipeline.predict.stack_plan import StackPlan

    predict(StackPlan.open(options.tiles), options.region, options.model, config_of(options), options.output)


def stitch(options: argparse.Namespace) -> None:
    """Prove the coverage, then make objects and pyramids."""
    from unet_pipeline.model.card import read_card
    from unet_pipeline.predict.stack_plan import StackPlan
    from unet_pipeline.stitch.stitch import stitch

    card = read_card(options.model) if options.model else None
    plan, config = StackPlan.open(options.tiles), config_of(options)
    stitch(plan, options.regions, config, options.output, card, options.calibration)


def measure(options: argparse.Namespace) -> None:
    """Write the objects of a stitched stack as a table: place, size, shape and grey values of each."""
    from unet_pipeline.stitch.measure import measure

    measure(options.stitch, config_of(options), options.output)


def evaluate(options: argparse.Namespace) -> None:
    """Score a stitched stack against its reference."""
    from unet_pipeline.evaluate.evaluate import evaluate

    evaluate(options.stitch, config_of(options), options.output)


def segment(options: argparse.Namespace) -> None:
    """Segment one image with a trained model, without a table: ingest, tile, predict and stitch in one."""
    from unet_pipeline.face.segment import segment
    from unet_pipeline.stacks.ingest import Source

    folder, asked = options.output, ("axes", "planes", "names", "series", "pixel_um", "step")
    reading = {name: getattr(options, name) for name in asked}
    source = Source(stack=options.name or folder.resolve().name, image=options.image, **reading)
    plan = segment(source, options.model, config_of(options), folder)
    _say(f"{plan.store}: probabilities, labels/classes, labels/instances; {folder / 'stitch.json'} says what was found")


def prove(options: argparse.Namespace) -> None:
    """Show on your own model and image that tiling does not change the result; an error if it does."""
    from unet_pipeline.audit.prove import describe, prove
    from unet_pipeline.stacks.stack import Stack

    stack, config = Stack.open(options.ingest), config_of(options)
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


def import_(options: argparse.Namespace) -> None:
    """Make a model folder of a bioimage.io package that was exported here."""
    from unet_pipeline.model.export.import_package import import_package

    _say(import_package(options.package, options.output))


def summary(options: argparse.Namespace) -> None:
    """Show a network level by level: sizes, parameters, work; its halo and legal sizes."""
    from unet_pipeline.model.summary import describe, summarise

    found = summarise(options.model, options.tile_px)
    _say(json.dumps(found, indent=1) if options.json else describe(found))


def report(options: argparse.Namespace) -> None:
    """Write one self-contained page: curves, scores, pictures, provenance."""
    from unet_pipeline.report.report import report

    report(options.model, options.stacks, config_of(options), options.output)


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


def config_of(options: argparse.Namespace) -> Config:
    """Return the configuration of a verb: sections it was given, and what its options say of the machine."""
    config = load(options.config)
    names = ("threads", "device", "processes", "io_threads", "compile", "checkpoint_minutes")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    config = replace(config, compute=build(Compute, asdict(config.compute) | given, "compute"))
    if (words := getattr(options, "watch", None)) is None:
        return config
    return replace(config, watch=build(Watch, {word: True for word in words.split(",") if word != "none"}, "watch"))


def _say(line: str) -> None:
    print(printable(line), flush=True)
