"""Reads of the violation log, the alarms and their notices, outside the writer."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Engine, Row, Table, func, select, tuple_

from gateway.adapters.store_sql.alarm_rows import load_alarm, load_violation
from gateway.adapters.store_sql.alarm_tables import ALARMS, NOTICES, VIOLATIONS
from gateway.adapters.store_sql.notice_rows import load_notice
from gateway.domain.alarm import Alarm
from gateway.domain.listing import Page, Query
from gateway.domain.notice import NoticeNow
from gateway.domain.violation import Violation

_UNSEEN = ("B", "D", "E")
"""Letters of alarms that nobody has acknowledged."""


class SqlAlarmReads:
    """`gateway.ports.AlarmReads` over a reading engine; every call is one short transaction (blocking)."""

    def __init__(self, readers: Engine) -> None:
        self._readers = readers

    def violations(self, query: Query) -> Page[Violation]:
        """A page of the violation log, newest `since` first."""
        order = (VIOLATIONS.c.since_ms, VIOLATIONS.c.raised_position)
        conditions = _conditions(VIOLATIONS, query)
        if query.from_ms is not None:
            conditions.append(VIOLATIONS.c.since_ms >= query.from_ms)
        if query.to_ms is not None:
            conditions.append(VIOLATIONS.c.since_ms < query.to_ms)
        if query.after is not None:
            conditions.append(tuple_(*order) < tuple_(*query.after))
        statement = (
            select(VIOLATIONS)
            .where(*conditions)
            .order_by(*(column.desc() for column in order))
            .limit(query.limit + 1)
        )
        with self._readers.connect() as connection:
            rows = connection.execute(statement).all()
        shown = rows[: query.limit]
        more = len(rows) > query.limit
        return Page(
            tuple(load_violation(row._mapping) for row in shown),  # noqa: SLF001 - SQLAlchemy's public name
            (shown[-1].since_ms, shown[-1].raised_position) if more else None,
        )

    def violation(self, occurrence: str) -> Violation | None:
        """One row of the violation log."""
        statement = select(VIOLATIONS).where(VIOLATIONS.c.occurrence == occurrence)
        with self._readers.connect() as connection:
            found = connection.execute(statement).mappings().first()
        return None if found is None else load_violation(found)

    def alarms(self, query: Query) -> Page[Alarm]:
        """A page of the alarms, newest first."""
        conditions = _conditions(ALARMS, query)
        if query.after is not None:
            conditions.append(ALARMS.c.id < query.after[0])
        statement = (
            select(ALARMS.c.document).where(*conditions).order_by(ALARMS.c.id.desc()).limit(query.limit + 1)
        )
        with self._readers.connect() as connection:
            rows: Sequence[Row[tuple[str]]] = connection.execute(statement).all()
        alarms = tuple(load_alarm(row.document) for row in rows[: query.limit])
        return Page(alarms, (alarms[-1].id, 0) if len(rows) > query.limit else None)

    def alarm(self, number: int) -> Alarm | None:
        """One alarm, listed or history."""
        statement = select(ALARMS.c.document).where(ALARMS.c.id == number)
        with self._readers.connect() as connection:
            found = connection.execute(statement).scalar()
        return None if found is None else load_alarm(found)

    def notices(self, number: int) -> Sequence[NoticeNow]:
        """Who was to be told of an alarm, in the order of decision."""
        statement = select(NOTICES).where(NOTICES.c.alarm == number).order_by(NOTICES.c.number)
        with self._readers.connect() as connection:
            return [load_notice(row) for row in connection.execute(statement).mappings()]

    def unacknowledged(self) -> dict[str, int]:
        """How many alarms of each priority nobody has acknowledged."""
        statement = (
            select(ALARMS.c.priority, func.count().label("number"))
            .where(ALARMS.c.letter.in_(_UNSEEN))
            .group_by(ALARMS.c.priority)
        )
        with self._readers.connect() as connection:
            return {row.priority: row.number for row in connection.execute(statement)}


def _conditions(table: Table, query: Query) -> list[ColumnElement[bool]]:
    return [table.c[name].in_(values) for name, values in query.equal.items()]
