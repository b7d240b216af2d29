"""Where boards live: everything below the user's cache folder, which may be deleted."""

from __future__ import annotations

import os
from pathlib import Path

from edgeq.errors import UsageError


def folder() -> Path:
    """edgeq/board in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        UsageError: no home folder is known.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG base directory specification ignores relative ones
        return Path(base) / "edgeq" / "board"
    try:
        return Path.home() / ".cache" / "edgeq" / "board"
    except RuntimeError as error:
        raise UsageError("no home folder is known", hint="set HOME or XDG_CACHE_HOME") from error


def images() -> Path:
    """Images, one folder each, named by what went into them."""
    return folder() / "images"


def clones() -> Path:
    """Boards that are up, one folder each, named like the board."""
    return folder() / "up"
