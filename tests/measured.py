"""Objects measured: by the stage, and straight from arrays."""

from __future__ import annotations

import numpy as np
from chain import settings

from unet_pipeline.records.files import unclaimed
from unet_pipeline.stitch.measure import measure


def parquet(path):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def table(found, count, folder, block_px):
    path = folder / "sums"
    path.unlink(missing_ok=True)
    sums = found.summed(path, count, unclaimed, block_px)
    return found.columns.rows(np.arange(1, count + 1), sums.part(0, count))


def measured(stack_plan, **section):
    stitched = stack_plan.record.with_name("stitch.json")
    return measure(stitched, settings(measure=section), stitched.with_name("measure.json"))
