"""Stores of agents between two runs: filled, aged, copied, lost, looked into; written by the product's own store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import key_path, load_or_create_key
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import NS_PER_S, MonoNs, UtcNs
from edge_agent.domain.wall import WallPair
from edge_agent.ports import Committed
from edge_agent.wire.event import (
    Basis,
    Event,
    Observation,
    Position,
    Priority,
    ViolationCleared,
    ViolationRaised,
)

SITE, AGENT = "plant", "gw-01"
R01 = "guard_open_motion"


def end_positions(store: Path) -> tuple[Position, Position]:
    """Both ends of a store's chain, read beside its owner."""
    begin = "SELECT epoch, seq, hash FROM event WHERE n >= coalesce((SELECT value FROM fact WHERE key='first'), 1) + 0"
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        first = database.execute(f"{begin} ORDER BY n LIMIT 1").fetchone()
        last = database.execute("SELECT epoch, seq, hash FROM event ORDER BY n DESC LIMIT 1").fetchone()
    return Position(*first), Position(*last)


def count_dropped(store: Path) -> int:
    """How many events found no room in this store and have not been told of yet."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT value FROM fact WHERE key='overflow'").fetchone()
    return int(json.loads(row[0])[0]) if row else 0


def open_in(events: Iterable[Event]) -> set[str]:
    """The occurrences that are raised and not cleared in these events."""
    bodies = [event.body for event in events]
    raised = {body.occurrence for body in bodies if isinstance(body, ViolationRaised)}
    return raised - {body.occurrence for body in bodies if isinstance(body, ViolationCleared)}


@dataclass
class OldRun:
    """A run of the agent that ended: written with the product's own store, at times that the test says."""

    store: EventStore
    started: UtcNs

    def note(self, count: int, at_s: float = 0, *, size: int = 10) -> None:
        """So many facts of about `size` bytes each, in one commit."""
        pair = self._pair(at_s)
        drafts = [Draft(pair.mono, Observation("fact", {"n": n, "text": "x" * size})) for n in range(count)]
        assert isinstance(self.store.commit(drafts, {}, pair), Committed)

    def raise_p1(self, occurrence: str) -> None:
        """A violation of R01 begins."""
        pair = self._pair(0)
        body = ViolationRaised(
            "mixer",
            "door-1",
            None,
            R01,
            Priority.P1,
            Basis.PROVEN,
            occurrence,
            pair.label(pair.mono),
            None,
            {},
        )
        assert isinstance(self.store.commit([Draft(pair.mono, body)], {}, pair), Committed)

    def fill(self) -> None:
        """Until nothing more fits."""
        while self.store.status().outbox_pct < 100:
            self.note(20, size=45_000)

    def stop(self, at_s: float = 0) -> None:
        """End it cleanly, with a checkpoint."""
        assert isinstance(self.store.stop_clean(self._pair(at_s)), Committed)
        self.store.close()

    def _pair(self, at_s: float) -> WallPair:
        mono = MonoNs(round(at_s * NS_PER_S))
        return WallPair(mono, UtcNs(self.started + mono), False)


def begin_old_run(store: Path, started: UtcNs) -> OldRun:
    """A run on this store, begun with its machine at that time. Its clock is unsynchronised, as this machine's may be."""
    store.parent.mkdir(parents=True, exist_ok=True)
    key = load_or_create_key(key_path(store))
    boot = Run(SITE, AGENT, f"boot-{started}", "1", "c" * 64)
    run = OldRun(opened := EventStore(store, boot, size_max_mb=16, sign=key.sign), started)
    assert isinstance(opened.begin_epoch(run._pair(0)), Committed)
    return run


def go_on(store: Path) -> OldRun:
    """Go on in the last epoch of this store, as a snapshot of a running machine does that is resumed."""
    key = load_or_create_key(key_path(store))
    run = Run(SITE, AGENT, "the-same-boot", "1", "c" * 64)
    return OldRun(EventStore(store, run, size_max_mb=16, sign=key.sign), UtcNs(time.time_ns()))


def copy_store(store: Path, to: Path) -> None:
    """An image of a store that nobody writes: file, log and key."""
    to.mkdir(parents=True, exist_ok=True)
    for file in store.parent.glob(store.name + "*"):
        if not file.name.endswith((".lock", ".reserve")):
            shutil.copy(file, to / file.name)


def lose_store(store: Path) -> None:
    """The disk is replaced by an empty one."""
    for file in store.parent.glob(store.name + "*"):
        file.unlink()
