"""How old the checkpoints of a store are, in running time: by the times in its own events, never by a wall clock.

Each event carries its boot and its monotonic time under its hash. From checkpoint to checkpoint, and to the first and
last event of each run, what passed within a boot is added up; what passed between two boots nobody knows, and counts as
nothing. So a clock that finds its time after weeks in 1970, or is set wrong for a moment, makes nothing old, and neither
does a bit that fell over in a table beside the events: what is wrongly held to be young is only kept for longer.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

from edge_agent.adapters.store_rows import EventRows
from edge_agent.domain.delivery import Span
from edge_agent.wire.codec import DecodeError, decode

READ_EVENTS_MAX: Final = 128
"""Events read in one step, at the first ones of a process: some ten milliseconds, and tens when each is as large as may be."""


@dataclass(slots=True)
class RunningTime:
    """The monotonic times of one boot after the other, as one time that never runs back."""

    ms: int = 0
    _boot: str = ""
    _mono_ms: int = 0

    def reach(self, boot: str, mono_ms: int) -> int:
        """Go on to a moment of this boot; the running time there, in milliseconds."""
        if boot != self._boot:
            self._boot, self._mono_ms = boot, mono_ms
        elif mono_ms > self._mono_ms:
            self.ms += mono_ms - self._mono_ms
            self._mono_ms = mono_ms
        return self.ms


class CheckpointAges:
    """The running time at each checkpoint of a store, as seen from the present boot."""

    def __init__(self, database: sqlite3.Connection, rows: EventRows, boot: str) -> None:
        self._db = database
        self._rows = rows
        self._boot = boot
        self._time = RunningTime()
        self._reached: list[tuple[int, int]] = []
        """Places, and the running time at each, both in order."""
        self._read_up_to = 0

    def last_older_than(self, age_ms: int, mono_ms: int, places: Span) -> int | None:
        """The last checkpoint of these places, which end with the chain, that is so old; None while none is known to be.

        Raises sqlite3.Error.
        """
        if not self._read_on(places):
            return None
        ran_ms = self._time.reach(self._boot, mono_ms)
        count = bisect_right(self._reached, ran_ms - age_ms, key=lambda reached: reached[1])
        if count == 0:
            return None
        query = "SELECT max(n) FROM cut WHERE n BETWEEN ? AND ?"
        found: int | None = self._db.execute(query, (places.first, self._reached[count - 1][0])).fetchone()[0]
        return found

    def _read_on(self, places: Span) -> bool:
        """Add what was written since; False when there is more of it than one step reads."""
        query = (
            "SELECT n FROM cut WHERE n BETWEEN :first AND :last"
            " UNION SELECT first_n FROM epoch WHERE first_n BETWEEN :first AND :last"
            " UNION SELECT first_n - 1 FROM epoch WHERE first_n - 1 BETWEEN :first AND :last ORDER BY 1 LIMIT :max"
        )
        first = max(places.first, self._read_up_to + 1)
        bounds = {"first": first, "last": places.last, "max": READ_EVENTS_MAX}
        found = self._db.execute(query, bounds).fetchall()
        for (n,) in found:
            event = decode(self._rows.read(Span(n, n)).get(n, b""))
            if not isinstance(event, DecodeError):
                self._reached.append((n, self._time.reach(event.boot, event.mono_ms)))
            self._read_up_to = n
        del self._reached[: bisect_right(self._reached, places.first - 1, key=lambda reached: reached[0])]
        return len(found) < READ_EVENTS_MAX
