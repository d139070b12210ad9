"""What lies in an agent's store, read as `verify` reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_agent.adapters.store_reading import open_snapshot
from edge_agent.domain.verification import Entry


def read_entries(path: Path) -> Iterator[Entry]:
    """Every entry, in one snapshot that lasts until the last of them is read."""
    with open_snapshot(path) as store:
        yield from store.entries()
