"""Claims: a product appears whole, and only by the job that was started last, of the Snakemake started last.

When Snakemake itself is killed, its jobs live on; the next Snakemake starts the same jobs beside these orphans. Each
job therefore claims its output: a job of the last run holds the claim, of two in one run the last one to start, and
whoever finds that it was taken over stops before it writes anything more. Nothing has to be cleaned up by hand, however
a job ends.

A job that is suspended just between the look at its claim and its write can still write once. What it writes is equal
if it was the same work, and is found by the checksums in the records if it was not.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unet_pipeline.errors import PipelineError
from unet_pipeline.records.files import PARTIAL, Check, make_folder, partial_name, sync, sync_tree, write_text
from unet_pipeline.records.record import write_record
from unet_pipeline.records.run_lock import check_run

PATIENCE_S = 0.5
"""Seconds that a claim may be absent: a predecessor that ends lifts it for a moment to see whose it is."""


class Claim:
    """The right to write one output; the last job of the last run that asked for it holds it.

    Attributes:
        output: the record that says the work is done.
    """

    def __init__(self, output: Path) -> None:
        """Name the output; nothing is claimed before `take`."""
        self.output = output
        self._path = output.with_name(f".{output.name}.owner")
        self._token = f"job {uuid.uuid4().hex} (process {os.getpid()} on {socket.gethostname()})"

    def take(self) -> None:
        """Take the claim over from whoever holds it, and remove what killed jobs left of theirs.

        Raises:
            PipelineError: if another Snakemake has been started since, or the place cannot be written.
        """
        check_run(self.output)
        try:
            write_text(self._path, self._token)
        except PipelineError:  # another job that starts just now may have swept the half-written claim away
            write_text(self._path, self._token)
        sweep(self._path)

    def check(self) -> None:
        """Stop where another job has taken over, or another Snakemake has been started.

        Raises:
            PipelineError: naming it.
        """
        check_run(self.output)
        holder = self._holder()
        if holder != self._token:
            fix = "nothing: the other job makes it; this one stops"
            raise PipelineError(self.output, "no other job that makes it", holder or "one that has finished", fix=fix)

    def release(self) -> None:
        """Give the claim up, unless it has been taken over."""
        # Moved away before it is looked at: looking first could remove the claim of a job that starts in between.
        lifted = self._path.with_name(partial_name(self._path))
        with suppress(OSError):
            self._path.replace(lifted)
            if lifted.read_text(encoding="utf-8") != self._token:
                _put_back(lifted, self._path)
        with suppress(OSError):
            lifted.unlink()

    def write(self, record: Any) -> None:
        """Write the record of the finished work, a dataclass of `steps`.

        Raises:
            PipelineError: if another job has taken over, or the place cannot be written.
        """
        write_record(self.output, record, self.check)

    def _holder(self) -> str:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._path.read_text(encoding="utf-8")
            except OSError:
                if time.monotonic() > end:
                    return ""
                time.sleep(PATIENCE_S / 10)


def _put_back(lifted: Path, path: Path) -> None:
    """Give a claim its name again, unless a still later job has claimed meanwhile."""
    try:
        os.link(lifted, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        lifted.replace(path)


@contextmanager
def claim(output: Path, *products: Path) -> Iterator[Claim]:
    """Hold the claim to an output while the block runs, and remove what killed predecessors left half-written.

    Args:
        output: the record to write.
        products: other files and stores the job makes.

    Raises:
        PipelineError: if the place cannot be written.
    """
    mine = Claim(output)
    mine.take()
    for product in (output, *products):
        sweep(product)
    try:
        yield mine
    finally:
        mine.release()


def sweep(product: Path) -> None:
    """Remove half-written files and stores of a product, which only a killed job leaves."""
    for left in product.parent.glob(f".{_literal(product.name)}.*{PARTIAL}"):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file or a link, or a folder with all that lies in it, where it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextmanager
def replacing(folder: Path, check: Check) -> Iterator[Path]:
    """Give a temporary name beside `folder`; the folder made there takes its place when the block ends well.

    A block that makes none leaves the old one.

    Args:
        folder: a store.
        check: called before the old one goes, `Claim.check`.

    Raises:
        PipelineError: if another job has taken over, or the place cannot be written.
    """
    partial, former = (folder.with_name(partial_name(folder)) for _ in range(2))
    try:
        make_folder(folder.parent)
        yield partial
        if partial.exists():
            sync_tree(partial)  # the record that vouches for the folder must not outlast it
        check()
        if partial.exists():
            if folder.exists():
                folder.replace(former)
            partial.replace(folder)
            sync(folder.parent)
    except OSError as error:
        check()
        raise PipelineError(
            folder, "a place that can be written", error, fix="free space or use --directory"
        ) from error
    finally:
        for left in (partial, former):
            remove(left)
