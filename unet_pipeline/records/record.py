"""Records: JSON files that hold their own checksum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet_pipeline.config.keys import plain
from unet_pipeline.errors import PipelineError, read_small
from unet_pipeline.records.files import Check, sha256_bytes, unclaimed, write_text

SEAL = "record_sha256"
"""Last key of a record: the SHA-256 of the JSON text without it."""


LARGEST = 200_000_000
"""Largest size of a record, bytes; one of a region needs 280 for each shard."""


def write_json(path: Path, value: Mapping[str, Any], check: Check = unclaimed) -> None:
    """Write `value` as indented JSON with its own SHA-256 as the last key; NaN is refused, because JSON has none.

    The same value gives the same bytes. `read_json` finds any byte that was changed since.
    """
    unsealed = {name: part for name, part in value.items() if name != SEAL}
    text = _sealed(json.dumps(unsealed, indent=1, allow_nan=False))
    if len(text) > LARGEST:  # ASCII: as many bytes
        fix = "raise the column `regions` of the stack, or tile.regions"
        raise PipelineError(path, f"a record of at most {LARGEST} bytes", f"{len(text)} bytes", fix=fix)
    write_text(path, text, check)


def write_record(path: Path, record: Any, check: Check = unclaimed) -> None:
    """Write a record of `steps`, its step first; see `write_json`."""
    write_json(path, plain(record), check)


def _sealed(text: str) -> str:
    """Return the text of a JSON object, indented by 1, with its own SHA-256 as the last key."""
    comma = "," if text != "{}" else ""
    return f'{text[:-1].rstrip()}{comma}\n "{SEAL}": "{sha256_bytes(text.encode())}"\n}}\n'


def _unsealed(text: str) -> str:
    before = text.rpartition(f'\n "{SEAL}": ')[0]
    return before[:-1] + "\n}" if before.endswith(",") else before + "}"


def read_json(path: Path, fix: str = "run the step that writes it") -> dict[str, Any]:
    """Read a record written by `write_json`, without its checksum.

    Raises:
        PipelineError: if the file is missing, not a record, or not what was written.
    """
    try:
        text = read_small(path, LARGEST).decode("utf-8")
        value = json.loads(text, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are ValueErrors
        raise PipelineError(path, "a readable JSON record", error, fix=fix) from error
    if not isinstance(value, dict) or SEAL not in value:
        got = f"keys {sorted(value)[:6]}" if isinstance(value, dict) else type(value).__name__
        raise PipelineError(path, f"a record with its checksum ({SEAL})", got, fix=fix)
    del value[SEAL]
    if text != _sealed(_unsealed(text)):
        raise PipelineError(path, f"the record that was written, of its {SEAL}", "another: it was altered", fix=fix)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not have")


def how_to_remake(record: Path) -> str:
    """Return the instruction that makes a damaged product anew, by the record that vouches for it."""
    return f"run the workflow again with `--forcerun {record}`: that is made again, and what follows from it"
