"""What every row mixin of a `SqlRecording` stands on.

Rows that change with each entry (the journal's own, how far an epoch is held, violations and alarms, notices) are kept
back and written together by `flush`: before the commit, and before a query that must see them. One statement for five
hundred entries costs a tenth of five hundred statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

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

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert whole rows; one whose primary key is there already is replaced."""
        if rows:
            self._connection.execute(_upserting(table, self._connection.dialect.name), rows)

    def _insert_new(self, table: Table, key: Column[str], rows: Sequence[Mapping[str, object]]) -> None:
        """Insert whole rows; one whose `key`, which is unique, is there already changes nothing."""
        if rows:
            statement = _inserting(table, self._connection.dialect.name)
            self._connection.execute(statement.on_conflict_do_nothing(index_elements=[key]), rows)


def _inserting(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """The two databases have the same clauses for what is there already, and SQLAlchemy a construct for each."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def _upserting(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    statement = _inserting(table, dialect)
    keys = list(table.primary_key.columns)
    changed = {column.name: column for column in statement.excluded if column.name not in table.primary_key}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)
