"""Which release this is."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """The installed version."""
    return importlib.metadata.version("guardwatch")
