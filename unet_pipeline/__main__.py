"""The command line: one verb per stage, in the order data flows. `python -m unet_pipeline VERB --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from unet_pipeline import __version__
from unet_pipeline.errors import PipelineError
from unet_pipeline.face import verbs as stage
from unet_pipeline.machine.allocator import give_back_pages

RESULT = "a record, a store, a model folder, a stack's folder, results/, or a file in them such as report.html"

Verb = Callable[[argparse.Namespace], int | None]


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = argparse.ArgumentParser(prog="unet-pipeline", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(metavar="VERB", required=True)

    _add(verbs, stage.demo, "--output")

    one = _add(verbs, stage.plan, "--threads", "--device")
    text = "YAML file, or JSON text; without it config.yaml of the working directory, if there is one"
    one.add_argument("--config", "--configfile", default="", help=text)
    one.add_argument("stacks", type=Path, help="table of stacks")
    one.add_argument(
        "--minutes", type=_positive, default=None, help="advise the steps that so long a training here has"
    )

    one = _add(verbs, stage.ingest, "--config", "--output")
    one.add_argument("--stack", required=True, help="name of the stack")
    one.add_argument("--image", required=True, help="file, folder, glob or Zarr store")
    one.add_argument("--labels", default="", help="label file, folder, glob or Zarr store")
    one.add_argument("--table", default="", help="table of stacks: where this one trains, the others must fit it")
    _add_reading(one, "--axes", "--label-axes", "--planes", "--label-planes", "--names")

    one = _add(verbs, stage.weigh, "--config", "--output")
    one.add_argument("--threads", type=int, default=1, help="blocks worked on at a time; they do not change the result")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")

    one = _add(verbs, stage.train, "--config", "--output", "--threads", "--device")
    one.add_argument("--processes", type=int, default=None, help="training processes, a GPU each (compute.processes)")
    text = "minutes between checkpoints (compute.checkpoint_minutes)"
    one.add_argument("--checkpoint-minutes", type=float, default=None, help=text)
    watched = "tensorboard, samples, both with a comma between, or none (section watch)"
    one.add_argument("--watch", default=None, help=watched)
    one.add_argument("--train", type=Path, nargs="+", required=True, help="weigh.json of each training stack")
    one.add_argument("--validate", type=Path, nargs="*", default=[], help="weigh.json of each validation stack")
    one.add_argument("--fold", type=int, default=None, help="which of train.folds is held out, from 0")

    one = _add(verbs, stage.ensemble, "--output")
    one.add_argument("--models", type=Path, nargs="+", required=True, help="model folders, two or more")

    one = _add(verbs, stage.tile, "--config", "--output")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")
    one.add_argument("--model", type=Path, default=None, help="a finished model folder, for its geometry")
    one.add_argument("--regions", type=int, default=1, help="number of prediction jobs")
    one.add_argument("--dry-run", action="store_true", help="describe the plan, write nothing")
    out = "predict each plane by the member of a cross-validation that has not seen it (a training stack)"
    one.add_argument("--out-of-fold", action="store_true", help=out)

    one = _add(verbs, stage.calibrate, "--config", "--output", "--threads", "--device")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument(
        "--stacks", type=Path, nargs="+", required=True, help="ingest.json of each stack that validated it"
    )

    one = _add(verbs, stage.predict, "--config", "--output", "--threads", "--device")
    one.add_argument("--tiles", type=Path, required=True, help="tiles.json of the stack")
    one.add_argument("--region", type=int, required=True, help="number of the region, from 0")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    io = "reading threads, and as many that write, or auto (compute.io_threads)"
    one.add_argument("--io-threads", type=_number_or_word, default=None, help=io)
    one.add_argument("--compile", type=_switch, default=None, help="true or false (compute.compile)")

    one = _add(verbs, stage.stitch, "--config", "--output")
    one.add_argument("--tiles", type=Path, required=True, help="tiles.json of the stack")
    one.add_argument("--regions", type=Path, nargs="+", required=True, help="record of every region")
    one.add_argument("--model", type=Path, default=None, help="the model folder that the regions must come from")
    one.add_argument("--calibration", type=Path, default=None, help="calibrate.json of that model")

    one = _add(verbs, stage.measure, "--config", "--output")
    one.add_argument("--stitch", type=Path, required=True, help="stitch.json of the stack")

    one = _add(verbs, stage.evaluate, "--config", "--output")
    one.add_argument("--stitch", type=Path, required=True, help="stitch.json of the stack")

    one = _add(verbs, stage.segment, "--config", "--threads", "--device")
    one.add_argument("image", help="file, folder, glob or Zarr store")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--output", type=Path, required=True, help="folder for the volume and its records, new or empty")
    one.add_argument("--name", default="", help="name of the stack (default: that of the output folder)")
    _add_reading(one, "--axes", "--planes", "--names")

    one = _add(verbs, stage.prove, "--config", "--threads", "--device")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--ingest", type=Path, required=True, help="ingest.json of the stack")
    one.add_argument("--plane", type=int, default=0, help="which plane")
    one.add_argument("--crop-px", type=int, help="size of the part that is used: 1024, of volumes 64")
    one.add_argument("--output", type=Path, default=None, help="also write the findings as JSON")

    one = _add(verbs, stage.export, "--output")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--format", required=True, choices=("onnx", "torchscript", "torch-export", "bioimageio"))
    switch, probabilities = argparse.BooleanOptionalAction, "probabilities, not logits (default: bioimageio only)"
    one.add_argument("--probabilities", action=switch, default=None, help=probabilities)
    one.add_argument("--same-size", action="store_true", help="let the network mirror: an output of the image's size")
    one.add_argument("--name", default="", help="bioimageio: what the model is called (default: U-Net and its classes)")
    one.add_argument("--author", action="append", default=[], help="bioimageio: who made it; may be repeated")
    one.add_argument("--license", default="CC-BY-4.0", help="bioimageio: SPDX identifier (default: CC-BY-4.0)")

    one = _add(verbs, stage.import_, "--output")
    one.add_argument("package", type=Path, help="the zip, or the folder it was unpacked into")

    one = _add(verbs, stage.summary)
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--tile-px", type=int, default=None, help="kept size whose work is counted (default: about 384)")
    one.add_argument("--json", action="store_true", help="as JSON")

    one = _add(verbs, stage.report, "--config", "--output")
    one.add_argument("--model", type=Path, required=True, help="model folder")
    one.add_argument("--stacks", type=Path, nargs="+", required=True, help="stitch.json or ingest.json of each stack")

    one = _add(verbs, stage.verify)
    one.add_argument("results", type=Path, help="a results folder, the folder of one stack, or a model folder")

    one = _add(verbs, stage.record)
    one.add_argument("result", type=Path, help=RESULT)
    one.add_argument("--json", action="store_true", help="as JSON")

    one = _add(verbs, stage.differs)
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
    one = verbs.add_parser(verb.__name__.rstrip("_"), help=summary, description=summary)
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


def _number_or_word(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"true or false, not {text}")
    return text.lower() == "true"


def _positive(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"a positive number, not {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; a user's mistake ends in one message and exit code 1."""
    options = parser().parse_args(arguments)
    give_back_pages()  # networks take it back: they keep theirs
    if options.verb not in (stage.export, stage.import_):  # whose libraries may want it
        # zarr would import fsspec, for stores behind URLs, which no verb opens: half of the time zarr takes to start
        sys.modules.setdefault("fsspec", None)  # type: ignore[arg-type]
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
