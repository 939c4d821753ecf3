"""The graph of the workflow: which stacks take which steps, and what each step is told and reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.sections import Config
from unet_pipeline.records.layout import CARD_FILE, FOLDS, MODEL, OBJECT_FILES, RESULTS, TABLES, calibration_in
from unet_pipeline.stacks.presence import check_corrected, check_present
from unet_pipeline.stacks.start_files import check_start_files, refuse_own_start, start_files
from unet_pipeline.stacks.table import StackRow, check_names, check_overlap, check_roles, load_stacks, source_files

READ_BY = ("image", "labels", "axes", "label_axes", "pixel_um", "step", "planes", "label_planes", "names", "series")
"""Columns of the table that say how a stack is read."""


@dataclass(frozen=True)
class Graph:
    """A configuration and a table of stacks, and what the workflow makes of them.

    Paths of results are relative to the working directory, as the rules write them.

    Attributes:
        config: of the whole workflow.
        stacks: the rows of the table, by name.
        table: where the table lies.
    """

    config: Config
    stacks: Mapping[str, StackRow]
    table: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any], find: Callable[[str], str], present: bool = False) -> Graph:
        """Check a configuration and the table that it names.

        Args:
            values: sections of the configuration, as plain values.
            find: returns where the table of this name lies.
            present: whether all files that the table names must be there.

        Raises:
            PipelineError: for what is wrong with either, or with both together.
        """
        config = from_dict(values)
        table = find(config.stacks)
        stacks = load_stacks(table)
        check_names(stacks)
        check_roles(stacks, table, config.model.folder)
        if config.model.folder is None:
            check_overlap(stacks, table)
            refuse_own_start(config.model, [Path(RESULTS, MODEL), Path(RESULTS, FOLDS)])
        graph = cls(config, stacks, table)
        check_corrected(graph.used, graph.learned, table)
        if present:
            if config.model.folder is None and not Path(RESULTS, MODEL, CARD_FILE).is_file():
                check_start_files(config.model)  # a model that is trained already needs its start no more
            check_present(graph.used, table)
        return graph

    def with_role(self, *roles: str) -> list[str]:
        """Return the names of the stacks with one of these roles."""
        return [name for name, row in self.stacks.items() if row.role in roles]

    @property
    def folds(self) -> range:
        """Numbers of the folds of a cross-validation; none where one model is trained, or a finished one used."""
        train = self.config.train
        return range(train.folds if train.folds > 1 and not self.config.model.folder else 0)

    @property
    def start_files(self) -> list[str]:
        """The files that training starts from: the weights of an encoder, or a finished model."""
        return [str(path) for path in start_files(self.config.model)]

    @property
    def predicted(self) -> list[str]:
        """Names of the stacks that are predicted; in a cross-validation also those that train, out of fold."""
        return self.with_role("val", "test", "predict", *(["train"] if self.folds else []))

    @property
    def scored(self) -> list[str]:
        """Names of the predicted stacks that have labels to score against."""
        return [name for name in self.predicted if self.stacks[name].labels]

    @property
    def learned(self) -> list[str]:
        """Names of the stacks that training reads; none with a finished model."""
        return [] if self.config.model.folder else self.with_role("train", "val")

    @property
    def used(self) -> list[StackRow]:
        """The rows of the stacks that are learned from or predicted."""
        return [self.stacks[name] for name in dict.fromkeys([*self.learned, *self.predicted])]

    @property
    def calibrated(self) -> list[str]:
        """Names of the stacks that may have planes by which objects are calibrated; none where that is not asked for.

        With `train.hold_out: auto` training decides whether it holds planes out: `calibrate` looks, and may find none.
        """
        train = self.config.train
        if self.config.model.folder or self.config.stitch.method != "calibrated":
            return []
        held_out = not self.with_role("val") if train.hold_out == "auto" else train.hold_out > 0
        return self.with_role("val", *(["train"] if train.folds > 1 or held_out else []))

    @property
    def calibration(self) -> list[str]:
        """The calibration that objects are made by: none, or one file, also of a finished model that has one."""
        folder = self.config.model.folder
        if folder is None:
            return ["results/model/calibrate.json"] if self.calibrated else []
        file = calibration_in(Path(folder)) if self.config.stitch.method == "calibrated" else None
        return [str(file)] if file else []

    @property
    def label_tiffs(self) -> list[str]:
        """The TIFF files of a stitched stack, where they are wanted; `{stack}` stands for its name."""
        return ["results/{stack}/classes.tif", "results/{stack}/instances.tif"] if self.config.stitch.tiff else []

    @property
    def measured(self) -> list[str]:
        """Names of the stacks whose objects become a table."""
        return self.predicted if self.config.measure.formats else []

    @property
    def object_tables(self) -> list[str]:
        """The objects of a stack in the formats that are wanted; `{stack}` stands for its name."""
        formats = self.config.measure.formats
        return [f"results/{{stack}}/{file}" for name, file in OBJECT_FILES.items() if name in formats]

    @property
    def joined_tables(self) -> list[str]:
        """The tables of the objects of all stacks."""
        formats = self.config.measure.formats if self.measured else ()
        return [f"results/{file}" for name, file in TABLES.items() if name in formats]

    @property
    def watched(self) -> str:
        """What a training shows while it runs, with commas between."""
        return ",".join(name for name, on in self.config.section("watch")["watch"].items() if on) or "none"

    @property
    def shown_stacks(self) -> list[str]:
        """The last record of each stack, which the page starts from."""
        trained = [f"results/{name}/ingest.json" for name in self.learned if name not in self.predicted]
        return trained + [f"results/{name}/stitch.json" for name in self.predicted]

    @property
    def shown_files(self) -> list[str]:
        """What else of the stacks the page shows: weight maps, objects and scores."""
        weights = [f"results/{name}/weigh.json" for name in self.learned]
        objects = [f"results/{name}/measure.json" for name in self.measured]
        return weights + objects + [f"results/{name}/metrics.json" for name in self.scored]

    @property
    def records(self) -> list[str]:
        """The records of all steps: what a run that is finished has, whatever was killed or lost meanwhile."""
        ingested = dict.fromkeys([*self.learned, *self.predicted])
        folders = [f"results/folds/{fold}" for fold in self.folds] + ["results/model"]
        return [
            *(f"results/{name}/ingest.json" for name in ingested),
            *(f"results/{name}/weigh.json" for name in self.learned),
            *(f"{folder}/model.json" for folder in folders if not self.config.model.folder),
            *(self.calibration if self.calibrated else []),
            *(f"results/{name}/tiles.json" for name in self.predicted),
            *(record for name in self.predicted for record in self.region_records(name)),
            *(f"results/{name}/stitch.json" for name in self.predicted),
            *(f"results/{name}/measure.json" for name in self.measured),
            *(f"results/{name}/metrics.json" for name in self.scored),
            "results/report.json",
        ]

    def sources(self, stack: str) -> list[str]:
        """Return the files that a stack is read from, each once."""
        row = self.stacks[stack]
        found = [file for source in (row.image, row.labels) if source for file in source_files(source, row.names)]
        return list(dict.fromkeys(found))

    def source_options(self, stack: str) -> list[str]:
        """Return the cells of a stack's row that say how it is read, as options of `ingest`."""
        row = self.stacks[stack]
        return [f"--{name.replace('_', '-')}={cell}" for name in READ_BY if (cell := getattr(row, name))]

    def region_count(self, stack: str) -> int:
        """Return the number of prediction jobs of a stack."""
        return int(self.stacks[stack].regions or self.config.tile.regions)

    def region_records(self, stack: str) -> list[str]:
        """Return the records of all regions of a stack."""
        return [f"results/{stack}/regions/{region}.json" for region in range(self.region_count(stack))]

    def out_of_fold_options(self, stack: str) -> list[str]:
        """Say, as options of `tile`, whether each plane is predicted by the model that has not seen it."""
        return ["--out-of-fold"] if self.stacks[stack].role == "train" else []
