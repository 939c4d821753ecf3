"""What an image of any size costs, reckoned from what was measured: `python benchmarks/growth.py`.

Nothing is timed here. Every constant below names the table it comes from, or says that it is somebody else's; the page
`docs/growth.md` says what follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from figures import TABLES

SHARD_PX = 4096
"""`store.shard_px`, the default."""

INGEST, STITCH = 10.0e6, 6.7e6
"""px per second of one job on two cores, ingest with labels: memory.md, 16384 px, less the start of the process."""
MEASURE = 9.0e6
"""px per second of one job with all measures of one channel, 8192 px, the start of the process included."""
PREDICT_CPU = 2.08e6
"""px per second of one job on two cores, depth 4 with 16 channels: predict.md."""
PREDICT_GPU = 69.7e6
"""px per second on one A100 with the paper's network: NVIDIA's DeepLearningExamples, not ours (performance of this
project on a GPU has not been measured)."""
START_S = 1.0
"""Seconds before a job does anything: workflow.md."""
GRAPH_S = 44.7 / 18_000
"""Seconds for each job of the graph, each time Snakemake is started: workflow.md, 1000 stacks of 16 regions."""
SUBMIT_S = 1 / 25
"""Seconds for each job that Snakemake starts, with its greedy scheduler: seen with 18 000 jobs."""
STORED = {"image": 0.84, "probabilities": 1.41, "classes": 0.09, "instances": 0.10}
"""Bytes stored for a px of one uint8 channel and two classes: the demo's unseen stack, Zstandard level 3."""
PYRAMID = 4 / 3
"""Files and bytes of all levels over those of the first."""
ARRAY_FILES = 10
"""`zarr.json` of groups and levels, records, lists, logs: files of a stack that do not grow."""


@dataclass(frozen=True)
class Case:
    """A piece of work.

    Attributes:
        name: for the table.
        stacks: rows of stacks.tsv it is divided into; a row may be some planes of a larger Zarr image.
        planes: of each stack.
        edge_px: height and width.
        regions: jobs of prediction of each stack.
        workers: processes or GPUs that predict at a time.
        gpu: whether they are GPUs.
        stitchers: jobs of ingest, stitch or measure at a time.
    """

    name: str
    stacks: int
    planes: int
    edge_px: int
    regions: int
    workers: int
    gpu: bool
    stitchers: int

    @property
    def px(self) -> int:
        """Pixels of all stacks."""
        return self.stacks * self.planes * self.edge_px**2

    @property
    def shards(self) -> int:
        """Shards of one array of the first level, of all stacks."""
        return self.stacks * self.planes * math.ceil(self.edge_px / SHARD_PX) ** 2

    @property
    def jobs(self) -> int:
        """Ingest, tile, stitch, measure of each stack, its regions, and the report."""
        return self.stacks * (4 + self.regions) + 1

    @property
    def files(self) -> int:
        """Files of all stacks."""
        return round(self.shards * len(STORED) * PYRAMID) + self.stacks * (ARRAY_FILES + self.regions)

    @property
    def stored_bytes(self) -> float:
        """Bytes of all stacks on disk, the image's own copy included."""
        return self.px * sum(STORED.values()) * PYRAMID

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage, its jobs as many at a time as there is room for."""
        rate = PREDICT_GPU if self.gpu else PREDICT_CPU

        def stage(rate: float, jobs: int, at_once: int) -> float:
            rounds = math.ceil(jobs / at_once)
            return rounds * (START_S + self.px / jobs / rate)

        return {
            "ingest": stage(INGEST, self.stacks, self.stitchers),
            "predict": stage(rate, self.stacks * self.regions, self.workers),
            "stitch": stage(STITCH, self.stacks, self.stitchers),
            "measure": stage(MEASURE, self.stacks, self.stitchers),
            "graph": self.jobs * GRAPH_S,
            "starting jobs": self.jobs * SUBMIT_S,
        }


CASES = (
    Case("one 512² image, a laptop", 1, 1, 512, 1, 1, False, 1),
    Case("30 × 512², ISBI 2012, a laptop", 1, 30, 512, 1, 1, False, 1),
    Case("65 536² slide, 8 cores", 1, 1, 65_536, 4, 4, False, 1),
    Case("the same, one GPU", 1, 1, 65_536, 1, 1, True, 1),
    Case("1 TB: 1000 × 32 768², 16 GPUs", 1, 1000, 32_768, 64, 16, True, 1),
    Case("the same as 16 rows", 16, 63, 32_768, 4, 16, True, 16),
    Case("1 PB as 1000 rows, 1000 GPUs", 1000, 1000, 32_768, 16, 1000, True, 1000),
)


def amount(value: float, unit: str) -> str:
    """Write a number with three digits and the prefix it needs."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def span(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for limit, name in ((2 * 86_400, "d"), (2 * 3600, "h"), (120, "min")):
        if seconds >= limit:
            return f"{seconds / {'d': 86_400, 'h': 3600, 'min': 60}[name]:.3g} {name}"
    return f"{seconds:.2g} s"


def table() -> str:
    """Return the table of all cases."""
    stages = list(CASES[0].seconds())
    lines = [
        "| work | px | jobs | files | on disk | " + " | ".join(stages) + " | longest |",
        "|---" * (6 + len(stages)) + "|",
    ]
    for case in CASES:
        seconds = case.seconds()
        cells = [case.name, amount(case.px, "px"), f"{case.jobs:,}", f"{case.files:,}", amount(case.stored_bytes, "B")]
        cells += [span(seconds[stage]) for stage in stages] + [max(seconds, key=lambda stage: seconds[stage])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    each_tb = round(1e12 / SHARD_PX**2 * len(STORED) * PYRAMID)
    text = f"{table()}\n\n{each_tb:,} files for each 10^12 px, at shards of {SHARD_PX} px.\n"
    (TABLES / "growth.md").write_text(f"# growth\n\nReckoned by `python benchmarks/growth.py`.\n\n{text}", "utf-8")
    print(text)
