"""Two results folders compared byte by byte: every file but logs and benchmarks, without the times that one file holds.

No record holds a time. The page shows how long the jobs of predict took (`TIMES`); that is all that is taken out, with
its checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

NOT_RESULTS = ("logs", "benchmarks")
"""Folders of `results/` that say how a run went: times, memory, progress."""

TIMES = (
    (r"; jobs took [\d.,]+ s, [\d.e+-]+ Mpx/s", "; jobs took TIME"),
    (r"(<span>\d+ regions?</span> <span>)[\d.,e-]+ (s|min)<", r"\1TIME<"),
)
"""Where report.html shows a time: the table of each stack, and the flow."""

OF_THE_SPLIT = ("tiles.json", "regions", "report.html", "report.json")
"""What tells how the work was divided, and so may differ where it was divided otherwise."""


def tree(results: Path) -> dict[str, str]:
    """Return the digest of every file by its path below `results`."""
    return {name: _digest(_timeless(path)) for name, path in _files(results)}


def tree_of_any_split(results: Path) -> dict[str, str]:
    """Return the digests of what must not depend on tile size, batch, regions or jobs: arrays, objects and scores."""
    kept = ((name, path) for name, path in _files(results) if not set(Path(name).parts) & set(OF_THE_SPLIT))
    return {name: _digest(_undivided(path)) for name, path in kept if path.suffix != ".sha256"}


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the names of the files that are not the same in both."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def _files(results: Path) -> list[tuple[str, Path]]:
    found = ((path.relative_to(results), path) for path in sorted(results.rglob("*")) if path.is_file())
    return [(name.as_posix(), path) for name, path in found if name.parts[0] not in NOT_RESULTS]


def _timeless(path: Path) -> bytes:
    if path.name == "report.sha256":
        return b"".join(line for line in path.read_bytes().splitlines(True) if not line.endswith(b" report.html\n"))
    if path.name == "report.json":  # which holds the checksum and the size of that list
        facts = json.loads(path.read_bytes())
        return json.dumps(facts | {"files": None, "record_sha256": None}).encode()
    if path.name != "report.html":
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    for pattern, shown in TIMES:
        text = re.sub(pattern, shown, text)
    return text.encode()


def _undivided(path: Path) -> bytes:
    """Return the content of a file without the plan's digest, the number of regions and checksums of such records."""
    if path.name not in ("calibrate.json", "stitch.json", "metrics.json", "zarr.json"):
        return path.read_bytes()
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("provenance", "record_sha256", "files"):
        facts.pop(name, None)
    facts.get("coverage", {}).pop("regions", None)
    facts.get("attributes", {}).pop("unet_pipeline", None)
    return json.dumps(facts).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
