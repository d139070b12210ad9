"""What every row mixin of a `SqlRecording` stands on.

Rows that change with each entry (the journal's own, how far an epoch is held) are kept back and written together by
`flush`: before the commit, and before a query that must see them. One statement for five hundred entries costs a
tenth of five hundred statements.
"""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.domain.journal import Entry


class RowsBase:
    """The connection of the writer's transaction, and its time. Mixins never commit and never keep the connection."""

    def __init__(self, connection: Connection, now_ms: int) -> None:
        self._connection = connection
        self._now_ms = now_ms

    @property
    def now_ms(self) -> int:
        """The gateway's time of this transaction, in epoch milliseconds."""
        return self._now_ms

    def note_entry(self, entry: Entry) -> None:
        """Keep derived rows in step with an entry just appended; a mixin that overrides this calls `super()` first."""

    def flush(self) -> None:
        """Write what was kept back to be written together; a mixin that overrides this calls `super()` first."""
