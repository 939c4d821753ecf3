"""Do all stacks of a table have as many channels as those that train? Seen from headers, before hours of training."""

from __future__ import annotations

from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.files import is_image
from unet_pipeline.images.open import open_planes
from unet_pipeline.images.readers.zarr_nodes import is_zarr
from unet_pipeline.stacks.table import StackRow, load_stacks, source_files


def check_channels(table: str | Path, stack: str) -> None:
    """Refuse a table in which another stack has not as many channels as a stack with role train.

    Args:
        table: the table of stacks.
        stack: the stack; nothing is checked if it has another role, or is not in the table.

    Raises:
        PipelineError: naming the other stack; files that are not there yet, or cannot be opened, are left to their own
            ingest.
    """
    rows = load_stacks(table)
    if stack not in rows or rows[stack].role != "train" or (expected := _channels(rows[stack])) is None:
        return
    for name, row in rows.items():
        if (got := _channels(row)) is not None and got != expected:
            fix = (
                "set column axes where frames or planes were taken for channels, such as zyx or tyx; or give images of "
                "as many channels"
            )
            what = f"{expected} channels as {stack}, which trains"
            raise PipelineError(f"{table}: stack {name}, {row.image}", what, f"{got}", fix=fix)


def _channels(row: StackRow) -> int | None:
    """Return the channels of a stack; of a folder, those of one of its files; None where it cannot be told."""
    source, axes = row.image, row.axes
    path = Path(source).expanduser()
    if not path.is_file() and not is_zarr(path):
        files = [file for file in source_files(source, row.names) if is_image(Path(file))]
        if not files:
            return None
        source, axes = files[-1], axes[1:] if axes[:1].lower() in ("t", "z") else axes
    try:
        series = int(row.series) if row.series else None
        with open_planes(source, axes or None, series=series, colours=True) as planes:
            return planes.shape[1]
    except PipelineError:
        return None
