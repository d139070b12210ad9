"""What every row mixin of a `SqlRecording` stands on.

Rows that change with each entry (the journal's own, how far an epoch is held, violations and alarms, notices) are kept
back and written together by `flush`: before the commit, and before a query that must see them. One statement for five
hundred entries costs a tenth of five hundred statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.domain.journal import Entry

Row = Mapping[str, object]
"""A row by the names of its columns."""


@dataclass(frozen=True, slots=True)
class _Statement:
    """Text for the driver, and how it wants a row: in the order of the text's marks, or (None) by name."""

    text: str
    order: Callable[[Row], Sequence[object]] | None


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

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert whole rows."""
        self._write(_compile_insert(table, self._connection.dialect), rows)

    def _insert_new(self, table: Table, key: str, rows: Sequence[Row]) -> None:
        """Insert whole rows; one whose `key`, which is unique, is there already changes nothing."""
        self._write(_compile_insert_new(table, key, self._connection.dialect), rows)

    def _upsert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert whole rows; one whose primary key is there already is replaced."""
        self._write(_compile_upsert(table, self._connection.dialect), rows)

    def _write(self, statement: _Statement, rows: Sequence[Row]) -> None:
        """Hand rows to the driver as they are: they hold only what it knows (text, integers, bytes, None)."""
        if not rows:
            return
        values = rows if statement.order is None else list(map(statement.order, rows))
        self._connection.exec_driver_sql(statement.text, values)


def _insert_into(table: Table, dialect: Dialect) -> sqlite.Insert | postgresql.Insert:
    """The two databases have the same clauses for what is there already, and SQLAlchemy a construct for each."""
    return sqlite.insert(table) if dialect.name == "sqlite" else postgresql.insert(table)


@cache
def _compile_insert(table: Table, dialect: Dialect) -> _Statement:
    return _compile(_insert_into(table, dialect), table, dialect)


@cache
def _compile_insert_new(table: Table, key: str, dialect: Dialect) -> _Statement:
    statement = _insert_into(table, dialect).on_conflict_do_nothing(index_elements=[key])
    return _compile(statement, table, dialect)


@cache
def _compile_upsert(table: Table, dialect: Dialect) -> _Statement:
    statement = _insert_into(table, dialect)
    keys = list(table.primary_key.columns)
    changed = {column.name: column for column in statement.excluded if column.name not in table.primary_key}
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    return _compile(statement, table, dialect)


def _compile(statement: sqlite.Insert | postgresql.Insert, table: Table, dialect: Dialect) -> _Statement:
    """Its text for rows that hold every column but a key that the database counts itself."""
    names = [column.name for column in table.columns if column is not table.autoincrement_column]
    compiled = statement.compile(dialect=dialect, column_keys=names)
    places = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
    return _Statement(str(compiled), None if places is None else itemgetter(*places))
