"""A record outlasts a loss of power only with all that it vouches for: what is synced, and when, is watched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import draw, make_model, make_plan, make_stack, run, settings

from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh


class Disk:
    """What would be left of a folder after a loss of power, by the system calls that were seen.

    Attributes:
        lost: what a record vouched for, though a loss of power just then would have lost it.
        records: names of the records that appeared.
    """

    def __init__(self, patch: pytest.MonkeyPatch, top: Path) -> None:
        self.top, self.lost, self.records = top, list[str](), list[str]()
        self._synced: dict[tuple[int, int], int] = {}
        self._sync, self._replace = os.fsync, Path.replace
        patch.setattr(os, "fsync", self.fsync)
        patch.setattr(Path, "replace", lambda source, target: self.replace(source, Path(target)))

    def fsync(self, descriptor: int) -> None:
        self._sync(descriptor)
        found = os.fstat(descriptor)
        self._synced[found.st_dev, found.st_ino] = found.st_mtime_ns

    def replace(self, source: Path, target: Path) -> Path:
        if target.suffix == ".json" and not target.name.startswith(".") and target.name != "zarr.json":
            self.records.append(target.name)
            self.lost += [f"{path} when {target.name} appeared" for path in self.unsafe(source)]
        return self._replace(source, target)

    def unsafe(self, record: Path) -> Iterator[Path]:
        """Yield what was written since it was synced, of the record itself and of all that lies beside it."""
        folder = record.parent.parent if record.parent.name == "regions" else record.parent
        # The entries of folders that hold claims and half-written records change all the time.
        below = (path for path in folder.rglob("*") if not path.name.startswith(".") and path.name != "regions")
        for path in [record, *below]:
            found = path.stat()
            if self._synced.get((found.st_dev, found.st_ino)) != found.st_mtime_ns:
                yield path


@pytest.mark.slow
def test_no_record_outlasts_what_it_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(stitch={"tiff": True})
    model = make_model(tmp_path / "model")
    with monkeypatch.context() as patch:
        disk = Disk(patch, tmp_path)
        grey, ids = draw()  # named, so that they are ingested here
        stack = make_stack(tmp_path, config, image=grey, labels=ids)
        weigh(Stack.open(stack.record), config, stack.record.with_name("weigh.json"))
        run(make_plan(stack, config), model, config)
    assert {"ingest.json", "weigh.json", "tiles.json", "0.json", "1.json", "stitch.json"} <= set(disk.records)
    assert not disk.lost
