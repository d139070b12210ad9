"""What every row mixin of a `SqlRecording` stands on.

Rows that change with each entry (the journal's own, how far an epoch is held, violations and alarms, notices) are kept
back and written together by `flush`: before the commit, and before a query that must see them. One statement for five
hundred entries costs a tenth of five hundred statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from sqlalchemy import Compiled, Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

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

    def _insert(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert whole rows."""
        self._write(_compile_insert(table, self._connection.dialect), rows)

    def _insert_new(self, table: Table, key: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert whole rows; one whose `key`, which is unique, is there already changes nothing."""
        self._write(_compile_insert_new(table, key, self._connection.dialect), rows)

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert whole rows; one whose primary key is there already is replaced."""
        self._write(_compile_upsert(table, self._connection.dialect), rows)

    def _write(self, compiled: Compiled, rows: Sequence[Mapping[str, object]]) -> None:
        """Hand rows to the driver as they are: they hold only what it knows (text, integers, bytes, None)."""
        if not rows:
            return
        names = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
        values = rows if names is None else [tuple([row[name] for name in names]) for row in rows]
        self._connection.exec_driver_sql(str(compiled), values)


def _insert_into(table: Table, dialect: Dialect) -> sqlite.Insert | postgresql.Insert:
    """The two databases have the same clauses for what is there already, and SQLAlchemy a construct for each."""
    return sqlite.insert(table) if dialect.name == "sqlite" else postgresql.insert(table)


@cache
def _compile_insert(table: Table, dialect: Dialect) -> Compiled:
    return _compile(_insert_into(table, dialect), table, dialect)


@cache
def _compile_insert_new(table: Table, key: str, dialect: Dialect) -> Compiled:
    statement = _insert_into(table, dialect).on_conflict_do_nothing(index_elements=[key])
    return _compile(statement, table, dialect)


@cache
def _compile_upsert(table: Table, dialect: Dialect) -> Compiled:
    statement = _insert_into(table, dialect)
    keys = list(table.primary_key.columns)
    changed = {column.name: column for column in statement.excluded if column.name not in table.primary_key}
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    return _compile(statement, table, dialect)


def _compile(statement: sqlite.Insert | postgresql.Insert, table: Table, dialect: Dialect) -> Compiled:
    """Its text for rows that hold every column but a key that the database counts itself."""
    names = [column.name for column in table.columns if column is not table.autoincrement_column]
    return statement.compile(dialect=dialect, column_keys=names)
