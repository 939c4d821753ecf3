"""Folders of what is compiled once for a machine and a user: machine code outlives the job that made it."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """Return a folder for one kind of machine code in the user's cache, made where it is absent.

    Args:
        name: of the kind.

    Returns:
        `$XDG_CACHE_HOME/unet_pipeline/{name}`, else below `~/.cache`; None where nothing can be written there, as in a
        home that is read-only or none.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (given if given.is_absolute() else Path.home() / ".cache") / "unet_pipeline" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
