"""Symbolic links in a results folder that came from elsewhere: they lead readers and writers out of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.layout import IMAGE, INGEST_FILE, SEGMENTATION, TILES_FILE, WEIGH_FILE, WEIGHTS
from unet_pipeline.records.record import how_to_remake

MADE_BY = {IMAGE: INGEST_FILE, WEIGHTS: WEIGH_FILE, SEGMENTATION: TILES_FILE}
"""Stores, and the record of the step that makes each anew."""


def links_below(folder: Path) -> Iterator[Path]:
    """Yield each symbolic link below a folder; none is followed."""
    for place, folders, files in os.walk(folder):
        yield from (path for path in (Path(place, name) for name in sorted([*folders, *files])) if path.is_symlink())


def link_in_store(link: Path) -> tuple[PipelineError, Path] | None:
    """Return the fault of a link in a store, and the record whose step makes the store anew; None for another link."""
    store = next((place for place in (link, *link.parents) if place.name in MADE_BY), None)
    if store is None:
        return None
    record = store.with_name(MADE_BY[store.name])
    expected, got = "a file or folder that this pipeline wrote", f"a symbolic link to {link.readlink()}"
    return PipelineError(link, expected, got, fix=f"remove it, then {how_to_remake(record)}"), record
